"""The figures of one row of the table, from codes alone: nothing is rendered.

DRIFT compares distributions, since no word tells where a head should be: for each of the sixteen
controls that are read off the codes, mean and spread over sessions and a window of five chunks are
held against those of the recorded motion at large, in units of its spread; the figure is the root
mean square over the controls (the Frechet distance of two normal distributions, control by
control). What no control explains is counted apart: a puppet cannot make it.

Legend: S sessions, N frames, K controls.
"""

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from visavis.training.ablation.sessions import Deployment, HeldSessions, recovery
from visavis.training.control_probe import FACE, HEAD, LIPS, Controls
from visavis.training.motion_metrics import boundary_jump
from visavis.training.rollout import Network

CHUNKS: Final = 100
WINDOW: Final = 5  # chunks whose frames are pooled
MARKS: Final = (1, 10, 100, 1000)  # chunks at which drift is reported, as far as they go
_LIDS = slice(FACE.index("blink_l"), FACE.index("blink_r") + 1)
# A session has collapsed when its late motion leaves what a puppet can do, or stops.
_STRAY: Final = 0.5  # unexplained part of the code, of the recorded codes' own size
_FAR: Final = 5.0  # mean of a control, in standard deviations of the recorded motion
_STILL: Final = 0.05  # variance of the lips, of the recorded motion's


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One network, one way to sample it, one seed."""

    sync: float  # Pearson r of the mouth's opening, chunks 1 to 10
    sync_late: float  # chunks 91 to 100
    lips: float  # variance ratios to the recorded motion
    head: float
    lids: float
    drift: list[float]  # at MARKS
    drift_curve: list[float]  # windows of five chunks, one after the other
    stray: list[float]  # unexplained part at MARKS
    camera: float  # mean offset of the head at chunk 100, in standard deviations
    collapse: float  # share of sessions
    boundary_jump: float
    recover: dict[str, list[float]]  # kind -> left after 1, 2, 5, 10 chunks

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@torch.no_grad()
def measure(
    network: Network,
    sessions: HeldSessions,
    how: Deployment,
    seed: int,
    *,
    chunks: int = CHUNKS,
    recover: bool = True,
) -> Figures:
    """Roll out from the portraits and compare with the recorded motion of the same speech;
    `recover`: also disturb it."""
    generator = torch.Generator().manual_seed(seed)
    motion = sessions.initial_motion()
    codes, _ = sessions.run(network, how, motion, generator, first=0, chunks=chunks)
    if not recover:
        return figures(codes, sessions, chunks, {})
    few = sessions.first(min(8, len(sessions.layout)))
    return figures(codes, sessions, chunks, recovery(few, network, how, seed))


def figures(
    codes: Tensor, sessions: HeldSessions, chunks: int, recover: dict[str, list[float]]
) -> Figures:
    """The figures of new frames' codes [S, chunks N, 6, h, w]."""
    truth = sessions.truth(chunks)
    made, recorded = _read(sessions, codes), _read(sessions, truth)
    values, true_values = _joined(made), _joined(recorded)
    mean, spread = true_values.mean(dim=(0, 1)), true_values.std(dim=(0, 1)).clamp_min(1e-3)
    size = (truth - sessions.rest[:, None]).square().mean().sqrt()
    span = sessions.new_frames * WINDOW
    windows = [slice(at, at + span) for at in range(0, chunks * sessions.new_frames, span)]
    reached = [mark for mark in MARKS if mark <= max(100, chunks)]
    marked = [windows[min((mark - 1) // WINDOW, len(windows) - 1)] for mark in reached]
    late, ten = windows[-1], 10 * sessions.new_frames
    lips = slice(0, len(LIPS))
    opening, true_opening = sessions.face.opening(codes), sessions.face.opening(truth)

    def drift(part: slice) -> float:
        off = (values[:, part].mean(dim=(0, 1)) - mean) / spread
        wide = (values[:, part].std(dim=(0, 1)) - spread) / spread
        return float((off.square() + wide.square()).mean().sqrt())

    def variance_ratio(columns: slice) -> float:
        own = values[..., columns].var(dim=1).mean(dim=0)
        true = true_values[..., columns].var(dim=1).mean(dim=0).clamp_min(1e-8)
        return float((own / true).mean())

    unexplained = made.residual.square().mean(dim=(2, 3, 4))
    stray = unexplained[:, late].mean(dim=1).sqrt() / size
    far = ((values[:, late].mean(dim=1) - mean).abs() / spread).amax(dim=1)
    moved = values[:, late, lips].var(dim=1).mean(dim=1)
    still = moved / true_values[:, late, lips].var(dim=1).mean(dim=1).clamp_min(1e-6)
    collapsed = ~((stray < _STRAY) & (far < _FAR) & (still > _STILL))
    head = (values[:, late, len(FACE) :].mean(dim=(0, 1)) - mean[len(FACE) :]) / spread[len(FACE) :]
    return Figures(
        sync=_correlation(opening[:, :ten], true_opening[:, :ten]),
        sync_late=_correlation(opening[:, -ten:], true_opening[:, -ten:]),
        lips=variance_ratio(lips),
        head=variance_ratio(slice(len(FACE), len(FACE) + len(HEAD))),
        lids=variance_ratio(_LIDS),
        drift=[drift(part) for part in marked],
        drift_curve=[drift(part) for part in windows],
        stray=[float(unexplained[:, part].mean().sqrt() / size) for part in marked],
        camera=float(head.square().mean().sqrt()),
        collapse=float(collapsed.float().mean()),
        boundary_jump=boundary_jump(codes, np.arange(1, chunks) * sessions.new_frames),
        recover=recover,
    )


def _read(sessions: HeldSessions, codes: Tensor) -> Controls:
    return sessions.controls.read(codes - sessions.rest[:, None])


def _joined(controls: Controls) -> Tensor:
    """[S, N, 16]: face, then head."""
    return torch.cat([controls.face, controls.head], dim=2)


def _correlation(a_SN: Tensor, b_SN: Tensor) -> float:
    """Mean Pearson r over the sessions whose recorded mouth moves."""
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a_SN, b_SN))
    norms = a.norm(dim=1) * b.norm(dim=1)
    speaks = b_SN.std(dim=1) > 0.03
    r = (a * b).sum(dim=1) / norms.clamp_min(1e-8)
    return float(r[speaks].mean()) if speaks.any() else 0.0
