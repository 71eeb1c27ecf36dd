"""The paper's hand-over for the embedded model: frames are decoded and encoded again.

Deployed, the embedded model hands codes over exactly. A roll-out that goes through pixels instead
shows the student the errors of its own codec (method section 1.9.1).

Legend: B samples, C channels, T latent frames, h w control grid.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import unpack_codes
from visavis.engine.codec.motion_reference import MotionReference
from visavis.engine.plan import MOTION_FRAMES
from visavis.training.codec_data import PuppetShow

# Portraits whose references are kept: some megabytes each.
KEPT = 128


class PixelHandOver:
    """Hands over as an engine does whose codec was loaded with `reencode=True`."""

    def __init__(self, codec: MotionCodec, show: PuppetShow) -> None:
        """`show`: the portraits of the sequences.

        Raises:
            ValueError: the codec hands codes over.
        """
        if not codec.reencode:
            raise ValueError("reencode=False: load the codec with reencode=True")
        self._codec, self._show = codec, show
        self._reference = lru_cache(KEPT)(self._make_reference)

    @classmethod
    def load(cls, codec: Path, bank: Path) -> "PixelHandOver":
        """Of a folder of weights and the folder of a portrait bank; its training portraits."""
        return cls(MotionCodec.load(codec, reencode=True), PuppetShow(bank, held=False))

    @torch.no_grad()
    def __call__(self, latents_BCThw: Tensor, portraits_B: Tensor, slots: int) -> Tensor:
        """Motion latents [B, C, 2, h, w] after chunks whose first `slots` latents were given."""
        handed = []
        # Deployed codecs compute in float32: what is encoded coarsely is another history.
        with torch.autocast(latents_BCThw.device.type, enabled=False):
            for latents, portrait in zip(latents_BCThw.float(), portraits_B.tolist(), strict=True):
                reference = self._reference(int(portrait))
                joined = self._codec.join(latents, latents[:, :slots])
                earlier = unpack_codes(joined[None]).shape[1] - MOTION_FRAMES
                parts = self._codec.decode(joined, reference, skip_frames=earlier)
                exact = torch.cat([part.exact for part in parts])
                handed.append(self._codec.motion_latents(exact, reference))
        return torch.stack(handed)

    def _make_reference(self, portrait: int) -> MotionReference:
        return self._codec.reference(self._show.portrait(self._show.position(portrait)))
