"""Every kernel against its reference, and attention against every backend that can serve it.

    python -m visavis.kernels.bench [--only attention] [--json FILE]
    ncu --nvtx --nvtx-include "regex:attention triton .*/" python -m visavis.kernels.bench --once

With --dry-run tiny sizes run on the CPU: it shows that the command works and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from visavis.kernels.attention.backends import BACKENDS
from visavis.kernels.attention.call import AttentionCall, attention_call
from visavis.kernels.modulate import gated_residual, gated_residual_layer_norm, layer_norm
from visavis.kernels.modulate.reference import plain_gated_residual, plain_layer_norm
from visavis.kernels.norm_rope import rms_norm_rope
from visavis.kernels.norm_rope.reference import plain_rms_norm_rotate
from visavis.kernels.timing import Plan, Timing, timing

EPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes and options of one attention call.

    `padding`: so many last keys are none, by `lengths`. `block`: block-causal, positions of a
    block. `lse`: the log-sum-exp is wanted, as a ring's parts need it.
    """

    queries: int
    keys: int
    heads: int
    head_dim: int
    bias: bool = False
    padding: int = 0
    block: int | None = None
    lse: bool = False

    @property
    def words(self) -> str:
        """Sizes and options in a few words."""
        parts = [f"{self.queries}x{self.keys}", f"{self.heads} heads of {self.head_dim}"]
        parts += ["bias"] if self.bias else []
        parts += [f"{self.padding} padded"] if self.padding else []
        parts += [f"blocks of {self.block}"] if self.block is not None else []
        return ", ".join(parts + (["lse"] if self.lse else []))

    @property
    def flops(self) -> float:
        """Of both products, over the scores that count."""
        return 4.0 * self.scores * self.heads * self.head_dim

    @property
    def scores(self) -> int:
        """Pairs of a query and a key that it may see, of one head."""
        keys = self.keys - self.padding
        if self.block is None:
            return self.queries * keys
        shift = self.keys - self.queries
        ends = ((shift + i) // self.block * self.block + self.block for i in range(self.queries))
        return sum(min(end, keys) for end in ends)


# The 14B model's chunk on one GPU and on one of eight, its text, its image.
SHAPES = (
    Shape(queries=12096, keys=12096, heads=40, head_dim=128),
    Shape(queries=12096, keys=12096, heads=5, head_dim=128),
    Shape(queries=12096, keys=64, heads=40, head_dim=128, bias=True),
    Shape(queries=12096, keys=257, heads=40, head_dim=128),
)
# A ring's part, a batch of unequal lengths, causal latent frames of 1344 tokens; the other head
# size at the same width, and the embedded model's.
OPTION_SHAPES = (
    Shape(queries=12096, keys=12096, heads=5, head_dim=128, lse=True),
    Shape(queries=6048, keys=6048, heads=10, head_dim=128, lse=True),
    Shape(queries=12096, keys=12096, heads=5, head_dim=128, padding=1344),
    Shape(queries=12096, keys=12096, heads=5, head_dim=128, block=1344),
    Shape(queries=12096, keys=12096, heads=10, head_dim=64),
    Shape(queries=12096, keys=12096, heads=10, head_dim=64, lse=True),
    Shape(queries=144, keys=144, heads=4, head_dim=64),
)
TINY = (
    Shape(queries=24, keys=24, heads=2, head_dim=64),
    Shape(queries=24, keys=5, heads=2, head_dim=64, bias=True),
)
TINY_OPTIONS = (
    Shape(queries=24, keys=24, heads=2, head_dim=64, lse=True),
    Shape(queries=24, keys=24, heads=2, head_dim=128, padding=7),
    Shape(queries=8, keys=24, heads=2, head_dim=64, block=6),
)


def make_call(shape: Shape, device: torch.device, dtype: torch.dtype) -> AttentionCall:
    """Random tensors of a shape."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=device)

    q = draw(1, shape.queries, shape.heads, shape.head_dim).to(dtype)
    k, v = (draw(1, shape.keys, shape.heads, shape.head_dim).to(dtype) for _ in range(2))
    bias = draw(shape.keys) if shape.bias else None
    lengths = None
    if shape.padding:
        lengths = torch.tensor([shape.keys - shape.padding], device=device)
    return attention_call(q, k, v, bias, lengths, shape.block, None, shape.lse)


def attention_timings(
    shapes: Sequence[Shape], device: torch.device, dtype: torch.dtype, plan: Plan
) -> Iterator[Timing | str]:
    """Each backend at each shape; a line in words where one cannot serve, or fails."""
    for shape in shapes:
        call = make_call(shape, device, dtype)
        tokens = 2 * (shape.queries + shape.keys)
        moved = float(tokens * shape.heads * shape.head_dim * call.q.element_size())
        for backend in BACKENDS.values():
            reason = backend.refusal(call)
            if reason is None:
                try:
                    yield timing(
                        _run(backend.run, call),
                        device,
                        plan,
                        name="attention",
                        implementation=backend.name,
                        shape=shape.words,
                        flops=shape.flops,
                        moved=moved,
                    )
                    continue
                except torch.OutOfMemoryError:
                    reason = "out of memory"
                except Exception as error:  # Triton's own are no RuntimeErrors
                    reason = f"it failed: {(str(error) or type(error).__name__).splitlines()[0]}"
            yield f"attention {backend.name} {shape.words}: {reason}"


def _run(run: Callable[[AttentionCall], object], call: AttentionCall) -> Callable[[], object]:
    return lambda: run(call)


def row_timings(
    tokens: int, heads: int, head_dim: int, device: torch.device, dtype: torch.dtype, plan: Plan
) -> Iterator[Timing]:
    """The kernels between the products, and their references, at one size."""
    width = heads * head_dim
    generator = torch.Generator(device).manual_seed(0)

    def draw(*sizes: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=device).to(kind)

    q, k, h = (draw(1, tokens, width) for _ in range(3))
    wide = draw(1, tokens, width, kind=torch.float32)
    weight = draw(width)
    angles = draw(tokens, head_dim // 2, kind=torch.float32)
    cos, sin = angles.cos(), angles.sin()
    scale, shift, gate = (draw(1, 1, width, kind=torch.float32) for _ in range(3))
    row = tokens * width
    size = q.element_size()

    def plain_rope() -> object:
        return [plain_rms_norm_rotate(x, weight, EPS, heads, cos, sin) for x in (q, k)]

    def plain_residual_norm() -> object:
        out = plain_gated_residual(wide, h, gate)
        return out, plain_layer_norm(out, scale, shift, EPS, dtype)

    cases: list[tuple[str, Callable[[], object], Callable[[], object], int]] = [
        (
            "rms_norm_rope",
            lambda: rms_norm_rope(q, k, weight, weight, EPS, heads, cos, sin),
            plain_rope,
            4 * row * size,
        ),
        (
            "layer_norm_modulate",
            lambda: layer_norm(wide, scale, shift, EPS, dtype),
            lambda: plain_layer_norm(wide, scale, shift, EPS, dtype),
            row * (4 + size),
        ),
        (
            "gated_residual",
            lambda: gated_residual(wide, h, gate),
            lambda: plain_gated_residual(wide, h, gate),
            row * (8 + size),
        ),
        (
            "gated_residual_layer_norm",
            lambda: gated_residual_layer_norm(wide, h, gate, scale, shift, EPS, dtype),
            plain_residual_norm,
            row * (8 + 2 * size),
        ),
    ]
    chosen = "triton" if device.type == "cuda" else "reference"
    for name, fast, plain, moved in cases:
        for implementation, run in ((chosen, fast), ("plain", plain)):
            yield timing(
                run,
                device,
                plan,
                name=name,
                implementation=implementation,
                shape=f"{tokens} rows of {width}",
                moved=float(moved),
            )


def line(found: Timing) -> str:
    """One row of the table that is printed."""
    return (
        f"{found.name:26} {found.implementation:11} {found.shape:44} "
        f"{found.median_s * 1e3:9.3f} ms  p90 {found.p90_s * 1e3:9.3f}  "
        f"{found.tflops:7.1f} TFLOP/s  {found.gbytes:8.1f} GB/s"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and write a JSON file if one is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("attention", "rows"))
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--once", action="store_true", help="one run each, for a profiler")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args(argv)
    if not arguments.dry_run and not torch.cuda.is_available():
        sys.stderr.write(
            "bench: no CUDA device here, so nothing was measured; --dry-run tries the command\n"
        )
        raise SystemExit(2)
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    dtype = getattr(torch, arguments.dtype)
    plan = Plan(once=arguments.once)
    if arguments.dry_run:
        plan = Plan(least_runs=1, seconds=0.0, once=arguments.once)
        sys.stdout.write("dry run: tiny sizes on a CPU, the times mean nothing\n")
    found: list[Timing] = []
    with torch.inference_mode():
        if arguments.only != "rows":
            shapes = (*TINY, *TINY_OPTIONS) if arguments.dry_run else (*SHAPES, *OPTION_SHAPES)
            for entry in attention_timings(shapes, device, dtype, plan):
                _show(entry, found)
        if arguments.only != "attention":
            sizes = (24, 2, 64) if arguments.dry_run else (12096, 40, 128)
            for entry in row_timings(*sizes, device, dtype, plan):
                _show(entry, found)
    if arguments.json is not None:
        name = "cpu (dry run)" if arguments.dry_run else torch.cuda.get_device_name(device)
        timings = [asdict(x) | {"tflops": x.tflops, "gbytes": x.gbytes} for x in found]
        document = {"device": name, "torch": torch.__version__, "timings": timings}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def _show(entry: Timing | str, found: list[Timing]) -> None:
    if isinstance(entry, Timing):
        found.append(entry)
    sys.stdout.write((line(entry) if isinstance(entry, Timing) else entry) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
