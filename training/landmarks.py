"""Landmarks of generated frames by an independent detector (see frame_judge_worker.py)."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.training.frame_judge import FrameJudge

POINTS: Final = 478

_INNER_LIPS: Final = ((13, 14), (312, 317), (82, 87))
_EYE_CORNERS: Final = (33, 263)
_NOSE_TIP: Final = 1
_EYES: Final = (((159, 145), (33, 133)), ((386, 374), (362, 263)))

Landmarks = NDArray[np.float32]


class IndependentLandmarker(FrameJudge):
    """The worker process, as a context manager."""

    def __init__(self, python: Path | None = None) -> None:
        super().__init__("landmarks", POINTS * 2, python)

    def detect(self, frames_NHWC: NDArray[np.uint8]) -> Landmarks:
        """Landmarks [N, 478, 2] in pixels, NaN where no face was found."""
        return self.judge(frames_NHWC).reshape(-1, POINTS, 2)


def face_found(landmarks: Landmarks) -> float:
    """Share of frames with a face."""
    return float(np.isfinite(landmarks[:, 0, 0]).mean())


def mouth_opening(landmarks: Landmarks) -> NDArray[np.float64]:
    """Gap between the inner lips over the eyes' outer distance [N], gaps in time interpolated."""
    gaps = [landmarks[:, low, 1] - landmarks[:, top, 1] for top, low in _INNER_LIPS]
    return _fill(np.mean(gaps, axis=0) / _eye_distance(landmarks))


def eye_opening(landmarks: Landmarks) -> NDArray[np.float64]:
    """Height over width of both eyes [N], averaged."""
    return np.asarray(eye_openings(landmarks).mean(axis=1), np.float64)


def eye_openings(landmarks: Landmarks) -> NDArray[np.float64]:
    """Height over width of the left and the right eye [N, 2]."""
    ratios = []
    for (top, low), (left, right) in _EYES:
        width = np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=1)
        ratios.append((landmarks[:, low, 1] - landmarks[:, top, 1]) / width)
    return np.stack([_fill(ratio) for ratio in ratios], axis=1)


def head_pose(landmarks: Landmarks) -> NDArray[np.float64]:
    """Where the head is and how it is turned [N, 5], in eye distances: x and y of the eyes' middle,
    roll (radians), and the nose tip's way from the eyes' middle, across and down (yaw, pitch)."""
    left, right = landmarks[:, _EYE_CORNERS[0]], landmarks[:, _EYE_CORNERS[1]]
    middle, across = (left + right) / 2, right - left
    distance = np.median(_fill(np.linalg.norm(across, axis=1)))
    roll = np.arctan2(across[:, 1], across[:, 0])
    nose = landmarks[:, _NOSE_TIP] - middle
    columns = [*(middle / distance).T, roll, *(nose / distance).T]
    return np.stack([_fill(column) for column in columns], axis=1)


def _eye_distance(landmarks: Landmarks) -> NDArray[np.float32]:
    left, right = _EYE_CORNERS
    distance: NDArray[np.float32] = np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=1)
    return distance


def _fill(values: NDArray[np.float32]) -> NDArray[np.float64]:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(len(values))
    index = np.arange(len(values))
    return np.interp(index, index[known], values[known].astype(np.float64))
