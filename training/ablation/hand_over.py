"""Hand-overs that err as the shipped codec does when it reads what it drew.

White noise of the same size would be kinder: most of the codec's error stays the same over the five
frames that are handed over, and a third of it is a person's own, the same in every hand-over, so
that it can add up (docs/research.md has the shares).

Legend: P people, K hand-overs of each, B samples, C channels, T latent frames, h w control grid.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.ablation.chunk_bank import ChunkBank
from visavis.training.self_rollout import MotionScene, sequence_frames


@dataclass(frozen=True, slots=True)
class RecordedErrors:
    """Errors of codes float32 [P, K, 5, 6, h, w] as `hand_over_error` records them."""

    errors: Tensor

    @classmethod
    def load(cls, path: Path) -> "RecordedErrors":
        """Raises FileNotFoundError that says how to record them."""
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is not there; python -m visavis.training.hand_over_error --portraits "
                f"PORTRAITS --save {path} records it"
            )
        return cls(torch.from_numpy(np.load(path)["errors"]).float())

    def split(self, share: float = 0.6) -> tuple["RecordedErrors", "RecordedErrors"]:
        """Those of some people to train with, and those of the others to measure with."""
        cut = max(1, min(len(self.errors) - 1, round(share * len(self.errors))))
        return RecordedErrors(self.errors[:cut]), RecordedErrors(self.errors[cut:])

    def draw(self, people_B: Tensor, generator: torch.Generator) -> Tensor:
        """One hand-over's error [B, 5, 6, h, w] of each sample's person; any numbers may be people,
        and the same number is always the same person."""
        people, each = self.errors.shape[:2]
        chosen = torch.randint(each, (len(people_B),), generator=generator)
        return self.errors[people_B % people, chosen]

    def hand_over(
        self,
        latents_BCThw: Tensor,
        people_B: Tensor,
        generator: torch.Generator,
        *,
        scale: float = 1.0,
    ) -> Tensor:
        """Motion latents [B, C, 2, h, w] of the next chunk, with `scale` times a recorded error."""
        codes = unpack_codes(latents_BCThw)[:, -MOTION_FRAMES:]
        return pack_codes(codes + scale * self.draw(people_B, generator))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErringScene(MotionScene):
    """Sequences whose hand-overs have `scale` times the recorded errors."""

    errors: RecordedErrors
    scale: float

    def hand_over(
        self, latents_BCThw: Tensor, generator: torch.Generator, *, slots: int = 2
    ) -> Tensor:
        """The last five frames' codes with an error of the portrait's own."""
        del slots  # what was handed over before is not drawn again
        return self.errors.hand_over(
            latents_BCThw, self.batch.portraits, generator, scale=self.scale
        )


@dataclass(frozen=True, slots=True)
class ErringChunks:
    """A bank whose roll-outs err (`training.distill.Scenes`)."""

    bank: ChunkBank
    errors: RecordedErrors
    scale: float = 1.0

    def draw_scene(
        self, rng: np.random.Generator, batch: int, chunks: int, *, from_portrait: bool
    ) -> ErringScene:
        """Sequences for a roll-out of so many chunks."""
        frames = sequence_frames(chunks, self.bank.chunk_frames)
        drawn = self.bank.draw_sequences(rng, batch, frames, from_portrait=from_portrait)
        return ErringScene(
            self.bank.hearing,
            drawn,
            self.bank.chunk_frames,
            from_portrait,
            errors=self.errors,
            scale=self.scale,
        )
