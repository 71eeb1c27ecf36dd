"""Examples in docstrings and documents name avatars of the gallery, and extras that there are."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
GALLERY = ROOT / "clients" / "web" / "public" / "avatars" / "index.json"
SDK = ROOT / "clients" / "python"
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    SDK / "README.md",
    ROOT / "clients" / "web" / "README.md",
    *sorted((SDK / "visavis_client").rglob("*.py")),
)
# avatar="x" in Python, avatar: "x" in TypeScript, "avatar_id": "x" in JSON.
NAMED = re.compile(r"""\bavatar(?:_id)?["']?\s*[=:]\s*["']([^"']+)["']""")


def test_every_avatar_of_an_example_is_in_the_gallery() -> None:
    gallery = {entry["id"] for entry in json.loads(GALLERY.read_text())}
    named = {path: set(NAMED.findall(path.read_text())) for path in DOCUMENTS}
    assert {path.name: ids - gallery for path, ids in named.items() if ids - gallery} == {}
    # Both adapters, the package itself and all three READMEs have examples.
    assert sum(bool(ids) for ids in named.values()) >= 6


def test_the_readme_names_every_extra() -> None:
    project = tomllib.loads((SDK / "pyproject.toml").read_text())["project"]
    line = re.search(r"# extras: (.*)", (SDK / "README.md").read_text())
    assert line is not None
    assert line.group(1).split() == list(project["optional-dependencies"])
