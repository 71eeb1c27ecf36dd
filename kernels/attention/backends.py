"""The implementations of attention, each with its own words for what it cannot do.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor

from visavis.kernels.attention.call import AttentionCall
from visavis.kernels.attention.reference import plain_attention
from visavis.kernels.choice import triton_refusal

HALF = (torch.float16, torch.bfloat16)
TRITON_HEAD_DIMS = (32, 64, 128)

Result = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation.

    `refusal(call)` says in words why it cannot serve a call, None that it can; `run(call)` gives
    out [B, L, H, D] and, if the call wants it, lse [B, H, L] float32.
    """

    name: str
    refusal: Callable[[AttentionCall], str | None]
    run: Callable[[AttentionCall], Result]
    exact: bool = True  # up to rounding; the others must be asked for by name


def _gpu_refusal(call: AttentionCall) -> str | None:
    if call.q.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {call.q.device.type!r}"
    if call.q.dtype not in HALF:
        return f"it computes float16 and bfloat16, not {_name(call.q.dtype)}"
    if call.differentiates:
        return "it has no backward here, and autograd is recording"
    return None


def _mask_refusal(call: AttentionCall) -> str | None:
    for name, value in (("bias", call.bias), ("lengths", call.lengths), ("block", call.block)):
        if value is not None:
            return f"it takes no {name}"
    return None


@cache
def _has_fa3() -> bool:
    # asked before every attention of every step, and a search for what is missing reads folders
    return find_spec("flash_attn_interface") is not None


def _fa3_refusal(call: AttentionCall) -> str | None:
    refusal = _gpu_refusal(call) or _mask_refusal(call)
    if refusal is not None:
        return refusal
    if torch.cuda.get_device_capability(call.q.device)[0] != 9:
        return "it is written for Hopper (compute capability 9.0)"
    if not _has_fa3():
        return "the package flash_attn_interface is not installed"
    if call.head_dim not in (64, 96, 128, 192, 256):
        return f"it has no head size {call.head_dim}"
    return None


def _run_fa3(call: AttentionCall) -> Result:
    module = import_module("flash_attn_interface")
    result = module.flash_attn_func(
        call.q, call.k, call.v, softmax_scale=call.scale, return_attn_probs=call.return_lse
    )
    if isinstance(result, tuple):
        return result[0], result[1] if call.return_lse else None
    return result, None


def _heads_first(call: AttentionCall) -> tuple[Tensor, Tensor, Tensor]:
    return call.q.transpose(1, 2), call.k.transpose(1, 2), call.v.transpose(1, 2)


def _result(call: AttentionCall, out: Tensor, lse: Tensor) -> Result:
    """From [B, H, L, D] and an lse whose rows may be padded, with or without a last axis."""
    if not call.return_lse:
        return out.transpose(1, 2), None
    lse = lse[..., 0] if lse.ndim == 4 else lse
    return out.transpose(1, 2), lse[:, :, : call.queries].float()


def _row_refusal(call: AttentionCall) -> str | None:
    """PyTorch's own kernels give NaN for a query without keys; `lengths` may leave one."""
    if call.lengths is not None:
        return "it gives NaN where `lengths` leaves a query no key"
    return None


def _cudnn_refusal(call: AttentionCall) -> str | None:
    refusal = _gpu_refusal(call) or _row_refusal(call)
    if refusal is not None:
        return refusal
    if not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        return "this PyTorch has no cuDNN"
    if torch.cuda.get_device_capability(call.q.device) < (8, 0):
        return "it needs compute capability 8.0"
    if call.head_dim % 8 or call.head_dim > 128:
        return f"it has no head size {call.head_dim}"
    return None


def _run_cudnn(call: AttentionCall) -> Result:
    mask = _expanded_mask(call)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        *_heads_first(call), mask, call.return_lse, 0.0, False, False, scale=call.scale
    )
    return _result(call, out, lse)


def _expanded_mask(call: AttentionCall) -> Tensor | None:
    mask = call.additive_mask()
    if mask is None:
        return None
    return mask.to(call.q.dtype).expand(call.batch, call.heads, call.queries, call.keys)


