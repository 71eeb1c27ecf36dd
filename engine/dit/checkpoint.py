"""The transformer's weights: read from the original's layout or ours, written in either."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from visavis.engine.dit.attention import AttentionImpl
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.original_keys import original_to_ours
from visavis.engine.tensor_files import Move, TensorFiles, move_tensors, save_tensors

SHARD_BYTES = 5 * 2**30
ORIGINAL_STEM = "diffusion_pytorch_model"  # the released folder's file names
ORIGINAL_INDEX = f"{ORIGINAL_STEM}.safetensors.index.json"


def load_original(
    config: DiTConfig,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention_impl: AttentionImpl = "sdpa",
) -> FlashTalkDiT:
    """Build a model from a checkpoint in the original's layout: a file or a folder of shards.

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape; it is named.
    """
    names = original_to_ours(config)
    moves = [Move(theirs, ours) for theirs, ours in names.items()]
    return _load(config, path, moves, dtype, device, attention_impl)


def load_own(
    config: DiTConfig,
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention_impl: AttentionImpl = "sdpa",
) -> FlashTalkDiT:
    """Build a model from safetensors under our own names; as strict as `load_original`.

    Raises:
        CheckpointError: a tensor is missing, surplus or of another shape; it is named.
    """
    moves = [Move(ours, ours) for ours in original_to_ours(config).values()]
    return _load(config, path, moves, dtype, device, attention_impl)


def _load(
    config: DiTConfig,
    path: Path,
    moves: list[Move],
    dtype: torch.dtype,
    device: torch.device | str,
    impl: AttentionImpl,
) -> FlashTalkDiT:
    with torch.device("meta"):
        model = FlashTalkDiT(config, attention_impl=impl)
    with TensorFiles(path) as files:
        move_tensors(model, files, moves, dtype=dtype, device=device)
    model.rope.reset(device)
    return model.eval()


def export_original(
    model: FlashTalkDiT,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write the weights as the original does: shards of at most `shard_bytes` and their index.

    `dtype` None keeps the weights'. Holds one shard in memory beside the model.

    Returns:
        The index file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ours = model.state_dict()
    names = original_to_ours(model.config)
    plan = _plan_shards(
        {theirs: _stored_bytes(ours[mine], dtype) for theirs, mine in names.items()}, shard_bytes
    )
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(plan):
        file = f"{ORIGINAL_STEM}-{i + 1:05d}-of-{len(plan):05d}.safetensors"
        tensors = {
            name: ours[names[name]].to(dtype=dtype or ours[names[name]].dtype).cpu().contiguous()
            for name in shard
        }
        save_tensors(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = folder / ORIGINAL_INDEX
    total = sum(_stored_bytes(ours[mine], dtype) for mine in names.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return index


def _stored_bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * (dtype or tensor.dtype).itemsize


def _plan_shards(sizes: dict[str, int], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards
