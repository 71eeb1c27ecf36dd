"""What the autoencoder alone costs: held-out puppets encoded from pixels and drawn again.

Drawn twice: as sessions show it (the mouth's inside by rule, the background still), and by the
codec's own painter, which the encoder was trained with.

Legend: N frames, H W pixels.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import compose
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import FRAME_SIZE
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION, MotionReference
from visavis.training.codec_data import Puppet
from visavis.training.evaluation.statistics import mean_psnr, pearson
from visavis.training.landmarks import IndependentLandmarker, eye_opening, mouth_opening
from visavis.training.puppets.controls import INDEX, lip_gap

FACE_MAPS = (2, 7, 8)  # layout latents of the mouth and both eyes
FACE_THRESHOLD = 0.15
LIDS = [INDEX["blink_l"], INDEX["blink_r"]]
BATCH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One portrait's `scalars` by figure's name, and frames uint8 [N, H, W, 3] for the sheet."""

    name: str
    scalars: dict[str, float]
    truth: NDArray[np.uint8]
    rebuilt: NDArray[np.uint8]


@torch.no_grad()
def round_trip(
    codec: MotionCodec,
    puppet: Puppet,
    controls: NDArray[np.float32],
    landmarker: IndependentLandmarker,
) -> RoundTrip:
    """Encode the puppet's frames [N], draw them again, and compare.

    `psnr_outside_db` leaves out mouth and eyes; `psnr_cavity_db` is over the pixels of the opened
    mouth's cavity alone, all frames together; both of what is shown, but for the background, which
    moves with the codes as the puppet's does: where it is kept still it gives
    `psnr_outside_still_db`. `..._painter_db` is of what the painter makes.
    `autoencoder_aperture_r` and `autoencoder_eyelid_r` correlate detected openings with the true
    gap and the true lids; `autoencoder_code_error_px` is the mean error of the codes' units.
    """
    codes = torch.from_numpy(puppet.basis.codes(controls))
    reference = codec.resized(puppet.reference, (FRAME_SIZE, FRAME_SIZE))
    moving = copy.copy(codec)
    moving.reencode = True
    truth, shown, still, painted, found, gaps = [], [], [], [], [], []
    for part in torch.split(codes, BATCH):
        frames = quantise(puppet.render(part))
        code = codec.encode(frames, reference)
        truth.append(frames)
        found.append(code)
        shown.append(_drawn(moving, code, reference))
        still.append(_drawn(codec, code, reference))
        painted.append(quantise(codec.render(code, reference)))
        gaps.append(_cavity(puppet, part))
    true_frames, cavity = torch.cat(truth), torch.cat(gaps)
    face = F.interpolate(reference.layout[:, list(FACE_MAPS)], size=true_frames.shape[2:])
    outside = (face.amax(dim=1, keepdim=True) < FACE_THRESHOLD).float()
    pictures = to_pictures(torch.cat(still))
    points = landmarker.detect(pictures)
    scalars = {
        "autoencoder_aperture_r": pearson(mouth_opening(points), lip_gap(controls)),
        "autoencoder_eyelid_r": -pearson(eye_opening(points), controls[:, LIDS].mean(axis=1)),
        "autoencoder_code_error_px": float((torch.cat(found) - codes).abs().mean()),
    }
    for name, parts in (("", shown), ("_painter", painted)):
        rebuilt = torch.cat(parts)
        scalars[f"psnr_outside{name}_db"] = mean_psnr(rebuilt, true_frames, outside)
        if cavity.any():
            scalars[f"psnr_cavity{name}_db"] = mean_psnr(rebuilt, true_frames, cavity)
    scalars["psnr_outside_still_db"] = mean_psnr(torch.cat(still), true_frames, outside)
    return RoundTrip(
        name=puppet.name, scalars=scalars, truth=to_pictures(true_frames), rebuilt=pictures
    )


def _drawn(codec: MotionCodec, codes_N6hw: Tensor, reference: MotionReference) -> Tensor:
    """Frames [N, 3, H, W] in 0..1 as they are shown."""
    return codec.draw(codes_N6hw, reference).permute(0, 3, 1, 2).float() / 255


def _cavity(puppet: Puppet, codes: Tensor) -> Tensor:
    """Where the mouth's inside shows [N, 1, H, W], 0..1."""
    count = len(codes)
    layers = compose(
        puppet.reference.portrait.expand(count, -1, -1, -1),
        puppet.reference.seams.expand(count, -1, -1, -1),
        codes,
        reduction=PORTRAIT_REDUCTION,
    )
    return (layers.gap > 0.5).float()


def quantise(frames_N3HW: Tensor) -> Tensor:
    """Rounded to 8 bits, as any receiver sees them."""
    return (frames_N3HW * 255).round() / 255


def to_pictures(frames_N3HW: Tensor) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]."""
    pictures: NDArray[np.uint8] = (
        (frames_N3HW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return pictures
