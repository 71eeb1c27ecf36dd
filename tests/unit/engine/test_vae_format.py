"""What the video VAE's bfloat16 costs against float32 of the same weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.wan import WanCodec
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.weight_memory import VaeFormatError, WeightMemory

CHUNKS = 4


def small_codec(dtype: torch.dtype) -> WanCodec:
    torch.manual_seed(0)
    network = WanNetwork(WanConfig(base_dim=16, num_res_blocks=1))
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return WanCodec(WanVAE(network.to(dtype)), None, (64, 48))


def session(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Frames in [-1, 1] and motion latents of chunks that each begin as the last one ended.

    The latents between are drawn, alike for every format.
    """
    codec, draw = small_codec(dtype), torch.Generator().manual_seed(1)
    reference = codec.reference_from_image(Image.radial_gradient("L").convert("RGB"))
    motion = codec.initial_motion(reference)
    shown, motions = [], []
    for _ in range(CHUNKS):
        known = motion.shape[1]
        latents = torch.cat([motion, torch.randn(16, 5 - known, 8, 6, generator=draw)], dim=1)
        parts = [part.exact for part in codec.decode(latents, reference)]
        shown.append(torch.cat(parts))
        motion = codec.motion_latents(shown[-1][-5:], reference)
        motions.append(motion)
    return shown, motions


def rms(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    pairs = zip(found, wanted, strict=True)
    return [float((one - other).square().mean().sqrt()) for one, other in pairs]


@torch.inference_mode()
def test_bfloat16_stays_near_float32_and_its_error_does_not_add_up() -> None:
    """A tenth of what there is to see: random weights spread rounding further than trained ones."""
    exact, exact_motion = session(torch.float32)
    rounded, rounded_motion = session(torch.bfloat16)
    frames, motion = rms(rounded, exact), rms(rounded_motion, exact_motion)
    assert 0 < max(frames) < 0.1 * float(torch.cat(exact).std())
    assert 0 < max(motion) < 0.1 * float(torch.cat(exact_motion, dim=1).std())
    assert frames[-1] < 2 * frames[0]
    assert motion[-1] < 2 * motion[0]


def test_a_model_without_a_video_vae_takes_no_format_for_it() -> None:
    with pytest.raises(VaeFormatError, match="vae_dtype=bfloat16: model 'test' has no video VAE"):
        AvatarEngine.load("test", memory=WeightMemory(vae_dtype="bfloat16"))
    assert replace(WeightMemory(), vae_dtype="float32").plain  # which is the transformer's affair
