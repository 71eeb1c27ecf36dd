"""What the pipeline really computes for a chunk, counted: no rewrite is left out on the way to a
user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dit_exactness import small_model
from tiny_model import TinyCodec, TinyReference
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.audio.front_end import WINDOW_REACH, MelFrontEnd
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.costs import ChunkShape, process_cost
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.pipeline import ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import latent_frames, new_frames

CONFIG = replace(DIT_PRESETS["test"], text_len=12)
SIDE = 16  # 64 tokens a latent frame: audio is folded
PROMPT, STEPS = 5, 2
PREPARED = ("prepare_context", "prepare_audio", "prepare_time")


class LargerCodec(TinyCodec):
    """Its latents are of the size at which every rewrite saves."""

    latent_size = (SIDE, SIDE)

    def cond_latents(self, reference: TinyReference, chunk_frames: int) -> Tensor:
        return super().cond_latents(reference, chunk_frames)[:, :, :1, :1].repeat(1, 1, SIDE, SIDE)

    def initial_motion(self, reference: TinyReference) -> Tensor:
        return torch.zeros(self.latent_channels, 1, SIDE, SIDE)


@pytest.fixture(scope="module")
def pipeline() -> FlashTalkPipeline:
    model = small_model(CONFIG, torch.float32, attention_impl="plain")
    text = torch.randn(1, PROMPT, CONFIG.text_dim)
    return FlashTalkPipeline(model, LargerCodec(), MelFrontEnd(), torch.device("cpu"), text=text)


def denoise(
    pipeline: FlashTalkPipeline, state: ChunkState, conditions: Conditions, length: int
) -> int:
    """FLOPs of a chunk from its audio features to its latents."""
    shape = (WINDOW_REACH + length, CONFIG.audio_layers, CONFIG.audio_channels)
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with FlopCounterMode(display=False) as counter:
        job = pipeline.start_chunk(
            state, features, conditions, shown=new_frames(length), num_steps=STEPS
        )
        while not job.denoised:
            pipeline.denoise([job])
    return int(counter.get_total_flops())


@pytest.mark.parametrize("length", [9, 17])
def test_a_chunk_costs_what_the_formula_says(pipeline: FlashTalkPipeline, length: int) -> None:
    """Merged padding, folded audio, skipped motion queries: each of them would be seen."""
    conditions = pipeline.conditions(TinyReference(1.0))
    first = pipeline.first_state(conditions, seed=0)
    denoise(pipeline, first, conditions, length)  # the embedded noise levels are made once
    later = replace(first, motion=torch.randn(CONFIG.latent_channels, 2, SIDE, SIDE))
    for state in (first, later):
        shape = ChunkShape(
            frames=latent_frames(length),
            latent_size=(SIDE, SIDE),
            steps=STEPS,
            text_tokens=PROMPT + 1,  # and one for the padding
            motion_slots=state.motion.shape[1],
        )
        counted = denoise(pipeline, state, conditions, length)
        assert counted == pytest.approx(process_cost(CONFIG, shape).flops(STEPS), rel=1e-6)


def test_conditions_are_prepared_once_for_as_long_as_they_hold(
    pipeline: FlashTalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text and image for an avatar, audio for a chunk, noise levels for all chunks."""
    calls: Counter[str] = Counter()

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def prepare(*args: Any, **rest: Any) -> Any:
            calls[name] += 1
            return call(*args, **rest)

        return prepare

    for name in PREPARED:
        monkeypatch.setattr(FlashTalkDiT, name, counted(name, getattr(FlashTalkDiT, name)))
    monkeypatch.setattr(pipeline, "_schedules", {})
    conditions = pipeline.conditions(TinyReference(1.0))
    state = pipeline.first_state(conditions, seed=0)
    for _ in range(3):
        denoise(pipeline, state, conditions, 9)
    assert calls == {"prepare_context": 1, "prepare_audio": 3, "prepare_time": STEPS}
