"""Percentile curves of the load test as an SVG, drawn here so that nothing need be installed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path

from visavis.server.bench_histogram import Histogram
from visavis.server.bench_load import LoadReport
from visavis.server.bench_ramp import FIRST_FRAME_P95_S, INTERRUPT_P95_S

WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 56, 56
# Chosen to differ in lightness as well, for print and for the colour-blind.
COLORS = {"first frame": "#1b4f9c", "chunk": "#d98200", "interrupt": "#5a9e3f"}
OBJECTIVES_S = {"first frame": FIRST_FRAME_P95_S, "interrupt": INTERRUPT_P95_S}
PERCENTILES = (0.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
SHORTEST_S = 0.001


def last_percentile(histogram: Histogram) -> float:
    """Of n values the largest is the (1 - 1/n) quantile; beyond it nothing was measured."""
    return 100 * (1 - 1 / max(2, histogram.count))


def x_of(percent: float, most: float) -> float:
    """Place of a percentile: each tenth of what is beyond takes the same width, as in HDR plots.

    `most` is the last percentile that was measured; it stands at the right edge.
    """
    position = -math.log10(1 - min(percent, most) / 100)
    return LEFT + (WIDTH - LEFT - RIGHT) * position / -math.log10(1 - most / 100)


def y_of(seconds: float, longest_s: float) -> float:
    """Place of a time between SHORTEST_S and `longest_s`: each power of ten takes the same height,
    for an interruption takes milliseconds where a chunk takes a second."""
    position = math.log10(max(seconds, SHORTEST_S) / SHORTEST_S)
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * position / math.log10(longest_s / SHORTEST_S)


def curve_points(histogram: Histogram) -> Iterator[tuple[float, float]]:
    """Corners of the curve as (percent, seconds), from 0 to its own last percentile."""
    most = last_percentile(histogram)
    last = 0.0
    for percent, seconds in histogram.curve():
        yield last, seconds
        if last >= most:
            return
        last = min(percent, most)
        yield last, seconds


def render_plot(report: LoadReport) -> str:
    """The SVG text: seconds over percentiles, one curve for each latency of the first stage.

    A figure that the report withholds is not drawn either; a dashed line is an objective.
    """
    measured = report.stages[0].measured
    curves = {
        "first frame": (measured.first_frame, report.first_frame_s),
        "chunk": (measured.chunk, report.chunk_s),
        "interrupt": (measured.interrupt, report.interrupt_s),
    }
    known = {name: histogram for name, (histogram, said) in curves.items() if said.count}
    most = max((last_percentile(h) for h in known.values()), default=50.0)
    wanted = [OBJECTIVES_S[name] for name in known if name in OBJECTIVES_S]
    longest_s = _power_above(max([h.maximum() for h in known.values()] + wanted, default=1.0))
    parts = [*_frame(report), *_axes(most, longest_s)]
    for row, (name, histogram) in enumerate(known.items()):
        points = " ".join(
            f"{x_of(percent, most):.1f},{y_of(seconds, longest_s):.1f}"
            for percent, seconds in curve_points(histogram)
        )
        parts.append(
            f'<polyline fill="none" stroke="{COLORS[name]}" stroke-width="2" points="{points}"/>'
        )
        x, y = WIDTH - RIGHT + 12, TOP + 12 + 22 * row
        parts.append(_line(x, y, x + 22, y, COLORS[name], 3))
        parts.append(_text(x + 28, y + 4, f"{name} ({histogram.count} values)", "start"))
        if name in OBJECTIVES_S and most > 95:
            parts.append(_objective(OBJECTIVES_S[name], most, longest_s, COLORS[name]))
    if not known:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT / 2, "nothing that can be shown was measured", "middle"))
    return "\n".join([*parts, "</svg>", ""])


def write_plot(report: LoadReport, path: Path) -> None:
    """Write the plot as an SVG file."""
    path.write_text(render_plot(report))


def _frame(report: LoadReport) -> Iterator[str]:
    sessions = report.plan.sessions
    speakers = "1 live speaker" if sessions == 1 else f"{sessions} live speakers"
    size = report.stages[0].measured.size
    title = f"visavis bench: latencies of {speakers}, {report.plan.seconds:.0f} s, {size}"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    yield f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>'
    legend = "so much of all is no slower; dashed: p95 objective"
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, legend, "middle")


def _axes(most: float, longest_s: float) -> Iterator[str]:
    seconds = SHORTEST_S
    while seconds <= longest_s * 1.001:
        y = y_of(seconds, longest_s)
        label = f"{seconds:g} s" if seconds >= 0.999 else f"{1000 * seconds:g} ms"
        yield _line(LEFT, y, WIDTH - RIGHT, y, "#ddd")
        yield _text(LEFT - 8, y + 4, label, "end")
        seconds *= 10
    for percent in (p for p in PERCENTILES if p <= most):
        x = x_of(percent, most)
        yield _line(x, TOP, x, HEIGHT - BOTTOM, "#ddd")
        yield _text(x, HEIGHT - BOTTOM + 18, f"{percent:g} %", "middle")


def _objective(seconds: float, most: float, longest_s: float, color: str) -> str:
    """A short dashed line at the 95th percentile, which is what the objective speaks of."""
    x, y = x_of(95, most), y_of(seconds, longest_s)
    return _line(x - 26, y, x + 26, y, color, 2, dash="5 3")


def _power_above(seconds: float) -> float:
    """The next power of ten, at least ten times SHORTEST_S."""
    return 10.0 ** math.ceil(math.log10(max(seconds, 10 * SHORTEST_S)) - 1e-9)


def _line(
    x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1, *, dash: str = ""
) -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"{dashes}/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'
