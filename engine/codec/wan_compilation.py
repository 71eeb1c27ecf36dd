"""The VAE's work between its convolutions in one or two passes over memory, by `torch.compile`;
and the switches that turn that, and the recording of its steps, on where there is a GPU.

Norm, SiLU and the write into the place where the convolution reads are five passes otherwise, at
the size of the pictures. The convolutions are cuDNN's either way, and what a tile of the picture
gets from its neighbours comes between the two: this is what can be compiled without a break, in
one process and in a group. One function with the code of every shape serves all layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.codec.wan_layers import PixelNorm
from visavis.engine.codec.wan_network import WanNetwork
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.compilation import keep_compiled_code, room_for_shapes

if TYPE_CHECKING:
    from visavis.engine.codec.base import LatentCodec

SMALLEST_NORM = 1e-12


def norm_pixels(source: Tensor, target: Tensor, gamma_C: Tensor, *, silu: bool) -> None:
    """Fill `target` [T, H, W, C] with x / |x| * gamma, |x| over C; `silu`: then x * sigmoid(x).

    In float32 (float64 where that is given), rounded once at the end.
    """
    x = source.to(torch.promote_types(source.dtype, torch.float32))
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    out = x / norm * gamma_C
    target.copy_(F.silu(out) if silu else out)


def compile_vae(network: WanNetwork) -> None:
    """Let all norms of a network on a GPU be one compiled function; call it once it has its
    weights.
    """
    keep_compiled_code()
    compiled = torch.compile(norm_pixels, fullgraph=True, dynamic=False, **room_for_shapes())
    for module in network.modules():
        if isinstance(module, PixelNorm):
            module.compiled = compiled


def speed_up_vae(vae: object, *, compiled: bool = False, recorded: bool = False) -> None:
    """Set the switches that are on, for a `WanVAE` on a GPU; a CPU has its own kernels.

    `recorded`: of the VAE that is used, so in a group of each process's tile (`WanVAE.record`).
    """
    if not isinstance(vae, WanVAE) or vae.device.type != "cuda":
        return
    if compiled:
        compile_vae(vae.network)
    if recorded:
        vae.record()


def speed_up_codec(
    codec: LatentCodec[Any], *, compiled: bool = False, recorded: bool = False
) -> None:
    """`speed_up_vae` where a codec has such a VAE."""
    speed_up_vae(getattr(codec, "vae", None), compiled=compiled, recorded=recorded)
