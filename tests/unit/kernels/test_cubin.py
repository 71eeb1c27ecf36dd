"""The kernels' machine code for GPUs that need not be here: registers, shared memory, no spills.

Compiled in a process of its own, since this one has Triton interpret.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from visavis.kernels.cubin import SHARED_LIMIT

pytest.importorskip("triton", reason="the extra gpu is not installed")

MASKS = "+bias+lengths+block+lse"
# Registers a thread on sm_90, sm_89 and sm_120, and KiB of shared memory a program: the table of
# docs/kernels.md. 255 is all there are: there the spills alone decide.
TABLE: dict[str, tuple[tuple[int, float], ...]] = {
    "attention 128 bf16 +lse": ((228, 128), (255, 56), (242, 32)),
    f"attention 128 bf16 {MASKS}": ((254, 128.5), (255, 56.2), (247, 32.3)),
    "attention 128 fp8 +lse": ((212, 96), (232, 32), (229, 32)),
    "attention 64 fp16 +lse": ((185, 96.1), (232, 24), (147, 16)),
    f"attention 64 fp16 {MASKS}": ((228, 97.1), (255, 24.2), (174, 16.3)),
    "attention 64 fp8 +lse": ((179, 72.1), (220, 16), (137, 16)),
    "rms_norm": ((48, 0), (48, 0), (51, 0)),
    "rms_norm_rope": ((70, 0), (64, 0), (64, 0)),
    "rms_norm_rope_single": ((64, 0), (61, 0), (64, 0)),
    "layer_norm": ((79, 0), (79, 0), (79, 0)),
    "gated_residual_layer_norm": ((80, 8), (79, 8), (80, 8)),
    "gated_residual": ((54, 8), (58, 8), (56, 8)),
}
ARCHITECTURES = (90, 89, 120)
# What another patch release of the compiler may take more.
REGISTER_SLACK = 8
SHARED_SLACK = 512


def compile_kernels(architecture: int) -> list[dict[str, int | str]]:
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "visavis.kernels.cubin", "--json"]
    result = subprocess.run(
        [*command, "--architecture", str(architecture)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.stdout, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_keeps_to_the_table_and_none_spills(architecture: int) -> None:
    found = {str(entry["kernel"]): entry for entry in compile_kernels(architecture)}
    assert set(found) == set(TABLE)
    column = ARCHITECTURES.index(architecture)
    for name, entry in found.items():
        registers, shared = TABLE[name][column]
        assert entry["spilled"] == 0, entry
        assert int(entry["registers"]) <= min(255, registers + REGISTER_SLACK), entry
        assert int(entry["shared"]) <= shared * 1024 + SHARED_SLACK, entry
        assert int(entry["shared"]) <= SHARED_LIMIT[architecture], entry
        attends = name.startswith("attention")
        # Hopper's matrix units take whole warp groups; from it on, tiles come through descriptors
        assert (int(entry["wgmma"]) > 0) == (attends and architecture == 90), entry
        assert (int(entry["tensor_loads"]) > 0) == (attends and architecture >= 90), entry


def test_the_documented_table_is_the_one_that_is_held() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "kernels.md").read_text()
    rows = {
        "attention, head size 128, bf16": "attention 128 bf16 +lse",
        "attention, head size 128, with bias, lengths and blocks": f"attention 128 bf16 {MASKS}",
        "attention, head size 128, with fp8 scores": "attention 128 fp8 +lse",
        "attention, head size 64, fp16": "attention 64 fp16 +lse",
        "attention, head size 64, with bias, lengths and blocks": f"attention 64 fp16 {MASKS}",
        "attention, head size 64, with fp8 scores": "attention 64 fp8 +lse",
        **{name: name for name in TABLE if not name.startswith("attention")},
    }
    assert set(rows.values()) == set(TABLE)
    for words, name in rows.items():
        (line,) = re.findall(rf"^\| {re.escape(words)} \|(.*)\|$", text, re.MULTILINE)
        wanted = [
            f"{registers}, {shared:g} KiB" if shared else str(registers)
            for registers, shared in TABLE[name]
        ]
        assert [cell.strip() for cell in line.split("|")] == wanted, words
