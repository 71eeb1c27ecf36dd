"""Codes in latents, and the layout as the transformer sees it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.codec.layout_condition import layout_condition, layout_tokens
from visavis.engine.codec.motion_latents import pack_codes, unpack_codes


@given(groups=st.integers(0, 8), batch=st.integers(1, 3))
def test_packing_is_undone_by_unpacking(groups: int, batch: int) -> None:
    codes = torch.randn(batch, 1 + 4 * groups, 6, 4, 4)
    latents = pack_codes(codes)
    assert latents.shape == (batch, 24, 1 + groups, 4, 4)
    torch.testing.assert_close(unpack_codes(latents), codes)


@given(frames=st.integers(1, 40).filter(lambda n: n % 4 != 1))
def test_a_wrong_number_of_frames_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=rf"frames={frames} must be 4 n \+ 1"):
        pack_codes(torch.zeros(1, frames, 6, 2, 2))


def test_a_later_latent_holds_its_four_frames_in_order() -> None:
    codes = torch.arange(9.0)[None, :, None, None, None].expand(1, 9, 6, 2, 2)
    latents = pack_codes(codes)[0, :, :, 0, 0]
    assert latents[::6, 0].tolist() == [0, 0, 0, 0]
    assert latents[::6, 1].tolist() == [1, 2, 3, 4]
    assert latents[::6, 2].tolist() == [5, 6, 7, 8]


def test_condition_and_tokens_of_one_portrait_do_not_depend_on_the_batch() -> None:
    layouts = torch.randn(3, 16, 16, 16)
    for i in range(3):
        alone = layouts[i : i + 1]
        assert torch.equal(layout_condition(layouts, 9)[i], layout_condition(alone, 9)[0])
        assert torch.equal(layout_tokens(layouts)[i], layout_tokens(alone)[0])
