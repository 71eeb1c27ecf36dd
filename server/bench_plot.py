"""Percentile curves of the load test as an SVG, drawn here so that nothing need be installed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from visavis.server.bench_histogram import Histogram
from visavis.server.bench_load import LoadReport

WIDTH, HEIGHT = 860, 430
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 50
# Chosen to differ in lightness as well, for print and for the colour-blind.
COLORS = {"first frame": "#1b4f9c", "chunk": "#d98200", "interrupt": "#5a9e3f"}
NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


def x_of(percent: float, most: float) -> float:
    """Place of a percentile: each tenth of what is beyond takes the same width, as in HDR plots.

    `most` is the last percentile that was measured; it stands at the right edge.
    """
    position = -math.log10(1 - min(percent, most) / 100)
    return LEFT + (WIDTH - LEFT - RIGHT) * position / -math.log10(1 - most / 100)


def _last_percentile(histograms: Iterable[Histogram]) -> float:
    """Of n values the largest is the (1 - 1/n) quantile; beyond it nothing was measured."""
    return max(50.0, *(100 * (1 - 1 / max(2, h.count)) for h in histograms))


def render_plot(report: LoadReport) -> str:
    """The SVG text: seconds over percentiles, one curve for each latency of the first stage."""
    measured = report.stages[0].measured
    curves = {
        "first frame": measured.first_frame,
        "chunk": measured.chunk,
        "interrupt": measured.interrupt,
    }
    known = {name: histogram for name, histogram in curves.items() if histogram.count}
    most = _last_percentile(known.values()) if known else 50.0
    ceiling = _nice(max((h.maximum() for h in known.values()), default=1.0))

    def y_of(seconds: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * seconds / ceiling

    title = f"visavis bench load: {report.plan.sessions} live speakers, {report.plan.seconds:.0f} s"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for step in range(5):
        seconds = ceiling * step / 4
        parts.append(_line(LEFT, y_of(seconds), WIDTH - RIGHT, y_of(seconds), "#ddd"))
        parts.append(_text(LEFT - 8, y_of(seconds) + 4, f"{seconds:.3g} s", "end"))
    for percent in (p for p in NINES if p <= most):
        parts.append(_line(x_of(percent, most), TOP, x_of(percent, most), HEIGHT - BOTTOM, "#ddd"))
        parts.append(_text(x_of(percent, most), HEIGHT - BOTTOM + 18, f"{percent:g} %", "middle"))
    for row, (name, histogram) in enumerate(known.items()):
        points = _steps(histogram, most, y_of)
        parts.append(
            f'<polyline fill="none" stroke="{COLORS[name]}" stroke-width="2" points="{points}"/>'
        )
        label = f"{name} ({histogram.count} values)"
        x, y = WIDTH - RIGHT + 12, 60 + 22 * row
        parts.append(_line(x, y, x + 22, y, COLORS[name], 3))
        parts.append(_text(x + 28, y + 4, label, "start"))
    return "\n".join([*parts, "</svg>", ""])


def write_plot(report: LoadReport, path: Path) -> None:
    """Write the plot as an SVG file."""
    path.write_text(render_plot(report))


def _steps(histogram: Histogram, most: float, y_of: Callable[[float], float]) -> str:
    points = []
    x = x_of(0.0, most)
    for percent, seconds in histogram.curve():
        y = y_of(seconds)
        points.append(f"{x:.1f},{y:.1f}")
        x = x_of(percent, most)
        points.append(f"{x:.1f},{y:.1f}")
    return " ".join(points)


def _nice(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{color}" stroke-width="{width}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#333">{escape(text)}</text>'
