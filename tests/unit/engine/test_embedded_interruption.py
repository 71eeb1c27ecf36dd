"""The shipped model is interrupted: no jump where it goes on from what the viewer saw."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.batching import ChunkEnd, ChunkScheduler
from visavis.engine.idle import IdleLoop
from visavis.engine.schematic import schematic_portrait
from visavis.engine.session import AvatarFrame, AvatarSession
from visavis.training.speech.eval_set import read_eval_clips

LARGEST_RATIO = 1.5


@pytest.fixture(scope="module")
def engine() -> AvatarEngine:
    return AvatarEngine.load("embedded", dtype="float32")


@pytest.fixture(scope="module")
def avatar(engine: AvatarEngine) -> Avatar:
    return engine.prepare_avatar(schematic_portrait())


@cache
def recording() -> NDArray[np.int16]:
    """Speech: to anything else the shipped model hardly moves its lips."""
    (clip,) = (clip for clip in read_eval_clips() if clip.id == "espeak-2")
    return (clip.pcm * 32_767).astype(np.int16)


def speech(frames: int, seed: int) -> NDArray[np.int16]:
    """A piece of it, another one for each seed."""
    first = 25 + (37 * seed) % (len(recording()) // 640 - 25 - frames)
    return recording()[first * 640 : (first + frames) * 640]


def change(before: AvatarFrame, after: AvatarFrame) -> float:
    return float(np.abs(after.pixels.astype(int) - before.pixels.astype(int)).mean())


def interruptions(
    engine: AvatarEngine, avatar: Avatar, *, rewinds: bool, then_speaks: bool
) -> Iterator[tuple[list[AvatarFrame], list[AvatarFrame]]]:
    """What was seen up to a cut within a chunk, and what follows it."""
    for number, seen in enumerate((2, 9, 14, 21)):
        session = engine.open_session(avatar, seed=number)
        session.push_audio(speech(60, seed=number))
        frames = list(session.generate(chunk_frames=17))
        chunk = session.generate(chunk_frames=33)
        frames += [next(chunk) for _ in range(seen + 5)]
        last = frames[-6]
        if rewinds:
            session.rewind(last.index)
        session.clear_audio()
        if then_speaks:
            session.push_audio(speech(12, seed=50 + number))
            following = list(session.generate(chunk_frames=9))
        else:
            following = list(session.generate_idle(9))
        yield frames[:-5], following


def jump_ratio(cuts: list[tuple[list[AvatarFrame], list[AvatarFrame]]]) -> float:
    """Change over the cuts against the usual change from frame to frame of the same videos."""
    jumps = [change(before[-1], after[0]) for before, after in cuts]
    usual = [
        change(a, b)
        for before, after in cuts
        for part in (before, after)
        for a, b in zip(part, part[1:], strict=False)
    ]
    return float(np.mean(jumps) / np.mean(usual))


@pytest.mark.parametrize("then_speaks", [False, True], ids=["then idle", "then speech"])
def test_no_jump_where_it_goes_on_after_a_barge_in(
    engine: AvatarEngine, avatar: Avatar, then_speaks: bool
) -> None:
    cuts = list(interruptions(engine, avatar, rewinds=True, then_speaks=then_speaks))
    assert all(after[0].index == before[-1].index + 1 for before, after in cuts)
    assert jump_ratio(cuts) <= LARGEST_RATIO


def test_without_the_rewind_there_would_be_one(engine: AvatarEngine, avatar: Avatar) -> None:
    cuts = list(interruptions(engine, avatar, rewinds=False, then_speaks=True))
    rewound = list(interruptions(engine, avatar, rewinds=True, then_speaks=True))
    assert jump_ratio(cuts) > jump_ratio(rewound)


def test_speech_takes_over_from_any_frame_of_the_idle_loop(
    engine: AvatarEngine, avatar: Avatar
) -> None:
    session = engine.open_session(avatar)
    loop = IdleLoop(40)
    made: list[AvatarFrame] = []
    while not loop.is_complete:
        for frame in session.generate_idle(33):
            if not loop.is_complete:
                loop.add(frame)
                made.append(frame)
    session.rewind(made[-1].index)
    replayed = made[-1:]
    for _ in range(57):
        again = loop.next()
        assert again is not None
        replayed.append(session.replay(again))
    session.push_audio(speech(12, 0))
    spoken = list(session.generate(chunk_frames=17))

    def steps(frames: list[AvatarFrame]) -> list[float]:
        return [change(a, b) for a, b in zip(frames, frames[1:], strict=False)]

    # There and back shows the very steps that were made, and speech begins as it goes on.
    assert np.max(steps(replayed)) <= np.max(steps(made))
    assert change(replayed[-1], spoken[0]) <= LARGEST_RATIO * np.max(steps(spoken))


def test_three_sessions_of_the_shipped_model_in_one_batch(
    engine: AvatarEngine, avatar: Avatar
) -> None:
    def session(seed: int) -> AvatarSession:
        opened = engine.open_session(avatar, seed=seed)
        opened.push_audio(speech(12, seed))
        return opened

    alone = [session(seed).begin(chunk_frames=17) for seed in range(3)]
    together = [session(seed).begin(chunk_frames=17) for seed in range(3)]
    scheduler = ChunkScheduler(engine.scheduler._pipeline, {17: 3})
    ends: list[ChunkEnd] = []
    for number, chunk in enumerate(together):
        scheduler.add(
            chunk, deadline_s=float(number), on_frame=lambda frame: None, on_end=ends.append
        )
    while scheduler.tick():
        pass
    assert [end.frames for end in ends] == [12, 12, 12]
    for single, batched in zip(alone, together, strict=True):
        while not single.job.denoised:
            engine.scheduler._pipeline.denoise([single.job])
        torch.testing.assert_close(
            batched.job.denoising.latents, single.job.denoising.latents, rtol=0, atol=1e-5
        )
