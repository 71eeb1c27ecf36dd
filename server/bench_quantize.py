"""What eight-bit weights cost in picture quality: `visavis bench quantize`.

Two sessions of one seed hear the same sound, one with the weights as they are, one with rounded
ones, each going on from what it made itself, so that errors can add up as they would in use.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
from visavis.engine.quantize import PRECISIONS, QuantizationError, quantize, weight_bytes
from visavis.server.avatars import AvatarStore
from visavis.server.bench import babble
from visavis.server.config import ServerConfig

RATE = 16_000
CHUNK_SAMPLES = 28 * RATE // 25
SAID_EVERY_S = 60.0
YARDSTICK = "bfloat16"  # the whole transformer in it, weights not quantised

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Pictures with rounded weights against those without, over all chunks.

    PSNR in dB of each chunk: the mean, the worst, and the mean of the first and of the last tenth,
    which differ where errors add up. `levels`: mean absolute difference, of 255.
    """

    precision: str
    chunks: int
    weight_megabytes: float
    psnr_db: float
    worst_psnr_db: float
    first_psnr_db: float
    last_psnr_db: float
    levels: float


def measure_quality(
    model: str,
    weights: Path | None,
    device: str,
    portrait: Path | Portrait,
    chunks: int,
    precisions: Sequence[str],
) -> list[Quality]:
    """Run the exact session and one of each precision side by side, in float32 on every side but
    the yardstick's.

    Raises:
        QuantizationError: a precision that is unknown or cannot run on the device.
        ValueError: fewer than one chunk, or a portrait that cannot be used.
    """
    if chunks < 1:
        raise ValueError(f"chunks={chunks}: must be at least 1")
    engines = {"exact": _engine(model, weights, device, torch.float32)}
    for precision in precisions:
        engines[precision] = _rounded(model, weights, device, precision)
    makers = {name: _chunks_of(engine, portrait, chunks) for name, engine in engines.items()}
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in precisions}
    said = time.monotonic()
    for index in range(chunks):
        exact = next(makers["exact"])
        for name in precisions:
            errors[name].append(_errors(next(makers[name]), exact))
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            sys.stderr.write(f"bench: chunk {index + 1} of {chunks}\n")
    return [
        summary(name, errors[name], weight_bytes(engines[name]._pipeline.model))
        for name in precisions
    ]


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


def _engine(model: str, weights: Path | None, device: str, dtype: torch.dtype) -> AvatarEngine:
    return AvatarEngine.load(model, weights=weights, device=device, dtype=dtype)


def _rounded(model: str, weights: Path | None, device: str, precision: str) -> AvatarEngine:
    if precision == YARDSTICK:
        return _engine(model, weights, device, torch.bfloat16)
    if precision not in PRECISIONS:
        raise QuantizationError(
            f"precision={precision!r} is unknown; choose {', '.join((*PRECISIONS, YARDSTICK))}"
        )
    engine = _engine(model, weights, device, torch.float32)
    quantize(engine._pipeline.model, precision)
    return engine


def _chunks_of(engine: AvatarEngine, portrait: Path | Portrait, chunks: int) -> Iterator[Pixels]:
    """The pictures [28, H, W, 3] of each chunk of one session that is talked to without a pause."""
    avatar = engine.prepare_avatar(portrait)
    session = engine.open_session(avatar, input_rate=RATE, seed=1)
    for index in range(chunks):
        session.push_audio(babble(CHUNK_SAMPLES, RATE, seed=index))
        frames: list[Pixels] = []
        while session.next_chunk() is not None:
            frames += [frame.pixels for frame in session.generate()]
        yield np.stack(frames)


def _errors(found: Pixels, wanted: Pixels) -> tuple[float, float]:
    """Mean squared and mean absolute difference, in levels of 255."""
    difference = found.astype(np.float32) - wanted.astype(np.float32)
    return float(np.square(difference).mean()), float(np.abs(difference).mean())


def psnr_db(squared: float) -> float:
    """Of a mean squared error in levels of 255; 99 for pictures that are equal."""
    return 99.0 if squared <= 0 else min(99.0, 10 * math.log10(255**2 / squared))


def summary(precision: str, errors: Sequence[tuple[float, float]], size_bytes: int) -> Quality:
    """From each chunk's mean squared and mean absolute error."""
    values = [psnr_db(squared) for squared, _ in errors]
    tenth = max(1, len(values) // 10)
    return Quality(
        precision=precision,
        chunks=len(values),
        weight_megabytes=size_bytes / 1e6,
        psnr_db=float(np.mean(values)),
        worst_psnr_db=min(values),
        first_psnr_db=float(np.mean(values[:tenth])),
        last_psnr_db=float(np.mean(values[-tenth:])),
        levels=float(np.mean([absolute for _, absolute in errors])),
    )


def print_quality(found: Sequence[Quality]) -> None:
    """A table on stdout."""
    table = Table(title="Rounded weights against exact ones, the same seed and sound: PSNR in dB")
    for column in ("precision", "chunks", "MB", "PSNR", "worst", "first 10 %", "last 10 %"):
        table.add_column(column, justify="right")
    table.add_column("levels of 255", justify="right")
    for x in found:
        table.add_row(
            x.precision,
            str(x.chunks),
            f"{x.weight_megabytes:.1f}",
            f"{x.psnr_db:.1f}",
            f"{x.worst_psnr_db:.1f}",
            f"{x.first_psnr_db:.1f}",
            f"{x.last_psnr_db:.1f}",
            f"{x.levels:.2f}",
        )
    Console().print(table)


def write_quality_json(found: Sequence[Quality], path: Path) -> None:
    """The same figures for a program."""
    rows: list[dict[str, Any]] = [asdict(x) for x in found]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
