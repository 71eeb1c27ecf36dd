"""The kernels between the products say so where the reference has to serve in their place.

Tensors without values stand for those of a GPU. On a CPU the reference is at home: nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from visavis.kernels import choice
from visavis.kernels.modulate import gated_residual, gated_residual_layer_norm, layer_norm
from visavis.kernels.norm_rope import rms_norm, rms_norm_rope, rms_norm_rotate

EPS = 1e-6
HEADS, SIZE, TOKENS = 2, 8, 3
WIDTH = HEADS * SIZE


@pytest.fixture(autouse=True)
def _fresh_messages() -> Iterator[None]:
    choice.tell_fallback.cache_clear()
    yield
    choice.tell_fallback.cache_clear()
    choice._FAILED.clear()


def calls(device: str) -> dict[str, Callable[[], object]]:
    """Every operation, by the name that its messages have."""
    x, h = (torch.ones(1, TOKENS, WIDTH, device=device) for _ in range(2))
    w = torch.ones(WIDTH, device=device)
    cos, sin = (torch.ones(TOKENS, SIZE // 2, device=device) for _ in range(2))
    return {
        "rms_norm": lambda: rms_norm(x, w, EPS),
        "rms_norm_rotate": lambda: rms_norm_rotate(x, w, EPS, HEADS, cos, sin),
        "rms_norm_rope": lambda: rms_norm_rope(x, h, w, w, EPS, HEADS, cos, sin),
        "layer_norm": lambda: layer_norm(x, w, w, EPS, torch.float32),
        "gated_residual": lambda: gated_residual(x, h, w),
        "gated_residual_layer_norm": lambda: gated_residual_layer_norm(
            x, h, w, w, w, EPS, torch.float32
        ),
    }


OPERATIONS = tuple(calls("cpu"))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_device_without_triton_is_told_about_once(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    call = calls("meta")[operation]
    for _ in range(3):
        call()
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    said = line.getMessage()
    assert said.startswith(f"kernel fallback: {operation} by reference, because of triton: ")
    assert "Triton compiles for GPUs" in said


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_kernel_that_does_not_compile_is_tried_once_and_told(
    operation: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = broken_kernels(monkeypatch, ValueError("no assembler\nmore"))
    call = calls("meta")[operation]
    shapes = [_shapes(call()) for _ in range(3)]
    assert len(tries) == 1
    assert shapes == [_shapes(calls("cpu")[operation]())] * 3
    (line,) = caplog.records
    assert line.getMessage() == (
        f"kernel fallback: {operation} by reference, because of triton: it failed: no assembler"
    )


def test_running_out_of_memory_is_not_a_reason_to_fall_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = broken_kernels(monkeypatch, torch.OutOfMemoryError("full"))
    for call in calls("meta").values():
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError):
                call()
    assert len(tries) == 2 * len(OPERATIONS)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_said_where_the_reference_is_at_home(
    training: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if training:
        x = torch.ones(1, TOKENS, WIDTH, device="meta", requires_grad=True)
        gated_residual(x, x, None)
    else:
        for call in calls("cpu").values():
            call()
    assert caplog.records == []


def test_head_sizes_and_tables_without_a_kernel_are_named(
    interpreted: Callable[[str], ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    launch: Any = interpreted("visavis.kernels.norm_rope.launch")
    x, w = torch.ones(2, TOKENS, 24), torch.ones(24)
    table = torch.ones(TOKENS, 6)
    launch.rms_norm_rotate(x, w, EPS, 2, table, table)
    table = torch.ones(2, TOKENS, 4)
    launch.rms_norm_rope(x, x, w, w, EPS, 3, table, table)
    first, second = (line.getMessage() for line in caplog.records)
    assert first.startswith("kernel fallback: rms_norm_rotate by reference")
    assert "powers of two from 4 on, not 12" in first
    assert second.startswith("kernel fallback: rms_norm_rope by reference")
    assert "not one of 3 axes" in second


def broken_kernels(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[str]:
    """A GPU whose compiler fails; the names of what was tried."""
    launchers = (
        pytest.importorskip("visavis.kernels.modulate.launch"),
        pytest.importorskip("visavis.kernels.norm_rope.launch"),
    )
    tries: list[str] = []
    for launcher in launchers:
        for name in set(OPERATIONS) & set(vars(launcher)):

            def fail(*_: object, name: str = name) -> Tensor:
                tries.append(name)
                raise error

            monkeypatch.setattr(launcher, name, fail)
    monkeypatch.setattr(choice, "triton_refusal", lambda device: None)
    return tries


def _shapes(found: object) -> list[torch.Size]:
    tensors = found if isinstance(found, tuple) else (found,)
    return [x.shape for x in tensors if isinstance(x, Tensor)]
