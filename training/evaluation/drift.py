"""DRIFT(n) and COLLAPSE: how far the picture of chunk n is from the portrait (method section 3.1).

The drift of a chunk is the root mean square of five factors, each over what one would just notice.
It is averaged over five chunks from n on, so that one pose or one word does not decide.

Legend: N frames, H W pixels, F factors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.long_run import HandOver, LongRun, LongSession
from visavis.training.evaluation.statistics import (
    boundary_jump_ratio,
    frame_differences,
    sharpness,
)
from visavis.training.landmarks import IndependentLandmarker, Landmarks, head_pose

AVERAGED_CHUNKS: Final = 5
FRAMES_LOOKED_AT: Final = 4  # of each chunk
# What is just visible: colour in CIELAB, border pixels in 8-bit levels, shape and place in eye
# distances, sharpness as a ratio's logarithm.
NOTICEABLE: Final = {"colour": 2.3, "border": 4.0, "shape": 0.03, "place": 0.1, "sharpness": 0.1}
_BORDER: Final = 20
# Eyes, nose bridge and temples: what no word moves.
_RIGID: Final = (33, 133, 362, 263, 6, 168, 197, 127, 356, 10)
# What precedes the names of the figures of sessions that hand over in this way.
PREFIXES: Final[dict[HandOver, str]] = {
    "exact": "",
    "reencoded": "reencoded_",
    "corrected": "corrected_",
}
COLLAPSED: Final = 4.0  # drift beyond which a chunk counts as collapsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One session at its checkpoints.

    `factors` [F] in units of what is noticeable, of what is shown; `painted_border`: the border's
    factor as the codec's painter has it, who moves what lies behind the head; `jumps`:
    boundary-jump ratio of the chunks looked at; `film` the last frame [H, W, 3] of the checkpoint's
    own chunk.
    """

    factors: dict[int, NDArray[np.float64]]
    painted_border: dict[int, float]
    jumps: dict[int, float]
    film: dict[int, NDArray[np.uint8]]

    def value(self, chunk: int) -> float:
        """DRIFT(chunk)."""
        return float(np.sqrt(np.mean(self.factors[chunk] ** 2)))


def drift_figures(drifts: Sequence[Drift], prefix: str = "") -> dict[str, float]:
    """DRIFT at every checkpoint and over the first (both averaged over sessions), the factors of
    the last, COLLAPSE (share of sessions beyond `COLLAPSED` there) and the boundary-jump ratio;
    every name begins with `prefix`."""
    first, *later = drifts[0].factors
    values = {n: np.array([drift.value(n) for drift in drifts]) for n in (first, *later)}
    last = later[-1] if later else first
    figures = {f"drift_{n}": float(value.mean()) for n, value in values.items()}
    figures |= {
        f"drift_ratio_{n}": float(values[n].mean() / max(values[first].mean(), 1e-9)) for n in later
    }
    for column, name in enumerate(NOTICEABLE):
        figures[f"drift_{name}_{last}"] = float(
            np.mean([drift.factors[last][column] for drift in drifts])
        )
    figures[f"drift_border_painter_{last}"] = float(
        np.mean([drift.painted_border[last] for drift in drifts])
    )
    figures["collapsed"] = float(np.mean(values[last] > COLLAPSED))
    figures[f"drift_boundary_jump_{last}"] = float(np.mean([drift.jumps[last] for drift in drifts]))
    return {f"{prefix}{name}": value for name, value in figures.items()}


def drift(
    run: LongRun,
    sessions: Sequence[LongSession],
    checkpoints: Sequence[int],
    landmarker: IndependentLandmarker,
    advanced: Callable[[int], None] = lambda _: None,
) -> list[Drift]:
    """Advance the sessions past the last checkpoint and look at them at each.

    A checkpoint n stands for chunks n .. n + 4; the last for the five that end with it. `advanced`
    is told the number of every chunk that was made.
    """
    spans = {
        n: range(n, n + AVERAGED_CHUNKS)
        if n != checkpoints[-1] or n < AVERAGED_CHUNKS
        else range(n - AVERAGED_CHUNKS + 1, n + 1)
        for n in checkpoints
    }
    seen: dict[int, list[list[Tensor]]] = {n: [[] for _ in sessions] for n in spans}
    for chunk in range(1, max(span[-1] for span in spans.values()) + 1):
        made = run.advance(sessions)
        advanced(chunk)
        for n, span in spans.items():
            if chunk in span:
                for kept, codes in zip(seen[n], made, strict=True):
                    kept.append(codes)
    found = []
    for number, session in enumerate(sessions):
        kept_codes = {n: torch.cat(chunks[number]) for n, chunks in seen.items()}
        found.append(_look(run, session, kept_codes, spans, landmarker))
    return found


