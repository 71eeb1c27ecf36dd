"""Clips, head motion, augmentation and the committed evaluation set."""

from pathlib import Path

import numpy as np
import pytest

from visavis.engine.audio.mel import mel_features
from visavis.training.puppets.controls import CONTROLS, INDEX, lip_gap
from visavis.training.speech import record_again
from visavis.training.speech.audio_files import read_flac, write_flac
from visavis.training.speech.augment import HEAVY, LIGHT, Strength, augmented, breaths, chords
from visavis.training.speech.clips import make_clip
from visavis.training.speech.dataset import read_shards, save_shard, shard_path
from visavis.training.speech.eval_set import read_eval_clips
from visavis.training.speech.motion import blinks, clip_controls, smooth_noise
from visavis.training.speech.phonemes import PAUSE, SAMPLE_RATE, Utterance, from_durations, silence
from visavis.training.speech.text import LANGUAGES, SentenceSource
from visavis.training.speech.visemes import BILABIALS, FPS, atoms
from visavis.training.speech.voices import HELD_OUT_VOICES, Voice, training_voice

SIGNED = [CONTROLS.index(n) for n in ("lower_lip", "wide", "smile", "brow")] + list(range(9, 15))
POSITIVE = [i for i in range(len(CONTROLS)) if i not in SIGNED]


def hum(text: str, rng: np.random.Generator) -> Utterance:
    """A stand-in speaker: a hum whose sounds are the text's own letters."""
    letters = [c if c.isalpha() else PAUSE for c in text.lower()]
    seconds = [0.08] * len(letters)
    pcm = 0.1 * np.sin(np.arange(int(sum(seconds) * SAMPLE_RATE)) * 0.2)
    return from_durations(pcm.astype(np.float32), SAMPLE_RATE, letters, seconds)


HUMMER = Voice("hum", "fi", hum)
SOURCES = {"fi": SentenceSource("fi")}


def test_the_same_seed_makes_the_same_clip_and_another_seed_another() -> None:
    clips = [make_clip(HUMMER, SOURCES, np.random.default_rng(s), recordings=1) for s in (4, 4, 5)]
    np.testing.assert_array_equal(clips[0].controls, clips[1].controls)
    np.testing.assert_array_equal(clips[0].recordings[0], clips[1].recordings[0])
    assert clips[0].controls.shape != clips[2].controls.shape


def test_clips_are_whole_frames_long_and_in_range() -> None:
    for seed in range(2):
        clip = make_clip(HUMMER, SOURCES, np.random.default_rng(seed), recordings=2)
        frames = len(clip.controls)
        assert 20 * FPS <= frames <= 46 * FPS
        assert [len(r) for r in clip.recordings] == [frames * 640] * 2
        assert mel_features(clip.recordings[0]).shape == (frames, 4, 64)
        assert clip.controls[:, POSITIVE].min() >= 0.0
        assert clip.controls.min() >= -1.0
        assert clip.controls.max() <= 1.0


def test_head_motion_is_centred_and_there_from_the_first_frame() -> None:
    pieces = [clip_controls(silence(20.0), np.random.default_rng(s)) for s in range(40)]
    for name in ("yaw", "pitch", "roll"):
        track = np.stack([p[:, INDEX[name]] for p in pieces])
        assert abs(track.mean()) < 0.06
        assert 0.05 < track.std() < 0.4
        assert track[:, 0].std() == pytest.approx(track.std(), rel=0.45)
        assert np.abs(np.diff(track, axis=1)).max() < 0.2


def test_noise_is_stationary_and_of_unit_variance() -> None:
    rng = np.random.default_rng(0)
    tracks = np.stack([smooth_noise(250, rng, slowest_s=6, fastest_s=1) for _ in range(300)])
    assert tracks.std() == pytest.approx(1.0, rel=0.15)
    assert tracks[:, 0].std() == pytest.approx(tracks[:, 125].std(), rel=0.25)


