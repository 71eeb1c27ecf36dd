"""Sampler, codec and hand-over against recordings of the original's pipeline."""

from pathlib import Path

import torch
from parity_fixtures import (
    assert_within,
    load_dit,
    load_vae,
    read_json,
    tensors,
    windows_of,
)
from PIL import Image
from torch import Tensor

from visavis.engine.codec.wan import WanCodec, to_bytes
from visavis.engine.dit.sampler import RenoisingSampler, timesteps

STEP_LIMIT, LATENT_LIMIT, PIXEL_LIMIT, LEVEL_LIMIT = 5e-5, 1e-4, 5e-4, 1


def test_parity_sampler_schedule(fixtures_dir: Path) -> None:
    meta = read_json(fixtures_dir, "sampler.meta")
    levels = timesteps(meta["sampling_steps"], meta["shift"])
    expected = tensors(fixtures_dir, "sampler.io")["timesteps"]
    torch.testing.assert_close(torch.tensor(levels) * 1000, expected)


@torch.inference_mode()
def test_parity_sampler_single_steps(fixtures_dir: Path) -> None:
    model = load_dit(fixtures_dir)
    io, shared = tensors(fixtures_dir, "sampler.io"), tensors(fixtures_dir, "shared_inputs")
    meta = read_json(fixtures_dir, "sampler.meta")
    context = model.prepare_context(shared["context"][None], shared["clip_fea"])
    for chunk, bounds in enumerate(meta["audio_windows"]):
        audio = model.prepare_audio(windows_of(shared, bounds, model.config.audio_window))
        recorded = zip(
            io["timesteps"][:-1],
            io[f"chunk{chunk}.latent_in"],
            io[f"chunk{chunk}.model_out"],
            strict=True,
        )
        for timestep, latents, expected in recorded:
            time = model.prepare_time(timestep[None] / 1000)
            out = model.velocity(latents[None], time, io["y"], audio, context)
            assert_within(out[0], expected, STEP_LIMIT)


@torch.inference_mode()
def test_parity_sampler_free_running(fixtures_dir: Path) -> None:
    """From the picture and the seed alone: every chunk's latents, colours and hand-over."""
    meta = read_json(fixtures_dir, "sampler.meta")
    io, shared = tensors(fixtures_dir, "sampler.io"), tensors(fixtures_dir, "shared_inputs")
    model, vae = load_dit(fixtures_dir), load_vae(fixtures_dir)
    codec = WanCodec(
        vae,
        None,
        (meta["height"], meta["width"]),
        color_strength=meta["color_correction_strength"],
    )
    reference = codec.reference_from_image(Image.fromarray(io["cond_image_u8"].numpy()))
    assert_within(reference.image[None, :, None], io["cond_image"], 1e-6)
    cond = codec.cond_latents(reference, meta["frame_num"])[None]
    assert_within(cond, io["y"], LATENT_LIMIT)
    motion = codec.initial_motion(reference)
    assert_within(motion, io["latent_motion_frames.init"], LATENT_LIMIT)

    context = model.prepare_context(shared["context"][None], shared["clip_fea"])
    generator = torch.Generator().manual_seed(meta["seed"])
    sampler = RenoisingSampler(shift=meta["shift"])
    for chunk, bounds in enumerate(meta["audio_windows"]):
        audio = model.prepare_audio(windows_of(shared, bounds, model.config.audio_window))
        seen: list[Tensor] = []

        def velocity(latents: Tensor, at: Tensor, audio=audio, seen=seen) -> Tensor:  # type: ignore[no-untyped-def]
            seen.append(latents[0].clone())
            return model.velocity(latents, model.prepare_time(at), cond, audio, context)

        latents = sampler.sample(
            velocity,
            tuple(io[f"chunk{chunk}.latent_final"].shape),
            motion,
            generator,
            num_steps=meta["sampling_steps"],
        )
        assert_within(torch.stack(seen), io[f"chunk{chunk}.latent_in"], LATENT_LIMIT)
        assert_within(latents, io[f"chunk{chunk}.latent_final"], LATENT_LIMIT)
        if f"chunk{chunk}.decoded_before_color" in io:
            plain = torch.cat(list(vae.decode(latents[None])), dim=2)
            assert_within(plain, io[f"chunk{chunk}.decoded_before_color"], PIXEL_LIMIT)
        frames = torch.cat(list(codec.decode_signed(latents, reference)), dim=1)
        tail = frames[:, -meta["motion_frames_num"] :]
        assert_within(tail[None], io[f"chunk{chunk}.cond_frame"], PIXEL_LIMIT)
        if f"chunk{chunk}.frames_u8" in io:
            recorded = io[f"chunk{chunk}.frames_u8"].int()
            shown = to_bytes(frames[:, -recorded.shape[0] :]).int()
            assert (shown - recorded).abs().max() <= LEVEL_LIMIT
        motion = codec.encode_motion(tail)
        assert_within(motion, io[f"chunk{chunk}.motion_out"], LATENT_LIMIT)
