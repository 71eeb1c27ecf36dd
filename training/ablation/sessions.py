"""Long roll-outs on portraits and speech that training never saw, batched over sessions.

Legend: S sessions, n chunk, F frames of a chunk, N new frames, h w control grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.ablation.chunk_bank import ChunkBank
from visavis.training.ablation.hand_over import RecordedErrors
from visavis.training.control_probe import ControlProbe
from visavis.training.motion_metrics import FaceProbe
from visavis.training.rollout import ChunkConditions, Network, SamplerName, exit_early
from visavis.training.self_rollout import chunk_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """How chunks are sampled and handed over."""

    num_steps: int = 4
    sampler: SamplerName = "renoise"
    errors: float = 1.0  # times the recorded errors of a hand-over through pixels; 0: exact


class HeldSessions:
    """S sessions, each a held portrait that speaks all held clips in turn, from its own place on.

    The same for every row of the table.
    """

    def __init__(
        self,
        bank: ChunkBank,
        errors: RecordedErrors,
        portraits: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> None:
        """Session i shows `portraits[i]` and begins with the bank's chunk `offsets[i]`; `errors`
        are those of hand-overs."""
        self.bank, self.errors = bank, errors
        self._chosen, self._offsets = portraits, offsets
        self._places = _places(bank)
        self.portraits = torch.from_numpy(portraits)
        source = bank.source.bank
        self.layout = source.layout[self.portraits]
        self.rest = source.rest[self.portraits]
        self.controls = ControlProbe.from_basis(source.basis[self.portraits])
        self.face = FaceProbe.from_basis(source.basis[self.portraits])

    @classmethod
    def draw(
        cls, bank: ChunkBank, errors: RecordedErrors, count: int, *, seed: int = 99
    ) -> "HeldSessions":
        """`count` different portraits, spread evenly over the speech.

        Raises ValueError if the bank has fewer portraits.
        """
        portraits = np.random.default_rng(seed).permutation(bank.source.portraits)[:count]
        if len(portraits) < count:
            raise ValueError(
                f"sessions={count}: only {len(portraits)} portraits are held back; ask for fewer"
            )
        return cls(bank, errors, portraits, (np.arange(count) * len(_places(bank))) // count)

    def first(self, count: int) -> "HeldSessions":
        """The first few of the sessions."""
        return HeldSessions(self.bank, self.errors, self._chosen[:count], self._offsets[:count])

    @property
    def new_frames(self) -> int:
        """Frames that a chunk adds."""
        return self.bank.new_frames

    def _row(self, chunk: int) -> NDArray[np.int64]:
        """Rows of the heard chunks [S] that are the sessions' chunk n."""
        row: NDArray[np.int64] = (self._offsets + chunk) % len(self._places)
        return row

    def conditions(self, chunk: int) -> ChunkConditions:
        """What chunk n is made from."""
        heard = self.bank.heard.windows(torch.from_numpy(self._row(chunk)))
        return ChunkConditions(heard, self.layout)

    def truth(self, chunks: int) -> Tensor:
        """Recorded codes [S, chunks N, 6, h, w] of the new frames."""
        clips, new = self.bank.source.clips, self.new_frames
        sessions = []
        for session, portrait in enumerate(self.portraits.tolist()):
            rows = []
            for chunk in range(chunks):
                clip, start = self._places[self._row(chunk)[session]]
                begin = int(clips.offsets[clip]) + start + MOTION_FRAMES
                rows.append(clips.controls[begin : begin + new])
            sessions.append(self.bank.source.codes(np.concatenate(rows), portrait))
        return torch.stack(sessions)

    def initial_motion(self) -> Tensor:
        """The portrait's own code, one motion latent."""
        return pack_codes(torch.zeros_like(self.rest)[:, None])

    @torch.no_grad()
    def run(
        self,
        network: Network,
        how: Deployment,
        motion: Tensor,
        generator: torch.Generator,
        *,
        first: int,
        chunks: int,
    ) -> tuple[Tensor, Tensor]:
        """New frames' codes [S, chunks N, 6, h, w] of chunks first .. first + chunks, and the
        motion latents after them."""
        shape = chunk_shape(len(self.layout), self.bank.chunk_frames)
        made = []
        for chunk in range(first, first + chunks):
            conditions = self.conditions(chunk)
            latents = exit_early(
                lambda x, t, c=conditions: c.velocity(network, x, t),  # type: ignore[misc]
                shape,
                motion,
                generator,
                num_steps=how.num_steps,
                exit_step=how.num_steps - 1,
                sampler=how.sampler,
            )
            made.append(unpack_codes(latents)[:, MOTION_FRAMES:])
            motion = self.errors.hand_over(latents, self.portraits, generator, scale=how.errors)
        return torch.cat(made, dim=1), motion


def _places(bank: ChunkBank) -> list[tuple[int, int]]:
    """(clip, first frame) of every heard chunk, in order."""
    starts = bank.heard.starts
    return [
        (clip, i * bank.new_frames)
        for clip in range(len(starts) - 1)
        for i in range(starts[clip + 1] - starts[clip])
    ]


Disturbance = Callable[[Tensor], Tensor]
"""Codes [S, 5, 6, h, w] of the motion frames -> the same, disturbed."""


def _noise(codes: Tensor) -> Tensor:
    return codes + 0.5 * torch.randn(codes.shape, generator=torch.Generator().manual_seed(0))


def _shift(codes: Tensor) -> Tensor:
    """The whole face three pixels down and to the right."""
    head = torch.tensor([0.75, 0.75, 0, 0, 0, 0]).view(1, 1, 6, 1, 1)
    return codes + head


def _blur(codes: Tensor) -> Tensor:
    flat = functional.pad(codes.flatten(0, 1), (2, 2, 2, 2), mode="replicate")
    return functional.avg_pool2d(flat, 5, stride=1).view_as(codes)


def _gain(codes: Tensor) -> Tensor:
    return 1.5 * codes


DISTURBANCES: Final[dict[str, Disturbance]] = {
    "noise": _noise,
    "shift": _shift,
    "blur": _blur,
    "gain": _gain,
}
RECOVERY_CHUNKS: Final = (1, 2, 5, 10)


def recovery(
    sessions: HeldSessions, network: Network, how: Deployment, seed: int, *, settle: int = 3
) -> dict[str, list[float]]:
    """What is left of a disturbance of the motion frames after 1, 2, 5 and 10 chunks.

    Root mean square distance of the last five frames to those of a twin with the same noise that
    was not disturbed, over what the disturbance did. Mean over sessions, by kind.
    """
    start = torch.Generator().manual_seed(seed)
    motion = sessions.initial_motion()
    _, motion = sessions.run(network, how, motion, start, first=0, chunks=settle)
    codes = unpack_codes(motion)

    def follow(poses: Tensor) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed + 1)
        at, seen, motion = settle, [], pack_codes(poses)
        for until in RECOVERY_CHUNKS:
            chunks = settle + until - at
            made, motion = sessions.run(network, how, motion, generator, first=at, chunks=chunks)
            at = settle + until
            seen.append(made[:, -MOTION_FRAMES:])
        return seen

    twin = follow(codes)
    left = {}
    for name, disturb in DISTURBANCES.items():
        pushed = disturb(codes)
        before = _distance(pushed, codes).clamp_min(1e-6)
        left[name] = [
            float((_distance(a, b) / before).mean())
            for a, b in zip(follow(pushed), twin, strict=True)
        ]
    return left


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().mean(dim=(1, 2, 3, 4)).sqrt()
