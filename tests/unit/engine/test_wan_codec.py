"""The large codec keeps its contract on a tiny VAE of random weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.codec.wan import WanCodec, WanReference, to_bytes
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_prefix import EarlyFrames
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.pipeline import FlashTalkPipeline


@pytest.fixture(scope="module")
def codec() -> WanCodec:
    torch.manual_seed(0)
    vae = WanVAE(WanNetwork(WanConfig(base_dim=4, num_res_blocks=1)))
    return WanCodec(vae, None, (32, 16))


@pytest.fixture(scope="module")
def reference(codec: WanCodec) -> WanReference:
    return codec.reference_from_image(Image.linear_gradient("L").convert("RGB"))


def test_conditions_have_the_contracts_shapes(codec: WanCodec, reference: WanReference) -> None:
    cond = codec.cond_latents(reference, 9)
    assert cond.shape == (20, 3, 4, 2)
    assert cond[:4, 0].min() == 1
    assert cond[:4, 1:].abs().max() == 0
    # the VAE is causal: the grey frames leave no trace in the first latent
    torch.testing.assert_close(cond[4:, :1], codec.initial_motion(reference))


@pytest.mark.parametrize("skip", [0, 1, 5, 7])
def test_streamed_decode_skips_frames(codec: WanCodec, reference: WanReference, skip: int) -> None:
    latents = torch.randn(16, 3, 4, 2)
    whole = torch.cat([part.pixels for part in codec.decode(latents, reference)])
    assert whole.shape == (9, 32, 16, 3)
    assert whole.dtype == torch.uint8
    parts = list(codec.decode(latents, reference, skip_frames=skip))
    assert torch.equal(torch.cat([part.pixels for part in parts]), whole[skip:])
    assert torch.equal(
        to_bytes(torch.cat([part.exact for part in parts]).transpose(0, 1)), whole[skip:]
    )


@pytest.mark.parametrize("known", [1, 2])
def test_motion_latents_decoded_beforehand_give_the_same_frames(
    codec: WanCodec, reference: WanReference, known: int
) -> None:
    latents = torch.randn(16, 3, 4, 2)
    expected = list(codec.decode(latents, reference, skip_frames=5))
    assert codec.begin_decode(latents[:, :known]) is None  # nothing to gain on a CPU
    early = WanCodec(codec.vae, None, codec.frame_size, decodes_early=True)
    begun = early.begin_decode(latents[:, :known])
    parts = list(early.decode(latents, reference, skip_frames=5, begun=begun))
    for part, other in zip(parts, expected, strict=True):
        assert torch.equal(part.exact, other.exact)
        assert torch.equal(part.pixels, other.pixels)


def test_two_decodes_side_by_side_do_not_mix(codec: WanCodec) -> None:
    one, two = torch.randn(2, 1, 16, 2, 4, 2)
    alone = torch.cat(list(codec.vae.decode(one)), dim=2)
    together = [
        first for first, _ in zip(codec.vae.decode(one), codec.vae.decode(two), strict=True)
    ]
    assert torch.equal(torch.cat(together, dim=2), alone)


def test_hand_over_reads_the_frames_before_they_were_rounded(
    codec: WanCodec, reference: WanReference
) -> None:
    latents = torch.randn(16, 3, 4, 2)
    exact = torch.cat(list(codec.decode_signed(latents, reference)), dim=1)[:, -5:]
    shown = torch.cat([part.exact for part in codec.decode(latents, reference)])[-5:]
    motion = codec.motion_latents(shown, reference)
    assert motion.shape == (16, 2, 4, 2)
    torch.testing.assert_close(motion, codec.encode_motion(exact), rtol=0, atol=0)


def test_odd_frame_size_is_refused(codec: WanCodec) -> None:
    with pytest.raises(ValueError, match="frame_size"):
        WanCodec(codec.vae, None, (30, 16))


def test_pipeline_decodes_motion_latents_while_it_denoises(
    codec: WanCodec, reference: WanReference
) -> None:
    """The frames are the same to the bit, and the first latents are not decoded again."""
    config = replace(DIT_PRESETS["test"], latent_channels=16)
    torch.manual_seed(0)
    features = torch.randn(2 + 9, config.audio_layers, config.audio_channels).numpy()
    text = torch.zeros(1, config.text_len, config.text_dim)
    tokens = torch.randn(config.image_tokens, config.image_dim)
    model = FlashTalkDiT(config).eval()
    shown, firsts = [], []
    for early in (False, True):
        own = WanCodec(codec.vae, None, codec.frame_size, decodes_early=early)
        pipeline = FlashTalkPipeline(model, own, MelFrontEnd(), torch.device("cpu"), text=text)
        conditions = pipeline.conditions(replace(reference, tokens=tokens))
        state = pipeline.first_state(conditions, seed=1)
        job = pipeline.start_chunk(state, features, conditions, shown=4, num_steps=2)
        firsts.append(job.begun)
        while not job.denoised:
            pipeline.denoise([job])
        shown.append([frame.pixels for frame in pipeline.decode(job)])
    assert firsts[0] is None
    assert isinstance(firsts[1], EarlyFrames)
    assert firsts[1].count == 1
    np.testing.assert_array_equal(shown[0], shown[1])
