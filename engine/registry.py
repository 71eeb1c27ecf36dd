"""The models by name: sizes, parts and weights, as one readable table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from visavis.engine.audio.front_end import AudioFrontEnd, MelFrontEnd
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.model_parts import ModelParts
from visavis.engine.placing import load_placed
from visavis.engine.weight_memory import WeightMemory
from visavis.engine.weights import SPEECH_CONFIG_FILE, load_dit, read_dit_config

if TYPE_CHECKING:
    from visavis.engine.codec.wan_vae import WanVAE

Framing = Literal["face", "picture"]
"""What of an avatar's picture is shown: the face in its canonical square, or all that fits."""

LoadParts = Callable[[DiTConfig, Path | None, torch.device, torch.dtype, WeightMemory], ModelParts]
"""(sizes, weights folder or None, device, the transformer's dtype, how its weights are held) -> the
model, ready to use."""


LoadTransformer = Callable[
    [DiTConfig, Path | None, torch.device, torch.dtype, WeightMemory], FlashTalkDiT
]
"""As `LoadParts`, the transformer alone: what a process that follows another needs."""

LoadVAE = Callable[[Path | None, torch.device, torch.dtype], tuple["WanVAE", tuple[int, int]]]
"""The same for a VAE that a group shares, with the size of its latents (h, w)."""


def load_small_dit(
    config: DiTConfig,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> FlashTalkDiT:
    """`LoadTransformer` of the models in our own layout; errors as `load_dit`, and OffloadError."""
    memory.check_blocks((config if folder is None else read_dit_config(folder)).num_layers)
    return load_placed(lambda place: load_dit(config, folder, place, dtype), memory, device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Per-model bundle.

    `dit` gives the sizes for random weights; a weights folder's own config.json has the last word.
    `weights` names the default folder; None: transformer and codec get random weights. `frame_size`
    is the (height, width) that sessions get; None: the codec's. `fine_size`
    is how many pixels of a framed face (`frame_portrait`) its largest frames show; None: no more
    than the model itself sees. `calm`: the temperature of its noise while it listens; 1 where less
    would spoil the pictures and not only still the face.
    """

    dit: DiTConfig
    load: LoadParts
    load_dit: LoadTransformer = load_small_dit
    load_vae: LoadVAE | None = None
    weights: str | None
    framing: Framing = "face"
    frame_size: tuple[int, int] | None = None
    fine_size: int | None = None
    num_steps: int = 4
    calm: float = 1.0


# Models bring their own libraries; only the one that is loaded is imported.


def _motion_model(
    config: DiTConfig,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> ModelParts:
    from visavis.engine.audio.speech_front_end import SpeechFrontEnd, load_speech_encoder
    from visavis.engine.codec.motion import MotionCodec
    from visavis.engine.codec.networks import EncoderConfig, PainterConfig

    dit = load_small_dit(config, folder, device, dtype, memory)
    if folder is None:
        random = MotionCodec(PainterConfig(), EncoderConfig())
        codec = random.eval().requires_grad_(False).to(device)
        front_end: AudioFrontEnd = MelFrontEnd()
    else:
        codec = MotionCodec.load(folder, device)
        # Weights that were trained without a speech encoder listen to the log-mel itself.
        heard = (folder / SPEECH_CONFIG_FILE).is_file()
        front_end = SpeechFrontEnd(load_speech_encoder(folder, device)) if heard else MelFrontEnd()
    # No text encoder belongs to these models; one with a text branch gets the empty prompt.
    sizes = dit.config
    text = torch.zeros(1, sizes.text_len, sizes.text_dim, device=device)
    return ModelParts(
        dit=dit,
        codec=codec,
        front_end=front_end,
        text=text if sizes.has_text else None,
    )


def _flashtalk_14b(
    _: DiTConfig,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> ModelParts:
    from visavis.engine.flashtalk_14b import load_flashtalk_14b

    return load_flashtalk_14b(folder, device, dtype, memory=memory)


def _flashtalk_14b_transformer(
    _: DiTConfig,
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> FlashTalkDiT:
    from visavis.engine.flashtalk_14b import load_transformer

    return load_transformer(folder, device, dtype, memory=memory)


def _flashtalk_14b_vae(
    folder: Path | None, device: torch.device, dtype: torch.dtype
) -> tuple[WanVAE, tuple[int, int]]:
    from visavis.engine.flashtalk_14b import load_vae

    return load_vae(folder, device, dtype)


MODELS: dict[str, ModelSpec] = {
    "embedded": ModelSpec(
        dit=DIT_PRESETS["embedded"],
        load=_motion_model,
        weights="embedded",
        frame_size=(256, 256),
        fine_size=512,
        calm=0.5,
    ),
    # The released checkpoint, in the folder that docs/flashtalk-14b.md describes.
    "flashtalk-14b": ModelSpec(
        dit=DIT_PRESETS["flashtalk-14b"],
        load=_flashtalk_14b,
        load_dit=_flashtalk_14b_transformer,
        load_vae=_flashtalk_14b_vae,
        weights="flashtalk-14b",
        framing="picture",
    ),
    # For tests of shapes and protocols, never for a user: its face twitches at random.
    "test": ModelSpec(
        dit=DIT_PRESETS["test"],
        load=_motion_model,
        weights=None,
        fine_size=512,
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
