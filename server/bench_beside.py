"""Wan's VAE beside diffusers' with the same weights, in turn and in one process.

Other load on the machine meets both alike: of such figures the ratio holds where seconds do not.

Letters: B batch, C latent channels, T latent frames, h w latent size, F frames, H W frame size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from visavis.engine.codec.wan_vae import WanVAE

Other = Literal["diffusers"]


class BesideError(ValueError):
    """What is to be compared is not there, with the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Least seconds of each; `difference` is the greatest of all values of the outcome."""

    ours: float
    theirs: float
    difference: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.theirs / self.ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """`other` names the package and its version."""

    other: str
    vae_decode: Stage
    motion_encode: Stage

    @property
    def stages(self) -> tuple[tuple[str, Stage], ...]:
        return ("vae_decode", self.vae_decode), ("motion_encode", self.motion_encode)


@torch.inference_mode()
def measure_beside(vae: WanVAE, latents_BCThw: Tensor, video_BCFHW: Tensor, rounds: int) -> Beside:
    """Decode normalised latents and encode RGB in [-1, 1] with both, `rounds` times in turn.

    Raises:
        BesideError: diffusers is not installed.
    """
    diffusers = _diffusers()
    theirs = _with_weights_of(vae, diffusers)
    shape = (1, -1, 1, 1, 1)
    mean, std = vae.mean.view(shape), vae.std.view(shape)
    full = latents_BCThw * std + mean
    return Beside(
        other=f"diffusers {diffusers.__version__}",
        vae_decode=_in_turn(
            lambda: torch.cat(list(vae.decode(latents_BCThw)), dim=2),
            lambda: theirs.decode(full).sample,
            rounds,
        ),
        motion_encode=_in_turn(
            lambda: vae.encode(video_BCFHW),
            lambda: (theirs.encode(video_BCFHW).latent_dist.mode() - mean) / std,
            rounds,
        ),
    )


def beside_json(beside: Beside) -> dict[str, Any]:
    """The figures with their ratios."""
    figures = {name: {**asdict(stage), "ratio": stage.ratio} for name, stage in beside.stages}
    return {"other": beside.other, **figures}


def beside_lines(beside: Beside) -> list[str]:
    """The figures to be read, a line a stage."""
    return [
        f"{name.replace('_', ' ')}: {stage.ratio:.2f} times as fast as {beside.other} in turn "
        f"({stage.ours:.3f} s, {stage.theirs:.3f} s, the least of each; "
        f"the outcomes differ by {stage.difference:.1e})"
        for name, stage in beside.stages
    ]


def _diffusers() -> Any:
    try:
        return import_module("diffusers")
    except ImportError as error:
        raise BesideError(
            "beside='diffusers': diffusers is not installed; install visavis[dev], "
            "or leave the option out"
        ) from error


def _with_weights_of(vae: WanVAE, diffusers: Any) -> Any:
    config = vae.network.config
    theirs = diffusers.AutoencoderKLWan(
        base_dim=config.base_dim,
        z_dim=config.z_dim,
        dim_mult=list(config.dim_mult),
        num_res_blocks=config.num_res_blocks,
        temperal_downsample=list(config.temperal_downsample),
    )
    theirs.load_state_dict(vae.network.state_dict())
    return theirs.to(vae.device, vae.dtype).eval().requires_grad_(False)


def _in_turn(ours: Callable[[], Tensor], theirs: Callable[[], Tensor], rounds: int) -> Stage:
    """One round more at first, which is not timed."""
    difference = (ours().float() - theirs().float()).abs().max().item()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for taken, call in zip(seconds, (ours, theirs), strict=True):
            started = time.perf_counter()
            call()
            taken.append(time.perf_counter() - started)
    return Stage(ours=min(seconds[0]), theirs=min(seconds[1]), difference=difference)
