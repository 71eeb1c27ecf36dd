"""The 14B model's text encoder: umT5-xxl from transformers, with the original's key map."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from visavis.engine.tensor_files import Move, TensorFiles, move_tensors

UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}

_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "norm2": "layer.1.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def text_moves(num_layers: int, prefix: str = "") -> list[Move]:
    """The original's `T5Encoder` -> `UMT5EncoderModel`; `prefix` stands before stored names."""
    names = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
    for i in range(num_layers):
        for theirs, ours in _BLOCK.items():
            names[f"blocks.{i}.{theirs}"] = f"encoder.block.{i}.{ours}"
    return [Move(f"{prefix}{a}.weight", f"{b}.weight") for a, b in names.items()]


def load_text_encoder(
    config: UMT5Config,
    path: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
) -> UMT5EncoderModel:
    """Build the encoder from the original's checkpoint (.pth or safetensors), strictly.

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape.
    """
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    with TensorFiles(path) as files:
        moves = text_moves(config.num_layers)
        tied = ["encoder.embed_tokens.weight"]
        move_tensors(model, files, moves, dtype=dtype, device=device, tied=tied)
    model.encoder.embed_tokens.weight = model.shared.weight
    model.requires_grad_(False).train(False)
    return model


@torch.inference_mode()
def encode_ids(model: UMT5EncoderModel, ids_1L: Tensor) -> Tensor:
    """Token ids without padding [1, L] -> features [1, L, d_model].

    Padding is left out: masked positions change nothing here, and the transformer adds its own.
    """
    features: Tensor = model(input_ids=ids_1L.to(model.device)).last_hidden_state
    return features


def encode_prompt(
    model: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, prompt: str, max_tokens: int = 512
) -> Tensor:
    """Features of a prompt, [1, L <= max_tokens, d_model]; runs of white space count as one."""
    clean = " ".join(prompt.split())
    ids = tokenizer(clean, return_tensors="pt", truncation=True, max_length=max_tokens).input_ids
    return encode_ids(model, ids)
