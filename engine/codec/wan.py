"""The codec of the 14B model: Wan's VAE, colour correction, hand-over through pixels.

Method section 1.7. A frame is corrected by its own statistics, so it can leave at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel

from visavis.engine.codec.base import DecodedFrames
from visavis.engine.codec.wan_network import TEMPORAL_STRIDE
from visavis.engine.codec.wan_prefix import EarlyFrames, decode_early, decode_rest
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.color import ColorMatcher
from visavis.engine.dit.config import MASK_CHANNELS
from visavis.engine.encoders.image import encode_image
from visavis.engine.face.framing import Portrait
from visavis.engine.image import fit_image, to_signed


@dataclass(frozen=True, slots=True)
class WanReference:
    """`image` float32 [3, H, W] in [-1, 1] with its colour statistics and image tokens."""

    image: Tensor
    colors: ColorMatcher
    tokens: Tensor | None


class WanCodec:
    """`LatentCodec[WanReference]` of the released model."""

    exact_is_read_from_latents = False

    def __init__(
        self,
        vae: WanVAE,
        image_encoder: CLIPVisionModel | None,
        frame_size: tuple[int, int] = (768, 448),
        *,
        color_strength: float = 1.0,
        decodes_early: bool | None = None,
    ) -> None:
        """`decodes_early`: see `begin_decode`; None: where there is something to gain.

        Raises:
            ValueError: the frame is no multiple of 16 (VAE stride times patch).
        """
        if any(side % (2 * SPATIAL_STRIDE) for side in frame_size):
            raise ValueError(
                f"frame_size={frame_size}: height and width must be multiples of "
                f"{2 * SPATIAL_STRIDE}"
            )
        self.vae = vae
        self.image_encoder = image_encoder
        self.frame_size = frame_size
        self.color_strength = color_strength
        self._decodes_early = decodes_early

    @property
    def decodes_early(self) -> bool:
        """Whether motion latents are decoded before their chunk is denoised."""
        return self.vae.runs_beside if self._decodes_early is None else self._decodes_early

    @property
    def latent_channels(self) -> int:
        return self.vae.latent_channels

    @property
    def cond_channels(self) -> int:
        return MASK_CHANNELS + self.vae.latent_channels

    @property
    def latent_size(self) -> tuple[int, int]:
        return self.frame_size[0] // SPATIAL_STRIDE, self.frame_size[1] // SPATIAL_STRIDE

    def reference(self, portrait: Portrait) -> WanReference:
        return self.reference_from_image(Image.fromarray(portrait.image))

    def reference_from_image(self, image: Image.Image) -> WanReference:
        """Any RGB picture, fitted to the frame."""
        picture = to_signed(fit_image(image, self.frame_size)).to(self.vae.device)
        encoder = self.image_encoder
        tokens = None if encoder is None else encode_image(encoder, picture[None])[0].float()
        return WanReference(picture, ColorMatcher(picture), tokens)

    def cond_latents(self, reference: WanReference, chunk_frames: int) -> Tensor:
        """Mask and latents of the reference frame followed by grey: [4 + C, T, h, w]."""
        picture = reference.image
        video = picture.new_zeros(1, 3, chunk_frames, *self.frame_size)
        video[:, :, 0] = picture
        latents = self.vae.encode(video)[0]
        mask = latents.new_zeros(MASK_CHANNELS, *latents.shape[1:])
        mask[:, 0] = 1
        return torch.cat([mask, latents])

    def image_tokens(self, reference: WanReference) -> Tensor | None:
        return reference.tokens

    def initial_motion(self, reference: WanReference) -> Tensor:
        return self.vae.encode(reference.image[None, :, None])[0]

    def join(self, latents_CTHW: Tensor, motion_latents: Tensor) -> Tensor:
        """As the original: nothing is done to the sampled latents."""
        return latents_CTHW

    def begin_decode(self, motion_latents: Tensor) -> EarlyFrames | None:
        """Start on a chunk's first latents [C, 1 or 2, h, w], before the others are denoised.

        For `decode`; None: nothing is gained by it (a CPU has no idle part to do it).
        """
        if not self.decodes_early:
            return None
        return decode_early(self.vae, motion_latents)

    def decode_signed(
        self,
        latents_CTHW: Tensor,
        reference: WanReference,
        *,
        skip_frames: int = 0,
        begun: EarlyFrames | None = None,
    ) -> Iterator[Tensor]:
        """Corrected frames in [-1, 1], float32 [3, n, H, W], as each latent is decoded."""
        if begun is None:
            parts = self.vae.decode(latents_CTHW[None])
        else:
            parts = decode_rest(begun, latents_CTHW)
        start = 0
        for frames in parts:
            kept = frames[:, :, max(0, skip_frames - start) :]
            start += frames.shape[2]
            if kept.shape[2]:
                yield reference.colors(kept, self.color_strength)[0]

    def decode(
        self,
        latents_CTHW: Tensor,
        reference: WanReference,
        *,
        skip_frames: int = 0,
        begun: EarlyFrames | None = None,
    ) -> Iterator[DecodedFrames]:
        """Frames as bytes and, for the hand-over, as corrected floats [n, 3, H, W] in [-1, 1].

        `begun`: what `begin_decode` made of this chunk's first latents.
        """
        corrected = self.decode_signed(
            latents_CTHW, reference, skip_frames=skip_frames, begun=begun
        )
        for frames in corrected:
            yield DecodedFrames(to_bytes(frames), frames.transpose(0, 1))

    def encode_motion(self, frames_CFHW: Tensor) -> Tensor:
        """Hand-over from frames in [-1, 1], [3, 5, H, W] -> [C, 2, h, w]."""
        return self.vae.encode(frames_CFHW[None])[0]

    def motion_latents(self, frames: Tensor, reference: WanReference) -> Tensor:
        """Encode the last five shown frames again, [5, 3, H, W] in [-1, 1] as decoded."""
        if frames.shape[0] != TEMPORAL_STRIDE + 1:
            raise ValueError(
                f"frames={frames.shape[0]}: the hand-over needs the last {TEMPORAL_STRIDE + 1}"
            )
        return self.encode_motion(frames.transpose(0, 1))


def to_bytes(frames_CFHW: Tensor) -> Tensor:
    """[-1, 1] float [3, n, H, W] -> uint8 [n, H, W, 3], cut off downwards as the original does."""
    return ((frames_CFHW + 1) / 2 * 255).clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
