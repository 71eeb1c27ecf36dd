"""Who is to be seen: face embeddings by an independent network (see frame_judge_worker.py).

The network gives all faces much in common: strangers' embeddings have a cosine far above 0. So a
similarity alone tells little; it is held between that of strangers and that of the truth.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from visavis.training.frame_judge import FrameJudge

EMBEDDING: Final = 128
# Two faces are one person's where the network's own authors draw the line (Euclidean distance).
SAME_PERSON: Final = 0.6

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


def identity_ratio(seen: float, *, truth: float, strangers: float) -> float:
    """A similarity on the scale on which strangers are 0 on average and the truth is 1.

    `seen` is NaN where no frame showed a face: such frames are as good as a stranger's. NaN where
    the truth is no more like the portrait than strangers are, so that there is no scale.
    """
    span = truth - strangers
    if not span > 1e-6:
        return float("nan")
    return (seen - strangers) / span if np.isfinite(seen) else 0.0


def same_person(embeddings_N: Embeddings, reference: Embeddings) -> float:
    """Share of frames whose face is nearer than `SAME_PERSON` to the embedding [128]; a frame
    without a face is nobody's."""
    distances = np.linalg.norm(embeddings_N - reference, axis=1)
    return float(np.mean(distances < SAME_PERSON))
