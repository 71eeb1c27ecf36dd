"""What eight-bit weights cost in picture quality: `visavis bench quantize`.

Sessions of one seed hear the same sound, one with the weights as they are, the others with rounded
ones, each going on from what it made itself, so that errors can add up as they would in use.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.face.framing import Portrait
from visavis.engine.long_run import NEW_FRAMES
from visavis.engine.quantize import quantize, weight_bytes
from visavis.engine.weight_memory import PRECISIONS, QuantizationError
from visavis.server.avatars import AvatarStore
from visavis.server.bench_quantize_run import (
    Made,
    Pixels,
    loudness,
    read_sound,
    session_chunks,
)
from visavis.server.config import ServerConfig

SAID_EVERY_S = 60.0
YARDSTICK = "bfloat16"  # the whole transformer in it, weights not quantised
EXACT = "float32"
REACH_FRAMES = 8

Series = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Correlation `r` of two curves where it is highest; `frames` > 0: the first one is late."""

    r: float
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A session with rounded weights against one without, over all chunks.

    PSNR in dB of each chunk: the mean, the worst, and the mean of the first and of the last tenth,
    which differ where errors add up. `levels`: mean absolute difference, of 255. `motion_px`: root
    mean square difference of the motion codes in pixels, of the first and of the last tenth.
    `mouth`: its opening against the exact session's; `sound`: against the loudness of the sound.
    `excursion`: how far the mean pose of a chunk is from the portrait, last tenth over first.
    Those of motion are None where the codec has no codes. The exact session's row has only what
    needs no comparison: its PSNR is 99.
    """

    precision: str
    chunks: int
    weight_megabytes: float
    psnr_db: float
    worst_psnr_db: float
    first_psnr_db: float
    last_psnr_db: float
    levels: float
    first_motion_px: float | None = None
    last_motion_px: float | None = None
    mouth: Lag | None = None
    sound: Lag | None = None
    excursion: float | None = None


@dataclass(slots=True)
class Comparison:
    """One session's chunks as they come, against the exact session's."""

    squared: list[float] = field(default_factory=list)
    absolute: list[float] = field(default_factory=list)
    motion_px: list[float] = field(default_factory=list)
    poses_px: list[float] = field(default_factory=list)
    openings: list[Series] = field(default_factory=list)

    def add(self, found: Made, wanted: Made) -> None:
        """The next chunk."""
        squared, absolute = _errors(found.pictures, wanted.pictures)
        self.squared.append(squared)
        self.absolute.append(absolute)
        if found.motion is None or wanted.motion is None or found.opening is None:
            return
        self.motion_px.append(_rms(found.motion - wanted.motion))
        self.poses_px.append(_rms(found.motion.mean(axis=0)))
        self.openings.append(found.opening)

    def quality(
        self, precision: str, size_bytes: int, exact: Sequence[Series], sound: Series
    ) -> Quality:
        """So far. `exact`: the exact session's openings, `sound`: loudness of each frame."""
        values = [psnr_db(squared) for squared in self.squared]
        motion: dict[str, Any] = {}
        if self.motion_px:
            opening = np.concatenate(self.openings)
            motion = {
                "first_motion_px": _first(self.motion_px),
                "last_motion_px": _last(self.motion_px),
                "mouth": lag(opening, np.concatenate(exact)),
                "sound": lag(opening, sound[: len(opening)]),
                "excursion": _last(self.poses_px) / max(_first(self.poses_px), 1e-9),
            }
        return Quality(
            precision=precision,
            chunks=len(values),
            weight_megabytes=size_bytes / 1e6,
            psnr_db=float(np.mean(values)),
            worst_psnr_db=min(values),
            first_psnr_db=_first(values),
            last_psnr_db=_last(values),
            levels=float(np.mean(self.absolute)),
            **motion,
        )


def measure_quality(
    model: str,
    weights: Path | None,
    device: str,
    portrait: Path | Portrait,
    chunks: int,
    precisions: Sequence[str],
    *,
    speech: Path | None = None,
    frames: int = NEW_FRAMES,
    num_threads: int | None = None,
    interim: Callable[[list[Quality]], None] | None = None,
) -> list[Quality]:
    """Run the exact session and one of each precision side by side, in float32 on every side but
    the yardstick's; the exact one's figures come first.

    Args:
        speech: what they hear, again and again; None: noise that swells like syllables.
        frames: pictures of each chunk that are compared; the motion of all of them is.
        interim: told every minute what was found so far.

    Raises:
        QuantizationError: a precision that is unknown or cannot run on the device.
        ValueError: numbers out of range, or a portrait or recording that cannot be used.
    """
    if chunks < 1:
        raise ValueError(f"chunks={chunks}: must be at least 1")
    if not 1 <= frames <= NEW_FRAMES:
        raise ValueError(f"frames={frames}: must be in 1..{NEW_FRAMES}, the new ones of a chunk")
    for precision in precisions:
        if precision not in (*PRECISIONS, YARDSTICK):
            raise QuantizationError(
                f"precision={precision!r} is unknown; choose {', '.join((*PRECISIONS, YARDSTICK))}"
            )
    sound = read_sound(speech)
    engines = {
        name: _engine(model, weights, device, name, num_threads) for name in (EXACT, *precisions)
    }
    sizes = {name: weight_bytes(engine.pipeline.model) for name, engine in engines.items()}
    makers = {
        name: session_chunks(engine, portrait, sound, frames) for name, engine in engines.items()
    }
    found = {name: Comparison() for name in engines}
    curve = loudness(sound, chunks)

    def summary() -> list[Quality]:
        exact = found[EXACT].openings
        return [side.quality(name, sizes[name], exact, curve) for name, side in found.items()]

    said = time.monotonic()
    for index in range(chunks):
        made = {name: next(maker) for name, maker in makers.items()}
        for name, side in found.items():
            side.add(made[name], made[EXACT])
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            sys.stderr.write(f"bench: chunk {index + 1} of {chunks}\n")
            if interim is not None:
                interim(summary())
    return summary()


