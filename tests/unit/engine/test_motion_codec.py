"""The motion codec as the engine uses it."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_face import drawn_portrait
from torch import Tensor

from visavis.engine.codec import motion
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import pack_codes
from visavis.engine.codec.motion_reference import MotionReference
from visavis.engine.codec.networks import EncoderConfig, PainterConfig
from visavis.engine.face.layout import measure_layout
from visavis.engine.schematic import schematic_portrait

PAINTER = PainterConfig(width=8, depth=2)
ENCODER = EncoderConfig(width=8, depth=1, iterations=2)


@functools.cache
def codec() -> MotionCodec:
    """A small codec with random weights, those that begin as zero included."""
    torch.manual_seed(0)
    made = MotionCodec(PAINTER, ENCODER)
    with torch.no_grad():
        for head in (made.painter.head, made.encoder.head):
            head.weight.normal_(std=0.02)
    return made.eval().requires_grad_(False)


@functools.cache
def reference() -> MotionReference:
    return codec().reference(drawn_portrait())


def chunk(frames: int = 9) -> Tensor:
    """Latents of small random motion [24, T, 16, 16]."""
    codes = torch.randn(1, frames, 6, 16, 16, generator=torch.Generator().manual_seed(1))
    return pack_codes(0.3 * codes)[0]


def decoded(latents: Tensor, skip_frames: int = 0) -> Tensor:
    parts = codec().decode(latents, reference(), skip_frames=skip_frames)
    return torch.cat([part.pixels for part in parts])


def test_the_codec_at_rest_shows_the_portrait() -> None:
    untrained = MotionCodec(PAINTER, ENCODER)  # retouches nothing yet
    still = torch.zeros(1, 6, 16, 16)
    with torch.no_grad():
        frame = untrained.render(still, reference())[0]
    portrait = torch.from_numpy(drawn_portrait().image).permute(2, 0, 1) / 255
    psnr = -10 * torch.log10((frame - portrait).square().mean())
    assert psnr > 45


def test_seams_of_the_reference_are_the_portraits() -> None:
    portrait = drawn_portrait()
    layout = measure_layout(portrait.image, portrait.landmarks)
    assert np.array_equal(reference().seams[0].numpy(), layout.seams)


def test_frames_are_bytes_in_order_and_complete() -> None:
    frames = decoded(chunk())
    assert frames.shape == (9, 256, 256, 3)
    assert frames.dtype == torch.uint8


def test_skipping_frames_gives_the_tail_of_the_whole() -> None:
    latents = chunk()
    difference = decoded(latents, skip_frames=5).int() - decoded(latents)[5:].int()
    # Batches fall differently, and convolutions may round differently with them.
    assert difference.abs().max() <= 1


@pytest.mark.parametrize("batch", [1, 5])
def test_pixels_do_not_depend_on_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = decoded(chunk(5))
    monkeypatch.setattr(motion, "DECODE_BATCH", batch)
    assert (decoded(chunk(5)).int() - usual.int()).abs().max() <= 1


@pytest.mark.parametrize("end_frame", [6, 7, 9])
def test_hand_over_repacks_the_last_five_codes(end_frame: int) -> None:
    codes = torch.randn(1, 9, 6, 16, 16)
    latents = pack_codes(codes)[0]
    exact = torch.cat([part.exact for part in codec().decode(latents, reference())])
    motion = codec().motion_latents(exact[end_frame - 5 : end_frame], reference())
    torch.testing.assert_close(motion, pack_codes(codes[:, end_frame - 5 : end_frame])[0])


def test_reencoding_reads_the_pixels() -> None:
    reading = MotionCodec(PAINTER, ENCODER, reencode=True)
    reading.load_state_dict(codec().state_dict())
    parts = list(reading.decode(chunk(), reference()))
    exact = torch.cat([part.exact for part in parts])[-5:]
    assert torch.equal(exact, torch.cat([part.pixels for part in parts])[-5:])
    motion = reading.motion_latents(exact, reference())
    assert motion.shape == (24, 2, 16, 16)
    assert not torch.equal(motion, reading.motion_latents(255 - exact, reference()))


def test_conditions_have_the_shapes_that_the_engine_expects() -> None:
    known = reference()
    assert codec().cond_latents(known, 33).shape == (codec().cond_channels, 9, 16, 16)
    assert codec().image_tokens(known).shape == (16, 256)
    assert not codec().initial_motion(known).any()
    assert codec().initial_motion(known).shape == (24, 1, 16, 16)


def test_a_saved_codec_comes_back(tmp_path: Path) -> None:
    codec().save(tmp_path)
    again = MotionCodec.load(tmp_path)
    codes = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(2))
    before = codec().render(codes, reference())
    torch.testing.assert_close(again.render(codes, reference()), before, atol=1e-5, rtol=0)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_missing_codec_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"codec\.json"):
        MotionCodec.load(tmp_path)


def test_a_portrait_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"portrait\.image has shape \(128, 128, 3\)"):
        codec().reference(schematic_portrait(128))


def test_encoder_begins_at_rest_and_refines() -> None:
    untrained = MotionCodec(PAINTER, ENCODER)
    frame = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(3))
    assert not untrained.encode(frame, reference()).any()
    passes = codec().encode_passes(frame[:, :, ::2, ::2], reference())
    assert len(passes) == ENCODER.iterations
    assert not torch.equal(passes[0], passes[1])
