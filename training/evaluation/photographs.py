"""Photographs that nobody trained on, speaking: do they still look like themselves?

Legend: N frames, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray

from visavis.training.identity import Embeddings, same_person, similarity
from visavis.training.landmarks import Landmarks, face_found

# Held-out pictures by what is special about them, and a photograph of Grace Hopper with glasses by
# the United States Navy, in the public domain, that comes with matplotlib.
HELD_OUT_CASES: Final[Mapping[str, str]] = {
    "beard": "male-80",
    "headdress": "male-29",
    "dark skin": "male-98",
    "light skin": "female-88",
    "long hair": "female-91",
    "white hair": "female-52",
    "shaven head": "male-55",
}
GLASSES: Final = "glasses"
SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")


def find_photographs(portraits: Path, folder: Path | None) -> dict[str, Path]:
    """Pictures by name: the cases, and all of `folder`.

    Raises ValueError when a folder was named that holds no pictures.
    """
    found = {GLASSES: Path(get_sample_data("grace_hopper.jpg", asfileobj=False))}
    found |= {case: portraits / f"{name}.jpg" for case, name in HELD_OUT_CASES.items()}
    if folder is not None:
        own = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
        if not own:
            raise ValueError(
                f"photographs={folder} holds no {', '.join(SUFFIXES)} files; name a folder that "
                "does"
            )
        found |= {path.stem: path for path in own}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """One photograph speaking: the share of frames in which its face is found, and in which the
    face network takes it for the photograph's; `similarity`, mean cosine; `row` [N, H, W, 3]: the
    photograph and some frames."""

    face_found: float
    same_person: float
    similarity: float
    row: NDArray[np.uint8]


def likeness(
    portrait: NDArray[np.uint8],
    frames: NDArray[np.uint8],
    points: Landmarks,
    embedded: Embeddings,
    *,
    shown: int = 9,
) -> Likeness:
    """Compare frames [N, H, W, 3] with their portrait [H, W, 3].

    `embedded` [1 + n, 128]: of the portrait, and of any n of the frames.
    """
    step = max(len(frames) // (shown - 1), 1)
    return Likeness(
        face_found=face_found(points),
        same_person=same_person(embedded[1:], embedded[0]),
        similarity=similarity(embedded[1:], embedded[0]),
        row=np.concatenate([portrait[None], frames[step // 2 :: step][: shown - 1]]),
    )


def likeness_figures(several: Sequence[Likeness]) -> dict[str, float]:
    """Means over photographs."""
    return {
        "photographs_face_found": float(np.mean([one.face_found for one in several])),
        "photographs_same_person": float(np.mean([one.same_person for one in several])),
        "photographs_similarity": float(np.nanmean([one.similarity for one in several])),
    }
