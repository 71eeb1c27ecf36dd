"""What the autoencoder alone costs: held-out puppets encoded from pixels and rendered again.

Legend: N frames, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import compose
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION
from visavis.training.codec_data import Puppet
from visavis.training.evaluation.statistics import mean_psnr, pearson
from visavis.training.landmarks import IndependentLandmarker, eye_opening, mouth_opening
from visavis.training.puppets.controls import INDEX, lip_gap

FACE_MAPS = (2, 7, 8)  # layout latents of the mouth and both eyes
FACE_THRESHOLD = 0.15
BATCH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """Figures of one portrait; frames for the contact sheet are uint8 [N, H, W, 3]."""

    name: str
    psnr_outside_db: float
    psnr_cavity_db: float
    aperture_r: float
    eyelid_r: float
    code_error_px: float
    truth: NDArray[np.uint8]
    rebuilt: NDArray[np.uint8]


@torch.no_grad()
def round_trip(
    codec: MotionCodec,
    puppet: Puppet,
    controls: NDArray[np.float32],
    landmarker: IndependentLandmarker,
) -> RoundTrip:
    """Encode and render the puppet's frames [N] and compare.

    `psnr_outside_db` leaves out mouth and eyes; `psnr_cavity_db` is over the pixels of the opened
    mouth's cavity alone, all frames together; `aperture_r` correlates the detected opening with the
    true gap.
    """
    codes = torch.from_numpy(puppet.basis.codes(controls))
    truth, rebuilt, found, gaps = [], [], [], []
    for part in torch.split(codes, BATCH):
        frames = quantise(puppet.render(part))
        code = codec.encode(frames, puppet.reference)
        truth.append(frames)
        found.append(code)
        rebuilt.append(quantise(codec.render(code, puppet.reference)))
        gaps.append(_cavity(puppet, part))
    true_frames, new_frames = torch.cat(truth), torch.cat(rebuilt)
    face = F.interpolate(puppet.reference.layout[:, list(FACE_MAPS)], size=true_frames.shape[2:])
    outside = (face.amax(dim=1, keepdim=True) < FACE_THRESHOLD).float()
    pictures = to_pictures(new_frames)
    points = landmarker.detect(pictures)
    blink = controls[:, INDEX["blink_l"]]
    return RoundTrip(
        name=puppet.name,
        psnr_outside_db=mean_psnr(new_frames, true_frames, outside),
        psnr_cavity_db=mean_psnr(new_frames, true_frames, torch.cat(gaps)),
        aperture_r=pearson(mouth_opening(points), lip_gap(controls)),
        eyelid_r=-pearson(eye_opening(points), blink),
        code_error_px=float((torch.cat(found) - codes).abs().mean()),
        truth=to_pictures(true_frames),
        rebuilt=pictures,
    )


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
