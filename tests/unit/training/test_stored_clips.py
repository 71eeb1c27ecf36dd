"""The store of encoded clips: what is written comes back, and trains as the embedded data does."""

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import tiny_clips
import torch
from PIL import Image
from torch import Tensor

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.audio.window import audio_windows
from visavis.engine.image import to_signed
from visavis.engine.plan import ENGINE_SAMPLES_PER_FRAME
from visavis.training.clip_files import ClipError, clip_paths, read_clip
from visavis.training.clip_sheets import sheet
from visavis.training.conditioning_store import INDEX, ConditioningStore, StoreError, StoreSpec
from visavis.training.config_files import load_recipe
from visavis.training.distribution_matching import matching_gradient
from visavis.training.flow_matching import supervised_slots
from visavis.training.precompute import ClipEncoder, ClipPlan, write_store
from visavis.training.recipes import TeacherRecipe
from visavis.training.stored_clips import ClipConditions, StoredClips

CPU = torch.device("cpu")
PLAN = ClipPlan(chunk_frames=9, frame_counts=(9, 17), chunks=3, windows=2, sequences=1)


def test_items_come_back_as_they_were_written(tmp_path: Path) -> None:
    store = tiny_clips.tiny_store(tmp_path)
    again = ConditioningStore(tmp_path)
    assert again.spec == StoreSpec(model="tiny", chunk_frames=9, stacked_frames=1)
    assert (again.count("windows"), again.count("sequences")) == (3, 2)
    assert [len(text) for text in again.texts] == [1, 4]
    assert again.window(2).text == 0
    assert again.window(1).text == 1
    assert torch.equal(again.window(2).latents, store.window(2).latents)
    assert not torch.equal(again.window(2).latents, again.window(0).latents)
    assert again.sequence(1).picture.dtype == torch.uint8


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    store = tiny_clips.tiny_store(tmp_path, dtype=torch.float16)
    exact = tiny_clips.tiny_store(tmp_path / "exact")
    assert store.window(0).latents.dtype == torch.float32
    torch.testing.assert_close(
        store.window(0).latents, exact.window(0).latents, atol=3e-3, rtol=1e-3
    )


def test_an_unfinished_or_foreign_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="write it with"):
        ConditioningStore(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"version": 99}))
    with pytest.raises(StoreError, match="version=99"):
        ConditioningStore(tmp_path)


def test_windows_have_the_asked_length_slots_and_focus(tmp_path: Path) -> None:
    clips = tiny_clips.tiny_clips(tmp_path)
    batch = clips.draw(np.random.default_rng(0), 64, 9, first_chunk_share=0.5)
    assert set(batch.motion_slots.tolist()) == {1, 2}
    torch.testing.assert_close(batch.focus.mean(dim=(1, 2)), torch.ones(64))
    face = clips.store.window(0).face
    expected = (1 + 2 * face) / (1 + 2 * face).mean()
    assert any(torch.allclose(focus, expected) for focus in batch.focus)
    with pytest.raises(StoreError, match="frame_counts has 33, .* 9 frames.*--frame-counts 33"):
        clips.draw(np.random.default_rng(0), 1, 33)
    with pytest.raises(StoreError, match="--chunks 3"):
        clips.draw_scene(np.random.default_rng(0), 1, 3, from_portrait=True)


def test_prompts_are_padded_with_what_the_model_pads_with(tmp_path: Path) -> None:
    clips = tiny_clips.tiny_clips(tmp_path)
    model = tiny_clips.tiny_model()
    scene = clips.draw_scene(np.random.default_rng(0), 1, 1, from_portrait=True)
    given = scene.conditions(0).wordless()
    assert given is not None
    assert given.text is not None
    assert given.text.shape == (1, 4, 8)
    short = replace(given, text=clips.store.texts[0][None])
    x, t = torch.randn(scene.shape), torch.tensor([0.4])
    padded, plain = given.velocity(model, x, t), short.velocity(model, x, t)
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-4)


def conditions(batch: int = 2) -> ClipConditions:
    return ClipConditions(
        audio=torch.ones(batch, 9, 5, 2, 8),
        cond=torch.zeros(batch, 20, 3, 4, 6),
        text=torch.ones(batch, 4, 8),
        image=torch.zeros(batch, 3, 12),
        empty=torch.full((1, 4, 8), 5.0),
    )


def test_dropped_conditions_are_silence_and_the_empty_prompt() -> None:
    kept = conditions().keep(torch.tensor([True, False]), torch.tensor([False, True]))
    assert kept.text is not None
    assert kept.audio[0].eq(1).all()
    assert not kept.audio[1].any()
    assert kept.text[0].eq(5).all()
    assert kept.text[1].eq(1).all()
    wordless = conditions().wordless()
    assert wordless is not None
    assert wordless.audio.eq(1).all()
    assert wordless.text is not None
    assert wordless.text.eq(5).all()


