"""The 14B model's VAE in `gpu_check.py`: decode and encode at full size, random weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from gpu_check_blocks import median_s
from gpu_check_report import Report
from gpu_check_sections import Context
from torch import Tensor

from visavis.engine.codec.wan_compilation import compile_vae
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.plan import MOTION_LATENTS
from visavis.kernels.timing import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeSizes:
    """What is built and timed."""

    config: WanConfig
    frames: int  # latent
    latent_size: tuple[int, int]
    dtype: torch.dtype
    plan: Plan


FULL = VaeSizes(
    config=WanConfig(),
    frames=9,
    latent_size=(96, 56),
    dtype=torch.bfloat16,
    plan=Plan(least_runs=5),
)
TINY = VaeSizes(
    config=WanConfig(base_dim=4, num_res_blocks=1),
    frames=3,
    latent_size=(8, 4),
    dtype=torch.float32,
    plan=Plan(least_runs=1, seconds=0.0),
)


def vae(report: Report, context: Context) -> None:
    """Decode of a chunk, of its known beginning, encode of the hand-over."""
    report.section("14B model: VAE", "Random weights, one GPU, the whole picture.")
    sizes = TINY if context.dry_run else FULL
    report.header(("VAE", "how", "ms"))
    codec = random_vae(sizes, context.device)
    _time(report, context, sizes, codec, "plain")
    if context.device.type == "cuda":  # elsewhere the network has kernels of its own
        compile_vae(codec.network)
        _time(report, context, sizes, codec, "compiled")


def _time(report: Report, context: Context, sizes: VaeSizes, codec: WanVAE, how: str) -> None:
    latents, video = vae_inputs(sizes, context.device)
    pieces = (
        ("decode_s", f"decode {sizes.frames} latents", lambda: _drain(codec.decode(latents))),
        (
            "prefix_s",
            f"of it the {MOTION_LATENTS} motion latents, before the chunk is denoised",
            lambda: _drain(codec.decode(latents[:, :, :MOTION_LATENTS])),
        ),
        ("encode_s", f"encode {video.shape[2]} frames", lambda: codec.encode(video)),
    )
    for name, words, run in pieces:
        if not context.budget.allows(f"{words}, {how}", report):
            return
        seconds = median_s(run, context.device, sizes.plan)
        report.row(words, how, f"{seconds * 1e3:.1f}")
        report.figure(f"{name}: {how}", seconds)


def random_vae(sizes: VaeSizes, device: torch.device) -> WanVAE:
    """On the device, in the dtype."""
    with torch.device(device):
        return WanVAE(WanNetwork(sizes.config).to(sizes.dtype))


def vae_inputs(sizes: VaeSizes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Latents of a chunk and five frames in [-1, 1]."""
    height, width = (SPATIAL_STRIDE * side for side in sizes.latent_size)
    latents = torch.randn(1, sizes.config.z_dim, sizes.frames, *sizes.latent_size, device=device)
    video = torch.rand(1, 3, 5, height, width, device=device) * 2 - 1
    return latents.to(sizes.dtype), video.to(sizes.dtype)


def _drain(parts: Iterator[Tensor]) -> None:
    for _ in parts:
        pass
