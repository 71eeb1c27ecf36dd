"""Runs the Triton attention for a call. Imported on the first such call: it needs Triton.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
from torch import Tensor
from triton.runtime import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from visavis.kernels.attention.call import AttentionCall
from visavis.kernels.attention.configs import TileConfig, tile_config
from visavis.kernels.attention.fp8 import quantize_qk
from visavis.kernels.attention.triton_kernel import attention_forward

INTERPRETED = not isinstance(attention_forward, JITFunction)
INTERPRETER_CONFIG = TileConfig(
    m=32, n=16, num_warps=4, num_stages=1, descriptors=False, specialize=False
)
INTERPRETER_PROGRAMS = 3
DESCRIPTOR_ALIGNMENT = 16  # bytes, of the address and of every stride
OLDEST_WITH_DESCRIPTORS = 90


def triton_attention(
    call: AttentionCall, *, fp8: bool = False, config: TileConfig | None = None
) -> tuple[Tensor, Tensor | None]:
    """-> out [B, L, H, D] in the dtype of q, lse [B, H, L] float32 if the call wants it.

    Args:
        fp8: multiply queries and keys in e4m3, weights and values as they are.
        config: tiles other than those of the configuration file.
    """
    architecture = 0
    if not INTERPRETED:
        major, minor = torch.cuda.get_device_capability(call.q.device)
        architecture = 10 * major + minor
    if config is None:
        config = INTERPRETER_CONFIG
        if not INTERPRETED:
            config = tile_config(architecture, call.head_dim, "fp8" if fp8 else "exact")
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (call.q, call.k, call.v))
    scale_BH = shift_BHL = None
    if fp8:
        q, k, scale_BH, shift_BHL = quantize_qk(call)
    out = torch.empty(call.q.shape, dtype=call.q.dtype, device=q.device)
    lse = None
    if call.return_lse:
        lse = torch.empty(
            (call.batch, call.heads, call.queries), dtype=torch.float32, device=q.device
        )
    descriptors = config.descriptors and all(_describable(x) for x in (q, k, v))
    if not INTERPRETED:
        descriptors = descriptors and architecture >= OLDEST_WITH_DESCRIPTORS
    with nullcontext() if INTERPRETED else torch.cuda.device(q.device):
        attention_forward[(_programs(call, config),)](
            _tiles(q, config.m) if descriptors else q,
            _tiles(k, config.n) if descriptors else k,
            _tiles(v, config.n) if descriptors else v,
            # what is absent is never read
            out if call.bias is None else call.bias.float().contiguous(),
            out if call.lengths is None else call.lengths.int(),
            out if scale_BH is None else scale_BH,
            out,
            out if lse is None else lse,
            call.scale,
            *(stride for x in (q, k, v, out) for stride in x.stride()[:3]),
            call.batch,
            call.heads,
            call.queries,
            call.keys,
            call.block or 0,
            M=config.m,
            N=config.n,
            D=call.head_dim,
            STAGES=config.num_stages,
            TAIL_STAGES=1,
            HAS_BIAS=call.bias is not None,
            HAS_LENGTHS=call.lengths is not None,
            HAS_BLOCK=call.block is not None,
            HAS_LSE=lse is not None,
            FP8=fp8,
            DESCRIPTORS=descriptors,
            SPECIALIZE=config.specialize,
            UPCAST=INTERPRETED,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )
    if lse is not None and shift_BHL is not None:
        lse += shift_BHL
    return out, lse


def _tiles(x_BSHD: Tensor, rows: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(x_BSHD, [1, rows, 1, x_BSHD.shape[3]])


def _describable(x: Tensor) -> bool:
    bytes_between = (stride * x.element_size() for stride in x.stride()[:3])
    return x.data_ptr() % DESCRIPTOR_ALIGNMENT == 0 and all(
        step % DESCRIPTOR_ALIGNMENT == 0 for step in bytes_between
    )


def _programs(call: AttentionCall, config: TileConfig) -> int:
    """As many as run at once, none without a tile."""
    tiles = call.batch * call.heads * int(triton.cdiv(call.queries, config.m))
    if INTERPRETED:
        return min(tiles, INTERPRETER_PROGRAMS)
    processors = torch.cuda.get_device_properties(call.q.device).multi_processor_count
    # with four warps the registers of a processor hold two programs
    return min(tiles, processors * (2 if config.num_warps <= 4 else 1))
