"""A server whose engine only paints, with the built page if there is one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def light_server(folder: Path, **settings: Any) -> Iterator[str]:
    """Run one until the block ends; its data are in `folder`. Gives its address."""
    sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))
    from live_server import make_config, running
    from stand_in import load_painting_engine

    config = make_config(folder, web_dir=REPOSITORY / "clients" / "web" / "dist", **settings)
    with running(config, load_painting_engine) as server:
        yield server.http
