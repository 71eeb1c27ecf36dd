"""One chunk: windows, hand-over, and frames that stream."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import TinyCodec, TinyReference, tiny_pipeline

from visavis.engine.dit.model import AudioCache
from visavis.engine.pipeline import FlashTalkPipeline


@pytest.fixture
def pipeline() -> FlashTalkPipeline:
    return tiny_pipeline()


def _features(chunk_frames: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((2 + chunk_frames, 4, 64)).astype(np.float32)


@pytest.mark.parametrize(
    ("chunk_frames", "shown"), [(9, 4), (9, 1), (17, 12), (17, 7), (33, 28), (33, 5)]
)
def test_a_chunk_gives_its_frames_and_hands_over_the_last_five(
    pipeline: FlashTalkPipeline, chunk_frames: int, shown: int
) -> None:
    conditions = pipeline.conditions(TinyReference(90.0))
    state = pipeline.first_state(conditions, seed=3)
    frames = list(
        pipeline.generate_chunk(
            state, _features(chunk_frames), conditions, shown=shown, num_steps=2
        )
    )
    assert len(frames) == shown
    assert all(f.pixels.shape == (16, 16, 3) and f.pixels.dtype == np.uint8 for f in frames)
    assert [f.next_state is not None for f in frames] == [False] * (shown - 1) + [True]

    assert isinstance(pipeline.codec, TinyCodec)
    (given,) = pipeline.codec.hand_overs
    last = np.stack([f.pixels for f in frames[-5:]])
    np.testing.assert_array_equal(last, given.numpy()[-len(last) :])

    following = frames[-1].next_state
    assert following is not None
    assert following.motion.shape == (24, 2, 4, 4)
    assert following.motion.dtype == torch.float32
    assert not torch.equal(following.random, state.random)


def test_a_chunk_starts_where_the_last_shown_one_ended(pipeline: FlashTalkPipeline) -> None:
    conditions = pipeline.conditions(TinyReference(90.0))
    state = pipeline.first_state(conditions, seed=3)
    for shown in (12, 7, 3):
        run = pipeline.generate_chunk(state, _features(17), conditions, shown=shown, num_steps=2)
        frames = list(run)
        following = frames[-1].next_state
        assert following is not None
        state = following
    assert isinstance(pipeline.codec, TinyCodec)
    # The motion frames that the third chunk re-decodes are those that the second one handed over.
    second, given = pipeline.codec.hand_overs[1:]
    np.testing.assert_array_equal(given.numpy()[:2], second.numpy()[3:])


def test_the_input_state_is_left_alone(pipeline: FlashTalkPipeline) -> None:
    conditions = pipeline.conditions(TinyReference(90.0))
    state = pipeline.first_state(conditions, seed=3)
    runs = [
        np.stack(
            [
                f.pixels
                for f in pipeline.generate_chunk(
                    state, _features(9), conditions, shown=4, num_steps=2
                )
            ]
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_frame_hears_two_frames_ahead_but_not_three(
    pipeline: FlashTalkPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = pipeline.conditions(TinyReference(90.0))
    heard: list[torch.Tensor] = []
    prepare = pipeline.model.prepare_audio

    def listen(audio: torch.Tensor, **rest: Any) -> AudioCache:
        heard.append(audio)
        return prepare(audio, **rest)

    monkeypatch.setattr(pipeline.model, "prepare_audio", listen)
    features = np.arange(2 + 9, dtype=np.float32)[:, None, None] * np.ones((1, 4, 64), np.float32)
    state = pipeline.first_state(conditions, seed=0)
    list(pipeline.generate_chunk(state, features, conditions, shown=4, num_steps=2))
    windows = heard[0][0, :, :, 0, 0].numpy()
    np.testing.assert_array_equal(windows[0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(windows[6], [6, 7, 8, 9, 10])
    np.testing.assert_array_equal(windows[8], [8, 9, 10, 10, 10])
