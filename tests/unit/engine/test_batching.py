"""Chunks of several sessions on one model: equal to unbatched, urgent first, failures private."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyReference, noise, tiny_pipeline

from visavis.engine.batching import ChunkEnd, ChunkScheduler
from visavis.engine.costs import ChunkCosts, CostMeter
from visavis.engine.pipeline import ChunkJob, FlashTalkPipeline
from visavis.engine.session import AvatarFrame, AvatarSession


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Watched:
    """A pipeline that notes which jobs share a step, and may refuse one."""

    def __init__(self, pipeline: FlashTalkPipeline) -> None:
        self.pipeline = pipeline
        self.batches: list[list[ChunkJob]] = []
        self.refused: ChunkJob | None = None

    def denoise(self, jobs: list[ChunkJob]) -> None:
        self.batches.append(list(jobs))
        if self.refused in jobs:
            raise RuntimeError("out of memory")
        self.pipeline.denoise(jobs)


class Listener:
    """What one session gets."""

    def __init__(self) -> None:
        self.frames: list[AvatarFrame] = []
        self.ends: list[ChunkEnd] = []

    def arguments(self) -> dict[str, Any]:
        return {"on_frame": self.frames.append, "on_end": self.ends.append}


@pytest.fixture
def pipeline() -> FlashTalkPipeline:
    return tiny_pipeline()


def _session(
    pipeline: FlashTalkPipeline, seed: int, *, steps: int = 2, brightness: float = 100.0
) -> AvatarSession:
    conditions = pipeline.conditions(TinyReference(brightness))
    session = AvatarSession(pipeline, conditions, input_rate=16_000, seed=seed, num_steps=steps)
    session.push_audio(noise(640 * 100, seed))
    return session


def _run(scheduler: ChunkScheduler) -> None:
    while scheduler.tick():
        pass


def test_a_batch_gives_each_session_what_it_would_get_alone(pipeline: FlashTalkPipeline) -> None:
    """Other avatars, seeds, numbers of steps, motion slots and noise levels in one batch."""
    settings: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 2, "brightness": 40.0},
        {"seed": 3, "steps": 4},
    ]
    alone, together = (
        [_session(pipeline, **s) for s in settings],
        [_session(pipeline, **s) for s in settings],
    )
    for pair in (alone, together):
        list(pair[0].generate(chunk_frames=9))  # two motion slots where the others have one
    watched = Watched(pipeline)
    scheduler = ChunkScheduler(watched, {17: 4})
    chunks = [session.begin(chunk_frames=17) for session in together]
    listeners = [Listener() for _ in chunks]
    scheduler.add(chunks[2], deadline_s=0.0, **listeners[2].arguments())
    scheduler.tick()  # one step ahead of the others
    for number in (0, 1):
        scheduler.add(chunks[number], deadline_s=1.0, **listeners[number].arguments())
    _run(scheduler)
    assert [len(batch) for batch in watched.batches] == [1, 3, 3, 1]
    for session, chunk, listener in zip(alone, chunks, listeners, strict=True):
        expected = session.begin(chunk_frames=17)
        while not expected.job.denoised:
            pipeline.denoise([expected.job])
        torch.testing.assert_close(
            chunk.job.denoising.latents, expected.job.denoising.latents, rtol=0, atol=1e-5
        )
        pictures = [frame.pixels for frame in expected.frames()]
        got = [frame.pixels for frame in listener.frames]
        difference = np.abs(np.stack(got).astype(int) - np.stack(pictures).astype(int))
        assert difference.max() <= 1
        assert [end.frames for end in listener.ends] == [12]


def test_the_cap_bounds_a_batch_and_shapes_are_not_mixed(pipeline: FlashTalkPipeline) -> None:
    watched = Watched(pipeline)
    scheduler = ChunkScheduler(watched, {17: 2, 9: 2})
    listener = Listener()
    for seed, length in enumerate([17, 17, 17, 9]):
        chunk = _session(pipeline, seed).begin(chunk_frames=length)
        scheduler.add(chunk, deadline_s=float(seed), **listener.arguments())
    _run(scheduler)
    assert max(len(batch) for batch in watched.batches) == 2
    assert all(len({job.shape for job in batch}) == 1 for batch in watched.batches)
    assert sum(end.frames for end in listener.ends) == 3 * 12 + 4


def test_an_urgent_chunk_runs_at_the_next_step_and_its_frames_first(
    pipeline: FlashTalkPipeline,
) -> None:
    watched = Watched(pipeline)
    scheduler = ChunkScheduler(watched, {33: 4, 9: 4})
    order: list[str] = []

    def note(name: str) -> dict[str, Callable[[Any], None]]:
        return {
            "on_frame": lambda frame: order.append(name),
            "on_end": lambda end: order.append(f"{name} ends"),
        }

    long = _session(pipeline, 1).begin(chunk_frames=33)
    scheduler.add(long, deadline_s=5.0, **note("long"))
    scheduler.tick()
    urgent = _session(pipeline, 2).begin(chunk_frames=9)
    scheduler.add(urgent, deadline_s=0.0, urgent=True, **note("urgent"))
    scheduler.tick()
    assert watched.batches[-1] == [urgent.job]
    _run(scheduler)
    assert order[:5] == ["urgent"] * 4 + ["urgent ends"]
    assert order[5:] == ["long"] * 28 + ["long ends"]


def test_an_urgent_chunk_does_not_share_its_step_with_one_that_can_wait(
    pipeline: FlashTalkPipeline,
) -> None:
    watched = Watched(pipeline)
    scheduler = ChunkScheduler(watched, {9: 4})
    patient = _session(pipeline, 1).begin(chunk_frames=9)
    scheduler.add(patient, deadline_s=1.0, **Listener().arguments())
    hasty = [_session(pipeline, seed).begin(chunk_frames=9) for seed in (2, 3)]
    for chunk in hasty:
        scheduler.add(chunk, deadline_s=0.0, urgent=True, **Listener().arguments())
    scheduler.tick()
    assert watched.batches == [[hasty[0].job, hasty[1].job]]


def test_sessions_take_turns_frame_by_frame(pipeline: FlashTalkPipeline) -> None:
    scheduler = ChunkScheduler(pipeline, {9: 2})
    order: list[int] = []
    for seed in (0, 1):
        chunk = _session(pipeline, seed).begin(chunk_frames=9)
        scheduler.add(
            chunk,
            deadline_s=0.01 * seed,
            on_frame=lambda frame, seed=seed: order.append(seed),  # type: ignore[misc]
            on_end=lambda end: None,
        )
    _run(scheduler)
    assert order == [0, 1] * 4


def test_a_lazy_chunk_is_decoded_just_before_its_time(pipeline: FlashTalkPipeline) -> None:
    clock, listener = Clock(), Listener()
    scheduler = ChunkScheduler(pipeline, clock=clock)
    chunk = _session(pipeline, 1).begin_idle(33)
    scheduler.add(chunk, deadline_s=10.0, ahead_s=0.5, **listener.arguments())
    _run(scheduler)
    assert chunk.job.denoised
    assert not listener.frames
    assert scheduler.wait_s() == pytest.approx(9.5)
    clock.now_s = 9.5 + 3 * 0.04 + 0.001
    _run(scheduler)
    assert len(listener.frames) == 4
    clock.now_s = 20.0
    _run(scheduler)
    assert listener.ends[0].frames == 28
    assert scheduler.wait_s() is None


def test_what_is_cut_off_is_not_decoded(pipeline: FlashTalkPipeline) -> None:
    listener, stop = Listener(), [False]
    scheduler = ChunkScheduler(pipeline, clock=Clock())
    session = _session(pipeline, 1)
    chunk = session.begin(chunk_frames=33, should_stop=lambda: stop[0])
    scheduler.add(chunk, deadline_s=0.0, **listener.arguments())
    while len(listener.frames) < 5:
        scheduler.tick()
    stop[0] = True
    _run(scheduler)
    (end,) = listener.ends
    assert (end.frames, end.abandoned) == (5, True)
    session.rewind(4)
    assert session.buffered_samples == 640 * 95


def test_a_stop_between_two_steps_takes_no_further_step(pipeline: FlashTalkPipeline) -> None:
    watched, stop, listener = Watched(pipeline), [False], Listener()
    scheduler = ChunkScheduler(watched)
    chunk = _session(pipeline, 1, steps=4).begin(chunk_frames=33, should_stop=lambda: stop[0])
    scheduler.add(chunk, deadline_s=0.0, **listener.arguments())
    scheduler.tick()
    stop[0] = True
    _run(scheduler)
    assert len(watched.batches) == 1
    assert [end.abandoned for end in listener.ends] == [True]


def test_a_failure_belongs_to_the_chunk_that_failed(pipeline: FlashTalkPipeline) -> None:
    watched = Watched(pipeline)
    scheduler = ChunkScheduler(watched, {9: 4})
    listeners = [Listener() for _ in range(3)]
    chunks = [_session(pipeline, seed).begin(chunk_frames=9) for seed in range(3)]
    watched.refused = chunks[1].job
    for chunk, listener in zip(chunks, listeners, strict=True):
        scheduler.add(chunk, deadline_s=0.0, **listener.arguments())
    _run(scheduler)
    assert isinstance(listeners[1].ends[0].error, RuntimeError)
    assert [listeners[i].ends[0].error for i in (0, 2)] == [None, None]
    assert [len(listener.frames) for listener in listeners] == [4, 0, 4]


def test_closing_ends_everything(pipeline: FlashTalkPipeline) -> None:
    scheduler, listener = ChunkScheduler(pipeline), Listener()
    chunk = _session(pipeline, 1).begin(chunk_frames=9)
    scheduler.add(chunk, deadline_s=0.0, **listener.arguments())
    scheduler.close()
    assert len(scheduler) == 0
    assert listener.ends[0].abandoned


def test_a_meter_is_told_of_every_step_and_chunk(pipeline: FlashTalkPipeline) -> None:
    """The warm-up was disturbed: what the work takes replaces what was measured then."""
    ticking = Clock()

    class Ticking(Watched):
        def denoise(self, jobs: list[ChunkJob]) -> None:
            super().denoise(jobs)
            ticking.now_s += 0.01 * len(jobs)

    disturbed = ChunkCosts(
        steps_s={length: {1: 1.0, 2: 2.0} for length in (9, 13, 17, 33)},
        prepare_s=1.0,
        first_frame_s=1.0,
        frame_s=1.0,
    )
    scheduler = ChunkScheduler(Ticking(pipeline), {33: 1}, clock=ticking)
    scheduler.meter = CostMeter(disturbed)
    session = _session(pipeline, 1, steps=4)
    scheduler.add(session.begin(chunk_frames=33), deadline_s=0.0, **Listener().arguments())
    _run(scheduler)
    costs = scheduler.meter.costs
    assert costs.steps_s[33][1] == pytest.approx(0.01)
    assert costs.steps_s[17][2] == pytest.approx(0.02)
    assert scheduler.caps == costs.caps
