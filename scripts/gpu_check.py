"""What this project does on the GPU at hand: `make gpu-check`.

    python scripts/gpu_check.py [--only kernels] [--minutes 10] [--out docs/gpu-check] [--dry-run]

Kernel correctness against float32 references, their speed against every backend of PyTorch, one
block and the VAE of the 14B model at full size with random weights (plain, compiled, as CUDA
graphs, in eight bits), the rates that `visavis plan --rates` takes, what follows for 1, 2, 4 and 8
GPUs, whole chunks of its pipeline with few blocks, whose pictures may not depend on how it is run,
and the embedded model's frames a second and sessions. Needs PyTorch for CUDA and Triton;
each section says what else it wants, and one that fails does not end the others.

Writes into a folder, after every section: `report.md` with the command and the device, and
`rates.json`. Without a CUDA device it measures nothing, writes nothing and exits with 2; a wrong
kernel, a section that failed, or attention below its target make it exit with 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from gpu_check_path import find_visavis
from gpu_check_report import Report, heading
from gpu_check_sections import (
    NAMES,
    Budget,
    Context,
    Section,
    chosen,
    run_child,
    run_section,
    shares,
)

WORST_S = 1.0  # a section that has less is not begun

Run = Callable[[Section, Context, float], Report]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the report; the exit status."""
    arguments = _parse(argv)
    if not arguments.dry_run and not torch.cuda.is_available():
        sys.stderr.write(
            "gpu-check: no CUDA device here. Nothing was measured and nothing was written; "
            "run it on a machine with a GPU and a CUDA build of PyTorch "
            "(--dry-run tries the program itself on a CPU).\n"
        )
        return 2
    find_visavis()
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    given = sys.argv[1:] if argv is None else argv
    report = heading(
        device, " ".join(["python scripts/gpu_check.py", *given]), dry_run=arguments.dry_run
    )
    folder = None if arguments.dry_run else arguments.out
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    run_all(
        chosen(arguments.only),
        report,
        seconds=60 * arguments.minutes,
        device=device,
        folder=folder,
        link_gbytes=arguments.link_gbytes,
        run=_here if arguments.dry_run else run_child,
    )
    sys.stdout.write(report.text())
    if folder is not None:
        sys.stderr.write(f"gpu-check: written to {folder}\n")
    for failure in report.failures:
        sys.stderr.write(f"gpu-check: {failure}\n")
    return 1 if report.failures else 0


def run_all(
    sections: Sequence[Section],
    report: Report,
    *,
    seconds: float,
    device: torch.device,
    folder: Path | None,
    link_gbytes: float,
    run: Run,
) -> None:
    """One section after the other into the report, which is written after each.

    What a section leaves of its time goes to those after it.
    """
    all_time = Budget(seconds)
    for number, section in enumerate(sections):
        limit = shares(sections[number:], all_time.left())
        if limit < WORST_S:
            late = ", ".join(s.name for s in sections[number:])
            report.say("")
            report.say(f"- Not begun, the time was up: {late}. Give more with --minutes.")
            break
        sys.stderr.write(f"gpu-check: {section.name}, {limit:.0f} s\n")
        start = time.monotonic()
        context = Context(
            device=device,
            dry_run=device.type == "cpu",
            budget=Budget(limit),
            link_gbytes=link_gbytes,
            figures=dict(report.figures),
            folder=folder,
        )
        report.add(run(section, context, limit))
        sys.stderr.write(f"gpu-check: {section.name} took {time.monotonic() - start:.0f} s\n")
        _write(report, folder)
    _write(report, folder)


def _write(report: Report, folder: Path | None) -> None:
    if folder is not None:
        (folder / "report.md").write_text(report.text())


def _here(section: Section, context: Context, seconds: float) -> Report:
    report = Report()
    run_section(section, report, context)
    return report


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gpu-check"), help="folder to fill")
    parser.add_argument(
        "--only", choices=NAMES, nargs="+", default=NAMES, help="sections, or groups of them"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="for all sections together; the most valuable come first, and each has a share",
    )
    parser.add_argument(
        "--link-gbytes",
        type=float,
        default=330.0,
        help="bytes a second between two GPUs, in 10⁹, that are assumed where there is one",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tiny sizes on the CPU, printed only: shows that this program works",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
