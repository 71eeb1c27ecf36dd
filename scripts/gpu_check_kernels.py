"""The kernels' sections of `gpu_check.py`: right first, then how fast. Torch and Triton will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from gpu_check_report import Report
from gpu_check_sections import Context
from torch import Tensor

from visavis.kernels.attention.backends import BACKENDS
from visavis.kernels.attention.call import AttentionCall, attention_call
from visavis.kernels.attention.reference import plain_attention
from visavis.kernels.bench import (
    OPTION_SHAPES,
    SHAPES,
    TINY,
    TINY_OPTIONS,
    Shape,
    attention_timings,
    row_timings,
)
from visavis.kernels.modulate import gated_residual, gated_residual_layer_norm, layer_norm
from visavis.kernels.modulate.reference import plain_gated_residual, plain_layer_norm
from visavis.kernels.norm_rope import rms_norm, rms_norm_rope
from visavis.kernels.norm_rope.reference import plain_rms_norm, plain_rms_norm_rotate
from visavis.kernels.timing import Plan, Timing

TARGET = 0.9  # of the fastest other backend, at the 14B model's self-attention
EPS = 1e-6
# Relative error in the Euclidean norm against float32: rounding of the result alone costs a third
# of the unit of the dtype.
BOUNDS = {torch.bfloat16: 6e-3, torch.float16: 8e-4}
FP8_BOUND = 0.06
ABOUT = (
    "bfloat16. Median of runs with the L2 cache emptied between them; FLOPs of the scores that "
    "count, bytes that must be moved at least."
)
COLUMNS = ("operation", "implementation", "shape", "median ms", "p90 ms", "TFLOP/s", "GB/s")


@dataclass(frozen=True, slots=True)
class Error:
    """How far one operation's result is from the float32 reference, and how far it may be."""

    name: str
    found: float
    bound: float

    @property
    def right(self) -> bool:
        """Also false for NaN."""
        return self.found <= self.bound


def correctness(report: Report, context: Context) -> None:
    """Every kernel, and every backend of attention, against the float32 references."""
    report.section(
        "Kernels: correctness",
        "Relative error (Euclidean norm) of random tensors against the float32 reference.",
    )
    report.header(("operation", "error", "bound", ""))
    # the rows first: they take a moment
    wrong = []
    for errors in (row_errors, attention_errors):
        for error in errors(context.device, dry_run=context.dry_run):
            right = "" if error.right else "wrong"
            report.row(error.name, f"{error.found:.1e}", f"{error.bound:.1e}", right)
            if not error.right:
                wrong.append(error)
            if context.budget.left() <= 0:
                break
    for error in wrong:
        report.fail(f"{error.name}: error {error.found:.1e} above {error.bound:.1e}")
    context.budget.allows("operations that are missing above", report)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; infinite values equal themselves."""
    finite = wanted.isfinite()
    if not torch.equal(found[~finite].float(), wanted[~finite].float()):
        return float("inf")
    difference = (found[finite].double() - wanted[finite].double()).norm()
    return float(difference / wanted[finite].double().norm().clamp(min=1e-30))


def _calls(
    device: torch.device, dtype: torch.dtype, tokens: int
) -> Iterator[tuple[str, AttentionCall]]:
    generator = torch.Generator(device).manual_seed(0)
    for head_dim in (64, 128):
        shape = (2, tokens + 37, 3, head_dim)
        q, k, v = (
            torch.randn(*shape, generator=generator, device=device).to(dtype) for _ in range(3)
        )
        bias = torch.randn(2, shape[1], generator=generator, device=device)
        lengths = torch.tensor([shape[1], shape[1] // 3], device=device)
        block = tokens // 5
        name = f"{str(dtype).removeprefix('torch.')}, head size {head_dim}"
        for options, given in (
            ("", (None, None, None)),
            (", bias", (bias, None, None)),
            (", lengths", (None, lengths, None)),
            (", block-causal", (None, None, block)),
            (", all masks", (bias, lengths, block)),
        ):
            yield name + options, attention_call(q, k, v, *given, None, True)


def attention_errors(device: torch.device, *, dry_run: bool) -> Iterator[Error]:
    """Every backend that serves a call, output and lse."""
    for dtype, bound in BOUNDS.items():
        for name, call in _calls(device, dtype, 40 if dry_run else 2000):
            wanted, wanted_lse = plain_attention(
                attention_call(
                    *(x.float() for x in (call.q, call.k, call.v)),
                    call.bias,
                    call.lengths,
                    call.block,
                    call.scale,
                    True,
                )
            )
            assert wanted_lse is not None  # it was asked for
            for backend in BACKENDS.values():
                if backend.name == "plain" or backend.refusal(call) is not None:
                    continue
                try:
                    out, lse = backend.run(call)
                except RuntimeError as error:
                    # of the backends of others this is theirs to know, ours must run
                    if backend.name.startswith("triton"):
                        raise RuntimeError(f"{backend.name}, {name}: {error}") from error
                    continue
                assert lse is not None
                # their masks are rounded to the dtype of the scores
                loose = 3.0 if call.masked and not backend.name.startswith("triton") else 1.0
                limit = bound * loose if backend.exact else FP8_BOUND
                yield Error(f"attention {backend.name}, {name}", relative(out, wanted), limit)
                yield Error(f"lse {backend.name}, {name}", relative(lse, wanted_lse), limit)


def row_errors(device: torch.device, *, dry_run: bool) -> Iterator[Error]:
    """The kernels that take a row a program, at the 14B model's width."""
    tokens, heads, size = (7, 3, 64) if dry_run else (1003, 40, 128)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=device)

    angles = draw(tokens, size // 2) * 3
    cos, sin = angles.cos(), angles.sin()
    scale, shift, gate = (draw(2, 1, heads * size) for _ in range(3))
    for dtype, bound in BOUNDS.items():
        q, k, h = (draw(2, tokens, heads * size).to(dtype) for _ in range(3))
        weight = draw(heads * size).to(dtype)
        x = draw(2, tokens, heads * size)
        name = str(dtype).removeprefix("torch.")
        cases: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
            (
                "rms_norm",
                lambda q=q, weight=weight: rms_norm(q, weight, EPS),
                lambda q=q, weight=weight: plain_rms_norm(q.float(), weight.float(), EPS),
            ),
            (
                "rms_norm_rope",
                lambda q=q, k=k, w=weight: rms_norm_rope(q, k, w, w, EPS, heads, cos, sin)[1],
                lambda k=k, w=weight: plain_rms_norm_rotate(
                    k.float(), w.float(), EPS, heads, cos, sin
                ),
            ),
            (
                "layer_norm_modulate",
                lambda x=x, dtype=dtype: layer_norm(x, scale, shift, EPS, dtype),
                lambda x=x: plain_layer_norm(x, scale, shift, EPS, torch.float32),
            ),
            (
                "gated_residual",
                lambda q=q, h=h: gated_residual(q, h, gate),
                lambda q=q, h=h: plain_gated_residual(q.float(), h.float(), gate),
            ),
            (
                "gated_residual_layer_norm",
                lambda x=x, h=h, dtype=dtype: gated_residual_layer_norm(
                    x, h, gate, scale, shift, EPS, dtype
                )[1],
                lambda x=x, h=h: plain_layer_norm(
                    plain_gated_residual(x, h.float(), gate), scale, shift, EPS, torch.float32
                ),
            ),
        ]
        for operation, fast, plain in cases:
            found, wanted = fast(), plain()
            assert isinstance(found, Tensor)
            assert isinstance(wanted, Tensor)
            yield Error(f"{operation}, {name}", relative(found, wanted), bound)


