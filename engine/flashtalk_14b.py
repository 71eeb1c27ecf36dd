"""The released SoulX-FlashTalk checkpoint: its folder, and the parts that lie in it.

The folder is the one that was published, with the speech encoder's folder put into it; see
docs/flashtalk-14b.md. Sizes that no file of it states are in `EncoderSizes`.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    UMT5Config,
    Wav2Vec2Config,
)

from visavis.engine.audio.wav2vec import Wav2VecFeatures
from visavis.engine.audio.wav2vec_front_end import Wav2VecFrontEnd
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.dit.checkpoint import ORIGINAL_STEM, load_original
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.encoders.image import CLIP_VIT_H, load_image_encoder
from visavis.engine.encoders.text import UMT5_XXL, encode_prompt, load_text_encoder
from visavis.engine.model_parts import ModelParts
from visavis.engine.placing import load_placed, vae_format
from visavis.engine.weight_memory import WeightMemory
from visavis.engine.weights import CONFIG_FILE, WeightsError, read_config

logger = logging.getLogger(__name__)

# The released model was distilled with prompts of this kind; it moves the background without one.
PROMPT = (
    "Someone faces the camera and speaks. All movement belongs to the person in the foreground; "
    "the background is static."
)

DIT_INDEX = f"{ORIGINAL_STEM}.safetensors.index.json"
DIT_SINGLE = f"{ORIGINAL_STEM}.safetensors"
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER_FILE = "google/umt5-xxl/tokenizer.json"
IMAGE_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE_FILE = "Wan2.1_VAE.pth"
SPEECH_FOLDER = "chinese-wav2vec2-base"
SPEECH_CONFIG = f"{SPEECH_FOLDER}/config.json"
SPEECH_FILES = (f"{SPEECH_FOLDER}/model.safetensors", f"{SPEECH_FOLDER}/pytorch_model.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSizes:
    """What the folder does not say: arguments of the encoders' configurations, and the frame."""

    text: Mapping[str, Any] = field(default_factory=lambda: UMT5_XXL)
    image: Mapping[str, Any] = field(default_factory=lambda: CLIP_VIT_H)
    vae: Mapping[str, Any] = field(default_factory=dict)
    frame_size: tuple[int, int] = (768, 448)


def load_flashtalk_14b(
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    memory: WeightMemory | None = None,
    sizes: EncoderSizes | None = None,
    prompt: str = PROMPT,
) -> ModelParts:
    """Load the folder onto `device`; transformer and VAE in `dtype`, as the released code does,
    unless `memory` gives the VAE another format.

    The text encoder goes first and is dropped once the prompt is encoded, so that its 11 GB and
    the transformer's 38 GB are never held together.

    Raises:
        WeightsError: no folder, or files are missing; every one is named.
        ConfigError: config.json is not that of the released transformer.
        CheckpointError: a tensor is missing, surplus or of another shape.
        OffloadError: `memory` names more blocks than there are.
    """
    folder = _checked(folder)
    sizes, memory = sizes or EncoderSizes(), memory or WeightMemory()
    config = _dit_config(folder, sizes)
    memory.check_blocks(config.num_layers)
    (text,) = encode_prompts(folder, [prompt], device, sizes=sizes)
    dit = _transformer(config, folder, device, dtype, memory)
    codec, front_end = load_encoders(folder, device, vae_format(memory, dtype), sizes=sizes)
    return ModelParts(dit=dit, codec=codec, front_end=front_end, text=text[None])


def load_encoders(
    folder: Path, device: torch.device, dtype: torch.dtype, *, sizes: EncoderSizes | None = None
) -> tuple[WanCodec, Wav2VecFrontEnd]:
    """All of the folder but the transformer and the text encoder; the VAE in `dtype`.

    Raises:
        WeightsError, CheckpointError: as in `load_flashtalk_14b`.
    """
    folder, sizes = _checked(folder), sizes or EncoderSizes()
    half = torch.float16 if device.type == "cuda" else torch.float32
    image = CLIPVisionConfig(**sizes.image)
    codec = WanCodec(
        WanVAE.load(folder / VAE_FILE, config=sizes.vae, dtype=dtype, device=device),
        load_image_encoder(image, folder / IMAGE_FILE, dtype=half, device=device),
        sizes.frame_size,
    )
    speech = Wav2VecFeatures.load(_speech_config(folder), _speech_file(folder), device=device)
    return codec, Wav2VecFrontEnd(speech)


def transformer_config(folder: Path, *, sizes: EncoderSizes | None = None) -> DiTConfig:
    """Sizes of the folder's transformer.

    Raises:
        WeightsError: no folder, or files are missing.
        ConfigError: config.json is not that of the released transformer.
    """
    return _dit_config(_checked(folder), sizes or EncoderSizes())


