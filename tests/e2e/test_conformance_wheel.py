"""The conformance kit's wheel in an environment without PyTorch, against a server of this one."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from live_server import GALLERY_ID, LiveServer
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
KIT = ROOT / "clients" / "conformance"
IGNORED = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
CODE = """
import sys
from visavis.server.conformance_cli import main
try:
    main()
finally:
    for name in ("torch", "numpy", "av", "visavis.engine"):
        assert name not in sys.modules, name
"""


def build(folder: Path) -> Path:
    """The wheel, from a copy of what it is made of."""
    shutil.copytree(KIT, folder / "clients" / "conformance", ignore=IGNORED)
    shutil.copytree(ROOT / "server", folder / "src" / "visavis" / "server", ignore=IGNORED)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    source = folder / "clients" / "conformance"
    subprocess.run([*pip, "-w", str(folder), str(source)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    return wheel


def copy_dependencies(names: list[str], site: Path) -> None:
    """Copies distributions and what they need from this environment: no network is asked."""
    done: set[str] = set()
    while names:
        name = names.pop()
        if name in done:
            continue
        done.add(name)
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and not file.name.endswith(".pyc"):
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
        wanted = [Requirement(text) for text in requires(name) or ()]
        names += [w.name for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]


@pytest.mark.slow
def test_the_kit_runs_without_torch(live: LiveServer, tmp_path: Path) -> None:
    wheel = build(tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    head = "Requires-Dist: "
    needed = [line.removeprefix(head) for line in lines if line.startswith(head)]
    copy_dependencies([Requirement(text).name for text in needed], site)
    assert not (site / "torch").exists()
    bare = tmp_path / "bare"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60
    )
    report = tmp_path / "report.json"
    code = f"import sys; sys.path.append({str(site)!r})" + CODE
    command = [str(bare / "bin" / "python"), "-I", "-c", code, live.ws]
    command += ["--only", "handshake", "--quick", "--avatar", GALLERY_ID, "--json", str(report)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["passed"] >= 5


def test_nothing_of_the_kit_is_missing_in_its_wheel() -> None:
    """Every module of visavis that the kit imports is one that the wheel has."""
    for module in ("conformance.runner", "conformance_cli"):
        importlib.import_module(f"visavis.server.{module}")
    text = (KIT / "pyproject.toml").read_text()
    for path in sorted((ROOT / "server" / "conformance").glob("*.py")):
        for line in path.read_text().splitlines():
            if line.startswith("from visavis.server."):
                name = line.split()[1]
                packages = ("visavis.server.conformance", "visavis.server.events")
                assert name.startswith(packages) or f'"{name}"' in text, f"{path.name}: {name}"
