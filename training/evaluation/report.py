"""Tables, JSON and contact sheets of an evaluation."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from visavis.engine.plan import CHUNK_LENGTHS
from visavis.training.evaluation.bootstrap import Interval, Measured

Verdict = Literal["", "met", "met, interval crosses", "missed"]
"""What became of a bar; "" where there is none. Crossed: the mean meets it, and an end of its 95 %
interval does not."""
_BAND: Final = 22
_COLOURS: Final[dict[Verdict, str]] = {
    "met": "green",
    "met, interval crosses": "yellow",
    "missed": "red",
}


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

    def verdict(self, value: float, interval: Interval | None = None) -> Verdict:
        """Of a figure and, where it has one, its interval."""
        if not self.text:
            return ""
        if not self.met(value):
            return "missed"
        surely = interval is None or all(self.met(end) for end in interval)
        return "met" if surely else "met, interval crosses"

    @property
    def text(self) -> str:
        if self.least is not None and self.most is not None:
            return f"{self.least:g} .. {self.most:g}"
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else ""


def _drift_bars(prefix: str = "", *, bounded: bool = False) -> dict[str, Bar]:
    """Of one way of handing over; only the deployed one is bound to anything."""
    counts, ends = (1, 10, 100, 1000), (10, 1000)
    bars = {f"{prefix}drift_{n}": Bar("noticeable") for n in counts}
    bars |= {f"{prefix}drift_ratio_{n}": Bar("") for n in counts[1:]}
    for end in ends:
        for factor in ("colour", "border", "shape", "place", "sharpness", "border_painter"):
            bars[f"{prefix}drift_{factor}_{end}"] = Bar("noticeable")
        bars[f"{prefix}drift_boundary_jump_{end}"] = Bar("")
    bars[f"{prefix}collapsed"] = Bar("of sessions", most=0 if bounded else None)
    if bounded:
        bars["drift_ratio_1000"] = Bar("", most=1.2)
    return bars


BARS: Final = {
    "sync_r": Bar("", least=0.8),
    "sync_lag_frames": Bar("frames", least=-1, most=1),
    "face_found": Bar("", least=0.99),
    "psnr_outside_db": Bar("dB", least=36),
    "psnr_cavity_db": Bar("dB", least=23),
    "psnr_outside_border_db": Bar("dB"),
    "psnr_outside_still_db": Bar("dB"),
    "psnr_outside_painter_db": Bar("dB"),
    "psnr_cavity_painter_db": Bar("dB"),
    "autoencoder_aperture_r": Bar("", least=0.95),
    "autoencoder_aperture_r_truth": Bar(""),
    "autoencoder_aperture_r_paired": Bar(""),
    "autoencoder_lid_r": Bar("", least=0.95),
    "autoencoder_lid_r_truth": Bar(""),
    "autoencoder_eyelid_r": Bar(""),
    "autoencoder_eyelid_r_truth": Bar(""),
    "autoencoder_eyelid_r_paired": Bar("", least=0.95),
    "autoencoder_lid_code_r": Bar("", least=0.95),
    "autoencoder_code_error_px": Bar("code units"),
    "boundary_jump_ratio": Bar("", most=1.15),
    "boundary_jump_ratio_truth": Bar(""),
    "slot_jump_ratio": Bar(""),
    "slot_jump_ratio_truth": Bar(""),
    "head_acceleration_ratio": Bar(""),
    "silence_opening": Bar("of range", most=0.05),
    "silence_opening_truth": Bar("of range"),
    "silence_opening_p95": Bar("of range"),
    "silence_opening_p95_truth": Bar("of range"),
    "closure_opening": Bar("of range"),
    "closure_opening_truth": Bar("of range"),
    "wordless_opening": Bar("of range", most=0.05),
    "wordless_opening_p95": Bar("of range"),
    "onset_jump_ratio": Bar(""),
    "onset_jump_ratio_truth": Bar(""),
    # Where sound sets in, the truth changes by 1.55 times the median too: a bound of 1.5 would
    # refuse it. A fifth is thrice what the truth's own mean is uncertain by over talks (1.45 ..
    # 1.66); a pop as large as the change that is due there would give 2.
    "onset_jump_over_truth": Bar("", most=1.2),
    "dyn": Bar("", least=0.8, most=1.2),
    "dyn_mouth": Bar("", least=0.8, most=1.2),
    "dyn_pose": Bar("", least=0.8, most=1.2),
    "dyn_lids": Bar(""),
    "dyn_high_band": Bar(""),
    "identity_ratio": Bar("", least=0.9),
    "identity_same_person": Bar("of frames"),
    "identity_same_person_truth": Bar("of frames"),
    "sharpness_ratio": Bar(""),
    "winks": Bar("of shut-eye frames"),
    "winks_truth": Bar("of shut-eye frames"),
    "frechet_distance": Bar(""),
    "frechet_distance_early": Bar(""),
    "frechet_distance_middle": Bar(""),
    "frechet_distance_late": Bar(""),
    **_drift_bars(bounded=True),
    **_drift_bars("reencoded_"),
    **_drift_bars("corrected_"),
    "recover_1": Bar(""),
    "recover_2": Bar(""),
    "recover_5": Bar("", most=0.1),
    "recover_10": Bar(""),
    "recordings_r": Bar(""),
    "recordings_lag_frames": Bar("frames", least=-1, most=2),
    "recordings_pause_opening": Bar("of range", most=0.05),
    "photographs_face_found": Bar("", least=0.99),
    "photographs_same_person": Bar("of frames"),
    "photographs_similarity": Bar(""),
    "blinks_per_minute": Bar("1/min"),
    "blinks_per_minute_truth": Bar("1/min"),
    "endurance_chunks": Bar(""),
    "endurance_sharpness_ratio": Bar(""),
    "endurance_motion_ratio": Bar(""),
    "endurance_face_found": Bar("", least=0.99),
    "chunk_realtime_factor": Bar("", most=0.5),
}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How figures came about: denoising steps a chunk, number of seeds, seconds of each part, the
    longest chunk of talks."""

    num_steps: int
    seeds: int
    seconds: dict[str, float] = field(default_factory=dict)
    chunk_frames: int = CHUNK_LENGTHS[-1]


