"""Who is to be seen: face embeddings by an independent network (see frame_judge_worker.py)."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.training.frame_judge import FrameJudge

EMBEDDING: Final = 128

Embeddings = NDArray[np.float32]


class IdentityJudge(FrameJudge):
    """The worker process, as a context manager."""

    def __init__(self, python: Path | None = None) -> None:
        super().__init__("identity", EMBEDDING, python)

    def embed(self, frames_NHWC: NDArray[np.uint8]) -> Embeddings:
        """Embeddings [N, 128], NaN where no face was found."""
        return self.judge(frames_NHWC)


def similarity(embeddings_N: Embeddings, reference: Embeddings) -> float:
    """Mean cosine similarity to one embedding [128], over the frames with a face; NaN if none."""
    known = embeddings_N[np.isfinite(embeddings_N[:, 0])]
    if not len(known) or not np.isfinite(reference[0]):
        return float("nan")
    cosines = known @ reference / (np.linalg.norm(known, axis=1) * np.linalg.norm(reference))
    return float(np.mean(cosines))
