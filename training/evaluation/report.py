"""Tables, JSON and contact sheets of an evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must reach; None: reported without a bar."""

    unit: str
    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def text(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} .. {self.most:g}"
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else ""


BARS: Final = {
    "sync_r": Bar("", least=0.8),
    "sync_lag_frames": Bar("frames", least=-1, most=1),
    "face_found": Bar("", least=0.99),
    "psnr_outside_db": Bar("dB", least=36),
    "psnr_cavity_db": Bar("dB", least=23),
    "autoencoder_aperture_r": Bar("", least=0.95),
    "autoencoder_eyelid_r": Bar("", least=0.95),
    "boundary_jump_ratio": Bar("", most=1.15),
    "silence_opening": Bar("of range", most=0.05),
    "dyn": Bar("", least=0.8, most=1.2),
    "dyn_mouth": Bar("", least=0.8, most=1.2),
    "dyn_pose": Bar("", least=0.8, most=1.2),
    "dyn_lids": Bar(""),
    "dyn_high_band": Bar(""),
    "identity_ratio": Bar("", least=0.9),
    "winks": Bar("of shut-eye frames"),
    "frechet_distance": Bar(""),
    "drift_1": Bar("noticeable"),
    "drift_10": Bar("noticeable"),
    "drift_100": Bar("noticeable"),
    "drift_1000": Bar("noticeable"),
    "drift_ratio_10": Bar(""),
    "drift_ratio_100": Bar(""),
    "drift_ratio_1000": Bar("", most=1.2),
    "collapsed": Bar("of sessions", most=0),
    "recover_1": Bar(""),
    "recover_2": Bar(""),
    "recover_5": Bar("", most=0.1),
    "recover_10": Bar(""),
    "recordings_r": Bar(""),
    "recordings_lag_frames": Bar("frames", least=-1, most=2),
    "recordings_pause_opening": Bar("of range"),
    "blinks_per_minute": Bar("1/min"),
    "endurance_chunks": Bar(""),
    "endurance_sharpness_ratio": Bar(""),
    "endurance_motion_ratio": Bar(""),
    "endurance_face_found": Bar("", least=0.99),
    "chunk_realtime_factor": Bar("", most=0.5),
}


Interval = tuple[float, float]


def print_table(
    figures: dict[str, float],
    console: Console | None = None,
    *,
    intervals: dict[str, Interval] | None = None,
) -> None:
    """One row a figure, with its 95 % interval, its bar and whether it is met."""
    table = Table(title="visavis eval")
    for heading in ("figure", "value", "95 %", "bar", ""):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for name, value in figures.items():
        bar = BARS[name]
        verdict = "" if not bar.text else "[green]met[/]" if bar.met(value) else "[red]missed[/]"
        between = (intervals or {}).get(name)
        spread = f"{between[0]:.3f} .. {between[1]:.3f}" if between else ""
        table.add_row(name, f"{value:.3f} {bar.unit}".strip(), spread, bar.text, verdict)
    (console or Console()).print(table)


def write_json(
    figures: dict[str, float], path: Path, *, intervals: dict[str, Interval] | None = None
) -> None:
    """The figures, rounded to four places, and their 95 % intervals under "intervals"."""
    rounded: dict[str, object] = {name: round(value, 4) for name, value in figures.items()}
    if intervals:
        rounded["intervals"] = {
            name: [round(low, 4), round(high, 4)] for name, (low, high) in intervals.items()
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")


def write_sheet(rows: list[NDArray[np.uint8]], path: Path, *, every: int = 1) -> None:
    """A contact sheet: each row is frames [N, H, W, 3], every n-th shown side by side."""
    strips = [np.concatenate(list(row[::every]), axis=1) for row in rows]
    width = min(strip.shape[1] for strip in strips)
    sheet = np.concatenate([strip[:, :width] for strip in strips])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
