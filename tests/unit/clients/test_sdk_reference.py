"""The reference of the Python client says what the docstrings say, and leaves nothing out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import visavis_client

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "sdk-reference.md"


def test_the_page_is_fresh() -> None:
    script = ROOT / "scripts" / "generate_sdk_reference.py"
    command = [sys.executable, str(script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_exported_name_is_explained() -> None:
    sections = PAGE.read_text().split("\n## ")[1:]
    texts = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    assert list(texts) == list(visavis_client.__all__)
    for name, text in texts.items():
        # After the call; the docstring of a dataclass that has none would be the call again.
        prose = text.partition("```\n\n")[2] or text.partition("`\n\n")[2]
        assert len(prose.splitlines()[0]) > 15, name
        assert not prose.startswith(f"{name}("), name
