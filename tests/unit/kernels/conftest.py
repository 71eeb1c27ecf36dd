"""Triton's kernels as Python functions on CPU tensors (`tests/conftest.py` asks for that).

The launchers see it and compute in float32: the interpreter of Triton 3.9 multiplies bf16
wrongly, and it truncates where a GPU rounds to nearest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


def _import_interpreted(name: str) -> ModuleType:
    triton = pytest.importorskip("triton", reason="the extra gpu is not installed")
    if not triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is off")
    return importlib.import_module(name)


@pytest.fixture(scope="session")
def interpreted() -> Callable[[str], ModuleType]:
    """Imports a launcher whose kernels run in the interpreter."""
    return _import_interpreted
