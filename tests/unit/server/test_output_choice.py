"""Sizes and rates of pictures: what is offered can be had, all else is refused with the way out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import OutputMedia
from visavis.server.output_choice import FRAME_RATES, chosen_output, output_offer

SQUARE = output_offer((256, 256), 512)
TALL = output_offer((768, 448), 512)
sizes = st.integers(-10, 3000) | st.none()


def refused(output: OutputMedia, field: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        chosen_output(output, SQUARE)
    assert caught.value.param == f"session.output.{field}"
    assert caught.value.code == ErrorCode.UNSUPPORTED_VALUE
    return caught.value.message


def test_without_a_wish_the_model_s_own_holds() -> None:
    chosen = chosen_output(OutputMedia(), TALL)
    assert (chosen.width, chosen.height, chosen.fps) == (448, 768, 25)
    assert chosen_output(OutputMedia(fps=25, width=448, height=768), TALL) == chosen


def test_one_side_is_enough() -> None:
    chosen = chosen_output(OutputMedia(height=384), TALL)
    assert (chosen.width, chosen.height) == (224, 384)
    assert chosen_output(OutputMedia(width=224), TALL).height == 384


def test_refusals_name_the_limits_and_what_to_ask_for() -> None:
    assert "20, 15, 12.5, 10, 5" in refused(OutputMedia(fps=30), "fps")
    assert "from 64 to 512" in refused(OutputMedia(width=1024), "width")
    assert "even" in refused(OutputMedia(width=255), "width")
    assert "height=320" in refused(OutputMedia(width=320, height=180), "height")
    assert "h264" in refused(OutputMedia(video="av1"), "video")


@pytest.mark.parametrize("offer", [SQUARE, TALL, output_offer((40, 60), 512)])
def test_the_offer_s_own_corners_can_be_had(offer) -> None:  # type: ignore[no-untyped-def]
    for width in (offer.min_width, offer.width, offer.max_width):
        chosen = chosen_output(OutputMedia(width=width), offer)
        assert chosen.width == width
    for fps in offer.fps:
        assert chosen_output(OutputMedia(fps=fps), offer).fps == fps
    assert tuple(offer.fps) == FRAME_RATES


@given(width=sizes, height=sizes, offer=st.sampled_from((SQUARE, TALL)))
def test_what_is_chosen_is_even_has_the_shape_and_is_what_was_asked(width, height, offer) -> None:  # type: ignore[no-untyped-def]
    try:
        chosen = chosen_output(OutputMedia(width=width, height=height), offer)
    except ProtocolError:
        return
    assert chosen.width is not None
    assert chosen.height is not None
    assert width in (None, chosen.width)
    assert height in (None, chosen.height)
    assert chosen.width % 2 == chosen.height % 2 == 0
    assert abs(chosen.height - chosen.width * offer.height / offer.width) <= 2
    # What a client was told is accepted when it says it again.
    assert chosen_output(chosen, offer) == chosen