def by_condition(x: Tensor, times: Tensor, *given: Tensor, text: Tensor, image: Tensor) -> Tensor:
    """The exact velocity of constant data: 1 for sound and 10 more for words."""
    clean = float(given[1].any()) + 10 * float(not text.eq(5).any())
    return (x - clean) / times.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("audio", "text", "expected"), [(1.0, 1.0, 11.0), (4.0, 1.0, 14.0), (4.0, 3.0, 34.0)]
)
def test_guidance_of_three_passes_adds_up(audio: float, text: float, expected: float) -> None:
    """null + g_a (heard - null) + g_t (full - heard), and the conditional alone for g = 1."""

    def critic(x: Tensor, times: Tensor, *_: Tensor, **__: Tensor) -> Tensor:
        return x / times.view(-1, 1, 1, 1, 1)

    sample = torch.zeros(2, 16, 3, 4, 6)
    gradient = matching_gradient(
        sample,
        torch.full((2,), 0.5),
        supervised_slots(torch.tensor([1, 1]), 3),
        conditions(),
        by_condition,
        critic,
        torch.Generator().manual_seed(0),
        audio_guidance=audio,
        text_guidance=text,
    )
    # (x_fake - x_real) / |x0 - x_real| with x_fake = x0 = 0 is -1 whatever x_real > 0 is
    assert gradient[:, :, 1:].add(1).abs().max() < 1e-5
    sample = torch.full((2, 16, 3, 4, 6), expected)
    at_rest = matching_gradient(
        sample,
        torch.full((2,), 0.5),
        supervised_slots(torch.tensor([1, 1]), 3),
        conditions(),
        by_condition,
        lambda x, t, *_, **__: (x - expected) / t.view(-1, 1, 1, 1, 1),
        torch.Generator().manual_seed(0),
        audio_guidance=audio,
        text_guidance=text,
    )
    assert at_rest.abs().max() < 1e-2


def test_a_hand_over_is_the_deployed_one_and_can_be_trained_on(tmp_path: Path) -> None:
    clips = tiny_clips.tiny_clips(tmp_path)
    scene = clips.draw_scene(np.random.default_rng(0), 1, 2, from_portrait=False)
    latents = torch.randn(scene.shape)
    handed = scene.hand_over(latents, torch.Generator())
    codec = tiny_clips.tiny_codec()
    picture = next(
        clips.store.sequence(i)
        for i in range(2)
        if torch.equal(clips.store.sequence(i).history, scene.start()[0])
    ).picture
    reference = codec.reference_from_image(Image.fromarray(picture.numpy()))
    frames = torch.cat([part.exact for part in codec.decode(latents[0], reference)])
    torch.testing.assert_close(handed[0], codec.motion_latents(frames[-5:], reference))
    assert handed.shape == (1, 16, 2, 4, 6)
    assert not handed.is_inference()


