"""The 14B model's VAE in `gpu_check.py`: decode and encode at full size, random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from gpu_check_report import Report
from gpu_check_sections import Context
from gpu_check_sizes import FULL, TINY, Sizes, median_s, repeated
from torch import Tensor

from visavis.engine.codec.wan_compilation import compile_vae
from visavis.engine.codec.wan_network import WanNetwork
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.plan import MOTION_LATENTS

# Frames lie in [-1, 1]; a replay runs the kernels that were recorded, so that nothing but a
# library's choice of another one may tell them apart.
RECORDED_LIMIT = 0.02


def vae(report: Report, context: Context) -> None:
    """Decode of a chunk, of its known beginning, encode of the hand-over."""
    report.section("14B model: VAE", "Random weights, one GPU, the whole picture.")
    sizes = TINY if context.dry_run else FULL
    on_gpu = context.device.type == "cuda"
    report.header(("VAE", "how", "ms"))
    codec, how = random_vae(sizes, context.device), "plain"
    _time(report, context, sizes, codec, how)
    if on_gpu:  # elsewhere the network has kernels of its own
        compile_vae(codec.network)
        how = "compiled"
        _time(report, context, sizes, codec, how)
    if not context.budget.allows("the recorded VAE", report):
        return
    latents, _ = vae_inputs(sizes, context.device)
    wanted = _frames(codec.decode(latents))
    if on_gpu:
        codec.record()
    else:
        codec.record(repeated)
    # The second time nothing is recorded any more.
    found = [_frames(codec.decode(latents)) for _ in range(2)]
    _time(report, context, sizes, codec, "recorded" if how == "plain" else f"{how}, recorded")
    judge_recorded(report, max(_distance(frames, wanted) for frames in found))


def judge_recorded(report: Report, distance: float) -> None:
    """Say how far replayed frames are from the others', and fail where that is too far."""
    report.say("")
    report.say(f"- Recorded frames differ from the others by {distance:.1e} at most, in [-1, 1].")
    if not distance <= RECORDED_LIMIT:
        report.fail(f"the recorded VAE's frames differ by {distance:.1e}")


def _time(report: Report, context: Context, sizes: Sizes, codec: WanVAE, how: str) -> None:
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
        seconds = median_s(run, context.device, sizes.vae_plan)
        report.row(words, how, f"{seconds * 1e3:.1f}")
        report.figure(f"{name}: {how}", seconds)


def random_vae(sizes: Sizes, device: torch.device) -> WanVAE:
    """On the device, in the dtype."""
    with torch.device(device):
        return WanVAE(WanNetwork(sizes.vae).to(sizes.dtype))


def vae_inputs(sizes: Sizes, device: torch.device) -> tuple[Tensor, Tensor]:
    """Latents of a chunk and five frames in [-1, 1]."""
    height, width = (SPATIAL_STRIDE * side for side in sizes.latent_size)
    latents = torch.randn(1, sizes.vae.z_dim, sizes.frames, *sizes.latent_size, device=device)
    video = torch.rand(1, 3, 5, height, width, device=device) * 2 - 1
    return latents.to(sizes.dtype), video.to(sizes.dtype)


def _distance(found: Tensor, wanted: Tensor) -> float:
    return (found - wanted).abs().max().item()


def _frames(parts: Iterator[Tensor]) -> Tensor:
    return torch.cat(list(parts), dim=2)


def _drain(parts: Iterator[Tensor]) -> None:
    for _ in parts:
        pass
