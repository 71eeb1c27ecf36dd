"""RMS norm and rotary positions: the Triton kernel on a GPU, else the reference.

Letters: B batch, N tokens, W width of all heads, H heads, D head size, R = D / 2.
"""

from __future__ import annotations

from torch import Tensor

from visavis.kernels.choice import triton_or_reference
from visavis.kernels.norm_rope.reference import plain_rms_norm, plain_rms_norm_rotate


def rms_norm(x_BNW: Tensor, weight_W: Tensor, eps: float) -> Tensor:
    """x / √(mean(x²) + eps) * weight over the last axis, in the dtype of x.

    The quotient is rounded to the dtype of x before the weight is applied.
    """

    def fast() -> Tensor:
        import visavis.kernels.norm_rope.launch as launch  # needs Triton

        return launch.rms_norm(x_BNW, weight_W, eps)

    def plain() -> Tensor:
        return plain_rms_norm(x_BNW, weight_W, eps)

    return triton_or_reference("rms_norm", (x_BNW, weight_W), fast, plain)


def rms_norm_rotate(
    x_BNW: Tensor, weight_W: Tensor, eps: float, heads: int, cos_NR: Tensor, sin_NR: Tensor
) -> Tensor:
    """`rms_norm`, then each head's channel pairs (2r, 2r + 1) turned -> [B, N, H, D].

    Args:
        cos_NR: float32 [N, R], and `sin_NR`: the angles of token n and pair r.
    """

    def fast() -> Tensor:
        import visavis.kernels.norm_rope.launch as launch  # needs Triton

        return launch.rms_norm_rotate(x_BNW, weight_W, eps, heads, cos_NR, sin_NR)

    def plain() -> Tensor:
        return plain_rms_norm_rotate(x_BNW, weight_W, eps, heads, cos_NR, sin_NR)

    return triton_or_reference("rms_norm_rotate", (x_BNW, weight_W), fast, plain)


def rms_norm_rope(
    q_BNW: Tensor,
    k_BNW: Tensor,
    weight_q_W: Tensor,
    weight_k_W: Tensor,
    eps: float,
    heads: int,
    cos_NR: Tensor,
    sin_NR: Tensor,
) -> tuple[Tensor, Tensor]:
    """`rms_norm_rotate` of queries and keys of the same tokens, in one launch -> [B, N, H, D] each.

    Raises:
        ValueError: q and k of different shapes.
    """
    if q_BNW.shape != k_BNW.shape:
        raise ValueError(
            f"q_BNW {tuple(q_BNW.shape)} and k_BNW {tuple(k_BNW.shape)} differ; "
            "use rms_norm_rotate for each"
        )

    def fast() -> tuple[Tensor, Tensor]:
        import visavis.kernels.norm_rope.launch as launch  # needs Triton

        return launch.rms_norm_rope(
            q_BNW, k_BNW, weight_q_W, weight_k_W, eps, heads, cos_NR, sin_NR
        )

    def plain() -> tuple[Tensor, Tensor]:
        return (
            plain_rms_norm_rotate(q_BNW, weight_q_W, eps, heads, cos_NR, sin_NR),
            plain_rms_norm_rotate(k_BNW, weight_k_W, eps, heads, cos_NR, sin_NR),
        )

    tensors = q_BNW, k_BNW, weight_q_W, weight_k_W
    return triton_or_reference("rms_norm_rope", tensors, fast, plain)
