"""One server for the tests that do not need settings of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_server import LiveServer, make_config, running
from stand_in import load_painting_engine


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    config = make_config(tmp_path_factory.mktemp("server"))
    with running(config, load_painting_engine) as server:
        yield server
