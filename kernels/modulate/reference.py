"""Layer norm, modulation and the gated residual in plain PyTorch.

Letters: B batch, N tokens, W width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def plain_layer_norm(
    x_BNW: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> Tensor:
    """(x - mean) / √(var + eps) * weight + bias in float32, rounded once to `dtype`.

    `weight` and `bias` are [W], or [B, 1, W] where the noise level modulates (arXiv 2212.09748
    section 3.2, adaLN).
    """
    x = _wide(x_BNW)
    if weight.ndim == 1:
        return F.layer_norm(x, weight.shape, _wide(weight), _wide(bias), eps).to(dtype)
    return (F.layer_norm(x, x.shape[-1:], eps=eps) * weight + bias).to(dtype)


def plain_gated_residual(x_BNW: Tensor, h_BNW: Tensor, gate: Tensor | None) -> Tensor:
    """x + h * gate, rounded once to the dtype of x; no gate means 1."""
    if gate is None:
        return x_BNW + h_BNW.to(x_BNW.dtype)
    return (x_BNW + h_BNW * gate).to(x_BNW.dtype)
