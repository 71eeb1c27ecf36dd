"""Fixtures shared by the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from visavis.engine.dit.compilation import CACHE_VARIABLE


@pytest.fixture
def fresh_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What others compiled counts against no limit, and what is compiled is kept nowhere."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "compiled"))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