def attention_speed(report: Report, context: Context) -> None:
    """Attention at the 14B model's shapes, and whether Triton's is near the best."""
    shapes = TINY if context.dry_run else SHAPES
    report.section("Attention: speed", ABOUT)
    found = _time_attention(report, context, shapes)
    judge_attention(
        report,
        [x for x in found if x.shape == shapes[0].words],
        required=context.device.type == "cuda",
    )


def option_speed(report: Report, context: Context) -> None:
    """Attention with what a ring, a batch, a causal model and the other head size ask for."""
    report.section("Attention with options: speed", ABOUT)
    _time_attention(report, context, TINY_OPTIONS if context.dry_run else OPTION_SHAPES)


def row_speed(report: Report, context: Context) -> None:
    """The kernels between the products."""
    report.section("Kernels between the products: speed", ABOUT)
    report.header(COLUMNS)
    rows = (24, 2, 64) if context.dry_run else (12096, 40, 128)
    for timed in row_timings(*rows, context.device, torch.bfloat16, _plan(context)):
        report.row(*_cells(timed))


def _plan(context: Context) -> Plan:
    return Plan(least_runs=1, seconds=0.0) if context.dry_run else Plan()


def _time_attention(report: Report, context: Context, shapes: Sequence[Shape]) -> list[Timing]:
    """Row by row; reasons of those that cannot serve below the table."""
    report.header(COLUMNS)
    found: list[Timing] = []
    refused: list[str] = []
    for number, shape in enumerate(shapes):
        if context.budget.left() <= 0:
            refused += [f"{late.words}: the section's time was up" for late in shapes[number:]]
            break
        for entry in attention_timings((shape,), context.device, torch.bfloat16, _plan(context)):
            if isinstance(entry, Timing):
                found.append(entry)
                report.row(*_cells(entry))
            else:
                refused.append(entry)
    report.say("")
    for line in refused:
        report.say(f"- {line}")
    return found


def _cells(x: Timing) -> tuple[str, ...]:
    return (
        x.name,
        x.implementation,
        x.shape,
        f"{x.median_s * 1e3:.3f}",
        f"{x.p90_s * 1e3:.3f}",
        f"{x.tflops:.1f}" if x.flops else "",
        f"{x.gbytes:.0f}",
    )


def judge_attention(report: Report, found: list[Timing], *, required: bool) -> None:
    """Triton's attention must come near the fastest exact backend that is not ours."""
    ours = [x for x in found if x.implementation == "triton"]
    others = [x for x in found if not x.implementation.startswith("triton")]
    if not ours:
        report.say("- Triton's attention was not timed: see the reason above.")
        if required:
            report.fail("Triton's attention did not run on this GPU")
        return
    if not others:
        report.say("- No other backend ran, so there is nothing to compare with.")
        return
    best = min(others, key=lambda x: x.median_s)
    ratio = best.median_s / ours[0].median_s
    report.say(
        f"- Triton's attention reaches {ratio:.2f} of {best.implementation}'s speed at "
        f"{best.shape} (target: {TARGET})."
    )
    if ratio < TARGET:
        report.fail(f"attention at {ratio:.2f} of {best.implementation}, below {TARGET}")
