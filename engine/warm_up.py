"""Every shape of a denoising step once, before anybody waits for it.

Compiled code is made for one shape, and so is a CUDA graph. Either takes seconds: in the middle of
a conversation the picture would stand still for so long.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from visavis.engine.audio.front_end import WINDOW_REACH
from visavis.engine.costs import BATCHES
from visavis.engine.pipeline import Conditions, FlashTalkPipeline
from visavis.engine.plan import CHUNK_LENGTHS, new_frames


def warm_shapes(
    pipeline: FlashTalkPipeline, conditions: Conditions, caps: Mapping[int, int]
) -> None:
    """One step of every chunk length and of every batch up to `caps` of it, for sessions that begin
    and for those that go on: a first chunk has fewer motion latents than later ones.
    """
    shortest = CHUNK_LENGTHS[0]
    first = pipeline.first_state(conditions, seed=0)
    *_, last = pipeline.generate_chunk(
        first, _nothing(pipeline, shortest), conditions, shown=new_frames(shortest), num_steps=1
    )
    assert last.next_state is not None  # the last frame has it
    for length, state in product(CHUNK_LENGTHS, (first, last.next_state)):
        features, shown = _nothing(pipeline, length), new_frames(length)
        for batch in (size for size in BATCHES if size <= caps.get(length, 1)):
            pipeline.denoise(
                [
                    pipeline.start_chunk(state, features, conditions, shown=shown, num_steps=1)
                    for _ in range(batch)
                ]
            )


def _nothing(pipeline: FlashTalkPipeline, chunk_frames: int) -> NDArray[np.float32]:
    """Features of a chunk: their shape alone matters."""
    config = pipeline.model.config
    shape = (WINDOW_REACH + chunk_frames, config.audio_layers, config.audio_channels)
    return np.zeros(shape, np.float32)
