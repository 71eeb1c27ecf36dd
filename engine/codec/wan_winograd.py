"""Filters of 3 taps with half the multiplications (Winograd's minimal filtering).

m outputs of a 3-tap filter are the products of two polynomials, and m + 2 values determine them:
F(4, 3) needs 6 products of line and kernel instead of 12, F(2, 3) needs 4 instead of 6 (Winograd,
"Arithmetic complexity of computations", 1980, section III; Lavin and Gray, arXiv 1509.09308). Here
"line" is whatever a tap slides over (a frame of a video, a row of a picture) and "product" a
convolution over its other axes, so that the transforms are a few sums of tensors. The points 0,
3/4, -3/4, 3/2, -3/2 and infinity are exact in binary and lose half as much to rounding as the usual
0, 1, -1, 2, -2: measured 2.1 times the error of the plain sum.

Equations, with d the lines and p a point: slot(p) = coefficients of M(x) / (x - p), kernel(p) =
(g0 + p g1 + p^2 g2) c(p) / M'(p), output k = sum over p of p^k / c(p) slot(p) * kernel(p). The
scales c are |p| for the near points and p^2 for the far, which saves two of twelve sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NEAR, FAR = 0.75, 1.5
_NEAR2, _FAR2 = NEAR * NEAR, FAR * FAR
TAPS = 3
PAST = TAPS - 1
"""Lines before an output's own that it depends on."""

SLOTS = {2: 4, 4: 6}
"""Products for that many outputs."""


def kernel_transform(outputs: int) -> Tensor:
    """[slots, 3] in float64: kernels of the slots from the taps."""
    if outputs == 2:
        rows = [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
        return torch.tensor(rows, dtype=torch.float64)
    rows = [[1 / (_NEAR2 * _FAR2), 0, 0]]
    for point, scale in (
        (NEAR, 2 * NEAR * (_NEAR2 - _FAR2)),
        (FAR, 2 * (_FAR2 - _NEAR2)),
    ):
        rows += [[1 / scale, sign * point / scale, point * point / scale] for sign in (1, -1)]
    rows.append([0, 0, 1])
    return torch.tensor(rows, dtype=torch.float64)


def bias_transform(outputs: int) -> Tensor:
    """[slots] in float64: how much of the bias each product takes so that all outputs get it."""
    if outputs == 2:
        return torch.tensor([0, 1, 0, 0], dtype=torch.float64)
    inverse = 1 / NEAR
    shares = [1 - inverse * inverse, (inverse + 1) / 2, (inverse - 1) / 2, 0, 0, 1 - _NEAR2]
    return torch.tensor(shares, dtype=torch.float64)


def split_lines(lines: Sequence[Tensor], slots: Sequence[Tensor], work: Sequence[Tensor]) -> None:
    """Fill the slots from outputs + 2 lines; `work`: two tensors of a line's shape."""
    d, s = lines, slots
    if len(d) == 4:
        torch.sub(d[0], d[2], out=s[0])
        torch.add(d[2], d[1], out=s[1])
        torch.sub(d[2], d[1], out=s[2])
        torch.sub(d[3], d[1], out=s[3])
        return
    even, odd = work
    torch.sub(d[4], d[2], alpha=_FAR2, out=even)
    torch.sub(d[3], d[1], alpha=_FAR2, out=odd)
    torch.add(even, odd, alpha=NEAR, out=s[1])
    torch.sub(even, odd, alpha=NEAR, out=s[2])
    torch.sub(d[2], d[0], alpha=_FAR2, out=s[0])
    torch.sub(even, s[0], alpha=_NEAR2, out=s[0])
    torch.sub(d[5], d[3], alpha=_FAR2, out=s[5])
    torch.sub(s[5], odd, alpha=_NEAR2, out=s[5])
    torch.sub(d[4], d[2], alpha=_NEAR2, out=even)
    torch.sub(d[3], d[1], alpha=_NEAR2, out=odd)
    torch.add(even, odd, alpha=FAR, out=s[3])
    torch.sub(even, odd, alpha=FAR, out=s[4])


def merge_products(products: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Write the output lines; the products are used up as work space."""
    m, y = products, outputs
    if len(y) == 2:
        torch.add(m[0], m[1], out=y[0])
        y[0].add_(m[2])
        torch.sub(m[1], m[2], out=y[1])
        y[1].add_(m[3])
        return
    torch.sub(m[1], m[2], out=y[1])
    torch.sub(m[3], m[4], out=y[3])
    near, far = m[1].add_(m[2]), m[3].add_(m[4])
    torch.add(m[0], near, alpha=1 / NEAR, out=y[0])
    y[0].add_(far, alpha=1 / _FAR2)
    torch.add(far, near, alpha=NEAR, out=y[2])
    m[5].add_(y[1], alpha=_NEAR2)
    y[1].add_(y[3], alpha=1 / FAR)
    torch.add(m[5], y[3], alpha=FAR, out=y[3])
