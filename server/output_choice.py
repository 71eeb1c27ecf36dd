"""Which size and rate of pictures a client may have, and what it gets for what it asks. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import msgspec

from visavis.server import events as ev
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.picture_stream import SMALLEST_SIDE
from visavis.server.protocol import FPS

VIDEO_FORMATS: tuple[str, ...] = get_args(ev.VideoFormat)
# Pictures stay in the frames that they were made for, 25 a second; more of them would be repeats.
FRAME_RATES = (float(FPS), 20.0, 15.0, 12.5, 10.0, 5.0)


def output_offer(frame_size: tuple[int, int], max_side: int) -> ev.OutputOffer:
    """What can be asked for. frame_size: the model's (height, width) in pixels; max_side: of the
    longer side."""
    height, width = frame_size
    largest = max(1.0, max_side / max(frame_size))
    smallest = min(1.0, SMALLEST_SIDE / min(frame_size))
    return ev.OutputOffer(
        video=list(VIDEO_FORMATS),
        fps=list(FRAME_RATES),
        width=width,
        height=height,
        min_width=_even_up(width * smallest),
        max_width=_even_down(width * largest),
        min_height=_even_up(height * smallest),
        max_height=_even_down(height * largest),
    )


def made_size(wanted: tuple[int, int], made: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The (height, width) that the model should make, of those that it can, smallest first: no
    smaller than wanted where there is one, for scaling down loses nothing."""
    return next((size for size in made if size[0] >= wanted[0]), made[-1])


def _even_up(side: float) -> int:
    return -2 * int(-side // 2)


def _even_down(side: float) -> int:
    return 2 * int(side // 2)


def chosen_output(asked: ev.OutputMedia, offer: ev.OutputOffer) -> ev.OutputMedia:
    """The same with `fps`, `width` and `height` as they will be.

    Raises ProtocolError `unsupported_value` (or `invalid_event` for a quality outside 1..100) that
    names the field, what can be had, and what to ask for.
    """
    if asked.video not in offer.video:
        raise _unsupported("video", f"{asked.video!r}: this server has {', '.join(offer.video)}")
    if asked.audio != "pcm16":
        raise _unsupported("audio", f"{asked.audio!r}: only pcm16 is supported")
    if not 1 <= asked.quality <= 100:
        raise ProtocolError(
            ErrorCode.INVALID_EVENT,
            f"output.quality={asked.quality} is outside 1..100",
            param="session.output.quality",
        )
    fps = float(FPS) if asked.fps is None else asked.fps
    if fps not in offer.fps:
        rates = ", ".join(f"{rate:g}" for rate in offer.fps)
        raise _unsupported(
            "fps", f"{fps:g}: pictures come at {rates} a second; ask for one of these, or none"
        )
    width, height = _chosen_size(asked, offer)
    return msgspec.structs.replace(asked, fps=fps, width=width, height=height)


def _chosen_size(asked: ev.OutputMedia, offer: ev.OutputOffer) -> tuple[int, int]:
    """(width, height) in pixels."""
    sides = (
        ("width", asked.width, offer.min_width, offer.max_width),
        ("height", asked.height, offer.min_height, offer.max_height),
    )
    for name, side, smallest, largest in sides:
        if side is not None and (side % 2 or not smallest <= side <= largest):
            raise _unsupported(
                name,
                f"{side}: an even number of pixels from {smallest} to {largest} is possible; "
                f"leave it out for the model's {getattr(offer, name)}",
            )
    if asked.width is None and asked.height is None:
        return offer.width, offer.height
    shape = offer.height / offer.width
    width = asked.width or _even_nearest((asked.height or 0) / shape)
    fitting = _even_nearest(width * shape)
    height = asked.height or fitting
    # Odd sides cannot be, so that a shape may be off by one pixel on either side.
    if abs(height - width * shape) > 1 and abs(height / shape - width) > 1:
        raise _unsupported(
            "height",
            f"{height} does not fit width={width}: pictures have the shape "
            f"{offer.width}:{offer.height}; ask for height={fitting}, or for one side alone",
        )
    return width, height


def _even_nearest(side: float) -> int:
    return 2 * max(1, round(side / 2))


def _unsupported(field: str, problem: str) -> ProtocolError:
    return ProtocolError(
        ErrorCode.UNSUPPORTED_VALUE,
        f"output.{field}={problem}",
        param=f"session.output.{field}",
    )
