"""The large VAE and the picture and colour steps around it, against the original's."""

from pathlib import Path

import numpy as np
import torch
from parity_fixtures import assert_within, load_vae, read_json, tensors
from PIL import Image

from visavis.engine.codec.wan_vae import vae_key
from visavis.engine.color import ColorMatcher, lab_to_rgb, rgb_to_lab
from visavis.engine.image import fit_image, fit_tensor

VAE_LIMIT, COLOR_LIMIT, LAB_LIMIT = 2e-5, 5e-5, 5e-4


def test_parity_vae_encode(fixtures_dir: Path) -> None:
    vae, io = load_vae(fixtures_dir), tensors(fixtures_dir, "vae_tiny.io")
    video = io["video"]
    for key in io:
        count = key.removeprefix("enc.")
        if key.startswith("enc.") and count.isdigit():
            assert_within(vae.encode(video[:, :, : int(count)])[0], io[key], VAE_LIMIT)
    padded = torch.zeros_like(video)
    padded[:, :, :1] = video[:, :, :1]
    expected = io["enc.first_plus_32_zero_frames"]
    assert_within(vae.encode(padded)[0], expected, VAE_LIMIT)


def test_parity_vae_streaming_decode(fixtures_dir: Path) -> None:
    vae, io = load_vae(fixtures_dir), tensors(fixtures_dir, "vae_tiny.io")
    (key,) = [k for k in io if k.startswith("dec.") and k.removeprefix("dec.").isdigit()]
    video = torch.cat(list(vae.decode(io["z"][None])), dim=2)
    assert_within(video, io[key], VAE_LIMIT)


def test_parity_vae_key_map(fixtures_dir: Path) -> None:
    blocks = read_json(fixtures_dir, "vae_tiny.config")["num_res_blocks"]
    recorded = read_json(fixtures_dir, "vae_tiny.diffusers")["key_map_original_to_diffusers"]
    assert {key: vae_key(key, blocks) for key in recorded} == recorded


def test_parity_color(fixtures_dir: Path) -> None:
    io = tensors(fixtures_dir, "color")
    matcher = ColorMatcher(io["reference"][0, :, 0])
    for key in io:
        if key.startswith("out.strength_"):
            strength = float(key.removeprefix("out.strength_"))
            assert_within(matcher(io["video"], strength), io[key], COLOR_LIMIT)
    lab = rgb_to_lab(((io["video"] + 1) / 2).movedim(1, -1))
    assert_within(lab, io["lab.video"], LAB_LIMIT)
    assert_within(lab_to_rgb(lab), io["rgb_roundtrip"], COLOR_LIMIT)


def test_parity_image_fit(fixtures_dir: Path) -> None:
    io = tensors(fixtures_dir, "image")
    cases = read_json(fixtures_dir, "color_image")["image_cases"]
    for i, case in enumerate(cases):
        pixels, target = io[f"case{i}.in_u8"], tuple(case["target_hw"])
        fitted = fit_image(Image.fromarray(np.asarray(pixels)), target)
        assert torch.equal(fitted[None, :, None], io[f"case{i}.out_u8"])
        nearest = fit_tensor(pixels.permute(2, 0, 1), target)
        assert torch.equal(nearest, io[f"case{i}.out_tensor_input"])
