"""Checkpoints that a killed run can trust: written beside the old one, then renamed over it.

Training draws every batch and every noise from generators seeded by (seed, step, rank), see
`step_seed`; the step number therefore is the whole random state, and a resumed run repeats the
interrupted one exactly. Only the process-wide generator is stored besides, for code that uses it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_RNG_KEY = "torch_rng"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values to `path`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save({**state, _RNG_KEY: torch.get_rng_state()}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; the process-wide generator's state is among it.

    Raises FileNotFoundError if there is none.
    """
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load_checkpoint(path: Path) -> dict[str, Any]:
    """`read_checkpoint`, and set the process-wide generator back.

    Raises FileNotFoundError if there is none.
    """
    state = read_checkpoint(path)
    torch.set_rng_state(state.pop(_RNG_KEY))
    return state


def step_seed(seed: int, step: int, rank: int = 0, stream: int = 0) -> int:
    """A 63-bit seed of its own for every (step, rank, stream) of a run."""
    words = np.random.SeedSequence((seed, step, rank, stream)).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])
