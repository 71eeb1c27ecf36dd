"""The sections of `gpu_check.py`: their order, their share of the time, and how one is run.

On a GPU each section has a process of its own, started with this file as its program: after an
illegal address a process can no longer use the GPU, and one that hangs must be ended from outside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import torch
from gpu_check_report import Report

# What a section may take beyond its time before it is ended: the piece that it is at.
GRACE_S = 30.0
LAST_LINES = 6


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report; `function` of `module` is imported when it is its turn.

    `group`: what `--only` knows it by beside its name. `share`: of the time, relative to others'.
    """

    name: str
    group: str
    module: str
    function: str
    share: float


# The most valuable first: what comes late may not be reached.
SECTIONS = (
    Section("correctness", "kernels", "gpu_check_kernels", "correctness", 1.5),
    Section("attention", "kernels", "gpu_check_kernels", "attention_speed", 1.5),
    Section("blocks", "14b", "gpu_check_blocks", "blocks", 3.0),
    Section("vae", "14b", "gpu_check_vae", "vae", 1.5),
    Section("rates", "14b", "gpu_check_rates", "rates", 1.0),
    Section("projection", "14b", "gpu_check_projection", "projection", 0.3),
    Section("options", "kernels", "gpu_check_kernels", "option_speed", 1.0),
    Section("rows", "kernels", "gpu_check_kernels", "row_speed", 0.5),
    Section("quantized", "14b", "gpu_check_blocks", "quantized_blocks", 2.0),
    Section("chunk", "embedded", "gpu_check_chunk", "chunk", 2.0),
    Section("embedded", "embedded", "gpu_check_embedded", "embedded", 2.0),
)
NAMES = tuple(dict.fromkeys([*(s.group for s in SECTIONS), *(s.name for s in SECTIONS)]))


class Budget:
    """Seconds that a section has, from now on."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds; never negative."""
        return max(0.0, self._end - self._clock())

    def allows(self, what: str, report: Report) -> bool:
        """Whether there is time for another piece; the report says what there was none for."""
        if self.left() > 0:
            return True
        report.say(f"- Not measured, the section's time was up: {what}.")
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a section is given: `figures` are those of earlier ones, `folder` is for files."""

    device: torch.device
    dry_run: bool
    budget: Budget
    link_gbytes: float = 330.0
    figures: dict[str, float] = field(default_factory=dict)
    folder: Path | None = None


def chosen(names: Sequence[str]) -> tuple[Section, ...]:
    """The sections of these names or groups, in their order."""
    return tuple(s for s in SECTIONS if s.name in names or s.group in names)


def shares(sections: Sequence[Section], seconds: float) -> float:
    """Seconds for the first of these sections, when so many are left for all of them."""
    return seconds * sections[0].share / sum(section.share for section in sections)


def run_section(section: Section, report: Report, context: Context) -> None:
    """Run one here; an error is a failure in the report, beside what was measured before it."""
    try:
        function = getattr(import_module(section.module), section.function)
        with torch.inference_mode():
            function(report, context)
    except Exception as error:
        sys.stderr.write(traceback.format_exc())
        words = (str(error) or "no message").splitlines()[0]
        report.say("")
        report.fail(f"section {section.name}: {type(error).__name__}: {words}")
    if context.device.type == "cuda":
        torch.cuda.empty_cache()


def run_child(
    section: Section, context: Context, seconds: float, program: Sequence[str] | None = None
) -> Report:
    """Run one in a process of its own -> what it measured, however it ended.

    Args:
        program: for tests; None: this file.
    """
    assert context.folder is not None
    kept = context.folder / f"{section.name}.json"
    log = context.folder / f"{section.name}.log"
    known = context.folder / "figures.json"
    kept.unlink(missing_ok=True)
    known.write_text(json.dumps(context.figures))
    command = [
        *(program or [sys.executable, __file__]),
        section.name,
        *("--folder", str(context.folder)),
        *("--seconds", f"{seconds:.0f}"),
        *("--link-gbytes", str(context.link_gbytes)),
        *(["--dry-run"] if context.dry_run else []),
    ]
    end = ""
    with log.open("w") as stream:
        try:
            status = subprocess.run(
                command, stdout=stream, stderr=stream, timeout=seconds + GRACE_S, check=False
            ).returncode
            end = f"ended with exit code {status}" if status else ""
        except subprocess.TimeoutExpired:
            end = f"was ended after {seconds + GRACE_S:.0f} s"
    report = Report.read(kept)
    if end:
        report.say("")
        report.fail(f"section {section.name} {end}; {log.name} ends with:")
        report.lines += ["", "```", *log.read_text().splitlines()[-LAST_LINES:], "```"]
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """One section in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=[section.name for section in SECTIONS])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--link-gbytes", type=float, required=True)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args(argv)
    (section,) = chosen([arguments.section])
    context = Context(
        device=torch.device("cpu" if arguments.dry_run else "cuda"),
        dry_run=arguments.dry_run,
        budget=Budget(arguments.seconds),
        link_gbytes=arguments.link_gbytes,
        figures=json.loads((arguments.folder / "figures.json").read_text()),
        folder=arguments.folder,
    )
    run_section(section, Report(kept=arguments.folder / f"{section.name}.json"), context)
    return 0


if __name__ == "__main__":
    from gpu_check_path import find_visavis

    find_visavis()
    raise SystemExit(main())
