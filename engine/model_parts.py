"""What a loaded model consists of; every loader of the registry returns one of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from visavis.engine.audio.front_end import AudioFrontEnd
from visavis.engine.codec.base import LatentCodec
from visavis.engine.dit.model import FlashTalkDiT


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParts:
    """Weights, ready on their device. `text`: features of the prompt, [1, L, text_dim]."""

    dit: FlashTalkDiT
    codec: LatentCodec[Any]
    front_end: AudioFrontEnd
    text: Tensor | None = None
