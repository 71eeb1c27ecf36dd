"""Audio, text and image encoders against recordings of the original's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity_fixtures import assert_within, clip_sizes, read_json, tensors, umt5_sizes
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, UMT5Config, Wav2Vec2Config

from visavis.engine.audio.loudness import loudness_lufs
from visavis.engine.audio.wav2vec import RATE, Wav2VecFeatures, prepare_wave
from visavis.engine.audio.window import audio_windows
from visavis.engine.encoders.image import clip_pixels, encode_image, load_image_encoder
from visavis.engine.encoders.text import encode_ids, load_text_encoder

LIMIT = 2e-5


@pytest.fixture(scope="module")
def encoder(fixtures_dir: Path) -> Wav2VecFeatures:
    config = Wav2Vec2Config(**read_json(fixtures_dir, "audio_tiny.config")["config"])
    return Wav2VecFeatures.load(config, fixtures_dir / "audio_tiny.weights.safetensors")


def test_parity_audio_features(fixtures_dir: Path, encoder: Wav2VecFeatures) -> None:
    io, meta = tensors(fixtures_dir, "audio_tiny.io"), read_json(fixtures_dir, "audio_tiny.config")
    wave = io["wave_i16"].numpy().astype(np.float64) / 32768
    assert loudness_lufs(wave, RATE) == pytest.approx(meta["loudness_lufs"], abs=1e-6)
    values = prepare_wave(wave)
    assert_within(values, io["input_values"], LIMIT)
    with torch.inference_mode():
        assert_within(encoder.model.feature_extractor(values), io["conv_features"], LIMIT)
        frames = io["interpolated"].shape[1]
        resampled = encoder.resampled(values, frames)
        shape = io["interpolated"].shape
        assert_within(resampled.reshape(shape), io["interpolated"], LIMIT)
        assert_within(encoder.project(resampled), io["projected"], LIMIT)
    assert_within(encoder(wave, frames), io["embedding"], LIMIT)


def test_parity_audio_windows(fixtures_dir: Path, encoder: Wav2VecFeatures) -> None:
    io = tensors(fixtures_dir, "audio_tiny.io")
    embedding = io["embedding"]
    for key in io:
        if key.startswith("windows.") and not key.startswith("windows.default."):
            start, stop = map(int, key.removeprefix("windows.").split("_"))
            width = io[key].shape[2]
            assert_within(audio_windows(embedding, start, stop, width)[None], io[key], LIMIT)
    whole = audio_windows(embedding)[None]
    assert_within(whole[:, :3], io["windows.default.first3"], LIMIT)
    assert_within(whole[:, -3:], io["windows.default.last3"], LIMIT)


def test_parity_audio_stream(fixtures_dir: Path, encoder: Wav2VecFeatures) -> None:
    io = tensors(fixtures_dir, "audio_tiny.io")
    wave = io["wave_i16"].numpy().astype(np.float64) / 32768
    embedding_frames = io["embedding"].shape[0]
    for key in io:
        if not key.startswith("stream.chunk"):
            continue
        chunks = int(key.removeprefix("stream.chunk").removesuffix(".windows")) + 1
        shown = io[key].shape[1]  # a chunk's frames; five of them are the previous chunk's
        heard = wave[: chunks * (shown - 5) * RATE // 25]
        buffer = np.concatenate([np.zeros(len(wave)), heard])[-len(wave) :]
        features = encoder(buffer, embedding_frames)
        windows = audio_windows(features, embedding_frames - shown, embedding_frames)
        assert_within(windows[None], io[key], LIMIT)


def test_parity_t5(fixtures_dir: Path, tmp_path: Path) -> None:
    io = tensors(fixtures_dir, "t5_tiny")
    stored = {k.removeprefix("w."): v for k, v in io.items() if k.startswith("w.")}
    save_file(stored, tmp_path / "t5.safetensors")
    config = UMT5Config(**umt5_sizes(fixtures_dir))
    model = load_text_encoder(config, tmp_path / "t5.safetensors", dtype=torch.float32)
    valid = int(io["mask"].sum())
    assert_within(encode_ids(model, io["ids"][:, :valid]), io["out"], LIMIT)


def test_parity_clip(fixtures_dir: Path, tmp_path: Path) -> None:
    io = tensors(fixtures_dir, "clip_tiny")
    stored = {k.removeprefix("w."): v for k, v in io.items() if k.startswith("w.")}
    save_file(stored, tmp_path / "clip.safetensors")
    sizes = clip_sizes(fixtures_dir)
    config = CLIPVisionConfig(**sizes)
    model = load_image_encoder(config, tmp_path / "clip.safetensors")
    picture = io["image"][:, :, 0]
    assert_within(clip_pixels(picture, sizes["image_size"]), io["pixel_values"], LIMIT)
    assert_within(encode_image(model, picture), io["out"], LIMIT)
