"""Windows of audio features around every video frame (method section 1.3, step 2)."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 5


def audio_windows(
    features_FLC: Tensor, start: int = 0, stop: int | None = None, window: int = WINDOW
) -> Tensor:
    """Windows of frames start..stop-1, [stop - start, window, L, C], from features [F, L, C].

    A window's neighbours are clamped to 0..stop-1: the end is the chunk's own, not the clip's, as
    the released model was run.

    Raises:
        ValueError: the range is empty or leaves the features.
    """
    end = features_FLC.shape[0] if stop is None else stop
    if not 0 <= start < end <= features_FLC.shape[0]:
        raise ValueError(
            f"start={start}, stop={end}: must be a range inside the {features_FLC.shape[0]} frames"
        )
    offsets = torch.arange(window, device=features_FLC.device) - window // 2
    frames = torch.arange(start, end, device=features_FLC.device)[:, None] + offsets
    return features_FLC[frames.clamp(0, end - 1)]
