"""After the warm-up no step of any session has a shape of its own: nothing is compiled or recorded
while somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_stand_ins import repeat
from tiny_model import TinyReference, noise, tiny_pipeline, tiny_session
from torch import Tensor

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.batching import ChunkScheduler
from visavis.engine.costs import BATCHES
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.step_graph import StepGraphs, StepInputs
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.plan import CHUNK_LENGTHS, latent_frames
from visavis.engine.warm_up import warm_shapes

Recorder = tuple[FlashTalkPipeline, list[object]]


@pytest.fixture
def recorder() -> Recorder:
    """A pipeline whose steps are recorded, and its recordings."""
    pipeline, recordings = tiny_pipeline(), []

    def capture(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        recordings.append(call)
        return repeat(call)

    pipeline.model.recorded_step = StepGraphs(pipeline.model.step, capture)
    return pipeline, recordings


def serve(pipeline: FlashTalkPipeline, caps: dict[int, int], sessions: int, length: int) -> None:
    """Several sessions, some of which have only begun, each with a chunk of that length."""
    scheduler = ChunkScheduler(pipeline, caps)
    scheduler.warmed_sizes_only = True
    for seed in range(sessions):
        session = tiny_session(pipeline, seed=seed)
        session.push_audio(noise(640 * 60, seed))
        if seed % 2:
            list(session.generate(chunk_frames=9))
        listeners: dict[str, Any] = {"on_frame": lambda frame: None, "on_end": lambda end: None}
        scheduler.add(session.begin(chunk_frames=length), deadline_s=float(seed), **listeners)
    while scheduler.tick():
        pass


@pytest.mark.parametrize("cap", [1, 4])
def test_sessions_find_every_step_recorded(recorder: Recorder, cap: int) -> None:
    pipeline, recordings = recorder
    caps = dict.fromkeys(CHUNK_LENGTHS, cap)
    warm_shapes(pipeline, pipeline.conditions(TinyReference(1.0)), caps)
    sizes = [size for size in BATCHES if size <= cap]
    assert len(recordings) == len(CHUNK_LENGTHS) * len(sizes) * 2  # first chunks and later ones
    for length in CHUNK_LENGTHS:
        for sessions in range(1, 8):
            serve(pipeline, caps, sessions, length)
    assert len(recordings) == len(CHUNK_LENGTHS) * len(sizes) * 2


def test_a_compiled_engine_is_warm_in_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `AvatarEngine.load` makes it: on a CPU blocks may be compiled, here for nothing."""
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: None)
    seen: set[tuple[int, int, int]] = set()
    step = FlashTalkDiT.step

    def noted(self: FlashTalkDiT, inputs: StepInputs) -> Tensor:
        batch, _, frames = inputs.latents.shape[:3]
        seen.add((batch, frames, inputs.given_slots))
        return step(self, inputs)

    monkeypatch.setattr(FlashTalkDiT, "step", noted)
    for compiled in (False, True):
        engine = AvatarEngine.load("test", dtype="float32", compiled=compiled)
        assert engine.scheduler.warmed_sizes_only is compiled
    engine.warm_up()
    wanted = {
        (batch, latent_frames(length), slots)
        for length, cap in engine.scheduler.caps.items()
        for batch in BATCHES
        for slots in (1, 2)
        if batch <= cap
    }
    assert wanted <= seen


def test_lengths_without_a_cap_are_warmed_alone(recorder: Recorder) -> None:
    pipeline, recordings = recorder
    warm_shapes(pipeline, pipeline.conditions(TinyReference(1.0)), {33: 2})
    assert len(recordings) == 2 * (len(CHUNK_LENGTHS) + 1)
