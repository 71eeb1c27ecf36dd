"""The 14B model's image encoder: CLIP ViT-H from transformers, with the original's key map."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from visavis.engine.tensor_files import Move, TensorFiles, move_tensors

CLIP_VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def _third(index: int, row: Tensor) -> Tensor:
    return row.chunk(3)[index]


def image_moves(num_layers: int, names: set[str], prefix: str = "visual.") -> list[Move]:
    """The original's open-clip `visual.*` -> `CLIPVisionModel` with the parameter `names`.

    transformers has had the parameters with and without `vision_model.` before them.
    """
    root = "vision_model." if any(name.startswith("vision_model.") for name in names) else ""
    moves = [
        Move("patch_embedding.weight", "embeddings.patch_embedding.weight"),
        Move("cls_embedding", "embeddings.class_embedding", lambda t: t[0, 0]),
        Move("pos_embedding", "embeddings.position_embedding.weight", lambda t: t[0]),
    ]
    modules = {"pre_norm": "pre_layrnorm", "post_norm": "post_layernorm"}
    for i in range(num_layers):
        theirs, ours = f"transformer.{i}.", f"encoder.layers.{i}."
        modules |= {theirs + a: ours + b for a, b in _BLOCK.items()}
        for j, part in enumerate("qkv"):
            for kind in ("weight", "bias"):
                target = f"{ours}self_attn.{part}_proj.{kind}"
                moves.append(Move(f"{theirs}attn.to_qkv.{kind}", target, partial(_third, j)))
    for theirs, ours in modules.items():
        moves += [Move(f"{theirs}.{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]
    return [Move(prefix + m.source, root + m.target, m.select) for m in moves]


def load_image_encoder(
    config: CLIPVisionConfig,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> CLIPVisionModel:
    """Build the encoder from the original's checkpoint, strictly as to the image tower.

    The text tower and the projection of the class token, stored in the same file, are not read.

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape.
    """
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    moves = image_moves(config.num_hidden_layers, set(model.state_dict()))
    with TensorFiles(path) as files:
        unused = {name for name in files.names if not name.startswith("visual.")}
        move_tensors(
            model, files, moves, dtype=dtype, device=device, unused=unused | {"visual.head"}
        )
    for module in model.modules():
        positions = getattr(module, "position_ids", None)
        if isinstance(positions, Tensor):  # stored in no checkpoint, so still on meta
            module.position_ids = torch.arange(positions.shape[-1], device=device)[None]
    model.requires_grad_(False).train(False)
    return model


def clip_pixels(image_BCHW: Tensor, size: int) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> CLIP's input [B, 3, size, size].

    Squeezed to a square, bicubic and without antialiasing: what the released model was trained on.
    """
    square = F.interpolate(image_BCHW.float(), size=(size, size), mode="bicubic")
    mean, std = (square.new_tensor(x).view(1, 3, 1, 1) for x in (CLIP_MEAN, CLIP_STD))
    return (square * 0.5 + 0.5 - mean) / std


@torch.inference_mode()
def encode_image(model: CLIPVisionModel, image_BCHW: Tensor) -> Tensor:
    """Image tokens [B, 1 + patches, hidden]: the last layer but one, class token first."""
    size = model.config.image_size
    assert isinstance(size, int)  # CLIP's pictures are square
    pixels = clip_pixels(image_BCHW, size).to(model.device, model.dtype)
    tokens: Tensor = model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
    return tokens
