"""What of the 14B model `gpu_check.py` builds and times, and how its recordings are tried."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.wan_network import WanConfig
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.kernels.timing import Plan, measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A chunk of `frames` latents; `vae_plan` for pieces that take long."""

    dit: DiTConfig
    vae: WanConfig
    frames: int
    latent_size: tuple[int, int]
    dtype: torch.dtype
    plan: Plan
    vae_plan: Plan


FULL = Sizes(
    dit=DIT_PRESETS["flashtalk-14b"],
    vae=WanConfig(),
    frames=9,
    latent_size=(96, 56),
    dtype=torch.bfloat16,
    plan=Plan(),
    vae_plan=Plan(least_runs=5),
)
# For trying the program on a CPU.
TINY = Sizes(
    dit=DIT_PRESETS["test"],
    vae=WanConfig(base_dim=4, num_res_blocks=1),
    frames=3,
    latent_size=(8, 4),
    dtype=torch.float32,
    plan=Plan(least_runs=1, seconds=0.0),
    vae_plan=Plan(least_runs=1, seconds=0.0),
)


def repeated(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """In place of a CUDA graph on a CPU."""
    result = call().clone()
    return lambda: (result.copy_(call()), None)[1], result


def median_s(run: Callable[[], object], device: torch.device, plan: Plan) -> float:
    """Seconds of a run."""
    return statistics.median(measure(run, device, plan, "gpu-check"))