def load_transformer(
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    memory: WeightMemory | None = None,
    sizes: EncoderSizes | None = None,
) -> FlashTalkDiT:
    """The folder's transformer alone, for a process that follows another; as strict as the whole.

    Raises:
        WeightsError, ConfigError, CheckpointError, OffloadError: as in `load_flashtalk_14b`.
    """
    folder, memory = _checked(folder), memory or WeightMemory()
    config = _dit_config(folder, sizes or EncoderSizes())
    memory.check_blocks(config.num_layers)
    return _transformer(config, folder, device, dtype, memory)


def _transformer(
    config: DiTConfig,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    memory: WeightMemory,
) -> FlashTalkDiT:
    def load(place: torch.device) -> FlashTalkDiT:
        return load_original(config, folder, dtype=dtype, device=place).requires_grad_(False)

    return load_placed(load, memory, device)


def load_vae(
    folder: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    sizes: EncoderSizes | None = None,
) -> tuple[WanVAE, tuple[int, int]]:
    """The folder's VAE alone, and the size of its latents (h, w); otherwise as `load_transformer`.

    Raises:
        WeightsError, CheckpointError: as in `load_flashtalk_14b`.
    """
    folder, sizes = _checked(folder), sizes or EncoderSizes()
    vae = WanVAE.load(folder / VAE_FILE, config=sizes.vae, dtype=dtype, device=device)
    height, width = sizes.frame_size
    return vae, (height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)


def _checked(folder: Path | None) -> Path:
    if folder is None:
        raise WeightsError("flashtalk-14b has no random weights; pass weights=FOLDER")
    check_layout(folder)
    return folder


def _dit_config(folder: Path, sizes: EncoderSizes) -> DiTConfig:
    image, speech = CLIPVisionConfig(**sizes.image), _speech_config(folder)
    return replace(
        DiTConfig.from_original(read_config(folder)),
        text_dim=UMT5Config(**sizes.text).d_model,
        image_dim=image.hidden_size,
        image_tokens=_image_tokens(image),
        audio_layers=speech.num_hidden_layers,
        audio_channels=speech.hidden_size,
    )


def check_layout(folder: Path) -> None:
    """See that every file of the released layout is there; opens none but the shards' index.

    Raises:
        WeightsError: naming each missing file.
    """
    names = [CONFIG_FILE, TEXT_FILE, TOKENIZER_FILE, IMAGE_FILE, VAE_FILE, SPEECH_CONFIG]
    missing = [name for name in names if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in SPEECH_FILES):
        missing.append(" or ".join(SPEECH_FILES))
    if (folder / DIT_INDEX).is_file():
        missing += _missing_shards(folder / DIT_INDEX)
    elif not (folder / DIT_SINGLE).is_file():
        missing.append(f"{DIT_INDEX} and its shards")
    if missing:
        raise WeightsError(
            f"{folder}: missing {', '.join(missing)}; docs/flashtalk-14b.md says where each comes "
            "from"
        )


def _missing_shards(index: Path) -> list[str]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: not an index of shards ({error}); restore it") from error
    return [name for name in sorted(shards) if not (index.parent / name).is_file()]


def _image_tokens(config: CLIPVisionConfig) -> int:
    side, patch = config.image_size, config.patch_size
    assert isinstance(side, int)  # CLIP's pictures are square
    assert isinstance(patch, int)
    return 1 + (side // patch) ** 2


def _speech_file(folder: Path) -> Path:
    return next(path for name in SPEECH_FILES if (path := folder / name).is_file())


def _speech_config(folder: Path) -> Wav2Vec2Config:
    config: Wav2Vec2Config = Wav2Vec2Config.from_dict(read_config(folder / SPEECH_FOLDER))
    return config


def encode_prompts(
    folder: Path,
    prompts: Sequence[str],
    device: torch.device,
    *,
    sizes: EncoderSizes | None = None,
) -> list[Tensor]:
    """Features of each prompt, [L, text_dim]; the encoder is gone when this returns.

    Raises:
        WeightsError, ConfigError, CheckpointError: as in `load_flashtalk_14b`.
    """
    folder, sizes = _checked(folder), sizes or EncoderSizes()
    longest = _dit_config(folder, sizes).text_len
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / TOKENIZER_FILE))  # type: ignore[no-untyped-call]
    encoder = load_text_encoder(UMT5Config(**sizes.text), folder / TEXT_FILE, device=device)
    features = [encode_prompt(encoder, tokenizer, prompt, longest)[0] for prompt in prompts]
    logger.info("encoded %d prompts into %s tokens", len(prompts), [len(f) for f in features])
    del encoder
    gc.collect()  # modules hold cycles; the memory is needed now
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return features
