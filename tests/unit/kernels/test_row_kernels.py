"""The kernels that take a row a program, in the interpreter and against their references."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.dit import fused
from visavis.kernels.modulate import (
    gated_residual,
    gated_residual_layer_norm,
    layer_norm,
    layer_norm_modulate,
)
from visavis.kernels.norm_rope import rms_norm, rms_norm_rope, rms_norm_rotate
from visavis.kernels.rows import RowWidthError, padded_width

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EPS = 1e-6
PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Up to two truncations where a GPU (and the reference) round to nearest."""
    if dtype == torch.float32:
        return {"rtol": 1e-5, "atol": 1e-5}
    step = torch.finfo(dtype).eps
    return {"rtol": 3 * step, "atol": 3 * step}


@pytest.fixture(scope="module")
def norm_rope(interpreted: Callable[[str], ModuleType]) -> Any:
    return interpreted("visavis.kernels.norm_rope.launch")


@pytest.fixture(scope="module")
def modulate(interpreted: Callable[[str], ModuleType]) -> Any:
    return interpreted("visavis.kernels.modulate.launch")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tables(tokens: int, pairs: int) -> tuple[Tensor, Tensor]:
    angles = normal(tokens, pairs, seed=9) * 3
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "size"), [(1, 4), (3, 8), (5, 64), (2, 128)])
def test_norm_and_rotation_of_queries_and_keys(
    norm_rope: Any, heads: int, size: int, dtype: torch.dtype
) -> None:
    q, k = (normal(2, 7, heads * size, seed=i, dtype=dtype) for i in range(2))
    weights = [normal(heads * size, seed=i, dtype=dtype) for i in range(2, 4)]
    arguments = (q, k, *weights, EPS, heads, *tables(7, size // 2))
    for got, wanted in zip(
        norm_rope.rms_norm_rope(*arguments), rms_norm_rope(*arguments), strict=True
    ):
        assert got.shape == (2, 7, heads, size)
        # a rotation mixes two channels: the absolute error is that of the larger
        assert (got - wanted).abs().max() <= 4 * tolerance(dtype)["atol"] * wanted.abs().max()


@PROPERTY
@given(
    width=st.integers(1, 300),
    rows=st.integers(1, 3),
    exponent=st.integers(-12, 12),
    dtype=st.sampled_from(DTYPES[::2]),
)
def test_norm_of_any_width_and_size(
    norm_rope: Any, width: int, rows: int, exponent: int, dtype: torch.dtype
) -> None:
    x = (normal(1, rows, width) * 10.0**exponent).to(dtype)
    weight = normal(width, seed=1, dtype=dtype)
    torch.testing.assert_close(
        norm_rope.rms_norm(x, weight, EPS), rms_norm(x, weight, EPS), **tolerance(dtype)
    )


def test_a_row_of_zeros_stays_zeros(norm_rope: Any, modulate: Any) -> None:
    x = torch.zeros(1, 2, 24)
    assert not norm_rope.rms_norm(x, torch.ones(24), EPS).any()
    assert torch.equal(
        modulate.layer_norm(x, torch.ones(24), torch.full((24,), 2.0), EPS, torch.float32),
        torch.full((1, 2, 24), 2.0),
    )


def test_head_sizes_and_tables_without_a_kernel_take_the_reference(norm_rope: Any) -> None:
    x, weight = normal(2, 5, 36), normal(36, seed=1)
    shared, per_sample = tables(5, 6), tables(10, 6)
    for cos, sin in (shared, [table.view(2, 5, 6) for table in per_sample]):
        assert torch.equal(
            norm_rope.rms_norm_rotate(x, weight, EPS, 3, cos, sin),
            rms_norm_rotate(x, weight, EPS, 3, cos, sin),
        )


@PROPERTY
@given(
    width=st.integers(1, 300),
    batch=st.integers(1, 3),
    offset=st.sampled_from([0.0, 100.0, -3000.0]),
    modulated=st.booleans(),
    dtype=st.sampled_from(DTYPES),
)
def test_layer_norm_of_any_width_and_offset(
    modulate: Any, width: int, batch: int, offset: float, modulated: bool, dtype: torch.dtype
) -> None:
    x = normal(batch, 3, width) + offset
    shape = (batch, 1, width) if modulated else (width,)
    weight, bias = normal(*shape, seed=1), normal(*shape, seed=2)
    got = modulate.layer_norm(x, weight, bias, EPS, dtype)
    wanted = layer_norm(x.double(), weight.double(), bias.double(), EPS, torch.float64)
    # float32 rows of this offset hold the deviations to about offset * 6e-8
    slack = 1e-4 * abs(offset) / 100 * max(1, 10 / width)
    bound = tolerance(dtype)
    torch.testing.assert_close(
        got.double(), wanted, rtol=bound["rtol"], atol=bound["atol"] + 3 * slack
    )


@pytest.mark.parametrize("x_dtype", DTYPES)
@pytest.mark.parametrize("h_dtype", DTYPES)
@pytest.mark.parametrize("gate_shape", [None, (3, 1, 50), (50,)])
def test_residual_and_what_follows_it(
    modulate: Any, x_dtype: torch.dtype, h_dtype: torch.dtype, gate_shape: tuple[int, ...] | None
) -> None:
    x, h = normal(3, 4, 50, dtype=x_dtype), normal(3, 4, 50, seed=1, dtype=h_dtype)
    gate = None if gate_shape is None else normal(*gate_shape, seed=2)
    wanted = gated_residual(x, h, gate)
    torch.testing.assert_close(modulate.gated_residual(x, h, gate), wanted, **tolerance(x_dtype))

    affine = (normal(3, 1, 50, seed=3), normal(3, 1, 50, seed=4), EPS, torch.bfloat16)
    added, normed = modulate.gated_residual_layer_norm(x, h, gate, *affine)
    torch.testing.assert_close(added, wanted, **tolerance(x_dtype))
    torch.testing.assert_close(normed, layer_norm(added, *affine), **tolerance(torch.bfloat16))
    both = gated_residual_layer_norm(x, h, gate, *affine)
    assert torch.equal(both[0], wanted)
    assert torch.equal(both[1], layer_norm(wanted, *affine))


@PROPERTY
@given(
    heads=st.integers(1, 5),
    size=st.sampled_from([4, 8, 32, 64, 128]),
    tokens=st.integers(1, 4),
    batch=st.integers(1, 2),
    exponent=st.integers(-12, 12),
    dtype=st.sampled_from(DTYPES[::2]),
)
def test_pairs_of_any_size_are_turned(
    norm_rope: Any,
    heads: int,
    size: int,
    tokens: int,
    batch: int,
    exponent: int,
    dtype: torch.dtype,
) -> None:
    shape = batch, tokens, heads * size
    q, k = ((normal(*shape, seed=i) * 10.0**exponent).to(dtype) for i in range(2))
    weights = [normal(heads * size, seed=i, dtype=dtype) for i in range(2, 4)]
    cos, sin = tables(tokens, size // 2)
    together = norm_rope.rms_norm_rope(q, k, *weights, EPS, heads, cos, sin)
    for x, weight, got in zip((q, k), weights, together, strict=True):
        # a channel's error is that of its pair, which may be larger than itself
        wanted = rms_norm_rotate(x.double(), weight.double(), EPS, heads, cos, sin)
        pair = wanted.unflatten(-1, (-1, 2)).norm(dim=-1, keepdim=True)
        error = (got.double() - wanted).unflatten(-1, (-1, 2)).abs()
        assert (error <= 2 * tolerance(dtype)["rtol"] * pair + 1e-30).all()
        alone = norm_rope.rms_norm_rotate(x, weight, EPS, heads, cos, sin)
        assert torch.equal(alone, got)


@PROPERTY
@given(
    width=st.integers(1, 300),
    batch=st.integers(1, 2),
    tokens=st.integers(1, 3),
    gate=st.sampled_from([None, "one", "each"]),
    exponents=st.tuples(st.integers(-6, 6), st.integers(-6, 6)),
    cancels=st.booleans(),
    dtypes=st.tuples(st.sampled_from(DTYPES[::2]), st.sampled_from(DTYPES[::2])),
)
def test_residual_of_any_width_and_size(
    modulate: Any,
    width: int,
    batch: int,
    tokens: int,
    gate: str | None,
    exponents: tuple[int, int],
    cancels: bool,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> None:
    shape = batch, tokens, width
    x, h = (
        (normal(*shape, seed=i) * 10.0**exponent).to(dtype)
        for i, (exponent, dtype) in enumerate(zip(exponents, dtypes, strict=True))
    )
    if cancels:
        x = -h.to(x.dtype)
    scale = {None: None, "one": normal(width, seed=2), "each": normal(batch, 1, width, seed=2)}[
        gate
    ]
    affine = normal(batch, 1, width, seed=3), normal(batch, 1, width, seed=4)
    added, normed = modulate.gated_residual_layer_norm(x, h, scale, *affine, EPS, torch.float32)
    assert torch.equal(modulate.gated_residual(x, h, scale), added)
    part = h.double() if scale is None else h.double() * scale.double()
    allowed = tolerance(x.dtype)["rtol"] * (x.double().abs() + part.abs())
    assert ((added.double() - (x.double() + part)).abs() <= allowed + 1e-30).all()

    weight, bias = (a.double() for a in affine)
    wanted = layer_norm(added.double(), weight, bias, EPS, torch.float64)
    # float32 holds a row's mean to a few units of its largest element
    row = added.double()
    deviation = (row.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    lost = 8e-7 * row.abs().amax(-1, keepdim=True) / deviation * weight.abs()
    bound = tolerance(torch.float32)
    near = bound["atol"] + bound["rtol"] * wanted.abs() + lost
    assert ((normed.double() - wanted).abs() <= near).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_references_round_where_the_transformer_does(dtype: torch.dtype) -> None:
    x, weight = normal(2, 6, 32, dtype=dtype), normal(32, seed=1, dtype=dtype)
    cos, sin = tables(6, 4)
    scale, shift = normal(2, 1, 32, seed=2), normal(2, 1, 32, seed=3)
    h, gate = normal(2, 6, 32, seed=4, dtype=dtype), normal(2, 1, 32, seed=5)
    with torch.enable_grad():  # so that the transformer takes its plain path
        assert torch.equal(rms_norm(x, weight, EPS), fused.rms_norm(x, weight, EPS))
        assert torch.equal(
            rms_norm_rotate(x, weight, EPS, 4, cos, sin),
            fused.rms_norm_rotate(x, weight, EPS, 4, cos, sin),
        )
        assert torch.equal(
            layer_norm_modulate(x, scale, shift, EPS),
            fused.layer_norm(x, 1 + scale, shift, EPS, dtype),
        )
        for g in (gate, None):
            assert torch.equal(gated_residual(x, h, g), fused.add_gated(x, h, g))
            joined = fused.add_gated_norm(x, h, g, 1 + scale, shift, EPS, dtype)
            assert torch.equal(joined[0], fused.add_gated(x, h, g))
            assert torch.equal(joined[1], fused.layer_norm(joined[0], 1 + scale, shift, EPS, dtype))
        both = fused.rms_norm_rotate_both(x, h, weight, 2 * weight, EPS, 4, cos, sin)
        for one, source, scaled in zip(both, (x, h), (weight, 2 * weight), strict=True):
            assert torch.equal(one, fused.rms_norm_rotate(source, scaled, EPS, 4, cos, sin))


def test_references_differentiate() -> None:
    x, h = (normal(1, 3, 8, seed=i).double().requires_grad_() for i in range(2))
    w, g = (normal(8, seed=i).double().requires_grad_() for i in range(2, 4))
    cos, sin = (table.double() for table in tables(3, 2))
    assert torch.autograd.gradcheck(
        lambda x, w: rms_norm_rope(x, x * 2, w, w, EPS, 2, cos, sin), (x, w)
    )
    assert torch.autograd.gradcheck(
        lambda x, h, g, w: gated_residual_layer_norm(x, h, g, w, w, EPS, torch.float64),
        (x, h, g, w),
    )


def test_queries_and_keys_of_different_tokens_are_refused() -> None:
    x, y, w = normal(1, 3, 8), normal(1, 4, 8), torch.ones(8)
    with pytest.raises(ValueError, match="use rms_norm_rotate for each"):
        rms_norm_rope(x, y, w, w, EPS, 2, *tables(3, 2))


def test_a_row_too_wide_for_a_program_is_named() -> None:
    assert padded_width(5120) == 8192
    with pytest.raises(RowWidthError, match="width=40000"):
        padded_width(40000)
