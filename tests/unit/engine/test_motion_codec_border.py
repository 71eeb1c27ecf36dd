"""The head goes on across a chunk's border, smoothly; lips and lids give way little."""

import pytest
import torch
from torch import Tensor

from visavis.engine.codec.continuation import continue_motion, smooth_head
from visavis.engine.codec.motion import HEAD_GAIN, MotionCodec
from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.codec.networks import EncoderConfig, PainterConfig
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.schematic import schematic_portrait


def chunk(frames: int, step: float) -> Tensor:
    """Latents of a head that turns evenly and jumps by `step` where the new frames begin."""
    codes = torch.randn(frames, 6, 16, 16, generator=torch.Generator().manual_seed(3))
    codes[:, :2] = 0.1 * torch.arange(frames)[:, None, None, None]
    codes[MOTION_FRAMES:, :2] += step
    return pack_codes(codes[None])[0]


def head_changes(latents: Tensor) -> Tensor:
    head = unpack_codes(latents[None])[0][:, :2]
    return head.diff(dim=0).abs().amax(dim=(1, 2, 3))


def sway(period: float) -> Tensor:
    """[33, 2, 1, 1] of a head that sways by 1."""
    way = torch.sin(2 * torch.pi * torch.arange(33) / period)
    return way[:, None, None, None].expand(33, 2, 1, 1)


@pytest.mark.parametrize("frames", [9, 13, 17, 33])
def test_a_step_at_the_border_is_spread_over_the_chunk(frames: int) -> None:
    before = head_changes(chunk(frames, 2.0))
    after = head_changes(continue_motion(chunk(frames, 2.0)))
    assert before[MOTION_FRAMES - 1] > 2.0
    assert after.max() < 0.5


def test_lips_and_lids_give_way_in_two_frames_and_handed_over_frames_stay() -> None:
    latents = chunk(33, 2.0)
    before, after = unpack_codes(latents[None])[0], unpack_codes(continue_motion(latents)[None])[0]
    assert torch.equal(before[:MOTION_FRAMES], after[:MOTION_FRAMES])
    assert torch.equal(before[MOTION_FRAMES + 2 :, 2:], after[MOTION_FRAMES + 2 :, 2:])
    last = before[MOTION_FRAMES - 1, 2:]
    steps = [codes[MOTION_FRAMES, 2:] - last for codes in (before, after)]
    torch.testing.assert_close(steps[1], 0.65 * steps[0])


def test_an_even_turn_is_left_as_it_is() -> None:
    latents = chunk(33, 0.0)
    torch.testing.assert_close(continue_motion(latents)[:, 3:], latents[:, 3:])


def test_a_judder_of_four_frames_goes_and_a_sway_of_a_second_stays() -> None:
    kept = {}
    for period in (4, 25):
        after = smooth_head(sway(period), MOTION_FRAMES)
        assert torch.equal(after[:MOTION_FRAMES], sway(period)[:MOTION_FRAMES])
        kept[period] = float(after[8:-4].std() / sway(period)[8:-4].std())
    assert kept[4] < 0.2
    assert 0.97 < kept[25] < 1.03


def test_lips_lids_and_the_portrait_itself_are_not_touched_in_the_first_chunk() -> None:
    codec = MotionCodec(PainterConfig(width=8, depth=1), EncoderConfig(width=8, depth=1))
    latents = chunk(33, 2.0)
    joined = codec.join(latents, latents[:, :1])
    before, after = unpack_codes(latents[None])[0], unpack_codes(joined[None])[0]
    assert torch.equal(before[:, 2:], after[:, 2:])
    assert torch.equal(before[0], after[0])
    assert head_changes(joined).max() < head_changes(latents).max() / 2


@pytest.mark.parametrize("reencode", [False, True])
def test_the_head_is_shown_to_move_further_where_frames_are_not_encoded_again(
    reencode: bool,
) -> None:
    codec = MotionCodec(
        PainterConfig(width=8, depth=1), EncoderConfig(width=8, depth=1), reencode=reencode
    )
    codes = torch.randn(3, 6, 16, 16)
    reference = codec.reference(schematic_portrait())
    shown = codec.shown(codes, reference)
    gain = 1.0 if reencode else HEAD_GAIN
    torch.testing.assert_close(shown[:, :2], gain * codes[:, :2])
    assert torch.equal(shown[:, 2:], codes[:, 2:])
