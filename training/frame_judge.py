"""Judges of generated frames that live in an environment and a process of their own.

What they are and how they are talked to: frame_judge_worker.py.
"""

import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

PYTHON_VARIABLE: Final = "VISAVIS_LANDMARK_PYTHON"
WORKER: Final = Path(__file__).with_name("frame_judge_worker.py")
DEFAULT_PYTHON: Final = Path(".venv-landmarks/bin/python")


class JudgeError(RuntimeError):
    """A judge's environment is missing or its process died."""


class FrameJudge:
    """The worker process, as a context manager. `values` float32 come back for every frame."""

    def __init__(
        self, kind: Literal["landmarks", "identity"], values: int, python: Path | None = None
    ) -> None:
        chosen = python or Path(os.environ.get(PYTHON_VARIABLE, DEFAULT_PYTHON))
        if not chosen.exists():
            raise JudgeError(
                f"no Python with mediapipe and dlib at {chosen}; run `make eval`, which makes it, "
                f"or set {PYTHON_VARIABLE} to an interpreter that has them"
            )
        self._values = values
        self._process = subprocess.Popen(
            [str(chosen), str(WORKER), kind],
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

    def judge(self, frames_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Values [N, values] of frames uint8 [N, H, W, 3]. Raises JudgeError if it died."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise JudgeError("the judge's process has no pipes")
        count, height, width, _ = frames_NHWC.shape
        found = np.empty((count, self._values), np.float32)
        size = self._values * 4
        for i, frame in enumerate(frames_NHWC):
            stdin.write(struct.pack("<III", 1, height, width) + frame.tobytes())
            stdin.flush()
            data = stdout.read(size)
            if len(data) < size:
                raise JudgeError(
                    f"the judge's process ended with code {self._process.poll()}; does its Python "
                    "import mediapipe 0.10.14 and dlib (`make eval` makes one that does)?"
                )
            found[i] = np.frombuffer(data, np.float32)
        return found
