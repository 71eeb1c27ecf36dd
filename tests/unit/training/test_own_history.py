"""Chunks on the student's own history: what they start from and where they lead."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visavis.engine.codec.motion_latents import unpack_codes
from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.dit_data import FocusSpec, MotionWindows, PortraitBank, SpeechClips
from visavis.training.hearing import Hearing
from visavis.training.own_history import own_history_batch, returning
from visavis.training.recipes import MODELS


def first_six(controls: NDArray[np.float32]) -> NDArray[np.float32]:
    return controls


def windows() -> MotionWindows:
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    clips = SpeechClips(
        features=rng.normal(size=(1, 100, 4, 64)).astype(np.float16),
        controls=rng.normal(size=(100, 15)).astype(np.float32),
        offsets=np.array([0, 100]),
    )
    bank = PortraitBank(
        basis=torch.randn(2, 15, 6, 16, 16),
        rest=torch.zeros(2, 6, 16, 16),
        layout=torch.rand(2, 16, 16, 16),
        held=np.array([False, False]),
    )
    return MotionWindows(clips, bank, first_six, FocusSpec((0, 1)), Hearing())


def test_the_target_starts_from_own_frames_and_returns_to_the_truth() -> None:
    own, truth = torch.full((1, 5, 6, 2, 2), 3.0), torch.zeros(1, 33, 6, 2, 2)
    target = returning(own, truth)
    assert torch.equal(target[:, :5], own)
    head, face = target[0, 5:, 0, 0, 0], target[0, 5:, 4, 0, 0]
    for way in (head, face):
        assert (way.diff() < 0).all()
        assert way[0] < 3.0
        assert way[-1] < 0.2
    assert (face < head).all()
    # The head goes on as it went and then turns: no jolt at the border.
    assert 3.0 - head[0] < 0.02
    assert head.diff()[0] > 3 * head.diff().min()


def test_history_that_is_the_truth_leaves_the_truth() -> None:
    truth = torch.randn(2, 33, 6, 2, 2)
    torch.testing.assert_close(returning(truth[:, :5], truth), truth)


def test_a_batch_goes_on_from_what_the_student_made() -> None:
    torch.manual_seed(0)
    model = FlashTalkDiT(MODELS["smoke"], attention_impl="plain")
    torch.nn.init.normal_(model.head.projection.weight, std=0.1)
    batches = [
        own_history_batch(
            model,
            windows(),
            np.random.default_rng(1),
            torch.Generator().manual_seed(seed),
            batch=2,
            chunks=2,
            num_steps=1,
            from_portrait=True,
        )
        for seed in (2, 2, 3)
    ]
    assert batches[0].latents.shape == (2, 24, 9, 16, 16)
    assert batches[0].motion_slots.tolist() == [2, 2]
    assert not batches[0].latents.requires_grad
    assert torch.equal(batches[0].latents, batches[1].latents)
    same, other = (unpack_codes(batches[i].latents) for i in (0, 2))
    torch.testing.assert_close(same[:, -1], other[:, -1], atol=0.5, rtol=0.1)
    assert not torch.equal(batches[0].latents[:, :, :2], batches[2].latents[:, :, :2])


def test_one_chunk_has_no_history() -> None:
    with pytest.raises(ValueError, match="chunks=1 leaves no history"):
        own_history_batch(
            FlashTalkDiT(MODELS["smoke"]),
            windows(),
            np.random.default_rng(1),
            torch.Generator(),
            batch=1,
            chunks=1,
            num_steps=1,
            from_portrait=False,
        )
