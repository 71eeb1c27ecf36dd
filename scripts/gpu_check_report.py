"""The Markdown report of `gpu_check.py`: what was measured, on what, and what failed."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import torch


@dataclass(slots=True)
class Report:
    """Lines of Markdown, and the failures that decide the exit status."""

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, device: torch.device, command: str, *, dry_run: bool) -> Report:
        """With the command, the device and the versions."""
        report = cls()
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
                ("Triton", _version("triton")),
                ("commit", _commit()),
                ("date", datetime.now(UTC).strftime("%Y-%m-%d")),
            ],
        )
        return report

    def say(self, text: str) -> None:
        """Add a line."""
        self.lines.append(text)

    def section(self, title: str, about: str) -> None:
        """Begin a section with a sentence on how its figures came about."""
        self.lines += ["", f"## {title}", "", about, ""]

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table."""
        self.say("| " + " | ".join(header) + " |")
        self.say("|" + "---|" * len(header))
        self.lines += ["| " + " | ".join(row) + " |" for row in rows]

    def fail(self, text: str) -> None:
        """Note something that must not be."""
        self.failures.append(text)
        self.say(f"- **Failed**: {text}")

    def text(self) -> str:
        """The whole report."""
        return "\n".join(self.lines) + "\n"


def device_words(device: torch.device) -> str:
    """Name, memory and capability of a GPU; name of a CPU."""
    if device.type != "cuda":
        return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"
    found = torch.cuda.get_device_properties(device)
    gigabytes = found.total_memory / 2**30
    return (
        f"{found.name}, {gigabytes:.0f} GiB, compute capability {found.major}.{found.minor}, "
        f"{found.multi_processor_count} multiprocessors"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()
