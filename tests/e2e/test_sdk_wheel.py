"""The client's wheel in an environment with nothing but its own dependency."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import websockets

CLIENT = Path(__file__).parents[2] / "clients" / "python"
CODE = """
import sys
import visavis_client
from visavis_client import FrameDecoder, MissingExtraError, Recorder, connect, connect_sync
assert "site" in visavis_client.__file__, visavis_client.__file__
for name in ("torch", "numpy", "av", "visavis"):
    assert name not in sys.modules, name
try:
    Recorder("out.mp4")
except MissingExtraError as error:
    assert "visavis-client[record]" in str(error)
else:
    raise SystemExit("the recorder works without av")
"""


@pytest.mark.slow
def test_the_wheel_needs_websockets_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(tmp_path), str(source)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    assert "visavis_client/py.typed" in names
    assert "visavis_client/adapters/livekit.py" in names
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert [line for line in required if "extra ==" not in line] == [
        "Requires-Dist: websockets>=15"
    ]
    assert "torch" not in "".join(required)
    # An empty environment: no network is asked, so websockets comes from this one.
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shutil.copytree(Path(websockets.__file__).parent, site / "websockets")
    bare = tmp_path / "bare"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60
    )
    command = [
        str(bare / "bin" / "python"),
        "-I",
        "-c",
        f"import sys; sys.path.append({str(site)!r})" + CODE,
    ]
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path)
