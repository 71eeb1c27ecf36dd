"""Windows for the transformer: exact codes, aligned audio, the first chunk's start."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from visavis.engine.audio.mel import SILENCE_LEVEL
from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.training.dit_data import (
    FocusSpec,
    MotionWindows,
    PortraitBank,
    SpeechClips,
    focus_maps,
)
from visavis.training.hearing import Hearing
from visavis.training.puppets.controls import INDEX

LENGTHS = (40, 20, 90)


def identity(controls: NDArray[np.float32]) -> NDArray[np.float32]:
    return controls


def clips() -> SpeechClips:
    rng = np.random.default_rng(0)
    total = sum(LENGTHS)
    return SpeechClips(
        features=rng.normal(size=(2, total, 4, 64)).astype(np.float16),
        controls=rng.normal(size=(total, 15)).astype(np.float32),
        offsets=np.cumsum([0, *LENGTHS]),
    )


def bank() -> PortraitBank:
    torch.manual_seed(0)
    return PortraitBank(
        basis=torch.randn(3, 15, 6, 16, 16),
        rest=torch.randn(3, 6, 16, 16),
        layout=torch.randn(3, 16, 16, 16),
        held=np.array([False, True, False]),
    )


def windows(*, held: bool = False) -> MotionWindows:
    return MotionWindows(clips(), bank(), identity, FocusSpec((0, 1)), Hearing(), held=held)


def test_codes_are_rest_plus_weighted_basis() -> None:
    data = windows()
    codes, _ = data.window(2, 7, 9, portrait=0)
    controls = data.clips.controls[60 + 7 : 60 + 16]
    expected = data.bank.rest[0] + torch.einsum(
        "fk,kchw->fchw", torch.from_numpy(controls), data.bank.basis[0]
    )
    torch.testing.assert_close(codes, expected)


def test_audio_windows_never_hear_the_future_or_another_clip() -> None:
    mel = np.arange(30, dtype=np.float16)[:, None, None] * np.ones((1, 4, 64), np.float16)
    hearing = Hearing()

    def heard(start: int) -> list[list[float]]:
        windows: list[list[float]] = hearing.windows(hearing.rows(mel, start, 9)[None])[
            0, :, :, 0, 0
        ].tolist()
        return windows

    assert heard(10)[0] == [8, 9, 10, 11, 12]
    assert heard(10)[-1] == [16, 17, 18, 18, 18]
    assert heard(0)[0] == [SILENCE_LEVEL, SILENCE_LEVEL, 0, 1, 2]


def test_a_first_chunk_starts_from_the_portrait() -> None:
    codes, _ = windows().window(0, 0, 33, portrait=0, from_portrait=True)
    later, _ = windows().window(0, 0, 33, portrait=0)
    assert not codes[0].any()
    torch.testing.assert_close(codes[12:], later[12:])


def test_more_blinks_add_to_the_lids_and_to_nothing_else() -> None:
    seen: list[NDArray[np.float32]] = []

    def remember(controls: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(controls.copy())
        return controls

    data = MotionWindows(clips(), bank(), remember, FocusSpec((0, 1)), Hearing())
    recorded = data.clips.controls.copy()
    for more in (False, True):
        data.window(2, 7, 9, portrait=0, more_blinks=more)
    plain, added = seen
    lids = [INDEX["blink_l"], INDEX["blink_r"]]
    assert (added[:, lids] >= plain[:, lids]).all()
    assert (added[:, lids] > plain[:, lids]).any()
    np.testing.assert_array_equal(np.delete(added, lids, 1), np.delete(plain, lids, 1))
    np.testing.assert_array_equal(data.clips.controls, recorded)


@pytest.mark.parametrize("held", [False, True])
def test_splits_do_not_mix(held: bool) -> None:
    data = windows(held=held)
    assert data.portraits.tolist() == ([1] if held else [0, 2])
    batch = data.draw(np.random.default_rng(0), 8, 9)
    allowed = data.bank.layout[data.portraits]
    assert all(any(torch.equal(seen, a) for a in allowed) for seen in batch.layout)


@pytest.mark.parametrize("frames", [9, 17, 33])
def test_shapes_and_slots_of_a_batch(frames: int) -> None:
    batch = windows().draw(np.random.default_rng(1), 6, frames, first_chunk_share=0.5)
    length = 1 + (frames - 1) // 4
    assert batch.latents.shape == (6, 24, length, 16, 16)
    assert batch.audio.shape == (6, frames, 5, 4, 64)
    assert set(batch.motion_slots.tolist()) <= {1, 2}
    first = unpack_codes(batch.latents)[:, 0].flatten(1).abs().sum(dim=1)
    assert ((first == 0) == (batch.motion_slots == 1)).all()


def test_the_same_generator_draws_the_same_batch() -> None:
    a, b = (windows().draw(np.random.default_rng(3), 4, 17) for _ in range(2))
    assert torch.equal(a.latents, b.latents)
    assert torch.equal(a.audio, b.audio)


def test_sequences_agree_with_their_own_windows() -> None:
    data = windows()
    sequence = data.draw_sequences(np.random.default_rng(0), 2, 33, from_portrait=False)
    assert sequence.codes.shape == (2, 33, 6, 16, 16)
    torch.testing.assert_close(unpack_codes(pack_codes(sequence.codes)), sequence.codes)
    assert sequence.lips.min() >= 0
    assert sequence.lips.max() <= 1


def test_focus_has_mean_one_and_favours_moving_cells() -> None:
    portraits = bank()
    portraits.basis[:, :2] = 0
    portraits.basis[:, 0, 5, 10, 8] = 3.0
    maps = focus_maps(portraits, FocusSpec((0,), weight=6.0))
    torch.testing.assert_close(maps.mean(dim=(1, 2)), torch.ones(3))
    torch.testing.assert_close(maps[:, 10, 8] / maps[:, 0, 0], torch.full((3,), 6.0))


def test_clips_too_short_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no clip has 97 frames"):
        windows().draw(np.random.default_rng(0), 1, 97)


def test_disagreeing_speech_is_refused() -> None:
    with pytest.raises(ValueError, match="must agree"):
        SpeechClips(
            np.zeros((1, 5, 4, 64), np.float16), np.zeros((4, 15), np.float32), np.array([0, 4])
        )


def test_concatenated_subsets_are_the_clips_again() -> None:
    whole = clips()
    parts = [whole.subset(np.array([i])) for i in range(3)]
    again = SpeechClips.concatenate(parts)
    np.testing.assert_array_equal(again.offsets, whole.offsets)
    np.testing.assert_array_equal(again.features, whole.features)
    np.testing.assert_array_equal(again.controls, whole.controls)
