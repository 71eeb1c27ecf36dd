"""Compiles the kernels for GPUs that are not here, and reads what they take of a processor.

    python -m visavis.kernels.cubin [--architecture 90 89 120] [--json]

Triton brings its own assembler and `cuobjdump`, so that registers, shared memory and spills are
known without a GPU. They say nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visavis.kernels.attention.configs import TileConfig, tile_config
from visavis.kernels.rows import padded_width, warps

ARCHITECTURES = (90, 89, 120)
# Shared memory that one program may ask for, bytes (CUDA C++ programming guide, table of
# technical specifications per compute capability).
SHARED_LIMIT = {80: 166912, 89: 101376, 90: 232448, 120: 101376}
WIDTH = 5120  # of the rows that the kernels are compiled for: the 14B model's


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel takes: registers a thread, bytes a program, spilled bytes a thread."""

    kernel: str
    architecture: int
    registers: int
    shared: int
    spilled: int
    tensor_loads: int  # copies by the tensor memory accelerator
    wgmma: int  # warp-group matrix instructions


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A kernel with its argument types and constants, as `triton.compiler.ASTSource` wants it."""

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 2


def attention_source(
    architecture: int,
    head_dim: int,
    *,
    dtype: str = "bf16",
    fp8: bool = False,
    options: tuple[str, ...] = ("HAS_LSE",),
    config: TileConfig | None = None,
) -> Source:
    """The attention of one head size, by default with the tiles of the configuration file.

    Args:
        options: of HAS_BIAS, HAS_LENGTHS, HAS_BLOCK, HAS_LSE those that are on.
    """
    from visavis.kernels.attention.triton_kernel import attention_forward

    tiles = config or tile_config(architecture, head_dim, "fp8" if fp8 else "exact")
    constants: dict[str, Any] = {
        "M": tiles.m,
        "N": tiles.n,
        "D": head_dim,
        "STAGES": tiles.num_stages,
        "TAIL_STAGES": 1,
        "FP8": fp8,
        "DESCRIPTORS": tiles.descriptors,
        "SPECIALIZE": tiles.specialize,
        "UPCAST": False,
    }
    for name in ("HAS_BIAS", "HAS_LENGTHS", "HAS_BLOCK", "HAS_LSE"):
        constants[name] = name in options

    def tensor(element: str, rows: int) -> str:
        if not tiles.descriptors:
            return f"*{element}"
        return f"tensordesc<{element}[1,{rows},1,{head_dim}]>"

    types = dict.fromkeys(attention_forward.arg_names, "i32") | {
        "q": tensor("fp8e4nv" if fp8 else dtype, tiles.m),
        "k": tensor("fp8e4nv" if fp8 else dtype, tiles.n),
        "v": tensor(dtype, tiles.n),
        "bias": "*fp32",
        "lengths": "*i32",
        "qk_scale": "*fp32",
        "out": f"*{dtype}",
        "lse": "*fp32",
        "scale": "fp32",
    }
    kind = "fp8" if fp8 else dtype
    extra = "".join(f"+{name.removeprefix('HAS_').lower()}" for name in options)
    return Source(
        name=f"attention {head_dim} {kind} {extra}".strip(),
        kernel=attention_forward,
        types=types,
        constants=constants,
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
    )


def row_sources(width: int = WIDTH, head_dim: int = 128) -> list[Source]:
    """The kernels that take a row a program, for bf16 rows of `width`."""
    from visavis.kernels.modulate.triton_kernel import gated_residual_forward, layer_norm_forward
    from visavis.kernels.norm_rope.triton_kernel import rms_norm_forward, rms_norm_rotate_forward

    columns = padded_width(width)
    rotated = padded_width(width // head_dim) * head_dim
    wide = {"weight": "*fp32", "bias": "*fp32", "gate": "*fp32", "cos": "*fp32", "sin": "*fp32"}
    cases: list[tuple[str, Any, dict[str, Any], int, dict[str, str]]] = [
        ("rms_norm", rms_norm_forward, {"COLUMNS": columns}, columns, {"weight": "*bf16"}),
        *(
            (
                name,
                rms_norm_rotate_forward,
                {"H": rotated // head_dim, "D": head_dim, "BOTH": both},
                rotated,
                {},
            )
            for name, both in (("rms_norm_rope", True), ("rms_norm_rope_single", False))
        ),
        ("layer_norm", layer_norm_forward, {"COLUMNS": columns}, columns, {}),
        *(
            (
                name,
                gated_residual_forward,
                {"HAS_GATE": True, "NORMALIZES": normalizes, "COLUMNS": columns},
                columns,
                {"x": "*fp32", "out": "*fp32"},
            )
            for name, normalizes in (("gated_residual_layer_norm", True), ("gated_residual", False))
        ),
    ]
    sources = []
    for name, kernel, constants, padded, special in cases:
        types = {}
        for argument in kernel.arg_names:
            if argument in ("W", "tokens") or argument.startswith("stride"):
                types[argument] = "i32"
            elif argument == "eps":
                types[argument] = "fp32"
            else:
                types[argument] = special.get(argument, wide.get(argument, "*bf16"))
        sources.append(
            Source(
                name=name, kernel=kernel, types=types, constants=constants, num_warps=warps(padded)
            )
        )
    return sources


def compile_source(source: Source, architecture: int) -> Resources:
    """Compile for compute capability `architecture` / 10 and read the machine code's needs.

    Raises:
        RuntimeError: Triton is interpreting (TRITON_INTERPRET), or cuobjdump says nothing.
    """
    # Triton 3.10 will change what it does when nothing is said
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.runtime import JITFunction

    if not isinstance(source.kernel, JITFunction):
        raise RuntimeError("kernels are interpreted here; unset TRITON_INTERPRET to compile them")
    names = list(source.kernel.arg_names)
    types = {name: source.types[name] for name in names if name not in source.constants}
    types |= dict.fromkeys(source.constants, "constexpr")
    aligned = [
        names.index(name)
        for name, kind in types.items()
        if kind.startswith("*") or (name.startswith("stride") and kind == "i32") or name == "W"
    ]
    compiled = triton.compile(
        ASTSource(
            source.kernel,
            {name: types[name] for name in names},
            dict(source.constants),
            {(i,): [["tt.divisibility", 16]] for i in aligned},
        ),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": source.num_warps, "num_stages": source.num_stages},
    )
    ptx = compiled.asm["ptx"]
    registers, stack, local = _usage(compiled.asm["cubin"], Path(triton.__file__).parent)
    return Resources(
        kernel=source.name,
        architecture=architecture,
        registers=registers,
        shared=int(compiled.metadata.shared),
        spilled=stack + local,
        tensor_loads=ptx.count("cp.async.bulk.tensor"),
        wgmma=ptx.count("wgmma.mma_async"),
    )


def _usage(cubin: bytes, triton_folder: Path) -> tuple[int, int, int]:
    """(registers a thread, stack bytes, local bytes) of the only kernel in a cubin."""
    tool = triton_folder / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        result = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", result.stdout)
    if found is None:
        raise RuntimeError(f"{tool} gave no resource usage: {result.stdout or result.stderr}")
    registers, stack, local = (int(number) for number in found.groups())
    return registers, stack, local


def all_sources(architecture: int) -> list[Source]:
    """What is checked for an architecture: every kernel, attention in both head sizes."""
    # every mask costs registers: bias as in the merged text padding, all of them together
    everything = ("HAS_BIAS", "HAS_LENGTHS", "HAS_BLOCK", "HAS_LSE")
    attention: list[Source] = []
    for head_dim, dtype in ((128, "bf16"), (64, "fp16")):
        attention += [
            attention_source(architecture, head_dim, dtype=dtype),
            attention_source(architecture, head_dim, dtype=dtype, options=everything),
            attention_source(architecture, head_dim, dtype=dtype, fp8=True),
        ]
    return [*attention, *row_sources()]


def main() -> None:
    """Print one line a kernel and architecture; exit 1 if one spills or asks for too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", type=int, nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--only", nargs="+", default=[""], help="kernels whose name begins so")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    failed = False
    for architecture in arguments.architecture:
        for source in all_sources(architecture):
            if not source.name.startswith(tuple(arguments.only)):
                continue
            found = compile_source(source, architecture)
            failed |= found.spilled > 0 or found.shared > SHARED_LIMIT.get(architecture, 232448)
            line = json.dumps(asdict(found)) if arguments.json else _line(found)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    raise SystemExit(1 if failed else 0)


def _line(found: Resources) -> str:
    return (
        f"sm_{found.architecture}  {found.kernel:44} {found.registers:3} registers  "
        f"{found.shared / 1024:6.1f} KiB shared  {found.spilled:4} B spilled  "
        f"{found.wgmma:3} wgmma  {found.tensor_loads:3} tensor loads"
    )


if __name__ == "__main__":
    main()