def _flash_refusal(call: AttentionCall) -> str | None:
    refusal = _gpu_refusal(call) or _mask_refusal(call)
    if refusal is None and (call.head_dim % 8 or call.head_dim > 256):
        return f"it has no head size {call.head_dim}"
    return refusal


def _run_flash(call: AttentionCall) -> Result:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        *_heads_first(call), 0.0, False, False, scale=call.scale
    )
    return _result(call, out, lse)


def _efficient_refusal(call: AttentionCall) -> str | None:
    if call.q.device.type != "cuda":
        return f"it runs on CUDA, the tensors are on {call.q.device.type!r}"
    if call.q.dtype not in (*HALF, torch.float32):
        return f"it has no {_name(call.q.dtype)}"
    if call.differentiates:
        return "it has no backward here, and autograd is recording"
    if call.head_dim % 8:
        return f"it needs a head size that is a multiple of 8, not {call.head_dim}"
    return _row_refusal(call)


def _run_efficient(call: AttentionCall) -> Result:
    mask = call.additive_mask()
    if mask is not None:
        # rows of the mask must be aligned to 8 elements
        padded = mask.new_zeros(*mask.shape[:-1], -(-call.keys // 8) * 8)
        padded[..., : call.keys] = mask
        mask = padded.to(call.q.dtype)[..., : call.keys]
        mask = mask.expand(call.batch, call.heads, call.queries, call.keys)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        *_heads_first(call), mask, call.return_lse, scale=call.scale
    )
    return _result(call, out, lse)


def _sdpa_refusal(call: AttentionCall) -> str | None:
    if call.return_lse and call.q.device.type != "cpu":
        return "scaled_dot_product_attention gives no lse"
    if call.return_lse and call.differentiates:
        return "its lse has no backward, and autograd is recording"
    return _row_refusal(call)


def _run_sdpa(call: AttentionCall) -> Result:
    mask = call.additive_mask()
    mask = None if mask is None else mask.to(call.q.dtype)
    if not call.return_lse:
        out = torch.nn.functional.scaled_dot_product_attention(
            *_heads_first(call), attn_mask=mask, scale=call.scale
        )
        return out.transpose(1, 2), None
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *_heads_first(call), attn_mask=mask, scale=call.scale
    )
    return _result(call, out, lse)


def _triton_refusal(call: AttentionCall) -> str | None:
    refusal = triton_refusal(call.q.device) or _gpu_refusal(call)
    if refusal is None and call.head_dim not in TRITON_HEAD_DIMS:
        return f"it is written for head sizes {TRITON_HEAD_DIMS}, not {call.head_dim}"
    return refusal


def _triton_fp8_refusal(call: AttentionCall) -> str | None:
    refusal = _triton_refusal(call)
    if refusal is None and torch.cuda.get_device_capability(call.q.device) < (8, 9):
        return "fp8 matrix units begin with compute capability 8.9"
    return refusal


@cache
def _launcher() -> Callable[..., Result]:
    # loaded on the first call: a machine without a GPU needs no Triton
    run: Callable[..., Result] = import_module("visavis.kernels.attention.launch").triton_attention
    return run


def _run_triton(call: AttentionCall) -> Result:
    return _launcher()(call)


def _run_triton_fp8(call: AttentionCall) -> Result:
    return _launcher()(call, fp8=True)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# In the order of preference; the later, the slower or the narrower.
BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend("fa3", _fa3_refusal, _run_fa3),
        Backend("cudnn", _cudnn_refusal, _run_cudnn),
        Backend("flash", _flash_refusal, _run_flash),
        Backend("triton", _triton_refusal, _run_triton),
        Backend("efficient", _efficient_refusal, _run_efficient),
        Backend("sdpa", _sdpa_refusal, _run_sdpa),
        Backend("plain", lambda call: None, plain_attention),
        Backend("triton-fp8", _triton_fp8_refusal, _run_triton_fp8, exact=False),
    )
}
# With a mask the others must read a tensor of scores' size that Triton computes from indices.
MASKED_ORDER = ("triton", "cudnn", "efficient", "sdpa", "plain")
