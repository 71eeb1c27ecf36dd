"""Generated talking beside the same clip's true motion, both looked at by the same detectors.

The truth is the puppet that the clip's own controls move on the same portrait.

Legend: N frames, H W pixels, K measures.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from visavis.training.codec_data import Puppet
from visavis.training.evaluation.round_trip import quantise, to_pictures
from visavis.training.evaluation.talking import Talk
from visavis.training.identity import IdentityJudge, similarity
from visavis.training.landmarks import (
    IndependentLandmarker,
    eye_openings,
    head_pose,
    mouth_opening,
)

BATCH = 10
IDENTITY_EVERY = 25
# A lid is shut below this share of the eye's usual opening; a wink leaves the other one above.
SHUT, OPEN = 0.55, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One clip on one portrait.

    `mouth_dynamics`, `pose_dynamics` (mean over five measures), `lid_dynamics`: variance ratios,
    generated over true. `high_band`: the same of the mouth's change from frame to frame. `measures`
    and `true_measures` [N, K] feed the Fréchet distance. `identity_ratio`: similarity to the
    portrait over the truth's own. `winks`: share of shut-eye frames with the other eye open.
    """

    mouth_dynamics: float
    pose_dynamics: float
    lid_dynamics: float
    high_band: float
    measures: NDArray[np.float64]
    true_measures: NDArray[np.float64]
    identity_ratio: float
    winks: float

    @property
    def dynamics(self) -> float:
        """DYN: the geometric mean of mouth and pose."""
        return float(np.sqrt(self.mouth_dynamics * self.pose_dynamics))


def compare(
    talk: Talk, puppet: Puppet, landmarker: IndependentLandmarker, identity: IdentityJudge
) -> Comparison:
    """Render the truth of a talk and measure both."""
    count = len(talk.frames)
    codes = torch.from_numpy(puppet.basis.codes(talk.clip.controls[:count]))
    truth = np.concatenate(
        [to_pictures(quantise(puppet.render(part))) for part in torch.split(codes, BATCH)]
    )
    true_points = landmarker.detect(truth)
    opening, true_opening = talk.opening, mouth_opening(true_points)
    eyes, true_eyes = eye_openings(talk.points), eye_openings(true_points)
    pose, true_pose = head_pose(talk.points), head_pose(true_points)
    portrait = to_pictures(puppet.reference.portrait)
    (embedded,) = identity.embed(portrait)
    similarities = [
        similarity(identity.embed(frames[::IDENTITY_EVERY]), embedded)
        for frames in (talk.frames, truth)
    ]
    return Comparison(
        mouth_dynamics=_variance_ratio(opening, true_opening),
        pose_dynamics=float(
            np.mean([_variance_ratio(a, b) for a, b in zip(pose.T, true_pose.T, strict=True)])
        ),
        lid_dynamics=_variance_ratio(eyes.mean(axis=1), true_eyes.mean(axis=1)),
        high_band=_variance_ratio(np.diff(opening), np.diff(true_opening)),
        measures=np.column_stack([opening, eyes, pose]),
        true_measures=np.column_stack([true_opening, true_eyes, true_pose]),
        identity_ratio=similarities[0] / similarities[1],
        winks=wink_share(eyes),
    )


def wink_share(eyes_N2: NDArray[np.float64]) -> float:
    """Of the frames in which one eye is shut, the share whose other eye is open; 0 without any."""
    share = eyes_N2 / np.median(eyes_N2, axis=0)
    shut = share.min(axis=1) < SHUT
    return float(np.mean(share.max(axis=1)[shut] > OPEN)) if shut.any() else 0.0


def frechet_distance(generated_NK: NDArray[np.float64], truth_NK: NDArray[np.float64]) -> float:
    """Fréchet distance of the measures and their changes, in standard deviations of the truth.

    Squared mean difference plus trace of the covariances' difference, over the measures' number.
    """
    scale = truth_NK.std(axis=0) + 1e-9
    sets = []
    for measures in (generated_NK, truth_NK):
        scaled = (measures - truth_NK.mean(axis=0)) / scale
        sets.append(np.column_stack([scaled[1:], np.diff(scaled, axis=0)]))
    means = [values.mean(axis=0) for values in sets]
    first, second = (np.cov(values, rowvar=False) for values in sets)
    root = _root(first)
    cross = _root(root @ second @ root)
    distance = np.sum((means[0] - means[1]) ** 2) + np.trace(first + second - 2 * cross)
    return float(distance / sets[0].shape[1])


def _root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return root


def _variance_ratio(generated: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.var(generated) / max(float(np.var(truth)), 1e-12))
