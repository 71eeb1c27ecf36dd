"""`attention`: one entrance, the fastest backend that can serve the call.

Letters: B batch, L queries, S keys, H heads, D head size.
"""

from __future__ import annotations

import os
from typing import Literal, overload

import torch
from torch import Tensor

from visavis.kernels.attention.backends import BACKENDS, MASKED_ORDER, Result
from visavis.kernels.attention.call import AttentionCall, attention_call
from visavis.kernels.choice import log, tell_fallback

BACKEND_VARIABLE = "VISAVIS_ATTENTION"


class UnknownBackendError(ValueError):
    """A backend's name that does not exist."""


@overload
def attention(
    q_BLHD: Tensor,
    k_BSHD: Tensor,
    v_BSHD: Tensor,
    *,
    bias_S: Tensor | None = None,
    lengths: Tensor | None = None,
    block: int | None = None,
    scale: float | None = None,
    return_lse: Literal[False] = False,
    backend: str = "auto",
) -> Tensor: ...


@overload
def attention(
    q_BLHD: Tensor,
    k_BSHD: Tensor,
    v_BSHD: Tensor,
    *,
    bias_S: Tensor | None = None,
    lengths: Tensor | None = None,
    block: int | None = None,
    scale: float | None = None,
    return_lse: Literal[True],
    backend: str = "auto",
) -> tuple[Tensor, Tensor]: ...


def attention(
    q_BLHD: Tensor,
    k_BSHD: Tensor,
    v_BSHD: Tensor,
    *,
    bias_S: Tensor | None = None,
    lengths: Tensor | None = None,
    block: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """softmax(q kᵀ * scale + bias) v -> [B, L, H, D] in the dtype of q.

    Args:
        q_BLHD: queries; float32, float16 or bfloat16 (float64 on a CPU).
        k_BSHD: keys.
        v_BSHD: values.
        bias_S: [S] or [B, S], added to a key's every score: log(n) makes one key stand for n
            equal ones, -inf shuts it off (its value must still be finite).
        lengths: integers [B]; keys at or past it are padding and may hold anything.
        block: block-causal attention in blocks of so many positions, the queries being the last
            positions: each sees its own block and those before. None: every key.
        scale: of the scores; None: 1 / √D.
        return_lse: also give log(sum(exp(scores))), float32 [B, H, L], -inf where a query sees
            no key (its output is zeros). Parts over disjoint keys merge exactly with it.
        backend: a name of `BACKENDS`, or `auto`: the variable VISAVIS_ATTENTION if it is set,
            else the fastest exact one. One that cannot serve the call is replaced, with a
            warning that says why.

    Raises:
        AttentionShapeError: tensors that do not fit together.
        UnknownBackendError: a name that is not in `BACKENDS`.
    """
    call = attention_call(q_BLHD, k_BSHD, v_BSHD, bias_S, lengths, block, scale, return_lse)
    out, lse = run_attention(call, backend)
    if not return_lse:
        return out
    assert lse is not None  # every backend gives it when the call wants it
    return out, lse


def run_attention(call: AttentionCall, backend: str = "auto") -> Result:
    """Serve a call with the first backend of its order that neither refuses nor fails."""
    refusals: list[tuple[str, str]] = []
    for name in backend_order(call, backend):
        candidate = BACKENDS[name]
        reason = _FAILED.get((name, _kind(call))) or candidate.refusal(call)
        if reason is not None:
            refusals.append((name, reason))
            continue
        try:
            result = candidate.run(call)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Triton's own, such as OutOfResources, are no RuntimeErrors
            if name == "plain":
                raise
            reason = f"it failed: {(str(error) or type(error).__name__).splitlines()[0]}"
            _FAILED[name, _kind(call)] = reason
            log.error(
                "attention backend %s: %s",
                name,
                reason,
                extra={"backend": name, "reason": reason},
            )
            refusals.append((name, reason))
            continue
        _tell(call, backend, name, refusals)
        return result
    raise AssertionError("plain refuses nothing")


def explain(call: AttentionCall, backend: str = "auto") -> list[tuple[str, str]]:
    """(name, "chosen" or why not) in the order of preference, up to the one that is chosen."""
    lines = []
    for name in backend_order(call, backend):
        reason = _FAILED.get((name, _kind(call))) or BACKENDS[name].refusal(call)
        lines.append((name, reason or "chosen"))
        if reason is None:
            break
    return lines


def backend_order(call: AttentionCall, backend: str) -> list[str]:
    """Names to try, the wanted one first.

    Raises:
        UnknownBackendError: a name that is not in `BACKENDS`.
    """
    if backend == "auto":
        backend = os.environ.get(BACKEND_VARIABLE, "auto")
    order = MASKED_ORDER if call.masked else tuple(n for n, b in BACKENDS.items() if b.exact)
    if backend == "auto":
        return list(order)
    if backend not in BACKENDS:
        raise UnknownBackendError(
            f"backend={backend!r} does not exist; choose auto, {', '.join(BACKENDS)}"
        )
    return [backend, *(name for name in order if name != backend)]


# What failed once at run time fails again, and costs a try each call.
_FAILED: dict[tuple[str, tuple[object, ...]], str] = {}


def _kind(call: AttentionCall) -> tuple[object, ...]:
    return call.q.device.type, call.q.dtype, call.head_dim, call.masked, call.return_lse


def _tell(call: AttentionCall, wanted: str, chosen: str, refusals: list[tuple[str, str]]) -> None:
    wanted = os.environ.get(BACKEND_VARIABLE, "auto") if wanted == "auto" else wanted
    # On a CPU, or while training, the GPU's backends are not missed; an unfused softmax on a GPU,
    # or another than the one asked for, is.
    missed = (
        chosen != wanted
        if wanted != "auto"
        else (
            call.q.device.type == "cuda"
            and not call.differentiates
            and chosen in ("efficient", "sdpa", "plain")
        )
    )
    if missed:
        tell_fallback("attention", chosen, tuple(refusals))
