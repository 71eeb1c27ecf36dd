"""A model, a codec and a store of the released model's kind, at a millionth of its size."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.conditioning_store import (
    ConditioningStore,
    StoredSequence,
    StoredWindow,
    StoreSpec,
    StoreWriter,
)
from visavis.training.stored_clips import StoredClips

FRAME = (32, 48)
CHUNK = 9
CONFIG = DiTConfig(
    dim=32,
    ffn_dim=64,
    num_layers=2,
    num_heads=2,
    latent_channels=16,
    cond_channels=20,
    freq_dim=32,
    text_dim=8,
    text_len=6,
    image_dim=12,
    image_tokens=3,
    audio_layers=2,
    audio_channels=8,
    audio_hidden=16,
    audio_dim=16,
    audio_tokens=2,
)


def tiny_codec() -> WanCodec:
    torch.manual_seed(0)
    network = WanNetwork(WanConfig(base_dim=8, num_res_blocks=1))
    return WanCodec(WanVAE(network), None, FRAME)


def tiny_model() -> FlashTalkDiT:
    torch.manual_seed(0)
    model = FlashTalkDiT(CONFIG, attention_impl="plain")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model


def tiny_store(folder: Path, *, dtype: torch.dtype = torch.float32) -> ConditioningStore:
    """Three windows in two shards, two sequences of two chunks, prompts of one and four tokens."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))

    grid = (CONFIG.latent_channels, 1 + CHUNK // 4, FRAME[0] // 8, FRAME[1] // 8)
    cond = (CONFIG.cond_channels, *grid[1:])
    heard = (CHUNK + 2, CONFIG.audio_layers, CONFIG.audio_channels)
    writer = StoreWriter(
        folder,
        StoreSpec(model="tiny", chunk_frames=CHUNK),
        [normal(1, CONFIG.text_dim), normal(4, CONFIG.text_dim)],
        shard_items=2,
        dtype=dtype,
    )
    for number in range(3):
        writer.add(
            StoredWindow(
                latents=normal(*grid),
                cond=normal(*cond),
                features=normal(*heard),
                face=(normal(*grid[2:]) > 0).float(),
                image=normal(CONFIG.image_tokens, CONFIG.image_dim),
                text=number % 2,
            )
        )
    for _ in range(2):
        writer.add(
            StoredSequence(
                start=normal(grid[0], 1, *grid[2:]),
                history=normal(grid[0], 2, *grid[2:]),
                cond=normal(*cond),
                features=normal(2, *heard),
                picture=torch.from_numpy(rng.integers(0, 256, (*FRAME, 3), np.uint8)),
                landmarks=torch.zeros(0, 2),
                image=normal(CONFIG.image_tokens, CONFIG.image_dim),
                text=1,
            )
        )
    writer.close()
    return ConditioningStore(folder)


def tiny_clips(folder: Path) -> StoredClips:
    return StoredClips(
        tiny_store(folder), torch.device("cpu"), codec=tiny_codec(), focus_weight=3.0
    )