def test_blinks_shut_fast_open_slower_and_come_every_few_seconds() -> None:
    lids = blinks(25 * 600, np.random.default_rng(1))[:, 0]
    peaks = np.flatnonzero((lids[1:-1] >= lids[:-2]) & (lids[1:-1] > lids[2:]) & (lids[1:-1] > 0.5))
    assert 600 / 6.5 < len(peaks) < 600 / 2
    single = [
        p + 1
        for p in peaks[1:-1]
        if lids[p + 1] > 0.98 and lids[max(0, p - 8) : p - 3].max() < 0.01
    ]
    shutting = [int((lids[p - 6 : p] > 0.02).sum()) for p in single]
    opening = [int((lids[p + 1 : p + 8] > 0.02).sum()) for p in single]
    assert 1.5 <= np.median(shutting) <= 3
    assert 3 <= np.median(opening) <= 5
    assert (lids == 0.0).mean() > 0.7


@pytest.mark.parametrize("strength", [LIGHT, HEAVY])
def test_augmentation_keeps_the_length_and_the_range(strength: Strength) -> None:
    pcm = (0.1 * np.random.default_rng(0).normal(size=16001)).astype(np.float32)
    for seed in range(12):
        out = augmented(pcm, np.random.default_rng(seed), strength)
        assert out.shape == pcm.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert np.abs(out).max() <= 1.0


def test_augmentation_does_not_move_speech_in_time() -> None:
    every = Strength(
        equaliser=1, band_limit=1, reverb=1, noise=0, music=0, clipping=1, narrow_band=1,
        breath=1, babble=0, compression=1,
    )  # fmt: skip
    click = np.zeros(16000, np.float32)
    click[8000:8040] = np.hanning(40)
    for seed in range(10):
        out = np.abs(augmented(click, np.random.default_rng(seed), every))
        assert abs(int(out.argmax()) - 8020) < 80  # 5 ms


def test_breath_is_drawn_in_pauses_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    speech = (0.1 * rng.normal(size=4 * SAMPLE_RATE)).astype(np.float32)
    speech[SAMPLE_RATE : 2 * SAMPLE_RATE] = 0
    heard = np.stack([breaths(speech, 0.1, np.random.default_rng(s)) for s in range(20)])
    assert not heard[:, :SAMPLE_RATE].any()
    assert not heard[:, 2 * SAMPLE_RATE :].any()
    loud = np.sqrt(np.square(heard[:, SAMPLE_RATE : 2 * SAMPLE_RATE]).max(axis=1))
    assert 4 <= (loud > 0).sum() <= 16
    assert loud.max() < 0.1


def test_automatic_gain_lifts_what_is_soft() -> None:
    gain_alone = Strength(
        equaliser=0, band_limit=0, reverb=0, noise=0, music=0, clipping=0, narrow_band=0,
        breath=0, babble=0, compression=1,
    )  # fmt: skip
    sound = 0.3 * np.sin(np.arange(4 * SAMPLE_RATE) * 0.3).astype(np.float32)
    sound[2 * SAMPLE_RATE :] *= 0.01
    for seed in range(8):
        out = augmented(sound, np.random.default_rng(seed), gain_alone)
        loud, soft = (np.std(half[SAMPLE_RATE : 2 * SAMPLE_RATE]) for half in np.split(out, 2))
        assert soft / loud > 0.02
        assert loud > soft


def test_clips_are_recorded_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speech = (3000 * rng.normal(size=50 * 640)).astype(np.int16)
    speech[30 * 640 :] = 0  # a clip without a word
    controls = rng.normal(size=(50, len(CONTROLS))).astype(np.float32)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    save_shard(
        shard_path(old, 3),
        [[mel_features(speech / np.float32(32767)).astype(np.float16)]],
        controls=controls,
        audio=speech,
        voice=np.array(["a", "none"]),
        offsets=np.array([0, 30, 50]),
    )
    record_again.main(["--speech", str(old), "--out", str(new), "--recordings", "2"])
    (before,), (after,) = list(read_shards(old)), list(read_shards(new))
    assert after.features.shape == (2, 50, 4, 64)
    assert not np.array_equal(after.features[0], before.features[0])
    assert not np.array_equal(after.features[0], after.features[1])
    np.testing.assert_array_equal(after.controls, before.controls)
    assert (after.voices, after.offsets.tolist()) == (before.voices, [0, 30, 50])
    written = shard_path(new, 3).stat().st_mtime_ns
    record_again.main(["--speech", str(old), "--out", str(new)])
    assert shard_path(new, 3).stat().st_mtime_ns == written


