"""The released model's folder at a thousandth of its size, from the recordings' tiny networks."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from parity_fixtures import clip_sizes, read_json, tensors, umt5_sizes, vae_config
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from visavis.engine import flashtalk_14b
from visavis.engine.dit.checkpoint import export_original
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.flashtalk_14b import EncoderSizes

FRAME = (64, 48)


def encoder_sizes(fixtures: Path) -> EncoderSizes:
    return EncoderSizes(
        text=umt5_sizes(fixtures),
        image=clip_sizes(fixtures),
        vae=vae_config(fixtures),
        frame_size=FRAME,
    )


def dit_config(fixtures: Path, sizes: EncoderSizes) -> DiTConfig:
    return replace(
        DiTConfig.from_original(read_json(fixtures, "dit_tiny.config")),
        text_dim=sizes.text["d_model"],
        image_dim=sizes.image["hidden_size"],
        image_tokens=17,
        audio_layers=3,
        audio_channels=48,
    )


def write_released(fixtures: Path, root: Path, dit: FlashTalkDiT) -> Path:
    """Every file that the engine reads of a released checkpoint; returns its folder."""
    (root / "config.json").write_text(json.dumps(read_json(fixtures, "dit_tiny.config")))
    export_original(dit, root, shard_bytes=2**22)
    torch.save(_weights(fixtures, "t5_tiny"), root / flashtalk_14b.TEXT_FILE)
    # The file holds CLIP's text tower, too.
    clip = _weights(fixtures, "clip_tiny") | {"log_scale": torch.zeros(1)}
    torch.save(clip, root / flashtalk_14b.IMAGE_FILE)
    torch.save(tensors(fixtures, "vae_tiny.weights"), root / flashtalk_14b.VAE_FILE)
    _write_tokenizer(root / flashtalk_14b.TOKENIZER_FILE)
    speech = root / flashtalk_14b.SPEECH_FOLDER
    speech.mkdir()
    config = read_json(fixtures, "audio_tiny.config")["config"]
    config |= {"architectures": ["Wav2Vec2ForPreTraining"], "model_type": "wav2vec2"}
    (speech / "config.json").write_text(json.dumps(config))
    encoder = tensors(fixtures, "audio_tiny.weights")
    stored = {f"wav2vec2.{name}": tensor for name, tensor in encoder.items()}
    torch.save(stored | {"quantizer.codevectors": torch.zeros(1)}, speech / "pytorch_model.bin")
    return root


def _weights(fixtures: Path, name: str) -> dict[str, Tensor]:
    stored = tensors(fixtures, name)
    return {k.removeprefix("w."): v for k, v in stored.items() if k.startswith("w.")}


def _write_tokenizer(path: Path) -> None:
    """Words to ids, with T5's end token after them."""
    words = ["<pad>", "</s>", "<unk>", "background", "foreground", "static"]
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", ids["</s>"])]
    )
    path.parent.mkdir(parents=True)
    tokenizer.save(str(path))
