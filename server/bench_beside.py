"""Wan's VAE beside diffusers', and the transformer beside itself without what it saves, in turn.

The weights are the same, and so is the process. The original cannot run here: its transformer is
stood for by ours, made to compute again in every step what does not change from step to step.
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
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.sampler import timesteps

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
class DiTInputs:
    """What a chunk's steps work on; text [1, L, C] without its padding, audio [1, F, W, L, C]."""

    latents_BCTHW: Tensor
    cond_BCTHW: Tensor
    audio_BFWLC: Tensor
    text_BLC: Tensor
    image_BLC: Tensor
    given_slots: int
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """`other` names the package and its version; `dit`: without what is saved, if it was timed."""

    other: str
    vae_decode: Stage
    motion_encode: Stage
    dit: Stage | None = None

    @property
    def stages(self) -> tuple[tuple[str, Stage], ...]:
        vae = (("vae_decode", self.vae_decode), ("motion_encode", self.motion_encode))
        return vae if self.dit is None else (("dit", self.dit), *vae)

    @property
    def total(self) -> Stage | None:
        """The sums, colour correction apart, which both have; None without the transformer."""
        if self.dit is None:
            return None
        stages = [stage for _, stage in self.stages]
        return Stage(
            ours=sum(stage.ours for stage in stages),
            theirs=sum(stage.theirs for stage in stages),
            difference=max(stage.difference for stage in stages),
        )


@torch.inference_mode()
def measure_beside(
    vae: WanVAE,
    latents_BCThw: Tensor,
    video_BCFHW: Tensor,
    rounds: int,
    dit: tuple[FlashTalkDiT, DiTInputs] | None = None,
) -> Beside:
    """Decode normalised latents and encode RGB in [-1, 1] with both, `rounds` times in turn.

    `dit`: also a chunk's denoising steps.

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
        dit=None if dit is None else _dit_in_turn(*dit, rounds),
    )


def _dit_in_turn(dit: FlashTalkDiT, given: DiTInputs, rounds: int) -> Stage:
    """Velocities of a chunk's steps: from caches, and with all computed anew as the original does.

    That is: text padded to its full length and embedded with the image in every step, keys and
    values of text, image and audio in every step, the audio attention as it is written, the time
    embedding in every step, and the motion latents' part of the last block.
    """
    latents, slots = given.latents_BCTHW, given.given_slots
    levels = [latents.new_tensor([level]) for level in timesteps(given.num_steps)[:-1]]
    size = (latents.shape[3], latents.shape[4])
    context = dit.prepare_context(given.text_BLC, given.image_BLC)
    times = [dit.prepare_time(level) for level in levels]
    length = given.text_BLC.shape[1]
    text = F.pad(given.text_BLC, (0, 0, 0, dit.config.text_len - length))

    def ours() -> Tensor:
        audio = dit.prepare_audio(given.audio_BFWLC, latent_size=size)
        found = [
            dit.velocity(latents, time, given.cond_BCTHW, audio, context, given_slots=slots)
            for time in times
        ]
        return torch.cat(found)[:, :, slots:]

    def plain() -> Tensor:
        found = [
            dit.velocity(
                latents,
                dit.prepare_time(level),
                given.cond_BCTHW,
                dit.prepare_audio(given.audio_BFWLC),
                dit.prepare_context(text, given.image_BLC),
            )
            for level in levels
        ]
        return torch.cat(found)[:, :, slots:]

    return _in_turn(ours, plain, rounds)


def beside_json(beside: Beside) -> dict[str, Any]:
    """The figures with their ratios."""
    stages = [*beside.stages, *([] if beside.total is None else [("total", beside.total)])]
    figures = {name: {**asdict(stage), "ratio": stage.ratio} for name, stage in stages}
    return {"other": beside.other, **figures}


def beside_lines(beside: Beside) -> list[str]:
    """The figures to be read, a line a stage."""
    others = {"dit": "itself with nothing kept from step to step", "total": "all that"}
    stages = [*beside.stages, *([] if beside.total is None else [("total", beside.total)])]
    return [
        f"{name.replace('_', ' ')}: {stage.ratio:.2f} times as fast as "
        f"{others.get(name, beside.other)} in turn "
        f"({stage.ours:.3f} s, {stage.theirs:.3f} s, the least of each; "
        f"the outcomes differ by {stage.difference:.1e})"
        for name, stage in stages
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
