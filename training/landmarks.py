"""Landmarks of generated frames by an independent detector (see landmark_worker.py)."""

import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

POINTS: Final = 478
WORKER: Final = Path(__file__).with_name("landmark_worker.py")
PYTHON_VARIABLE: Final = "VISAVIS_LANDMARK_PYTHON"
DEFAULT_PYTHON: Final = Path(".venv-landmarks/bin/python")

_INNER_LIPS: Final = ((13, 14), (312, 317), (82, 87))
_EYE_CORNERS: Final = (33, 263)
_EYES: Final = (((159, 145), (33, 133)), ((386, 374), (362, 263)))

Landmarks = NDArray[np.float32]


class LandmarkerError(RuntimeError):
    """The landmark detector's environment is missing or it died."""


class IndependentLandmarker:
    """The worker process, as a context manager."""

    def __init__(self, python: Path | None = None) -> None:
        chosen = python or Path(os.environ.get(PYTHON_VARIABLE, DEFAULT_PYTHON))
        if not chosen.exists():
            raise LandmarkerError(
                f"no Python with mediapipe at {chosen}; run `make eval`, which makes it, or set "
                f"{PYTHON_VARIABLE} to an interpreter that has mediapipe 0.10.14"
            )
        self._process = subprocess.Popen(
            [str(chosen), str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def detect(self, frames_NHWC: NDArray[np.uint8]) -> Landmarks:
        """Landmarks [N, 478, 2] in pixels, NaN where no face was found."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise LandmarkerError("the landmark process has no pipes")
        count, height, width, _ = frames_NHWC.shape
        found = np.empty((count, POINTS, 2), np.float32)
        size = POINTS * 2 * 4
        for i, frame in enumerate(frames_NHWC):
            stdin.write(struct.pack("<III", 1, height, width) + frame.tobytes())
            stdin.flush()
            data = stdout.read(size)
            if len(data) < size:
                raise LandmarkerError(
                    f"the landmark process ended with code {self._process.poll()}; does its Python "
                    "import mediapipe 0.10.14 (`make eval` makes one that does)?"
                )
            found[i] = np.frombuffer(data, np.float32).reshape(POINTS, 2)
        return found


def face_found(landmarks: Landmarks) -> float:
    """Share of frames with a face."""
    return float(np.isfinite(landmarks[:, 0, 0]).mean())


def mouth_opening(landmarks: Landmarks) -> NDArray[np.float64]:
    """Gap between the inner lips over the eyes' outer distance [N], gaps in time interpolated."""
    gaps = [landmarks[:, low, 1] - landmarks[:, top, 1] for top, low in _INNER_LIPS]
    return _fill(np.mean(gaps, axis=0) / _eye_distance(landmarks))


def eye_opening(landmarks: Landmarks) -> NDArray[np.float64]:
    """Height over width of both eyes [N], averaged."""
    ratios = []
    for (top, low), (left, right) in _EYES:
        width = np.linalg.norm(landmarks[:, left] - landmarks[:, right], axis=1)
        ratios.append((landmarks[:, low, 1] - landmarks[:, top, 1]) / width)
    return _fill(np.mean(ratios, axis=0))


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