def _look(
    run: LongRun,
    session: LongSession,
    codes: dict[int, Tensor],
    spans: Mapping[int, range],
    landmarker: IndependentLandmarker,
) -> Drift:
    """Draw what was kept of a session, the chunks of `spans` a checkpoint, one after the other."""
    new = run.new_frames
    portrait = run.portrait(session)
    rest = run.render(codes[min(codes)].new_zeros(1, *codes[min(codes)].shape[1:]), session)
    every = new // FRAMES_LOOKED_AT
    factors, painted, jumps, film = {}, {}, {}, {}
    for n, kept in codes.items():
        frames = run.draw(kept, session)
        factors[n] = measure(frames[::every], portrait, landmarker)
        painted[n] = border_distance(run.render(kept[::new], session), rest[0])
        borders = range(new, len(frames), new)
        jumps[n] = boundary_jump_ratio(frame_differences(frames), borders)
        film[n] = frames[new * (spans[n].index(n) + 1) - 1]
    return Drift(factors=factors, painted_border=painted, jumps=jumps, film=film)


def measure(
    frames_NHWC: NDArray[np.uint8],
    portrait_HWC: NDArray[np.uint8],
    landmarker: IndependentLandmarker,
) -> NDArray[np.float64]:
    """The five factors of frames against their portrait, in units of what is noticeable."""
    points = landmarker.detect(np.concatenate([portrait_HWC[None], frames_NHWC]))
    colour = np.array([_mean_colour(frame) for frame in frames_NHWC]).mean(axis=0)
    place = head_pose(points)[:, :2]
    detail = sharpness(frames_NHWC).mean() / sharpness(portrait_HWC[None]).mean()
    found = {
        "colour": float(np.linalg.norm(colour - _mean_colour(portrait_HWC))),
        "border": NOTICEABLE["border"] * border_distance(frames_NHWC, portrait_HWC),
        "shape": _shape_distance(points),
        "place": float(np.linalg.norm(place[1:].mean(axis=0) - place[0])),
        "sharpness": abs(float(np.log(detail))),
    }
    return np.array([found[name] / scale for name, scale in NOTICEABLE.items()])


def border_distance(frames_NHWC: NDArray[np.uint8], portrait_HWC: NDArray[np.uint8]) -> float:
    """Mean change of the top corners, in units of what is noticeable."""
    corners = _border(portrait_HWC[None].astype(np.float64))
    change = np.abs(_border(frames_NHWC.astype(np.float64)) - corners)
    return float(change.mean()) / NOTICEABLE["border"]


def _mean_colour(frame_HWC: NDArray[np.uint8]) -> NDArray[np.float64]:
    lab = cv2.cvtColor(frame_HWC.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(lab.reshape(-1, 3).mean(axis=0), np.float64)


def _border(frames_NHWC: NDArray[np.float64]) -> NDArray[np.float64]:
    """The top corners, where nothing but the background should be [N, pixels]."""
    left, right = frames_NHWC[:, :_BORDER, :_BORDER], frames_NHWC[:, :_BORDER, -_BORDER:]
    return np.concatenate([part.reshape(len(part), -1) for part in (left, right)], axis=1)


def _shape_distance(points: Landmarks) -> float:
    """Root mean square distance of the rigid landmarks of frames 1.. from those of frame 0, after
    the best shift, turn and scale, in eye distances; NaN frames are left out."""
    first = points[0, list(_RIGID)].astype(np.float64)
    eyes = np.linalg.norm(first[0] - first[3])
    distances = []
    for frame in points[1:]:
        if np.isfinite(frame[0, 0]):
            moved = _aligned(frame[list(_RIGID)].astype(np.float64), first)
            distances.append(np.sqrt(np.mean(np.sum((moved - first) ** 2, axis=1))))
    return float(np.mean(distances) / eyes) if distances else float(10 * NOTICEABLE["shape"])


def _aligned(points: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares similarity transform of points [P, 2] on target [P, 2]."""
    a = (points - points.mean(axis=0)) @ np.array([1, 1j])
    b = (target - target.mean(axis=0)) @ np.array([1, 1j])
    turned = a * (np.vdot(a, b) / np.vdot(a, a))
    aligned: NDArray[np.float64] = np.column_stack([turned.real, turned.imag]) + target.mean(axis=0)
    return aligned
