"""The next chunk's audio features, made beside the present chunk: the same frames to the bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_model import noise, tiny_pipeline, tiny_session
from transformers import Wav2Vec2Config, Wav2Vec2Model

from visavis.engine.audio.wav2vec import Wav2VecFeatures
from visavis.engine.audio.wav2vec_front_end import Wav2VecFrontEnd
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.session import AvatarFrame, AvatarSession


@pytest.fixture(scope="module")
def encoder() -> Wav2VecFeatures:
    """As wide as the `test` preset listens, random."""
    config = DIT_PRESETS["test"]
    torch.manual_seed(0)
    return Wav2VecFeatures(
        Wav2Vec2Model(
            Wav2Vec2Config(
                hidden_size=config.audio_channels,
                num_hidden_layers=config.audio_layers,
                num_attention_heads=2,
                intermediate_size=64,
                conv_dim=(16,) * 7,
                num_conv_pos_embedding_groups=4,
            )
        )
    )


def session(encoder: Wav2VecFeatures, *, early: bool) -> AvatarSession:
    pipeline = tiny_pipeline()
    pipeline.front_end = Wav2VecFrontEnd(encoder, begins_early=early)
    return tiny_session(pipeline)


def hits(of: AvatarSession) -> int:
    return of._timeline._foresight.hits


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several may share a sum in another way each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_features_begun_early_are_the_same_to_the_bit(encoder: Wav2VecFeatures) -> None:
    front_end = Wav2VecFrontEnd(encoder, begins_early=True)
    draw = np.random.default_rng(0)
    past = draw.standard_normal(front_end.past_samples).astype(np.float32)
    new = draw.standard_normal(28 * 640).astype(np.float32)
    begun = front_end.begin(past, new)
    assert begun is not None
    np.testing.assert_array_equal(begun(), front_end.features(past, new))
    assert Wav2VecFrontEnd(encoder).begin(past, new) is None  # nothing to gain on a CPU


def test_a_session_that_hears_ahead_gives_the_same_frames(encoder: Wav2VecFeatures) -> None:
    shown: list[list[AvatarFrame]] = []
    heard_ahead = []
    for early in (False, True):
        speaker = session(encoder, early=early)
        speaker.push_audio(noise(640 * (12 + 28 + 28 + 9)))
        speaker.commit()
        frames: list[AvatarFrame] = []
        while speaker.next_chunk() is not None:
            frames += speaker.generate()
        shown.append(frames)
        heard_ahead.append(hits(speaker))
    assert heard_ahead == [0, 3]  # all but the first of four chunks
    assert len(shown[0]) == 77
    for one, other in zip(*shown, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("turn", ["rewind", "clear", "length", "restore"])
def test_what_comes_otherwise_is_heard_anew(encoder: Wav2VecFeatures, turn: str) -> None:
    """A rewind, other words, another length, an older state: nothing that was begun is used."""
    shown = []
    for early in (False, True):
        speaker = session(encoder, early=early)
        speaker.push_audio(noise(640 * 80))
        before = speaker.snapshot()
        frames = list(speaker.generate())
        length = None
        if turn == "rewind":
            speaker.rewind(6)
        elif turn == "clear":
            speaker.clear_audio()
            speaker.push_audio(noise(640 * 40, seed=2))
        elif turn == "length":
            length = 9
        else:
            speaker.restore(before)
        frames += speaker.generate(chunk_frames=length)
        assert hits(speaker) == 0
        shown.append(np.stack([frame.pixels for frame in frames]))
    np.testing.assert_array_equal(*shown)