def first_portrait() -> Path:
    """The picture of the first built-in avatar.

    Raises:
        ValueError: the gallery holds none.
    """
    config = ServerConfig.model_validate({})
    for avatar in AvatarStore(config.data_dir / "avatars", config.gallery).list():
        if avatar.builtin:
            return avatar.source
    raise ValueError(f"gallery={config.gallery}: holds no avatar; name a picture with --portrait")


def _engine(
    model: str, weights: Path | None, device: str, precision: str, num_threads: int | None
) -> AvatarEngine:
    dtype = torch.bfloat16 if precision == YARDSTICK else torch.float32
    torch.manual_seed(0)  # random weights, where a model has no others, are the same for all
    engine = AvatarEngine.load(
        model, weights=weights, device=device, dtype=dtype, num_threads=num_threads
    )
    if precision in PRECISIONS:
        quantize(engine.pipeline.model, precision)
    return engine


def _errors(found: Pixels, wanted: Pixels) -> tuple[float, float]:
    """Mean squared and mean absolute difference, in levels of 255."""
    difference = found.astype(np.float32) - wanted.astype(np.float32)
    return float(np.square(difference).mean()), float(np.abs(difference).mean())


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _tenth(values: Sequence[float]) -> int:
    return max(1, len(values) // 10)


def _first(values: Sequence[float]) -> float:
    return float(np.mean(values[: _tenth(values)]))


def _last(values: Sequence[float]) -> float:
    return float(np.mean(values[-_tenth(values) :]))


def lag(found: Series, wanted: Series) -> Lag:
    """Where two curves of equal length agree best, within `REACH_FRAMES`; r 0 for a flat one."""
    best = Lag(r=-2.0, frames=0)
    # the nearest first, so that curves without a maximum are not called late
    for frames in sorted(range(-REACH_FRAMES, REACH_FRAMES + 1), key=abs):
        if len(found) - abs(frames) < 2:
            continue
        late, early = (found, wanted) if frames >= 0 else (wanted, found)
        r = _pearson(late[abs(frames) :], early[: len(early) - abs(frames)])
        if r > best.r:
            best = Lag(r=r, frames=frames)
    return best


def _pearson(a: Series, b: Series) -> float:
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    return float((x * y).sum()) / scale if scale > 1e-12 else 0.0


def psnr_db(squared: float) -> float:
    """Of a mean squared error in levels of 255; 99 for pictures that are equal."""
    return 99.0 if squared <= 0 else min(99.0, 10 * math.log10(255**2 / squared))


def print_quality(found: Sequence[Quality]) -> None:
    """A table on stdout."""
    table = Table(title="Sessions of one seed and sound against the one in float32")
    for column in ("", *(quality.precision for quality in found)):
        table.add_column(column, justify="right" if column else "left")
    cells = [_cells(quality) for quality in found]
    for name in cells[0]:
        table.add_row(name, *(column[name] for column in cells))
    Console().print(table)


def _cells(x: Quality) -> dict[str, str]:
    cells = {
        "chunks": str(x.chunks),
        "weights, MB": f"{x.weight_megabytes:.1f}",
        "PSNR, dB": f"{x.psnr_db:.1f}",
        "  worst chunk": f"{x.worst_psnr_db:.1f}",
        "  first, last tenth": f"{x.first_psnr_db:.1f}, {x.last_psnr_db:.1f}",
        "difference, levels of 255": f"{x.levels:.2f}",
    }
    if x.mouth is None or x.sound is None:
        return cells
    return cells | {
        "motion, px: first, last tenth": f"{x.first_motion_px:.3f}, {x.last_motion_px:.3f}",
        "mouth against float32's: r, lag": f"{x.mouth.r:.3f}, {x.mouth.frames}",
        "mouth against loudness: r, lag": f"{x.sound.r:.3f}, {x.sound.frames}",
        "distance from the portrait, last / first": f"{x.excursion:.2f}",
    }


def write_quality_json(found: Sequence[Quality], path: Path) -> None:
    """The same figures for a program."""
    rows: list[dict[str, Any]] = [asdict(x) for x in found]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
