"""The Markdown report of `gpu_check.py`: what was measured, on what, and what failed.

Every change is kept on disk at once, so that a crash, a hang or the end of the time loses only
what was not measured yet.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


@dataclass(slots=True)
class Report:
    """Lines of Markdown, figures for later sections, and the failures that decide the exit status.

    `kept`: the JSON file that holds it; None: none does.
    """

    lines: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    kept: Path | None = None

    @classmethod
    def read(cls, path: Path) -> Report:
        """What was kept; an empty report where nothing was."""
        if not path.exists():
            return cls()
        return cls(**json.loads(path.read_text()))

    def keep(self) -> None:
        """Write the file, in one piece: who reads it never sees half of it."""
        if self.kept is None:
            return
        document = {"lines": self.lines, "figures": self.figures, "failures": self.failures}
        fresh = self.kept.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        os.replace(fresh, self.kept)

    def add(self, other: Report) -> None:
        """Append another report's contents."""
        self.lines += other.lines
        self.figures |= other.figures
        self.failures += other.failures
        self.keep()

    def say(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)
        self.keep()

    def section(self, title: str, about: str) -> None:
        """Begin a section with a sentence on how its figures came about."""
        self.lines += ["", f"## {title}", "", about, ""]
        self.keep()

    def header(self, cells: Sequence[str]) -> None:
        """Begin a table whose rows come one by one."""
        self.lines += ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
        self.keep()

    def row(self, *cells: str) -> None:
        """Add a row to the table that was begun last."""
        self.say("| " + " | ".join(cells) + " |")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a whole table."""
        self.header(header)
        for row in rows:
            self.row(*row)

    def figure(self, name: str, value: float) -> None:
        """Keep a number for the sections that come later."""
        self.figures[name] = value
        self.keep()

    def fail(self, text: str) -> None:
        """Note something that must not be."""
        self.failures.append(text)
        self.say(f"- **Failed**: {text}")

    def text(self) -> str:
        """The whole report."""
        return "\n".join(self.lines) + "\n"


def heading(device: torch.device, command: str, *, dry_run: bool) -> Report:
    """The beginning: command, device and versions."""
    report = Report()
    report.say("# GPU check")
    report.say("")
    if dry_run:
        report.say("**Dry run on a CPU with tiny sizes: no figure below means anything.**")
        report.say("")
    report.table(
        ("", ""),
        [
            ("command", f"`{command}`"),
            ("device", device_words(device)),
            ("PyTorch", torch.__version__),
            ("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"),
            ("Triton", package_version("triton")),
            ("commit", _commit()),
            ("date", datetime.now(UTC).strftime("%Y-%m-%d")),
        ],
    )
    return report


def device_words(device: torch.device) -> str:
    """Name, memory and capability of a GPU; name of a CPU."""
    if device.type != "cuda":
        return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"
    found = torch.cuda.get_device_properties(device)
    gigabytes = found.total_memory / 2**30
    return (
        f"{torch.cuda.device_count()} x {found.name}, {gigabytes:.0f} GiB, compute capability "
        f"{found.major}.{found.minor}, {found.multi_processor_count} multiprocessors"
    )


def package_version(package: str) -> str:
    """Of an installed package, or that it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
