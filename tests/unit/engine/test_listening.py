"""Who listens keeps calmer than who idles, with the trained model, and goes on without a jump."""

from __future__ import annotations

import pytest
import torch

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.idle import distance
from visavis.engine.schematic import schematic_portrait

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load("embedded", dtype="float32")


@pytest.fixture(scope="module")
def avatar(engine: AvatarEngine) -> Avatar:
    return engine.prepare_avatar(schematic_portrait())


def poses(engine: AvatarEngine, avatar: Avatar, seed: int, *, listening: bool) -> torch.Tensor:
    """Six seconds of motion codes, [frames, 6, 16, 16]."""
    session = engine.open_session(avatar, seed=seed)
    frames = [f for _ in range(5) for f in session.generate_idle(33, listening=listening)]
    return torch.stack([frame.pose for frame in frames if frame.pose is not None])


def head_speed(codes: torch.Tensor) -> float:
    """Mean step of the head between frames; its flow are the first two channels."""
    return float(codes[:, :2].mean((2, 3)).diff(dim=0).abs().mean())


def test_a_listener_s_head_moves_less(engine: AvatarEngine, avatar: Avatar) -> None:
    idle, listening = (
        sum(head_speed(poses(engine, avatar, seed, listening=calm)) for seed in SEEDS)
        for calm in (False, True)
    )
    assert engine.listens
    assert 0.2 * idle < listening < 0.85 * idle


def test_the_change_is_no_jump(engine: AvatarEngine, avatar: Avatar) -> None:
    session = engine.open_session(avatar, seed=5)
    codes = []
    for listening in (False, True, True, False):
        codes += [
            f.pose for f in session.generate_idle(33, listening=listening) if f.pose is not None
        ]
    steps = torch.stack([distance(a, b) for a, b in zip(codes, codes[1:], strict=False)])
    assert float(steps[[27, 83]].max()) <= 3 * float(steps.median())


def test_the_same_seed_listens_the_same(engine: AvatarEngine, avatar: Avatar) -> None:
    one, two = (poses(engine, avatar, 7, listening=True) for _ in range(2))
    assert torch.equal(one, two)
