"""The models by name: sizes, codec, front end and weights, as one readable table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from visavis.engine.audio.front_end import AudioFrontEnd, MelFrontEnd
from visavis.engine.codec.base import LatentCodec
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Per-model bundle.

    `dit` gives the sizes for random weights; a weights folder's own config.json has the last word.
    `weights` names the default folder; None: transformer and codec get random weights.
    `load_codec` gets the weights folder, or None, and the device.
    """

    dit: DiTConfig
    load_codec: Callable[[Path | None, torch.device], LatentCodec[Any]]
    front_end: Callable[[], AudioFrontEnd]
    weights: str | None
    num_steps: int = 4


def _motion_codec(folder: Path | None, device: torch.device) -> LatentCodec[Any]:
    # Models bring their own libraries; only the one that is loaded is imported.
    from visavis.engine.codec.motion import MotionCodec
    from visavis.engine.codec.networks import EncoderConfig, PainterConfig

    if folder is not None:
        return MotionCodec.load(folder, device)
    codec = MotionCodec(PainterConfig(), EncoderConfig())
    return codec.eval().requires_grad_(False).to(device)


MODELS: dict[str, ModelSpec] = {
    "embedded": ModelSpec(
        dit=DIT_PRESETS["embedded"],
        load_codec=_motion_codec,
        front_end=MelFrontEnd,
        weights="embedded",
    ),
    # For tests of shapes and protocols, never for a user: its face twitches at random.
    "test": ModelSpec(
        dit=DIT_PRESETS["test"],
        load_codec=_motion_codec,
        front_end=MelFrontEnd,
        weights=None,
    ),
}


class UnknownModelError(ValueError):
    """A model name that is not in the registry."""


def model_spec(name: str) -> ModelSpec:
    """The model's bundle.

    Raises:
        UnknownModelError: no such model; the message lists those there are.
    """
    spec = MODELS.get(name)
    if spec is None:
        raise UnknownModelError(f"model={name!r}: must be one of {', '.join(sorted(MODELS))}")
    return spec
