"""What a model of the released size makes while it trains: a picture of its own roll-out.

Legend: C channels, T latent frames, h w latent size, H W frame size.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.face.framing import Portrait
from visavis.training.rollout import exit_early
from visavis.training.stored_clips import StoredClips

COLUMNS = 7


@torch.no_grad()
def sheet(
    model: FlashTalkDiT,
    clips: StoredClips,
    generator: torch.Generator,
    *,
    chunks: int,
    num_steps: int = 4,
) -> Image.Image:
    """Frames of the store's first sequence, as deployed from its reference picture: a row for each
    chunk, the reference before it.

    Every process has to call it, with equal generators; each gets the picture.
    """
    assert clips.codec is not None
    item = clips.store.sequence(0)
    scene = clips.scene([item], min(chunks, len(item.features)), from_portrait=True)
    picture = Portrait(item.picture.numpy(), item.landmarks.numpy())
    reference = clips.codec.reference(picture)
    motion, rows = scene.start(), []
    for chunk in range(scene.chunks):
        conditions = scene.conditions(chunk)
        latents = exit_early(
            lambda x, t, c=conditions: c.velocity(model, x, t),  # type: ignore[misc]
            scene.shape,
            motion,
            generator,
            num_steps=num_steps,
            exit_step=num_steps - 1,
        )
        rows.append(_row(item.picture, clips, latents[0], reference))
        motion = scene.hand_over(latents, generator)
    return Image.fromarray(np.concatenate(rows))


def _row(
    picture: Tensor, clips: StoredClips, latents_CThw: Tensor, reference: object
) -> np.ndarray:
    assert clips.codec is not None
    frames = torch.cat([part.pixels for part in clips.codec.decode(latents_CThw, reference)]).cpu()
    chosen = np.linspace(0, len(frames) - 1, COLUMNS - 1).round().astype(int)
    row: np.ndarray = np.concatenate(
        [picture.numpy(), *(frames[i].numpy() for i in chosen)], axis=1
    )
    return row
