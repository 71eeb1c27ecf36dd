"""Sessions chunk by chunk, with each way of handing over."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.long_run import NEW_FRAMES, HandOver, LongRun, LongSession
from visavis.engine.schematic import schematic_portrait


def sound() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.1, 60_000).astype(np.float32)


def opened(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar, way: HandOver
) -> tuple[LongRun, LongSession]:
    run = LongRun(tiny_engine.pipeline, num_steps=1)
    return run, run.open(tiny_avatar, sound(), 3, hand_over=way)


def test_the_exact_hand_over_repacks_the_last_codes(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar
) -> None:
    run, session = opened(tiny_engine, tiny_avatar, "exact")
    (codes,) = run.advance([session])
    assert len(codes) == NEW_FRAMES
    expected = run.codec.motion_latents(codes[-5:], tiny_avatar.conditions.reference)
    torch.testing.assert_close(session.state.motion, expected)


def test_a_reencoded_hand_over_is_what_the_encoder_sees_in_the_shown_pictures(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar
) -> None:
    run, session = opened(tiny_engine, tiny_avatar, "reencoded")
    (codes,) = run.advance([session])
    shown = torch.from_numpy(run.draw(codes[-5:], session))
    assert torch.equal(torch.stack(session.state.poses), shown)
    seen = run.codec.encode(
        shown.permute(0, 3, 1, 2).float() / 255, tiny_avatar.conditions.reference
    )
    expected = run.codec.motion_latents(seen, tiny_avatar.conditions.reference)
    torch.testing.assert_close(session.state.motion, expected, rtol=1e-4, atol=1e-4)
    # The engine's own codec, which live sessions draw with, is as it was.
    assert not run.codec.reencode


def test_correction_gives_pictures_the_portraits_colours(tiny_engine: AvatarEngine) -> None:
    dark_and_bright = np.full((256, 256, 3), 40, np.uint8)
    dark_and_bright[:, 128:] = (220, 180, 120)
    half = tiny_engine.prepare_avatar(replace(schematic_portrait(256), image=dark_and_bright))
    run, session = opened(tiny_engine, half, "corrected")
    plain = replace(session, hand_over="reencoded", colours=None)
    portrait = run.portrait(plain).astype(np.float64)
    np.testing.assert_allclose(run.portrait(session), portrait, atol=2)
    aside = torch.zeros(1, 6, 16, 16)
    aside[:, 0] = 8.0  # all moves, so that more is bright
    moved, corrected = (
        np.abs(run.draw(aside, one)[0].mean(axis=(0, 1)) - portrait.mean(axis=(0, 1))).max()
        for one in (plain, session)
    )
    assert moved > 10
    assert corrected < 5


def test_sessions_in_one_batch_get_what_they_get_alone(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar
) -> None:
    ways: tuple[HandOver, ...] = ("exact", "reencoded")
    run = LongRun(tiny_engine.pipeline, num_steps=1)
    together = [run.open(tiny_avatar, sound(), 3, hand_over=way) for way in ways]
    for _ in range(2):
        both = run.advance(together)
    for way, codes in zip(ways, both, strict=True):
        _, alone = opened(tiny_engine, tiny_avatar, way)
        run.advance([alone])
        torch.testing.assert_close(run.advance([alone])[0], codes, rtol=1e-3, atol=1e-3)
