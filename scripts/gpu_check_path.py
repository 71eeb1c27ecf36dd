"""Lets `gpu_check.py` run in any environment with PyTorch, this project installed there or not."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def find_visavis() -> None:
    """Take the package from this checkout where none is installed."""
    if find_spec("visavis") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
