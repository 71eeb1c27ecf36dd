"""The attention entrance on a CPU: equal to the definition, and loud when it must fall back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from visavis.kernels.attention import (
    BACKENDS,
    AttentionShapeError,
    UnknownBackendError,
    attention,
    explain,
)
from visavis.kernels.attention.api import _FAILED, BACKEND_VARIABLE, run_attention
from visavis.kernels.attention.backends import Backend
from visavis.kernels.attention.call import AttentionCall, attention_call
from visavis.kernels.choice import tell_fallback


def tensors(batch: int = 2, queries: int = 5, keys: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, queries, 3, 8, generator=generator),
        torch.randn(batch, keys, 3, 8, generator=generator),
        torch.randn(batch, keys, 3, 8, generator=generator),
    )


def call_of(q: Tensor, k: Tensor, v: Tensor, **options: object) -> AttentionCall:
    values = {"bias": None, "lengths": None, "block": None, "scale": None, "return_lse": False}
    return attention_call(q, k, v, **(values | options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _fresh_messages() -> Iterator[None]:
    tell_fallback.cache_clear()
    yield
    _FAILED.clear()


@pytest.mark.parametrize("backend", ["sdpa", "plain"])
def test_backends_of_a_cpu_agree_with_the_formula(backend: str) -> None:
    q, k, v = tensors()
    bias = torch.linspace(-1, 1, 7)
    out, lse = attention(q, k, v, bias_S=bias, return_lse=True, backend=backend)
    scores = torch.einsum("blhd,bshd->bhls", q, k) / math.sqrt(8) + bias
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    torch.testing.assert_close(out, torch.einsum("bhls,bshd->blhd", scores.softmax(-1), v))


def test_merged_keys_equal_repeated_keys() -> None:
    q, k, v = tensors()
    repeated = [torch.cat([x, x[:, -1:].expand(-1, 9, -1, -1)], dim=1) for x in (k, v)]
    bias = torch.zeros(7)
    bias[-1] = math.log(10)
    torch.testing.assert_close(attention(q, k, v, bias_S=bias), attention(q, *repeated))


def test_parts_merge_exactly_through_their_lse() -> None:
    q, k, v = tensors(keys=11)
    whole, whole_lse = attention(q, k, v, return_lse=True)
    outs, lses = zip(
        *(attention(q, k[:, s], v[:, s], return_lse=True) for s in (slice(4), slice(4, 11))),
        strict=True,
    )
    lse = torch.logaddexp(*lses)
    merged = sum(
        out * (part - lse).exp().transpose(1, 2)[..., None]
        for out, part in zip(outs, lses, strict=True)
    )
    torch.testing.assert_close(lse, whole_lse)
    torch.testing.assert_close(merged, whole)


def test_padding_may_hold_anything_and_no_key_gives_zeros() -> None:
    q, k, v = tensors()
    lengths = torch.tensor([4, 0])
    dirty = [x.clone() for x in (k, v)]
    for x in dirty:
        x[0, 4:] = float("nan")
        x[1] = float("inf")
    out, lse = attention(q, *dirty, lengths=lengths, return_lse=True)
    torch.testing.assert_close(out[:1], attention(q[:1], k[:1, :4], v[:1, :4]))
    assert not out[1].any()
    assert bool((lse[1] == float("-inf")).all())


def test_block_causal_queries_are_the_last_positions() -> None:
    q, k, v = tensors(queries=3, keys=7)
    out = attention(q, k, v, block=3)
    # positions 4, 5, 6: blocks 1, 1 and 2
    torch.testing.assert_close(out[:, :2], attention(q[:, :2], k[:, :6], v[:, :6]))
    torch.testing.assert_close(out[:, 2:], attention(q[:, 2:], k, v))


def test_reference_in_parts_equals_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = tensors(queries=9, keys=9)
    whole = attention(q, k, v, block=2, backend="plain", return_lse=True)
    monkeypatch.setattr("visavis.kernels.attention.reference.SCORES_AT_ONCE", 2 * 3 * 9 * 2)
    parts = attention(q, k, v, block=2, backend="plain", return_lse=True)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_reach_queries_keys_values_and_bias() -> None:
    q, k, v = (x.double().requires_grad_() for x in tensors(1, 3, 4))
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda q, k, v, b: attention(q, k, v, bias_S=b, return_lse=True), (q, k, v, bias)
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bias": torch.zeros(3)}, r"bias_S has shape \(3,\)"),
        ({"lengths": torch.zeros(2)}, "lengths is torch.float32"),
        ({"block": 0}, "block=0"),
        ({"scale": -1.0}, "scale=-1.0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(AttentionShapeError, match=words):
        call_of(*tensors(), **change)


def test_tensors_that_do_not_fit_are_named() -> None:
    q, k, v = tensors()
    for arguments, words in [
        ((q[0], k, v), "q_BLHD has shape"),
        ((q, k.half(), v), "k_BSHD is torch.float16"),
        ((q, k, v[:, :3]), "give each key a value"),
        ((q[:1], k, v), "more than their tokens"),
        ((q[:, :0], k, v), "none empty"),
    ]:
        with pytest.raises(AttentionShapeError, match=words):
            attention(*arguments)
    with pytest.raises(AttentionShapeError, match="at least as many keys"):
        attention(k, q, q, block=2)


def test_a_backend_that_cannot_run_is_replaced_with_one_warning_in_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    q, k, v = tensors()
    for _ in range(3):
        attention(q, k, v, backend="triton")
    (line,) = caplog.records
    fields = vars(line)
    assert (line.levelname, fields["chosen"]) == ("WARNING", "sdpa")
    (reason,) = (text for text in fields["because"] if text.startswith("triton:"))
    assert "Triton compiles for GPUs" in reason
    assert line.getMessage().startswith("kernel fallback: attention by sdpa, because of")
    assert reason in line.getMessage()  # also where no handler shows the fields


def test_nothing_is_said_when_a_cpu_is_asked_for_nothing_special(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attention(*tensors())
    assert caplog.records == []


def test_the_variable_names_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "plain")
    assert explain(call_of(*tensors())) == [("plain", "chosen")]
    monkeypatch.setenv(BACKEND_VARIABLE, "fastest")
    with pytest.raises(UnknownBackendError, match="'fastest' does not exist; choose auto, fa3"):
        attention(*tensors())


def test_explanations_end_with_the_choice() -> None:
    lines = explain(call_of(*tensors()))
    assert [name for name, _ in lines] == [
        "fa3",
        "cudnn",
        "flash",
        "triton",
        "efficient",
        "sdpa",
    ]
    assert lines[-1] == ("sdpa", "chosen")
    assert all(len(reason) > 10 for _, reason in lines[:-1])


def out_of_resources() -> Exception:
    """What Triton says where its tiles do not fit a GPU: not a RuntimeError."""
    errors = pytest.importorskip("triton.runtime.errors", reason="the extra gpu is not installed")
    error = errors.OutOfResources(240_000, 101_376, "shared memory")
    assert isinstance(error, Exception)
    assert not isinstance(error, RuntimeError)
    return error


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RuntimeError("no engine for this shape\nmore"), "no engine for this shape"),
        (out_of_resources, "out of resource: shared memory, Required: 240000"),
    ],
    ids=["PyTorch", "Triton"],
)
def test_a_backend_that_fails_is_tried_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], Exception],
    words: str,
) -> None:
    tries = []

    def fail(call: AttentionCall) -> tuple[Tensor, None]:
        tries.append(call)
        raise make()

    monkeypatch.setitem(BACKENDS, "fa3", Backend("fa3", lambda call: None, fail))
    call = call_of(*tensors())
    first, _ = run_attention(call)
    second, _ = run_attention(call)
    assert len(tries) == 1
    assert torch.equal(first, second)
    (line,) = caplog.records
    assert line.levelname == "ERROR"
    assert line.getMessage().startswith(f"attention backend fa3: it failed: {words}")
    name, reason = explain(call)[0]
    assert (name, reason.startswith(f"it failed: {words}")) == ("fa3", True)


def test_running_out_of_memory_is_not_a_reason_to_fall_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(call: AttentionCall) -> tuple[Tensor, None]:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setitem(BACKENDS, "fa3", Backend("fa3", lambda call: None, fail))
    with pytest.raises(torch.OutOfMemoryError):
        attention(*tensors())


def test_approximations_are_never_chosen_unasked() -> None:
    inexact = {name for name, backend in BACKENDS.items() if not backend.exact}
    assert inexact == {"triton-fp8"}
    for options in ({}, {"bias": torch.zeros(7)}):
        assert not inexact & {name for name, _ in explain(call_of(*tensors(), **options))}
