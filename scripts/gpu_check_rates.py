"""The rates of the GPU at hand in `gpu_check.py`, as `visavis plan --rates` reads them.

They are those that the pieces of this program's work reach, at the 14B model's sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from itertools import pairwise

import torch
from gpu_check_report import Report, device_words
from gpu_check_sections import Context
from gpu_check_sizes import FULL as FULL_SIZES
from gpu_check_sizes import TINY as TINY_SIZES
from gpu_check_sizes import median_s
from gpu_check_vae import random_vae, vae_inputs
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.cards import CardRates, write_rates
from visavis.engine.plan_estimates import GIB
from visavis.kernels.attention import attention
from visavis.kernels.bench import SHAPES, TINY, make_call, row_timings
from visavis.kernels.timing import Plan

FILE = "rates.json"
COPIED_BYTES = 1 << 28
LATENTS = 3  # decoded for the convolutions' rate: the first one is different


def rates(report: Report, context: Context) -> None:
    """Measure each, show them, and write the file if none is missing."""
    report.section(
        "Rates for the planner",
        "What this GPU reaches in the pieces of the 14B model's work, bfloat16: "
        f"`visavis plan --rates {FILE}` plans with them.",
    )
    report.header(("rate", "measured as", "value"))
    pieces: tuple[tuple[str, str, str, Callable[[Context], float | None]], ...] = (
        ("products", "a block's matrix products", "TFLOP/s", _products),
        ("attention", "self-attention, all heads", "TFLOP/s", _attention),
        ("convolutions", f"VAE decode of {LATENTS} latents", "TFLOP/s", _convolutions),
        ("memory", "the kernels between the products", "GB/s", _memory),
        ("host_link", "copy from pinned memory", "GB/s", _host_link),
        ("products_8bit", "the feed-forward's products, e4m3", "TFLOP/s", _products_8bit),
        ("link", "copy from GPU to GPU", "GB/s", _link),
    )
    troubles = []
    for name, words, unit, measured in pieces:
        try:
            value = measured(context)
        except (RuntimeError, AttributeError, ValueError) as error:
            lines = (str(error) or type(error).__name__).splitlines()
            troubles.append(f"{name}: {lines[0]}")
            continue
        if value is not None:
            report.row(name, words, f"{value:.4g} {unit}")
            report.figure(f"rate: {name}", value)
    report.say("")
    for line in troubles:
        report.say(f"- {line}")
    found = card_rates_of(report.figures, context)
    if found is None:
        report.fail(f"{FILE} was not written: a rate is missing")
    elif context.folder is not None:
        write_rates(context.folder / FILE, found)
        report.say(f"- Written to {FILE}.")


def card_rates_of(figures: dict[str, float], context: Context) -> CardRates | None:
    """The rates that were measured; None if one is missing that has no default.

    The link between GPUs is the assumed one where there is but one GPU.
    """
    values = {
        field.name: figures[f"rate: {field.name}"]
        for field in fields(CardRates)
        if f"rate: {field.name}" in figures
    }
    assumed = "" if "link" in values else f"; link assumed to be {context.link_gbytes:g} GB/s"
    values.setdefault("link", context.link_gbytes)
    if not {"products", "attention", "convolutions", "memory"} <= set(values):
        return None
    words = f"measured by scripts/gpu_check.py, {datetime.now(UTC):%Y-%m-%d}"
    return CardRates(
        **values,
        vram=_vram(context.device),
        source=f"{words}, {device_words(context.device)}, PyTorch {torch.__version__}{assumed}",
    )


def _vram(device: torch.device) -> float:
    if device.type != "cuda":
        return 1.0
    return torch.cuda.get_device_properties(device).total_memory / GIB


def _plan(context: Context) -> Plan:
    return Plan(least_runs=1, seconds=0.0) if context.dry_run else Plan()


def _draw(context: Context, *shape: int) -> Tensor:
    return torch.randn(*shape, device=context.device).to(torch.bfloat16)


def _sizes(context: Context) -> tuple[int, int, int]:
    """Rows, width, the feed-forward's width."""
    return (32, 64, 128) if context.dry_run else (12096, 5120, 13824)


