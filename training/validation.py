"""A validation set of unseen portraits and clips, rolled out as deployed.

Legend: B sequences, N frames, L layers, C channels, h w control grid.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.codec_data import PuppetShow
from visavis.training.contact_sheet import Row, draw_sheet, face_strip
from visavis.training.control_probe import ControlProbe
from visavis.training.dit_data import MotionWindows
from visavis.training.hearing import Hearing
from visavis.training.motion_metrics import FaceProbe, control_metrics, motion_metrics
from visavis.training.rollout import Network, roll_out

CHUNK_FRAMES = 33
_NEW = CHUNK_FRAMES - MOTION_FRAMES
FACES = 8


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Sequences and their truth.

    mel [B, lead + N, 4, 64]; layout [B, 16, h, w]; codes [B, N, 6, h, w]. `portraits` are numbers
    in the bank; `puppets` has their pictures, where there are any.
    """

    hearing: Hearing
    mel: Tensor
    layout: Tensor
    codes: Tensor
    probe: FaceProbe
    controls: ControlProbe
    chunks: int
    portraits: tuple[int, ...]
    puppets: PuppetShow | None = None

    @classmethod
    def draw(
        cls,
        windows: MotionWindows,
        count: int,
        chunks: int,
        *,
        seed: int = 1234,
        puppets: PuppetShow | None = None,
    ) -> "ValidationSet":
        """`count` sequences of `chunks` chunks from the windows' clips and portraits."""
        rng = np.random.default_rng(seed)
        frames = MOTION_FRAMES + chunks * _NEW
        clips = windows.clips
        fits = np.flatnonzero(clips.lengths >= frames)
        mel, codes, portraits = [], [], rng.choice(windows.portraits, size=count)
        for clip, portrait in zip(rng.choice(fits, size=count), portraits, strict=True):
            start = int(rng.integers(clips.lengths[clip] - frames + 1))
            truth, heard = windows.window(int(clip), start, frames, int(portrait))
            codes.append(truth)
            mel.append(heard)
        index = torch.from_numpy(portraits)
        bank = windows.bank
        return cls(
            hearing=windows.hearing,
            mel=torch.stack(mel),
            layout=bank.layout[index],
            codes=torch.stack(codes),
            probe=FaceProbe.from_basis(bank.basis[index]),
            controls=ControlProbe.from_basis(bank.basis[index]),
            chunks=chunks,
            portraits=tuple(int(portrait) for portrait in portraits),
            puppets=puppets,
        )

    def sample(self, network: Network, *, num_steps: int = 4, seed: int = 7) -> Tensor:
        """Codes [B, N, 6, h, w], starting from the true first five frames."""
        return roll_out(
            network,
            self.hearing,
            self.mel,
            self.layout,
            pack_codes(self.codes[:, :MOTION_FRAMES]),
            torch.Generator().manual_seed(seed),
            chunks=self.chunks,
            chunk_frames=CHUNK_FRAMES,
            num_steps=num_steps,
        )

    def metrics(self, sampled: Tensor) -> dict[str, float]:
        """`motion_metrics` of the generated frames."""
        # Borders count from the first generated frame; the first of them follows true history.
        borders = np.arange(1, self.chunks) * _NEW
        new = slice(MOTION_FRAMES, None)
        return {
            **motion_metrics(sampled[:, new], self.codes[:, new], self.probe, borders),
            **control_metrics(
                self.controls.read(sampled[:, new]), self.controls.read(self.codes[:, new])
            ),
        }

    def sheet(self, sampled: Tensor, path: Path, title: str, *, rows: int = 6) -> NDArray[np.uint8]:
        """A picture, written and returned [H, W, 3]: for each of the first sequences curves of
        truth and sample, and both faces at moments spread over it, the widest opening among them.
        """
        both = (self.codes, sampled)
        curves = {
            "opening": [self.probe.opening(codes) for codes in both],
            "blink": [self.probe.blink(codes) for codes in both],
            "head dx": [codes[:, :, 0].mean(dim=(2, 3)) for codes in both],
        }
        widest = curves["opening"][0].argmax(dim=1)
        drawn = [
            Row(
                {name: (truth[row], sample[row]) for name, (truth, sample) in curves.items()},
                self._faces(row, sampled, int(widest[row])),
            )
            for row in range(min(rows, len(sampled)))
        ]
        borders = range(MOTION_FRAMES, sampled.shape[1], _NEW)
        return draw_sheet(drawn, path, title, borders=borders)

    def _faces(self, row: int, sampled: Tensor, widest: int) -> NDArray[np.uint8] | None:
        """The portrait as the truth moves it, above the same moments of the sample."""
        if self.puppets is None:
            return None
        puppet = self.puppets[self.puppets.position(self.portraits[row])]
        spread = np.linspace(MOTION_FRAMES, sampled.shape[1] - 1, FACES - 1).round().astype(int)
        moments = sorted({*spread.tolist(), widest})
        strips = [face_strip(puppet, codes[row, moments]) for codes in (self.codes, sampled)]
        both: NDArray[np.uint8] = np.concatenate(strips)
        return both
