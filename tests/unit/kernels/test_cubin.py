"""The kernels' machine code for GPUs that need not be here: no spills, shared memory within bounds.

Compiled in a process of its own, since this one has Triton interpret.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from visavis.kernels.cubin import SHARED_LIMIT

pytest.importorskip("triton", reason="the extra gpu is not installed")

ROWS = ("rms_norm", "rms_norm_rope", "layer_norm", "gated_residual_layer_norm")


def compile_kernels(architecture: int, *names: str) -> list[dict[str, int | str]]:
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "visavis.kernels.cubin", "--json"]
    result = subprocess.run(
        [*command, "--architecture", str(architecture), "--only", *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.stdout, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [90, 89, 120])
def test_no_kernel_spills(architecture: int) -> None:
    found = compile_kernels(architecture, "attention 128 bf16 +lse", *ROWS)
    assert [entry["kernel"] for entry in found] == ["attention 128 bf16 +lse", *ROWS]
    for entry in found:
        assert entry["spilled"] == 0, entry
        assert int(entry["shared"]) <= SHARED_LIMIT[architecture], entry
        assert int(entry["registers"]) <= (255 if entry["kernel"] == found[0]["kernel"] else 128)
    if architecture == 90:
        # Hopper's matrix units take whole warp groups, its tiles come through descriptors
        assert int(found[0]["wgmma"]) > 0
        assert int(found[0]["tensor_loads"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention 128 bf16 +bias", "attention 128 fp8"])
def test_neither_masks_nor_eight_bits_spill_on_hopper(name: str) -> None:
    (entry,) = compile_kernels(90, name)
    assert entry["spilled"] == 0, entry
    assert int(entry["shared"]) <= SHARED_LIMIT[90], entry
