"""The models by name: sizes, codec, front end and weights, as one readable table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from visavis.engine.audio.front_end import AudioFrontEnd, MelFrontEnd
from visavis.engine.codec.base import LatentCodec
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.weights import CODEC_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Per-model bundle.

    `dit` is used for random weights; a weights folder's own config.json has the last word.
    `weights` names the default folder; None: the transformer's weights are random.
    `load_codec` gets the weights folder, the device and the dtype of the transformer.
    """

    dit: DiTConfig
    load_codec: Callable[[Path, torch.device, torch.dtype], LatentCodec]
    front_end: Callable[[], AudioFrontEnd]
    weights: str | None
    codec_weights: str
    num_steps: int = 4


def _motion_codec(folder: Path, device: torch.device, dtype: torch.dtype) -> LatentCodec:
    from visavis.engine.codec.motion import MotionCodec

    codec: LatentCodec = MotionCodec.load(folder / CODEC_FILE, device, dtype)
    return codec


MODELS: dict[str, ModelSpec] = {
    "embedded": ModelSpec(
        dit=DIT_PRESETS["embedded"],
        load_codec=_motion_codec,
        front_end=MelFrontEnd,
        weights="embedded",
        codec_weights="embedded",
    ),
    # Random transformer, real codec: for tests of shapes and protocols, never for a user.
    "test": ModelSpec(
        dit=DIT_PRESETS["test"],
        load_codec=_motion_codec,
        front_end=MelFrontEnd,
        weights=None,
        codec_weights="embedded",
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
