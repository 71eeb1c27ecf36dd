"""The video VAE's causal filter and its norm: compiled C for float32 on a CPU, else PyTorch.

Letters: T frames, H W picture size, C input and O output channels.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from visavis.kernels.native import native
from visavis.kernels.video.reference import SMALLEST_NORM, plain_pixel_norm

_SOURCE = Path(__file__).with_name("filter.c")

LANES = 16
"""Channels come in multiples of this."""
TILE = (4, 2)
"""Outputs of one tile over rows and columns; as many products and two more, each."""
COUNTS = {1: (1, 3), 2: (4,), 4: (6,)}
"""Frames that may be made in one call, and how many kernels over time each takes."""


def pixel_norm(source: Tensor, target: Tensor, gamma_C: Tensor, *, silu: bool) -> None:
    """Fill `target` [T, H, W, C] with x / |x| * gamma, |x| over C; `silu`: then x * sigmoid(x).

    The root of C that makes it a root mean square belongs into `gamma`.
    """
    tensors = (source, target, gamma_C)
    serves = all(map(_is_plain, tensors)) and len(gamma_C) % LANES == 0
    library = _library() if serves else None
    if library is None or not all(x.stride()[2:] == (x.shape[3], 1) for x in (source, target)):
        plain_pixel_norm(source, target, gamma_C, silu)
        return
    library.visavis_pixel_norm(
        _at(source),
        _at(target),
        _at(gamma_C),
        ctypes.c_float(SMALLEST_NORM),
        ctypes.c_int(silu),
        *map(ctypes.c_ssize_t, (*source.shape, *source.stride()[:2], *target.stride()[:2])),
        ctypes.c_int(torch.get_num_threads()),
    )


def tiles_serve(x: Tensor) -> bool:
    """Whether `filter_tiles` can filter this tensor here: float32 on a CPU, and a compiler."""
    return _is_plain(x) and _library() is not None


def padded(size: int) -> int:
    """Channels as `filter_tiles` wants them."""
    return -(-size // LANES) * LANES


def tiled(height: int, width: int) -> tuple[int, int]:
    """Size of a picture in whole tiles, without margins."""
    tall, broad = TILE
    return -(-height // tall) * tall, -(-width // broad) * broad


def pack_tiles(kernels_KSOC: Tensor) -> Tensor:
    """Transformed kernels as `filter_tiles` reads them, float32 [K, 24, O / panel, C, panel].

    K over time, S = 24 over rows and columns; O and C are filled up with zeros.
    """
    count, slots, outputs, channels = kernels_KSOC.shape
    outputs, channels = padded(outputs), padded(channels)
    whole = torch.zeros(count, slots, outputs, channels, dtype=torch.float32)
    whole[:, :, : kernels_KSOC.shape[2], : kernels_KSOC.shape[3]] = kernels_KSOC
    panel = 2 * LANES if outputs % (2 * LANES) == 0 else LANES
    panels = whole.view(count, slots, outputs // panel, panel, channels)
    return panels.transpose(-1, -2).contiguous()


def filter_tiles(
    frames: Sequence[Tensor],
    kernels: Tensor,
    bias_O: Tensor,
    outcome_THWO: Tensor,
    residual_THWO: Tensor | None,
) -> None:
    """Fill T frames, 1, 2 or 4, from as many and the two before them; the residual is added.

    An operator of the `visavis` namespace, so that counters see its products.

    Args:
        frames: each [tiled H + 2, tiled W + 2, padded(C)], contiguous, zero where there is
            nothing; a video's first frame, or a picture, comes alone, its others being zero.
        kernels: from `pack_tiles`, over time transformed for T outputs, or the taps for one.
        bias_O: padded as the outcome, whose channels are `padded(O)`; all contiguous.

    Raises:
        ValueError: sizes that do not belong together.
        RuntimeError: no memory.
    """
    torch.ops.visavis.filter_tiles(list(frames), kernels, bias_O, outcome_THWO, residual_THWO)


@torch.library.custom_op("visavis::filter_tiles", mutates_args=("outcome",), device_types="cpu")
def _filter_tiles(
    frames: list[Tensor], kernels: Tensor, bias: Tensor, outcome: Tensor, residual: Tensor | None
) -> None:
    library = _library()
    if library is None:
        raise RuntimeError("filter_tiles: no compiler; ask tiles_serve first")
    _check(frames, kernels, bias, outcome, residual)
    made, height, width, outputs = outcome.shape
    columns, channels = frames[0].shape[1:]
    failed = library.visavis_filter(
        (ctypes.c_void_p * len(frames))(*(frame.data_ptr() for frame in frames)),
        _at(kernels),
        _at(bias),
        None if residual is None else _at(residual),
        _at(outcome),
        *map(ctypes.c_ssize_t, (len(frames), made, height, width, channels, outputs)),
        ctypes.c_ssize_t(columns * channels),
        ctypes.c_int(torch.get_num_threads()),
    )
    if failed:
        raise RuntimeError("filter_tiles: no memory for the work space")


@register_flop_formula(torch.ops.visavis.filter_tiles)
def _flops(frames: Any, kernels: Any, bias: Any, outcome: Any, *args: Any, **kwargs: Any) -> int:
    _, height, width, _ = outcome
    tiles = math.prod(size // tile for size, tile in zip(tiled(height, width), TILE, strict=True))
    return int(2 * tiles * math.prod(kernels))


def _check(
    frames: list[Tensor], kernels: Tensor, bias: Tensor, outcome: Tensor, residual: Tensor | None
) -> None:
    made, height, width, outputs = outcome.shape
    rows, columns = (size + 2 for size in tiled(height, width))
    if len(frames) not in COUNTS.get(made, ()) or kernels.shape[0] != len(frames):
        raise ValueError(
            f"filter_tiles: {len(frames)} frames and {kernels.shape[0]} kernels cannot make {made}"
        )
    if kernels.shape[2] * kernels.shape[4] != outputs or bias.shape != (outputs,):
        raise ValueError(f"filter_tiles: kernels or bias do not make {outputs} channels")
    if any(frame.shape != (rows, columns, kernels.shape[3]) for frame in frames):
        raise ValueError(f"filter_tiles: frames must be {(rows, columns, kernels.shape[3])}")
    if residual is not None and residual.shape != outcome.shape:
        raise ValueError("filter_tiles: residual and outcome must have one shape")
    given = [*frames, kernels, bias, outcome, *([] if residual is None else [residual])]
    if not all(_is_plain(tensor) and tensor.is_contiguous() for tensor in given):
        raise ValueError("filter_tiles: needs contiguous float32 on a CPU, without gradients")


@cache
def _library() -> ctypes.CDLL | None:
    return native(_SOURCE)


def _is_plain(tensor: Tensor) -> bool:
    """What the C code reads: float32 in a CPU's memory, of which no gradient is wanted."""
    return (
        tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and not (tensor.requires_grad and torch.is_grad_enabled())
    )


def _at(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
