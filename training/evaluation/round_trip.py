"""What the autoencoder alone costs: held-out puppets encoded from pixels and drawn again.

The codes that the encoder read are drawn three times: by the sessions' decoder (`MotionCodec.draw`,
the mouth's inside by rule) with a background that moves as the puppet's does; by the same with the
background kept still, as sessions keep it; and by the codec's own painter, which the encoder was
trained with. `HEAD_GAIN`, by which sessions move the head further than its code, is in none of
them: the truth is the code.

Legend: N frames, H W pixels.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import Layers, Sources, compose
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import FRAME_SIZE
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION, MotionReference
from visavis.training.codec_data import Puppet
from visavis.training.control_probe import FACE, ControlProbe
from visavis.training.evaluation.lid_reading import LIDS, read_lids
from visavis.training.evaluation.statistics import mean_psnr, pearson
from visavis.training.landmarks import (
    IndependentLandmarker,
    Landmarks,
    eye_opening,
    mouth_opening,
)
from visavis.training.puppets.controls import lip_gap

FACE_MAPS = (2, 7, 8)  # layout latents of the mouth and both eyes
FACE_THRESHOLD = 0.15
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

    `psnr_outside_db` leaves out mouth and eyes, and where the head has moved in from beyond the
    picture: nobody knows what was there, and puppets smear the border where `Canvas` mirrors it
    (`psnr_outside_border_db` is with it). `psnr_cavity_db` is over the pixels of the opened
    mouth's cavity alone, all frames together. Both are of the sessions' decoder with a moving
    background. `psnr_outside_still_db`, border included, is with the background kept still: it
    moves in the puppet, so that most of that error is no error of the autoencoder. The inside of
    the mouth is painted by one rule (`engine/codec/interior.py`) in the puppet and in the drawing:
    `psnr_cavity_db` tells how well code and portrait place and light it; `..._painter_db`, of what
    the trained painter makes, tells how well the rule was learned.

    `autoencoder_aperture_r` and `autoencoder_eyelid_r` correlate openings that a detector finds
    with the true gap and the true lids. `..._r_truth` is what the puppet's own frames score, the
    most that the detector can tell; `..._r_paired` correlates what it finds in the drawn frames
    and in the puppet's. Two figures need no detector: `autoencoder_lid_r` reads each lid by
    comparison (`lid_reading`; `..._r_truth` is what that tells of the puppet's own frames), and
    `autoencoder_lid_code_r` takes both lids as the found codes have them.
    `autoencoder_code_error_px` is the mean error of the codes' units.
    """
    codes = torch.from_numpy(puppet.basis.codes(controls))
    reference = codec.resized(puppet.reference, (FRAME_SIZE, FRAME_SIZE))
    moving = copy.copy(codec)
    moving.reencode = True
    truth, shown, still, painted, found, gaps, known = [], [], [], [], [], [], []
    for part in torch.split(codes, BATCH):
        frames = quantise(puppet.render(part))
        code = codec.encode(frames, reference)
        truth.append(frames)
        found.append(code)
        shown.append(_drawn(moving, code, reference))
        still.append(_drawn(codec, code, reference))
        painted.append(quantise(codec.render(code, reference)))
        layers = _layers(puppet, part)
        # Where the mouth's inside shows, and where the portrait has the pixels.
        gaps.append((layers.gap > 0.5).float())
        known.append(_in_picture(layers.sources))
    true_frames, cavity = torch.cat(truth), torch.cat(gaps)
    face = F.interpolate(reference.layout[:, list(FACE_MAPS)], size=true_frames.shape[2:])
    outside = (face.amax(dim=1, keepdim=True) < FACE_THRESHOLD).float()
    inside = outside * torch.cat(known)
    pictures = to_pictures(torch.cat(still))
    read = torch.cat(found)
    scalars = {
        **_detected(
            landmarker.detect(pictures), landmarker.detect(to_pictures(true_frames)), controls
        ),
        **_lid_r(puppet, controls, torch.cat(shown), true_frames),
        "autoencoder_lid_code_r": _lid_code_r(puppet, read, controls),
        "autoencoder_code_error_px": float((read - codes).abs().mean()),
    }
    for name, parts in (("", shown), ("_painter", painted)):
        rebuilt = torch.cat(parts)
        scalars[f"psnr_outside{name}_db"] = mean_psnr(rebuilt, true_frames, inside)
        if cavity.any():
            scalars[f"psnr_cavity{name}_db"] = mean_psnr(rebuilt, true_frames, cavity)
    scalars["psnr_outside_border_db"] = mean_psnr(torch.cat(shown), true_frames, outside)
    scalars["psnr_outside_still_db"] = mean_psnr(torch.cat(still), true_frames, outside)
    return RoundTrip(
        name=puppet.name, scalars=scalars, truth=to_pictures(true_frames), rebuilt=pictures
    )


