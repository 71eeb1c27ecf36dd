"""The LiveKit and Pipecat adapters against a real server and the real packages.

Those live in an environment of their own, for Pipecat wants other versions than the server; the
tests in tests/adapters run there, and the server here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from live_server import GALLERY_ID, LiveServer

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-adapters" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make test` makes the environment for this")
@pytest.mark.parametrize("adapter", ["livekit", "pipecat"])
def test_adapter(live: LiveServer, adapter: str) -> None:
    tests = ROOT / "tests" / "adapters" / f"test_{adapter}_adapter.py"
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    environment = {**os.environ, "VISAVIS_URL": live.http, "VISAVIS_AVATAR": GALLERY_ID}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:]
    assert " skipped" not in done.stdout