def _products(context: Context) -> float:
    """Six projections and the feed-forward's two, weighted as a block has them."""
    rows, width, hidden = _sizes(context)
    x, h = _draw(context, rows, width), _draw(context, rows, hidden)
    square, up, down = (
        _draw(context, out, inner)
        for out, inner in ((width, width), (hidden, width), (width, hidden))
    )
    linear = torch.nn.functional.linear
    calls: tuple[tuple[int, Callable[[], object]], ...] = (
        (6, lambda: linear(x, square)),
        (1, lambda: linear(x, up)),
        (1, lambda: linear(h, down)),
    )
    seconds = sum(n * median_s(run, context.device, _plan(context)) for n, run in calls)
    return 2 * rows * (6 * width * width + 2 * width * hidden) / seconds / 1e12


def _attention(context: Context) -> float:
    shape = (TINY if context.dry_run else SHAPES)[0]
    call = make_call(shape, context.device, torch.bfloat16)
    seconds = median_s(lambda: attention(call.q, call.k, call.v), context.device, _plan(context))
    return shape.flops / seconds / 1e12


def _convolutions(context: Context) -> float:
    sizes = TINY_SIZES if context.dry_run else FULL_SIZES
    vae = random_vae(sizes, context.device)
    latents = vae_inputs(sizes, context.device)[0][:, :, :LATENTS]
    with FlopCounterMode(display=False) as counter:
        list(vae.decode(latents))
    seconds = median_s(lambda: list(vae.decode(latents)), context.device, sizes.plan)
    return counter.get_total_flops() / seconds / 1e12


def _memory(context: Context) -> float:
    sizes = (24, 2, 64) if context.dry_run else (12096, 40, 128)
    timings = [
        x
        for x in row_timings(*sizes, context.device, torch.bfloat16, _plan(context))
        if x.implementation != "plain"
    ]
    return sum(x.bytes for x in timings) / sum(x.median_s for x in timings) / 1e9


def _host_link(context: Context) -> float | None:
    if context.device.type != "cuda":
        return None
    host = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=context.device)
    run = lambda: there.copy_(host, non_blocking=True)  # noqa: E731
    return COPIED_BYTES / median_s(run, context.device, _plan(context)) / 1e9


def _products_8bit(context: Context) -> float | None:
    """With a scale per row and column, as the dynamic modes multiply."""
    if context.device.type != "cuda" or torch.cuda.get_device_capability(context.device) < (8, 9):
        return None
    rows, width, hidden = _sizes(context)
    kind = torch.float8_e4m3fn
    flops, seconds = 0.0, 0.0
    for inner, out in pairwise((width, hidden, width)):
        x, weight = _draw(context, rows, inner).to(kind), _draw(context, out, inner).to(kind)
        by_row = torch.ones(rows, 1, device=context.device)
        by_column = torch.ones(1, out, device=context.device)

        def multiply(
            x: Tensor = x, w: Tensor = weight, a: Tensor = by_row, b: Tensor = by_column
        ) -> object:
            return torch._scaled_mm(x, w.t(), scale_a=a, scale_b=b, out_dtype=torch.bfloat16)

        seconds += median_s(multiply, context.device, _plan(context))
        flops += 2.0 * rows * inner * out
    return flops / seconds / 1e12


def _link(context: Context) -> float | None:
    if context.device.type != "cuda" or torch.cuda.device_count() < 2:
        return None
    here = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda:0")
    there = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda:1")
    run = lambda: there.copy_(here, non_blocking=True)  # noqa: E731
    return COPIED_BYTES / median_s(run, context.device, _plan(context)) / 1e9
