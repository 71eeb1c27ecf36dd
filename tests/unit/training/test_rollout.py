"""Roll-outs: the training sampler is the deployed one, history is handed over exactly."""

import numpy as np
import pytest
import torch
from torch import Tensor

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.audio.mel import mel_features
from visavis.engine.audio.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from visavis.engine.audio.speech_front_end import SpeechFrontEnd
from visavis.engine.audio.window import audio_windows as deployed_windows
from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.layout_condition import layout_condition, layout_tokens
from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.sampler import RenoisingSampler
from visavis.engine.long_run import LongRun
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.schematic import schematic_portrait
from visavis.engine.weights import find_weights
from visavis.training.hearing import Hearing
from visavis.training.recipes import MODELS
from visavis.training.rollout import exit_early, hand_over, roll_out

SHAPE = (2, 24, 5, 16, 16)


def velocity(latents: Tensor, times: Tensor) -> Tensor:
    return torch.tanh(latents) * times.view(-1, 1, 1, 1, 1) + 0.1 * latents.roll(1, 2)


def test_last_exit_equals_the_deployed_sampler_bit_for_bit() -> None:
    motion = torch.randn(2, 24, 2, 16, 16)
    deployed = RenoisingSampler().sample(
        velocity, SHAPE, motion, torch.Generator().manual_seed(5), num_steps=4
    )
    trained = exit_early(
        velocity, SHAPE, motion, torch.Generator().manual_seed(5), num_steps=4, exit_step=3
    )
    assert torch.equal(trained, deployed)


@pytest.mark.parametrize("exit_step", [0, 1, 3])
def test_only_the_exit_step_carries_gradient_and_no_motion_slot_does(exit_step: int) -> None:
    scale = torch.ones((), requires_grad=True)
    calls: list[bool] = []

    def scaled(latents: Tensor, times: Tensor) -> Tensor:
        calls.append(torch.is_grad_enabled())
        return velocity(latents, times) * scale

    motion = torch.randn(2, 24, 2, 16, 16, requires_grad=True)
    clean = exit_early(
        scaled,
        SHAPE,
        motion.detach(),
        torch.Generator().manual_seed(0),
        num_steps=4,
        exit_step=exit_step,
    )
    assert calls == [False] * exit_step + [True]
    per_slot = [
        torch.autograd.grad(clean[:, :, i].sum(), scale, retain_graph=True, allow_unused=True)[0]
        for i in range(5)
    ]
    assert all(g is None or g == 0 for g in per_slot[:2])
    assert all(g is not None and g != 0 for g in per_slot[2:])


def test_hand_over_repacks_the_last_five_frames_exactly() -> None:
    codes = torch.randn(2, 33, 6, 16, 16)
    motion = hand_over(pack_codes(codes))
    assert motion.shape == (2, 24, 2, 16, 16)
    torch.testing.assert_close(unpack_codes(motion), codes[:, -5:])


@pytest.mark.parametrize("encoded", [False, True])
def test_chunk_audio_equals_deployment_and_training_windows(encoded: bool) -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder(SpeechEncoderConfig(dim=64, dilations=(1, 2))) if encoded else None
    front_end = MelFrontEnd() if encoder is None else SpeechFrontEnd(encoder.eval())
    hearing = Hearing(None if encoder is None else encoder.eval())
    pcm = (0.1 * np.random.default_rng(0).normal(size=61 * 640)).astype(np.float32)
    mel = mel_features(pcm)
    sequence = hearing.rows(mel, 0, 61)[None]
    padded = np.concatenate([np.zeros(front_end.past_samples, np.float32), pcm])
    for start in (0, 28):
        windows = hearing.chunk(sequence, start, 33)[0]
        own = hearing.windows(hearing.rows(mel, start, 33)[None])[0]
        torch.testing.assert_close(windows, own)
        # New samples begin with the sixth frame of a chunk; the past reaches back from there.
        first = (start + 5) * 640
        past = padded[first : first + front_end.past_samples]
        features = front_end.features(past, pcm[first : first + 28 * 640])
        deployed = deployed_windows(torch.from_numpy(features), start=2)
        torch.testing.assert_close(windows, deployed, atol=1e-5, rtol=1e-4)


def test_layout_tokens_are_patches_row_by_row() -> None:
    layout = torch.arange(16 * 256.0).reshape(1, 16, 16, 16)
    tokens = layout_tokens(layout)
    assert tokens.shape == (1, 16, 256)
    torch.testing.assert_close(tokens[0, 6].reshape(16, 4, 4), layout[0, :, 4:8, 8:12])


def test_condition_marks_slot_zero_and_shows_the_layout_everywhere() -> None:
    layout = torch.randn(2, 16, 16, 16)
    condition = layout_condition(layout, 3)
    assert condition.shape == (2, 20, 3, 16, 16)
    assert condition[:, :4, 0].eq(1).all()
    assert condition[:, :4, 1:].eq(0).all()
    assert all(torch.equal(condition[:, 4:, i], layout) for i in range(3))


def test_roll_out_keeps_its_start_and_has_every_frame_once() -> None:
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"])
    start = torch.randn(1, 5, 6, 16, 16)
    codes = roll_out(
        model,
        Hearing(),
        torch.randn(1, Hearing().lead + 13, 4, 64),
        torch.randn(1, 16, 16, 16),
        pack_codes(start),
        torch.Generator().manual_seed(0),
        chunks=2,
        chunk_frames=9,
        num_steps=1,
    )
    assert codes.shape == (1, 13, 6, 16, 16)
    torch.testing.assert_close(codes[:, :5], start)


@pytest.mark.parametrize("chunk_frames", [33, 13])
def test_roll_out_of_the_shipped_model_is_what_its_engine_shows(chunk_frames: int) -> None:
    """Two chunks from the portrait on: hearing, noise, sampler, `join` and hand-over alike."""
    engine = AvatarEngine.load("embedded", dtype="float32")
    new = chunk_frames - MOTION_FRAMES
    rng = np.random.default_rng(0)
    pcm = (0.1 * rng.normal(size=2 * new * 640)).astype(np.float32)
    avatar = engine.prepare_avatar(schematic_portrait())
    run = LongRun(engine.pipeline, chunk_frames=chunk_frames)
    session = run.open(avatar, pcm, 3)
    shown = torch.cat([run.advance([session])[0] for _ in range(2)])

    hearing = Hearing.load(find_weights("embedded"))
    before = np.zeros((hearing.lead + MOTION_FRAMES) * 640, np.float32)
    mel = torch.from_numpy(mel_features(np.concatenate([before, pcm])))
    rolled, sampled = (
        roll_out(
            engine.pipeline.model,
            hearing,
            mel[None],
            avatar.conditions.reference.layout,
            torch.zeros(1, 24, 1, 16, 16),
            torch.Generator().manual_seed(3),
            chunks=2,
            chunk_frames=chunk_frames,
            join=join,
        )[0, MOTION_FRAMES:]
        for join in (True, False)
    )
    torch.testing.assert_close(rolled, shown, atol=2e-3, rtol=0)
    assert float((sampled - shown).abs().max()) > 0.02
