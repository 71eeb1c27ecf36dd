"""The load test's report: a table, the figures as JSON, and everything as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from visavis.server.bench_histogram import Percentiles
from visavis.server.bench_load import LoadReport
from visavis.server.bench_ramp import OBJECTIVES, Stage, cautious_p95

PERCENTILES = ("first_frame_s", "chunk_s", "interrupt_s", "skew_ms")
SINGLE = ("realtime_factor", "sessions_at_slo", "rss_slope_mb_per_min")
NOT_MEASURED = "-"


def figures(report: LoadReport) -> dict[str, Any]:
    """Exactly the keys of PERCENTILES, each {p50, p95, p99}, and of SINGLE; or null."""
    found: dict[str, Any] = {name: getattr(report, name).values for name in PERCENTILES}
    return found | {name: getattr(report, name) for name in SINGLE}


def details(report: LoadReport) -> dict[str, Any]:
    """The figures, their numbers of values, the reasons of what is missing, and every stage."""
    counts = {name: getattr(report, name).count for name in PERCENTILES}
    return {
        "figures": figures(report),
        "counts": counts,
        "reasons": report.reasons,
        "plan": asdict(report.plan),
        "size": report.stages[0].measured.size,
        "server_rss_mib": report.rss_mib,
        "stages": [_stage(stage) for stage in report.stages],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    measured = stage.measured
    return {
        "sessions": stage.sessions,
        "seconds": stage.seconds,
        "missed": stage.missed,
        **{f"{field}_p95": cautious_p95(getattr(measured, field)) for _, field, _, _ in OBJECTIVES},
        "generator_lateness_p95": cautious_p95(measured.lateness),
        "lowered": sorted(measured.lowered),
        "utterances": measured.utterances,
        "completed": measured.completed,
        "unanswered": measured.unanswered,
        "frames": measured.frames,
        "speech_frames": measured.speech_frames,
        "underruns": measured.underruns,
        "stalled_share": stage.measured.stalled_share,
        "bytes_received": measured.bytes_received,
        "failures": measured.failures,
    }


def write_load_json(report: LoadReport, path: Path) -> None:
    """The figures, and nothing besides, as JSON."""
    path.write_text(json.dumps(figures(report), indent=1) + "\n")


def write_details_json(report: LoadReport, path: Path) -> None:
    """Everything as JSON."""
    path.write_text(json.dumps(details(report), indent=1) + "\n")


def print_load(report: LoadReport) -> None:
    """The report on stdout; what was not measured is said to be so, with the reason."""
    console = Console()
    console.print(_latencies(report))
    console.print(_ramp(report))
    singles = {
        "real-time factor": _number(report.realtime_factor, "", 3),
        "sessions within the objectives": _number(report.sessions_at_slo, "", 0),
        "memory slope": _number(report.rss_slope_mb_per_min, " MB/min", 2),
        "server memory": _number(report.rss_mib, " MiB", 0),
    }
    for name, value in singles.items():
        console.print(f"{name:<32}{value}", highlight=False)
    for stage in report.stages:
        verdict = "; ".join(stage.missed) or "within the objectives"
        noun = "session" if stage.sessions == 1 else "sessions"
        console.print(f"{stage.sessions} {noun}: {verdict}", highlight=False)
    for reason, names in _by_reason(report.reasons):
        console.print(f"[dim]{', '.join(names)}: {reason}[/]", highlight=False)
    for failure in sorted(set(report.failures)):
        console.print(f"[red]failed:[/] {failure}", highlight=False)


def _latencies(report: LoadReport) -> Table:
    plan = report.plan
    speakers = "1 live speaker" if plan.sessions == 1 else f"{plan.sessions} live speakers"
    size = report.stages[0].measured.size
    table = Table(title=f"{speakers}, {plan.seconds:.0f} s, {plan.video} {size}")
    table.add_column("")
    for column in ("values", "p50", "p95", "p99"):
        table.add_column(column, justify="right")
    for name in PERCENTILES:
        found: Percentiles = getattr(report, name)
        title, _, unit = name.rpartition("_")
        cells = [_number(found.values[p], f" {unit}", 3) for p in ("p50", "p95", "p99")]
        table.add_row(title.replace("_", " "), str(found.count), *cells)
    return table


def _by_reason(reasons: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Each reason once, with all that it explains."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return list(names.items())


def _ramp(report: LoadReport) -> Table:
    table = Table(title="sessions at a time (p95; the largest where there are fewer than 20)")
    columns = ("sessions", "first frame", "rtf", "interrupt", "skew", "stalled", "FPS")
    for column in columns:
        table.add_column(column, justify="right")
    for stage in report.stages:
        cells = [
            _number(cautious_p95(getattr(stage.measured, field)), unit, 3)
            for _, field, _, unit in OBJECTIVES
        ]
        table.add_row(
            str(stage.sessions),
            *cells,
            f"{100 * stage.measured.stalled_share:.1f} %",
            f"{stage.measured.frames / stage.seconds / stage.sessions:.1f}",
        )
    return table


def _number(value: float | None, unit: str, digits: int) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}{unit}"
