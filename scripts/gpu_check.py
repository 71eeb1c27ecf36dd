"""What this project does on the GPU at hand: `make gpu-check`.

    .venv/bin/python scripts/gpu_check.py [--output docs/gpu-check.md] [--only kernels] [--dry-run]

Kernel correctness against float32 references, their speed against every backend of PyTorch, one
block and the VAE of the 14B model at full size with random weights, what follows for 1, 2, 4 and 8
GPUs, and the embedded model's frames a second and sessions. Writes Markdown tables with the
command and the device. Without a CUDA device it measures nothing, writes nothing and exits with 2;
a wrong kernel, or one below its target, makes it exit with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from gpu_check_engine import FULL, TINY, embedded_section, fourteen_b_section
from gpu_check_kernels import kernel_sections
from gpu_check_report import Report

PARTS = ("kernels", "14b", "embedded")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the report; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/gpu-check.md"))
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument(
        "--link-gbytes",
        type=float,
        default=330.0,
        help="bytes a second between two GPUs that the projection assumes, in 10⁹",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="tiny sizes on the CPU, printed only: shows that this program works",
    )
    arguments = parser.parse_args(argv)
    if not arguments.dry_run and not torch.cuda.is_available():
        sys.stderr.write(
            "gpu-check: no CUDA device here. Nothing was measured and nothing was written; "
            "run it on a machine with a GPU and a CUDA build of PyTorch "
            "(--dry-run tries the program itself on a CPU).\n"
        )
        return 2
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    command = "make gpu-check" if argv is None and len(sys.argv) == 1 else _command(argv)
    report = Report.begin(device, command, dry_run=arguments.dry_run)
    sizes = TINY if arguments.dry_run else FULL
    with torch.inference_mode():
        if "kernels" in arguments.only:
            kernel_sections(report, device, dry_run=arguments.dry_run)
        if "14b" in arguments.only:
            fourteen_b_section(report, device, sizes, arguments.link_gbytes * 1e9)
    if "embedded" in arguments.only:
        embedded_section(report, device, sizes)
    sys.stdout.write(report.text())
    if not arguments.dry_run:
        arguments.output.write_text(report.text())
        sys.stderr.write(f"gpu-check: written to {arguments.output}\n")
    for failure in report.failures:
        sys.stderr.write(f"gpu-check: {failure}\n")
    return 1 if report.failures else 0


def _command(argv: Sequence[str] | None) -> str:
    given = sys.argv[1:] if argv is None else argv
    return " ".join(["python scripts/gpu_check.py", *given])


if __name__ == "__main__":
    raise SystemExit(main())