def test_recording_again_needs_clips_and_another_folder(tmp_path: Path) -> None:
    for out in ("new", "."):
        with pytest.raises(SystemExit):
            record_again.main(["--speech", str(tmp_path), "--out", str(tmp_path / out)])


def test_music_has_unit_power() -> None:
    assert chords(SAMPLE_RATE * 2, np.random.default_rng(0)).std() == pytest.approx(1.0)


@pytest.mark.parametrize("language", [n for n, v in LANGUAGES.items() if not v.word_list])
def test_sentences_repeat_with_the_seed_and_end_with_a_mark(language: str) -> None:
    source = SentenceSource(language)
    first = [source.sentence(np.random.default_rng(3)) for _ in range(2)]
    assert first[0] == first[1]
    assert first[0][-1] in ".?!"
    assert 3 <= len(first[0].split()) <= 20


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language='xx'"):
        SentenceSource("xx")


def test_held_out_voices_are_never_drawn_for_training() -> None:
    rng = np.random.default_rng(0)
    names = {training_voice(rng, kokoro_share=0.0).name for _ in range(3000)}
    assert not names & set(HELD_OUT_VOICES)
    assert not any("espeak-pt" in n or n.endswith("+f4") or "kumo" in n for n in names)


def test_flac_round_trip_is_exact_to_16_bits(tmp_path: Path) -> None:
    pcm = np.sin(np.arange(10_001) * 0.05).astype(np.float32)
    write_flac(tmp_path / "x.flac", pcm, SAMPLE_RATE)
    again = read_flac(tmp_path / "x.flac", SAMPLE_RATE)
    assert again.shape == pcm.shape
    assert np.abs(again - pcm).max() < 1.0 / 32767


def test_shards_come_back_in_order(tmp_path: Path) -> None:
    for index in (1, 0):
        np.savez(
            shard_path(tmp_path, index),
            features=np.full((5, 4, 64), index, np.float16),
            features_1=np.zeros((5, 4, 64), np.float16),
            controls=np.zeros((5, 15), np.float32),
            voice=np.array([f"v{index}"]),
            offsets=np.array([0, 5]),
        )
    shards = list(read_shards(tmp_path))
    assert [s.voices for s in shards] == [("v0",), ("v1",)]
    assert shards[1].features.shape == (2, 5, 4, 64)
    assert shards[1].features[0].max() == 1.0


def test_the_evaluation_clips_are_whole_and_true() -> None:
    clips = read_eval_clips()
    assert [c.voice for c in clips].count(HELD_OUT_VOICES[0]) == 4
    assert [c.voice for c in clips].count(HELD_OUT_VOICES[1]) == 4
    for clip in clips:
        assert len(clip.pcm) == 640 * len(clip.controls)
        assert clip.phonemes[-1].end == pytest.approx(len(clip.pcm) / SAMPLE_RATE, abs=1e-3)
        gap = lip_gap(clip.controls)
        centres = (np.arange(len(gap)) + 0.5) / FPS
        if clip.voice == "none":
            assert gap.max() == 0.0
            continue
        assert np.percentile(gap, 95) > 0.4
        for sound in atoms(clip.phonemes):
            if sound.ipa in BILABIALS:
                near = np.abs(centres - (sound.start + sound.end) / 2) < 0.03
                assert gap[near].min() == 0.0


def test_an_empty_folder_of_evaluation_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no evaluation clips"):
        read_eval_clips(tmp_path)