def write_video(path: Path, frames: int, rate: int) -> None:
    """Grey that brightens by 3 a frame, without loss, and a tone that begins half way."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(frames):
            pixels = np.full((48, 64, 3), 40 + 3 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        samples = np.sin(np.arange(16000 * frames // rate) * 0.3).astype(np.float32)
        samples[: len(samples) // 2] = 0
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.rate, frame.pts = 16000, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode())


@pytest.mark.parametrize(("rate", "expected"), [(25, 50), (50, 25)])
def test_clips_are_read_at_25_frames_with_their_sound(
    tmp_path: Path, rate: int, expected: int
) -> None:
    write_video(tmp_path / "one.mkv", 50, rate)
    (tmp_path / "one.txt").write_text("A person nods.\n")
    (path,) = clip_paths(tmp_path)
    clip = read_clip(path, (32, 48), "none")
    assert clip.caption == "A person nods."
    assert abs(len(clip.frames) - expected) <= 1
    assert clip.frames.shape[1:] == (32, 48, 3)
    assert len(clip.audio) == len(clip.frames) * ENGINE_SAMPLES_PER_FRAME
    brightness = clip.frames.mean(axis=(1, 2, 3))
    # From yuv420p and back a level may be lost; the last frame on screen may be the one before.
    expected_brightness = 40 + 3 * rate / 25 * np.arange(len(brightness))
    np.testing.assert_allclose(brightness[:-1], expected_brightness[:-1], atol=1.5)
    assert brightness[-1] > brightness[-2]
    quarter = len(clip.audio) // 4
    assert np.abs(clip.audio[:quarter]).max() < 0.05 < np.abs(clip.audio[3 * quarter :]).mean()


def test_unusable_clips_are_named(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no video"):
        clip_paths(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(ClipError, match="broken.mp4"):
        read_clip(tmp_path / "broken.mp4", (32, 48), "")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClipEncoder]:
    """A store of one clip of 50 frames, one too short for a sequence and a broken one."""
    clips = tmp_path_factory.mktemp("clips")
    write_video(clips / "a.mp4", 50, 25)
    write_video(clips / "b.mp4", 12, 25)
    (clips / "c.mp4").write_bytes(b"")
    encoder = ClipEncoder(
        tiny_clips.tiny_codec(), MelFrontEnd(), PLAN, lambda frame: (12.0, 8.0, 23.0, 25.0)
    )
    out = clips / "store"
    counts = write_store(
        out,
        clip_paths(clips),
        encoder,
        StoreSpec(model="tiny", chunk_frames=9),
        {"said": 1},
        [torch.zeros(1, 8), torch.ones(3, 8)],
        default_caption="said",
        dtype=torch.float32,
    )
    assert counts == {"clips": 2, "windows": 6, "sequences": 1}
    return out, encoder


def test_stored_windows_are_what_the_codec_makes_of_the_clip(
    written: tuple[Path, ClipEncoder],
) -> None:
    out, encoder = written
    store, codec = ConditioningStore(out), encoder.codec
    clip = read_clip(out.parent / "a.mp4", codec.frame_size, "said")
    window = store.window(0)
    video = to_signed(torch.from_numpy(clip.frames)).permute(3, 0, 1, 2)
    starts = [
        start
        for start in range(len(clip.frames) - 8)
        if torch.allclose(
            codec.vae.encode(video[None, :, start : start + 9])[0], window.latents, atol=1e-5
        )
    ]
    assert len(starts) == 1
    assert window.text == 1
    assert window.image is None
    # the box of 12..23 by 8..25 pixels touches columns 1..2 and rows 1..3
    assert window.face.nonzero().tolist() == [[r, c] for r in (1, 2, 3) for c in (1, 2)]
    inside = range(starts[0], starts[0] + 9)
    references = [
        number
        for number in range(len(clip.frames))
        if torch.allclose(
            codec.cond_latents(encoder._reference(clip.frames[number]), 9), window.cond, atol=1e-5
        )
    ]
    assert references
    assert not set(references) & set(inside)


def test_windows_of_several_lengths_are_drawn_apart(written: tuple[Path, ClipEncoder]) -> None:
    """Of the clip of 12 frames there are none of 17."""
    store = ConditioningStore(written[0])
    assert store.window_lengths == [9, 17]
    assert (len(store.windows_of(9)), len(store.windows_of(17))) == (4, 2)
    clips = StoredClips(store, CPU)
    for frames in (9, 17):
        batch = clips.draw(np.random.default_rng(0), 8, frames, first_chunk_share=0.5)
        assert batch.latents.shape[2] == batch.given.cond.shape[2] == 1 + (frames - 1) // 4
        assert batch.given.audio.shape[1] == frames


def test_the_large_recipe_asks_for_what_is_written_by_default() -> None:
    recipe = load_recipe(TeacherRecipe, "teacher-14b", tables=["sharding"])
    assert recipe.frame_counts == ClipPlan().frame_counts == (33, 17, 9)


def test_each_chunk_of_a_sequence_is_heard_as_the_newest(
    written: tuple[Path, ClipEncoder],
) -> None:
    out, encoder = written
    sequence = ConditioningStore(out).sequence(0)
    assert sequence.features.shape[:2] == (3, 11)
    # Log-mel is causal: where chunks overlap, they heard the same.
    torch.testing.assert_close(sequence.features[0, -7:], sequence.features[1, :7])
    windows = audio_windows(sequence.features[0], start=2)
    assert windows.shape == (9, 5, 4, 64)


def test_a_sheet_has_a_row_for_each_chunk(tmp_path: Path) -> None:
    clips = tiny_clips.tiny_clips(tmp_path)
    picture = sheet(
        tiny_clips.tiny_model(), clips, torch.Generator().manual_seed(0), chunks=5, num_steps=1
    )
    assert picture.size == (7 * 48, 2 * 32)
    first = np.asarray(picture)[:32, :48]
    assert np.array_equal(first, clips.store.sequence(0).picture.numpy())


def test_a_store_without_sequences_says_so(tmp_path: Path) -> None:
    store = tiny_clips.tiny_store(tmp_path)
    store._places["sequences"] = []
    clips = StoredClips(store, CPU, codec=tiny_clips.tiny_codec())
    with pytest.raises(StoreError, match="add longer"):
        clips.draw_scene(np.random.default_rng(0), 1, 1, from_portrait=True)
