"""The Triton attention in the interpreter, against the reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from visavis.kernels.attention.call import AttentionCall, attention_call
from visavis.kernels.attention.configs import TileConfig
from visavis.kernels.attention.reference import plain_attention

# The interpreter truncates to bf16 and fp16 when it stores: one unit in the last place.
TOLERANCE = {
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.float16: {"rtol": 2e-3, "atol": 2e-4},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-3},
}


@pytest.fixture(scope="module")
def launch(interpreted: Callable[[str], ModuleType]) -> Any:
    return interpreted("visavis.kernels.attention.launch")


def random_call(
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype = torch.float32,
    *,
    magnitude: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> AttentionCall:
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens: int) -> Tensor:
        x = torch.randn(batch, tokens, heads, head_dim, generator=generator)
        return (x * magnitude).to(dtype)

    values = {"bias": None, "lengths": None, "block": None, "scale": None, "return_lse": True}
    return attention_call(draw(queries), draw(keys), draw(keys), **(values | options))


def assert_equal(launch: Any, call: AttentionCall, **options: Any) -> None:
    out, lse = launch.triton_attention(call, **options)
    wanted, wanted_lse = plain_attention(call)
    tolerance = TOLERANCE[call.q.dtype]
    torch.testing.assert_close(out, wanted, **tolerance)
    assert (lse is None) == (wanted_lse is None)
    if lse is not None and wanted_lse is not None:
        torch.testing.assert_close(lse, wanted_lse, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "head_dim"),
    [(1, 1, 1, 1, 64), (2, 33, 47, 3, 64), (1, 64, 32, 1, 128), (1, 95, 129, 2, 128)],
)
def test_odd_shapes(
    launch: Any,
    batch: int,
    queries: int,
    keys: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
) -> None:
    assert_equal(launch, random_call(batch, queries, keys, heads, head_dim, dtype))


@pytest.mark.parametrize("descriptors", [False, True])
def test_every_option_at_once(launch: Any, descriptors: bool) -> None:
    call = random_call(
        3,
        40,
        61,
        2,
        64,
        bias=torch.randn(3, 61, generator=torch.Generator().manual_seed(2)),
        lengths=torch.tensor([61, 0, 33]),
        block=7,
        scale=0.3,
    )
    config = TileConfig(
        m=16, n=32, num_warps=4, num_stages=1, descriptors=descriptors, specialize=descriptors
    )
    assert_equal(launch, call, config=config)


@pytest.mark.parametrize("descriptors", [False, True])
def test_what_padding_holds_does_not_matter(launch: Any, descriptors: bool) -> None:
    call = random_call(2, 20, 50, 1, 64, lengths=torch.tensor([50, 17]))
    for x in (call.k, call.v):
        x[1, 17:] = float("nan")
    config = TileConfig(
        m=16, n=16, num_warps=4, num_stages=1, descriptors=descriptors, specialize=False
    )
    assert_equal(launch, call, config=config)


def test_scores_that_would_overflow_an_exponential(launch: Any) -> None:
    for magnitude in (1e-4, 30.0, 200.0):
        call = random_call(1, 33, 40, 1, 64, torch.float16, magnitude=magnitude)
        assert_equal(launch, call)


def test_one_key_with_a_bias_stands_for_many(launch: Any) -> None:
    repeated = random_call(1, 20, 41, 2, 64)
    repeated.k[:, 10:] = repeated.k[:, 10:11]
    repeated.v[:, 10:] = repeated.v[:, 10:11]
    bias = torch.zeros(1, 11)
    bias[0, 10] = math.log(31)
    merged = replace(repeated, k=repeated.k[:, :11], v=repeated.v[:, :11], bias=bias)
    for a, b in zip(
        launch.triton_attention(merged), launch.triton_attention(repeated), strict=True
    ):
        torch.testing.assert_close(a, b, **TOLERANCE[torch.float32])


def test_keys_shut_off_by_the_bias(launch: Any) -> None:
    bias = torch.zeros(2, 40)
    bias[0, :35] = float("-inf")
    bias[1] = float("-inf")
    out, lse = launch.triton_attention(random_call(2, 9, 40, 1, 64, bias=bias))
    wanted, wanted_lse = plain_attention(random_call(2, 9, 40, 1, 64, bias=bias))
    torch.testing.assert_close(out, wanted, **TOLERANCE[torch.float32])
    torch.testing.assert_close(lse, wanted_lse, **TOLERANCE[torch.float32])


def test_tensors_with_strides_of_their_own(launch: Any) -> None:
    qkv = torch.randn(2, 30, 3, 2, 64, generator=torch.Generator().manual_seed(4))
    q, k, v = qkv.unbind(2)
    assert_equal(launch, attention_call(q, k, v, None, None, None, None, True))
    heads_first = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert_equal(launch, attention_call(*heads_first, None, None, None, None, True))
    last_axis_apart = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v)]
    assert_equal(launch, attention_call(*last_axis_apart, None, None, None, None, True))


def test_ring_parts_merge_through_their_lse(launch: Any) -> None:
    whole = random_call(1, 30, 70, 2, 64)
    wanted, wanted_lse = launch.triton_attention(whole)
    parts = [
        launch.triton_attention(replace(whole, k=whole.k[:, part], v=whole.v[:, part]))
        for part in (slice(0, 23), slice(23, 70))
    ]
    lse = torch.logaddexp(parts[0][1], parts[1][1])
    merged = sum(out * (one - lse).exp().transpose(1, 2)[..., None] for out, one in parts)
    torch.testing.assert_close(lse, wanted_lse, **TOLERANCE[torch.float32])
    torch.testing.assert_close(merged, wanted, **TOLERANCE[torch.float32])


def test_fp8_is_near_and_its_lse_knows_the_mean(launch: Any) -> None:
    call = random_call(2, 40, 60, 2, 64, torch.bfloat16, lengths=torch.tensor([60, 21]))
    call.k.add_(3.0)  # a common offset must not cost precision
    out, lse = launch.triton_attention(call, fp8=True)
    wanted, wanted_lse = plain_attention(call)
    error = (out.float() - wanted.float()).norm() / wanted.float().norm()
    assert error < 0.08
    assert wanted_lse is not None
    torch.testing.assert_close(lse, wanted_lse, rtol=0.02, atol=0.2)


@pytest.mark.parametrize("magnitude", [1.0, 1e-20])
@pytest.mark.parametrize("keys", [1, 40])
def test_fp8_of_keys_that_are_all_alike(launch: Any, keys: int, magnitude: float) -> None:
    """Without their mean they are zeros, whose scale must not become one."""
    call = random_call(1, 9, keys, 2, 64, torch.bfloat16, magnitude=0.1)
    call.q.mul_(magnitude)
    call.k.copy_(call.k[:, :1].expand_as(call.k).clone())
    out, lse = launch.triton_attention(call, fp8=True)
    wanted, wanted_lse = plain_attention(call)
    torch.testing.assert_close(out, wanted, **TOLERANCE[torch.bfloat16])
    assert wanted_lse is not None
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-4, atol=1e-4)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    queries=st.integers(1, 50),
    keys=st.integers(1, 70),
    heads=st.integers(1, 2),
    head_dim=st.sampled_from([64, 128]),
    length=st.none() | st.integers(0, 70),
    magnitude=st.sampled_from([1e-20, 0.01, 1.0, 30.0, 1e4]),
    offset=st.sampled_from([0.0, 3.0, 50.0]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_fp8_of_any_shape_and_size(
    launch: Any,
    queries: int,
    keys: int,
    heads: int,
    head_dim: int,
    length: int | None,
    magnitude: float,
    offset: float,
    dtype: torch.dtype,
) -> None:
    """A mean of the values that are seen, and near the exact one where scores are as in use."""
    lengths = None if length is None else torch.tensor([min(length, keys)])
    call = random_call(1, queries, keys, heads, head_dim, dtype, lengths=lengths)
    call.q.mul_(magnitude)
    call.k.add_(offset)
    if lengths is not None:
        call.k[:, lengths[0] :], call.v[:, lengths[0] :] = float("nan"), float("nan")
    out, lse = launch.triton_attention(call, fp8=True)
    seen = call.v[:, : keys if lengths is None else int(lengths[0])].float()
    if seen.shape[1] == 0:
        assert not out.any()
        assert (lse == float("-inf")).all()
        return
    assert lse.isfinite().all()
    slack = 2 * torch.finfo(dtype).eps * seen.abs().amax(1)
    assert (out.float() <= seen.amax(1)[:, None] + slack[:, None]).all()
    assert (out.float() >= seen.amin(1)[:, None] - slack[:, None]).all()
    if magnitude <= 1:
        wanted, _ = plain_attention(call)
        assert (out.float() - wanted.float()).norm() <= 0.08 * wanted.float().norm()


def assert_exact_up_to_rounded_scores(launch: Any, call: AttentionCall, **options: Any) -> None:
    """For scores in the hundreds, whose rounding alone moves the softmax beyond any fixed bound.

    The truth is float64. A score that is off by d moves the output by w d (v - out) in first
    order, and the logarithm of the sum by d; float32 rounds scores to `eps` of their size, and each
    product of theirs to `eps` of its own, however small their sum.
    """
    wide = replace(call, q=call.q.double(), k=call.k.double(), v=call.v.double(), return_lse=True)
    exact, exact_lse = plain_attention(wide)
    assert exact_lse is not None
    q, k, v = (x.transpose(1, 2) for x in (wide.q, wide.k, wide.v))
    scores = (q @ k.transpose(-1, -2)) * call.scale
    mask = call.additive_mask()
    seen = scores if mask is None else scores + mask.double()
    weights = (seen - exact_lse.double().clamp_min(-1e300)[..., None]).exp()
    centred = (v[:, :, None] - exact.transpose(1, 2)[..., None, :]).abs()
    condition = torch.einsum("bhls,bhlsd->blhd", weights, centred)
    size = scores.abs().amax(dim=-1).transpose(1, 2)[..., None]
    tolerance = TOLERANCE[torch.float32]
    allowed = tolerance["atol"] + tolerance["rtol"] * exact.abs()
    allowed = allowed + 4 * torch.finfo(torch.float32).eps * size * condition
    out, lse = launch.triton_attention(call, **options)
    assert ((out.double() - exact).abs() <= allowed).all()
    assert (lse is None) != call.return_lse
    if lse is not None:
        products = ((q.abs() @ k.abs().transpose(-1, -2)) * call.scale).amax(dim=-1)
        near = tolerance["atol"] + tolerance["rtol"] * exact_lse.abs()
        near = near + 4 * torch.finfo(torch.float32).eps * products
        same = lse.double() == exact_lse  # where nothing is seen, both are the same infinity
        assert (same | ((lse.double() - exact_lse).abs() <= near)).all()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_shape_and_option(launch: Any, data: st.DataObject) -> None:
    batch, heads = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    keys = data.draw(st.integers(1, 160), "keys")
    block = data.draw(st.none() | st.integers(1, 40), "block")
    queries = data.draw(st.integers(1, keys if block else 100), "queries")
    lengths = data.draw(
        st.none() | st.lists(st.integers(0, keys), min_size=batch, max_size=batch), "lengths"
    )
    bias = None
    if data.draw(st.booleans(), "bias"):
        bias = torch.randn(batch, keys, generator=torch.Generator().manual_seed(keys)) * 5
    config = TileConfig(
        m=data.draw(st.sampled_from([16, 32, 64])),
        n=data.draw(st.sampled_from([16, 32, 64])),
        num_warps=4,
        num_stages=1,
        descriptors=data.draw(st.booleans()),
        specialize=False,
    )
    magnitude = data.draw(st.sampled_from([0.01, 1.0, 20.0]))
    call = random_call(
        batch,
        queries,
        keys,
        heads,
        data.draw(st.sampled_from([32, 64, 128])),
        magnitude=magnitude,
        seed=data.draw(st.integers(0, 99)),
        lengths=None if lengths is None else torch.tensor(lengths),
        bias=bias,
        block=block,
        return_lse=data.draw(st.booleans()),
    )
    if magnitude > 1:
        assert_exact_up_to_rounded_scores(launch, call, config=config)
    else:
        assert_equal(launch, call, config=config)
