"""A denoising step orders work and waits for none of it: on a GPU the host runs ahead.

Whatever reads a tensor's values on the host (`.item()`, a truth value, a shape that depends on
values) would stop it. On a CPU the dispatcher shows most of these; on meta tensors all are errors,
`.tolist()` and copies to the host included.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from dit_counting import meta_model, meta_step, run_step
from graph_stand_ins import repeat
from host_waits import NoReads, NoWaits
from tiny_model import tiny_pipeline, tiny_session

from visavis.engine.codec.wan import WanCodec, WanReference
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import WanVAE
from visavis.engine.color import ColorMatcher
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.sampler import Denoising, timesteps
from visavis.engine.dit.step_graph import StepGraphs


@pytest.mark.parametrize("read", [torch.Tensor.item, bool, torch.nonzero])
def test_reads_are_seen(read: Any) -> None:
    with NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        read(torch.ones(1) * 2)


def test_no_step_of_a_chunk_or_of_a_batch_reads_a_value() -> None:
    pipeline = tiny_pipeline()
    chunks = [tiny_session(pipeline, seed=seed).begin_idle(9) for seed in (1, 2)]
    jobs = [chunk.job for chunk in chunks]
    pipeline.denoise(jobs[:1])  # what is made once, such as tables, may be made here
    with NoWaits() as mode:
        pipeline.denoise(jobs[1:])
        pipeline.denoise(jobs)
        while not jobs[0].denoised:
            pipeline.denoise(jobs)
    assert mode.seen > 100


def test_data_from_the_host_is_seen() -> None:
    with NoWaits(), pytest.raises(AssertionError, match="values of the host"):
        torch.ones(2).new_tensor([1.0, 2.0])


@torch.inference_mode()
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_decoding_colours_and_the_hand_over_wait_for_nothing(device: str, recorded: bool) -> None:
    """From denoised latents to bytes and to the next motion latents; on meta, values do not
    exist at all, not even for copies to the host."""
    torch.manual_seed(0)
    vae = WanVAE(WanNetwork(WanConfig(base_dim=4, num_res_blocks=1)).to(device))
    if recorded:
        vae.record(repeat)
    codec = WanCodec(vae, None, (32, 16), decodes_early=True)
    picture = torch.rand(3, 32, 16, device=device) * 2 - 1
    reference = WanReference(picture, ColorMatcher(picture), None)
    latents = torch.randn(16, 3, 4, 2, device=device)

    def chunk() -> torch.Tensor:
        begun = codec.begin_decode(latents[:, :2])
        decoded = list(codec.decode(latents, reference, begun=begun))
        assert [part.pixels.dtype for part in decoded] == [torch.uint8] * 3
        return codec.motion_latents(torch.cat([part.exact for part in decoded])[-5:], reference)

    chunk()  # what is made once, such as tables, may be made here
    with NoWaits() as mode:
        motion = chunk()
    assert motion.shape == (16, 2, 4, 2)
    assert mode.seen > 100


def test_recorded_steps_are_replayed_without_a_read() -> None:
    pipeline = tiny_pipeline()
    model = pipeline.model
    model.recorded_step = StepGraphs(model.step, lambda call: (lambda: None, call()))
    job = tiny_session(pipeline).begin_idle(9).job
    pipeline.denoise([job])
    with NoReads() as mode:
        pipeline.denoise([job])
    assert mode.seen > 0


@torch.no_grad()
def test_a_step_of_the_released_model_needs_no_values() -> None:
    """Its widths and tokens with two of its blocks, all on meta, the sampler's step included."""
    config = replace(DIT_PRESETS["flashtalk-14b"], num_layers=2)
    model = meta_model(config)
    inputs = meta_step(model, 9, (96, 56), 30)
    with NoReads() as mode:
        audio = model.prepare_audio(inputs[3], latent_size=(96, 56))
        velocity = run_step(model, inputs, audio, slots=2)
        run = Denoising(
            torch.empty(1, 16, 9, 96, 56, device="meta"),
            torch.empty(16, 2, 96, 56, device="meta"),
            torch.Generator(),
            timesteps(4),
        )
        assert velocity.shape == run.latents.shape
        clean = run.latents - run.level * velocity
    assert clean.device.type == "meta"
    assert mode.seen > 50