def print_table(
    figures: dict[str, float],
    console: Console | None = None,
    *,
    intervals: Mapping[str, Interval] | None = None,
    clusters: Mapping[str, int] | None = None,
) -> None:
    """One row a figure, with its 95 % interval, its bar and whether it is met.

    Where there is no interval, `n` says of how many talks, portraits or sessions the figure is.
    """
    table = Table(title="visavis eval")
    longest = max((len(name) for name in figures), default=0)
    table.add_column("figure", min_width=longest)
    for heading in ("value", "95 %", "bar", ""):
        table.add_column(heading, justify="right")
    for name, value in figures.items():
        bar = BARS.get(name, Bar(""))
        between, count = (intervals or {}).get(name), (clusters or {}).get(name)
        spread = f"{between[0]:.3f} .. {between[1]:.3f}" if between else f"n = {count}"
        verdict = bar.verdict(value, between)
        table.add_row(
            name,
            f"{value:.3f} {bar.unit}".strip(),
            spread if between or count else "",
            bar.text,
            f"[{_COLOURS[verdict]}]{verdict}[/]" if verdict else "",
        )
    # A file or a pipe has no width of its own, and eighty columns would cut the verdicts off.
    wide = None if sys.stdout.isatty() else 130
    (console or Console(width=wide)).print(table)


def write_json(found: Measured, path: Path, record: RunRecord) -> None:
    """The figures by name, rounded to four places; under "intervals" their 95 % intervals, under
    "n" of how many talks, portraits or sessions each is, under "seeds" the figures of every seed
    alone, under "run" how they came about."""
    content: dict[str, object] = dict(_rounded(found.figures))
    content["intervals"] = {
        name: [round(low, 4), round(high, 4)] for name, (low, high) in found.intervals.items()
    }
    content["n"] = found.clusters
    content["seeds"] = {str(seed): _rounded(own) for seed, own in found.seeds.items()}
    content["run"] = {
        "steps": record.num_steps,
        "seeds": record.seeds,
        "chunk_frames": record.chunk_frames,
        "seconds": {part: round(seconds, 1) for part, seconds in record.seconds.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _rounded(figures: dict[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {
        name: round(value, 4) if math.isfinite(value) else None for name, value in figures.items()
    }


def write_sheet(
    rows: Sequence[NDArray[np.uint8]],
    path: Path,
    *,
    every: int = 1,
    captions: Sequence[Sequence[str]] = (),
) -> None:
    """A contact sheet: each row is frames [N, H, W, 3], every n-th shown side by side.

    `captions`, in ASCII, stand above the pictures that are shown, a list a row; none at all: no
    captions.
    """
    strips = [np.concatenate(list(row[::every]), axis=1) for row in rows]
    if captions:
        strips = [
            np.concatenate([_caption_band(texts, row.shape[2]), strip])
            for texts, row, strip in zip(captions, rows, strips, strict=True)
        ]
    width = min(strip.shape[1] for strip in strips)
    sheet = np.concatenate([strip[:, :width] for strip in strips])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _caption_band(texts: Sequence[str], width: int) -> NDArray[np.uint8]:
    """Dark on white [22, N width, 3], each text above its own picture, which is `width` wide."""
    band = np.full((_BAND, width * len(texts), 3), 255, np.uint8)
    for number, text in enumerate(texts):
        at = (width * number + 6, _BAND - 7)
        cv2.putText(band, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return band
