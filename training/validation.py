"""A validation set of unseen portraits and clips, rolled out as deployed, with a contact sheet.

Legend: B sequences, N frames, L layers, C channels, h w control grid.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import pack_codes
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.control_probe import ControlProbe
from visavis.training.dit_data import MotionWindows
from visavis.training.hearing import Hearing
from visavis.training.motion_metrics import FaceProbe, control_metrics, motion_metrics
from visavis.training.rollout import Network, roll_out

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CHUNK_FRAMES = 33
_NEW = CHUNK_FRAMES - MOTION_FRAMES


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Sequences and their truth.

    mel [B, lead + N, 4, 64]; layout [B, 16, h, w]; codes [B, N, 6, h, w].
    """

    hearing: Hearing
    mel: Tensor
    layout: Tensor
    codes: Tensor
    probe: FaceProbe
    controls: ControlProbe
    chunks: int

    @classmethod
    def draw(
        cls, windows: MotionWindows, count: int, chunks: int, *, seed: int = 1234
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

    def sheet(self, sampled: Tensor, path: Path, title: str, *, rows: int = 6) -> None:
        """A picture: curves of truth and sample, and the code of the widest opening (Dy | Ay)."""
        rows = min(rows, len(sampled))
        figure, axes = plt.subplots(rows, 5, figsize=(18, 2.2 * rows), squeeze=False)
        curves = [
            ("opening", self.probe.opening(self.codes), self.probe.opening(sampled)),
            ("blink", self.probe.blink(self.codes), self.probe.blink(sampled)),
            ("head dx", self.codes[:, :, 0].mean((2, 3)), sampled[:, :, 0].mean((2, 3))),
        ]
        widest = self.probe.opening(self.codes).argmax(dim=1)
        for row in range(rows):
            for column, (name, truth, guess) in enumerate(curves):
                axes[row, column].plot(truth[row], "k", lw=1)
                axes[row, column].plot(guess[row], "r", lw=1)
                axes[row, column].set_title(name, fontsize=7)
                for border in range(MOTION_FRAMES, sampled.shape[1], _NEW):
                    axes[row, column].axvline(border, color="0.85", zorder=0)
            at = int(widest[row])
            for column, codes in ((3, self.codes), (4, sampled)):
                image = torch.cat([codes[row, at, 5], codes[row, at, 3]], dim=1)
                axes[row, column].imshow(image, vmin=-4, vmax=4, cmap="RdBu")
                axes[row, column].axis("off")
        figure.suptitle(title)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=70)
        plt.close(figure)
