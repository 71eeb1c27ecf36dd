"""The command `plan`: what fits on which GPUs, and how fast it would be."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from visavis.server.cli_errors import fail

if TYPE_CHECKING:
    from visavis.engine.cards import CardRates
    from visavis.engine.plan_estimates import Request
    from visavis.engine.planner import Option


def plan(
    *,
    gpus: int = 1,
    vram: float | None = None,
    model: str = "flashtalk-14b",
    card: str = "h100",
    rates: Path | None = None,
    height: int = 768,
    width: int = 448,
    chunk_frames: int = 33,
    steps: int = 4,
    avatars: int = 16,
    json: Path | None = None,
) -> None:
    """Say from the configuration alone what fits, the predicted chunk time, and the flags to use.

    One column for each way to hold the weights, with the best split of the GPUs; --json has all.
    Times are predictions from the rates that are printed with them, without launches and uneven
    progress; nothing is loaded and no GPU is needed.

    Parameters
    ----------
    gpus
        GPUs that share one chunk.
    vram
        Memory of each, in GiB. [default: the card's]
    model
        Name of the model.
    card
        Whose rates to assume: h100, h800, h200, rtx-5090 or rtx-4090.
    rates
        A JSON file of rates measured on your card, in place of the assumed ones.
    height
        Height of the picture, in pixels.
    width
        Width of the picture, in pixels.
    chunk_frames
        Frames of a chunk: 9, 13, 17 or 33.
    steps
        Denoising steps a chunk.
    avatars
        Prepared avatars that stay in memory.
    json
        Also write the plan to this file.
    """
    from visavis.engine.cards import card_rates, read_rates
    from visavis.engine.plan_estimates import Request
    from visavis.engine.planner import options

    try:
        assumed = read_rates(rates) if rates is not None else card_rates(card)
        request = Request(
            model=model,
            gpus=gpus,
            vram=assumed.vram if vram is None else vram,
            height=height,
            width=width,
            chunk_frames=chunk_frames,
            steps=steps,
            avatars=avatars,
        )
        found = options(request, assumed)
        _print(request, assumed, found)
        if json is not None:
            json.write_text(json_format.dumps(_report(request, assumed, found), indent=2) + "\n")
    except (ValueError, OSError) as error:
        fail(error)
    if not found[0].fits:
        raise SystemExit(1)


def _print(request: Request, rates: CardRates, found: tuple[Option, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    from visavis.engine.planner import best_of_each

    console = Console()
    console.print(
        f"{request.model}, {request.width}x{request.height}, {request.chunk_frames} frames a "
        f"chunk, {request.steps} steps, {request.gpus} GPU(s) of {request.vram:g} GiB",
        highlight=False,
    )
    table = Table()
    table.add_column("weights")
    shown = best_of_each(found)
    columns = [_cells(option) for option in shown]
    for option in shown:
        table.add_column(option.name, justify="right")
    for name in columns[0]:
        table.add_row(name, *(cells[name] for cells in columns))
    console.print(table)
    for line in _advice(request, found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Rates: {rates.source}.", highlight=False)


def _cells(option: Option) -> dict[str, str]:
    memory, times = option.memory, option.times
    sizes = {
        "needs, GiB": memory.total,
        "  transformer": memory.transformer,
        "  VAE, encoders": memory.vae + memory.encoders,
        "  avatars' contexts": memory.contexts,
        "  a chunk's audio": memory.audio,
        "  activations": memory.activations,
        "  VAE decode": memory.decode,
        "  reserve": memory.reserve,
        "host memory, GiB": memory.host,
    }
    seconds = {
        "a chunk, s (predicted)": times.chunk,
        "  products": times.products,
        "  attention": times.attention,
        "  between them": times.between,
        "  waiting for others": times.exchange,
        "  waiting for weights": times.transfer,
        "  VAE decode, hand-over": times.decode + times.hand_over,
    }
    return {
        "ulysses x ring": f"{option.plan.ulysses_degree} x {option.plan.ring_degree}",
        "as trained": "yes" if option.exact else "rounded",
        "fits": "yes" if option.fits else "no",
        **{name: f"{size / 2**30:.1f}" for name, size in sizes.items()},
        **{name: f"{s:.3f}" for name, s in seconds.items()},
        "of the time it plays": f"{option.realtime_factor:.2f}",
        "DiT FLOPs of the original": f"{option.flops_ratio:.3f}",
    }


def _advice(request: Request, found: tuple[Option, ...]) -> list[str]:
    from visavis.engine.planner import faster_rounded

    best = found[0]
    if not best.fits:
        least = min(found, key=lambda option: option.memory.total).memory.total / 2**30
        return [
            f"Nothing fits: {least:.1f} GiB are needed at the least, {least - request.vram:.1f} "
            "more than there are. Take fewer --avatars, a smaller picture or larger cards."
        ]
    quality = "as trained" if best.exact else "with rounded weights"
    lines = [f"Best, {quality}, {_command(request, best)}"]
    rounded = faster_rounded(found)
    if rounded is not None and best.exact:
        lines.append(f"Faster, with rounded weights, {_command(request, rounded)}")
    return lines


def _command(request: Request, option: Option) -> str:
    processes = f"--processes {request.gpus} " if request.gpus > 1 else ""
    pace = "in real time" if option.realtime_factor <= 1 else "not in real time"
    return (
        f"{pace} ({option.times.chunk:.2f} s a chunk): visavis serve {processes}"
        f"--model {request.model} --weights FOLDER {' '.join(option.flags)}"
    )


def _report(request: Request, rates: CardRates, found: tuple[Option, ...]) -> dict[str, object]:
    return {
        "request": asdict(request),
        "rates": asdict(rates),
        "options": [
            {
                **asdict(option),
                "name": option.name,
                "total_bytes": option.memory.total,
                "chunk_s": option.times.chunk,
                "flags": option.flags,
            }
            for option in found
        ],
    }


def register(app: App) -> None:
    """Add this command to the program."""
    app.command(plan)