def _drawn(codec: MotionCodec, codes_N6hw: Tensor, reference: MotionReference) -> Tensor:
    """Frames [N, 3, H, W] in 0..1 by the sessions' decoder, the head moving as its code says."""
    return codec.draw(codes_N6hw, reference).permute(0, 3, 1, 2).float() / 255


def _detected(drawn: Landmarks, true: Landmarks, controls: NDArray[np.float32]) -> dict[str, float]:
    """Openings in drawn and in true frames, against the controls and against each other."""
    scalars = {}
    for name, opening, wanted in (
        ("aperture", mouth_opening, lip_gap(controls)),
        ("eyelid", eye_opening, -controls[:, LIDS].mean(axis=1)),
    ):
        found, detectable = opening(drawn), opening(true)
        scalars[f"autoencoder_{name}_r"] = pearson(found, wanted)
        scalars[f"autoencoder_{name}_r_truth"] = pearson(detectable, wanted)
        scalars[f"autoencoder_{name}_r_paired"] = pearson(found, detectable)
    return scalars


def _lid_r(
    puppet: Puppet, controls: NDArray[np.float32], drawn: Tensor, true: Tensor
) -> dict[str, float]:
    """Correlation of each lid, read by comparison, with what it was made from."""
    wanted = controls[:, LIDS].ravel()
    found, readable = read_lids(puppet, controls, (drawn, true))
    return {
        "autoencoder_lid_r": pearson(found.ravel(), wanted),
        "autoencoder_lid_r_truth": pearson(readable.ravel(), wanted),
    }


def _lid_code_r(puppet: Puppet, codes_N6hw: Tensor, controls: NDArray[np.float32]) -> float:
    """Correlation of both lids, as codes have them, with what they were made from."""
    basis, rest = (torch.from_numpy(part)[None] for part in (puppet.basis.basis, puppet.basis.rest))
    face = ControlProbe.from_basis(basis).read((codes_N6hw - rest)[None]).face[0].numpy()
    columns = [FACE.index("blink_l"), FACE.index("blink_r")]
    return pearson(face[:, columns].ravel(), controls[:, LIDS].ravel())


def _layers(puppet: Puppet, codes: Tensor) -> Layers:
    """What the puppet's own frames are made of."""
    count = len(codes)
    return compose(
        puppet.reference.portrait.expand(count, -1, -1, -1),
        puppet.reference.seams.expand(count, -1, -1, -1),
        codes,
        reduction=PORTRAIT_REDUCTION,
    )


def _in_picture(sources: Sources) -> Tensor:
    """1 where both layers come from inside the portrait's picture [N, 1, H, W], else 0."""
    places = torch.cat([sources.upper, sources.lower], dim=1)
    within = (places >= -0.5) & (places <= FRAME_SIZE - 0.5)
    return within.all(dim=1, keepdim=True).float()


def quantise(frames_N3HW: Tensor) -> Tensor:
    """Rounded to 8 bits, as any receiver sees them."""
    return (frames_N3HW * 255).round() / 255


def to_pictures(frames_N3HW: Tensor) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3]."""
    pictures: NDArray[np.uint8] = (
        (frames_N3HW * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return pictures
