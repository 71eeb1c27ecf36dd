"""How well a codec in training shows and reads held-out puppets: figures and a contact sheet."""

from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from visavis.engine.codec.composition import compose
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION
from visavis.training.codec_data import Puppet, PuppetShow, random_controls
from visavis.training.evaluation.statistics import mean_psnr

FOCUS_MAPS: Final = (2, 7, 8)  # layout latents of mouth and eyes


def _poses(held: PuppetShow, portraits: int, frames: int) -> list[tuple[Puppet, Tensor, Tensor]]:
    """Fixed poses of held-out puppets: puppet, codes, true frames."""
    rng = np.random.default_rng(7)
    poses = []
    for i in range(portraits):
        puppet = held[i * len(held) // portraits]
        codes = torch.from_numpy(puppet.basis.codes(random_controls(rng, frames)))
        poses.append((puppet, codes, puppet.render(codes)))
    return poses


@torch.no_grad()
def measure(codec: MotionCodec, held: PuppetShow) -> dict[str, float]:
    """Quick round-trip figures on held-out portraits, dB and pixels."""
    outside, cavity, painted, error = [], [], [], []
    for puppet, codes, truth in _poses(held, 8, 6):
        reference = puppet.reference
        found = codec.encode(truth, reference)
        rebuilt = codec.render(found, reference)
        given = codec.render(codes, reference)
        layers = compose(
            reference.portrait.expand(len(codes), -1, -1, -1),
            reference.seams.expand(len(codes), -1, -1, -1),
            codes,
            reduction=PORTRAIT_REDUCTION,
        )
        face = F.interpolate(reference.layout[:, FOCUS_MAPS], size=truth.shape[2:]).amax(1, True)
        away = (face < 0.15).float()
        outside.append(mean_psnr(rebuilt, truth, away))
        cavity.append(mean_psnr(rebuilt, truth, layers.gap))
        painted.append(mean_psnr(given, truth, layers.gap))
        pixels = codes.new_tensor(CODE_SCALE)[:, None, None]
        error.append(float(((found - codes).abs() * pixels).mean()))
    names = ("outside_db", "cavity_db", "painted_db", "code_px")
    return {
        n: float(np.mean(v)) for n, v in zip(names, (outside, cavity, painted, error), strict=True)
    }


@torch.no_grad()
def draw_round_trips(codec: MotionCodec, held: PuppetShow, path: Path) -> NDArray[np.uint8]:
    """Write a contact sheet and return it [H, W, 3]: rows of truth, decoded from true codes,
    decoded from the encoder's codes."""
    rows = []
    for puppet, codes, truth in _poses(held, 5, 6):
        given = codec.render(codes, puppet.reference)
        rebuilt = codec.render(codec.encode(truth, puppet.reference), puppet.reference)
        for frames in (truth, given, rebuilt):
            rows.append(np.concatenate([_picture(frame) for frame in frames], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet: NDArray[np.uint8] = np.concatenate(rows)
    Image.fromarray(sheet).save(path)
    return sheet


def _picture(frame_3HW: Tensor) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = (frame_3HW.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return image[40:240, 30:226]
