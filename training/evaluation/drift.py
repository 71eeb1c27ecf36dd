"""DRIFT(n) and COLLAPSE: how far the picture of chunk n is from the portrait (method section 3.1).

The drift of a chunk is the root mean square of five factors, each over what one would just notice.
It is averaged over five chunks from n on, so that one pose or one word does not decide.

Legend: N frames, H W pixels, F factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from visavis.engine.long_run import LongRun, LongSession
from visavis.training.evaluation.statistics import sharpness
from visavis.training.landmarks import IndependentLandmarker, Landmarks, head_pose

AVERAGED_CHUNKS: Final = 5
FRAMES_LOOKED_AT: Final = 4  # of each chunk
# What is just visible: colour in CIELAB, border pixels in 8-bit levels, shape and place in eye
# distances, sharpness as a ratio's logarithm.
NOTICEABLE: Final = {"colour": 2.3, "border": 4.0, "shape": 0.03, "place": 0.1, "sharpness": 0.1}
_BORDER: Final = 20
# Eyes, nose bridge and temples: what no word moves.
_RIGID: Final = (33, 133, 362, 263, 6, 168, 197, 127, 356, 10)
COLLAPSED: Final = 4.0  # drift beyond which a chunk counts as collapsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Per checkpoint: `factors` [sessions, F] in units of what is noticeable, `film` one frame
    [H, W, 3] of the first session."""

    factors: dict[int, NDArray[np.float64]]
    film: dict[int, NDArray[np.uint8]]

    def value(self, chunk: int) -> NDArray[np.float64]:
        """DRIFT(chunk) of every session."""
        drift: NDArray[np.float64] = np.sqrt(np.mean(self.factors[chunk] ** 2, axis=1))
        return drift

    def ratio(self, chunk: int) -> float:
        """DRIFT(chunk) over DRIFT(1), both averaged over sessions."""
        return float(np.mean(self.value(chunk)) / max(float(np.mean(self.value(1))), 1e-9))

    def collapsed(self, chunk: int) -> float:
        """Share of sessions beyond `COLLAPSED` at a checkpoint."""
        return float(np.mean(self.value(chunk) > COLLAPSED))


def drift(
    run: LongRun,
    sessions: Sequence[LongSession],
    checkpoints: Sequence[int],
    landmarker: IndependentLandmarker,
) -> Drift:
    """Advance the sessions past the last checkpoint and look at them at each.

    A checkpoint n stands for chunks n .. n + 4; the last for the five that end with it.
    """
    portraits = [
        run.render(session.state.motion.new_zeros(1, 6, 16, 16), session)[0] for session in sessions
    ]
    spans = {
        n: range(n, n + AVERAGED_CHUNKS)
        if n != checkpoints[-1] or n == 1
        else range(n - AVERAGED_CHUNKS + 1, n + 1)
        for n in checkpoints
    }
    seen: dict[int, list[list[NDArray[np.uint8]]]] = {n: [[] for _ in sessions] for n in spans}
    for chunk in range(1, max(span[-1] for span in spans.values()) + 1):
        made = run.advance(sessions)
        for n, span in spans.items():
            if chunk in span:
                for clip, codes, session in zip(seen[n], made, sessions, strict=True):
                    some = codes[:: len(codes) // FRAMES_LOOKED_AT][:FRAMES_LOOKED_AT]
                    clip.append(run.render(some, session))
    factors, film = {}, {}
    for n, pictures in seen.items():
        clips = [np.concatenate(list(parts)) for parts in pictures]
        factors[n] = np.stack(
            [
                measure(frames, portrait, landmarker)
                for frames, portrait in zip(clips, portraits, strict=True)
            ]
        )
        film[n] = clips[0][-1]
    return Drift(factors=factors, film=film)


def measure(
    frames_NHWC: NDArray[np.uint8],
    portrait_HWC: NDArray[np.uint8],
    landmarker: IndependentLandmarker,
) -> NDArray[np.float64]:
    """The five factors of frames against their portrait, in units of what is noticeable."""
    points = landmarker.detect(np.concatenate([portrait_HWC[None], frames_NHWC]))
    colour = np.array([_mean_colour(frame) for frame in frames_NHWC]).mean(axis=0)
    border = _border(frames_NHWC.astype(np.float64)) - _border(
        portrait_HWC[None].astype(np.float64)
    )
    place = head_pose(points)[:, :2]
    detail = sharpness(frames_NHWC).mean() / sharpness(portrait_HWC[None]).mean()
    found = {
        "colour": float(np.linalg.norm(colour - _mean_colour(portrait_HWC))),
        "border": float(np.abs(border).mean()),
        "shape": _shape_distance(points),
        "place": float(np.linalg.norm(place[1:].mean(axis=0) - place[0])),
        "sharpness": abs(float(np.log(detail))),
    }
    return np.array([found[name] / scale for name, scale in NOTICEABLE.items()])


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
