"""A whole session against recordings of the original's pipeline, picture to pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from parity_fixtures import assert_within, load_dit, load_vae, read_json, tensors
from PIL import Image

from visavis.engine.codec.wan import WanCodec
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.session import AvatarSession

LATENT_LIMIT, LEVEL_LIMIT = 1e-4, 1
MOTION_FRAMES, REACH = 5, 2
FULL_SCALE = 32768


class RecordedFrontEnd:
    """Answers with the recording's embedding: every sample of the sound is its frame's number."""

    past_samples = 640

    def __init__(self, embedding: torch.Tensor) -> None:
        self._embedding = embedding.numpy()
        self.feature_shape = self._embedding.shape[1:]

    def features(self, past: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
        first, last = (round(float(sample) * FULL_SCALE) for sample in (new[0], new[-1]))
        # Before the beginning the recording repeats its first frame.
        rows = np.arange(first - MOTION_FRAMES - REACH, last + 1).clip(0)
        wanted: NDArray[np.float32] = self._embedding[rows]
        return wanted


def test_parity_of_a_session_over_four_chunks(fixtures_dir: Path) -> None:
    meta = read_json(fixtures_dir, "sampler.meta")
    io, shared = tensors(fixtures_dir, "sampler.io"), tensors(fixtures_dir, "shared_inputs")
    codec = WanCodec(
        load_vae(fixtures_dir),
        None,
        (meta["height"], meta["width"]),
        color_strength=meta["color_correction_strength"],
    )
    pipeline = FlashTalkPipeline(
        load_dit(fixtures_dir),
        codec,
        RecordedFrontEnd(shared["audio_emb"]),
        torch.device("cpu"),
        text=shared["context"][None],
    )
    picture = codec.reference_from_image(Image.fromarray(io["cond_image_u8"].numpy()))
    reference = replace(picture, tokens=shared["clip_fea"][0])
    session = AvatarSession(
        pipeline,
        pipeline.conditions(reference),
        input_rate=16_000,
        seed=meta["seed"],
        num_steps=meta["sampling_steps"],
    )
    new, chunks = meta["frame_num"] - MOTION_FRAMES, len(meta["audio_windows"])
    numbers = np.arange(MOTION_FRAMES, MOTION_FRAMES + new * chunks, dtype=np.int16)
    session.push_audio(np.repeat(numbers, 640))
    for chunk in range(chunks):
        assert_within(session.snapshot().chunk.motion, io[f"chunk{chunk}.motion_in"], LATENT_LIMIT)
        frames = list(session.generate(chunk_frames=meta["frame_num"]))
        handed_over = session.snapshot().chunk.motion
        assert_within(handed_over, io[f"chunk{chunk}.motion_out"], LATENT_LIMIT)
        if f"chunk{chunk}.frames_u8" in io:
            recorded = io[f"chunk{chunk}.frames_u8"].numpy().astype(int)
            shown = np.stack([frame.pixels for frame in frames]).astype(int)
            assert shown.shape == recorded.shape
            assert np.abs(shown - recorded).max() <= LEVEL_LIMIT
