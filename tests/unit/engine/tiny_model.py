"""A codec of 16x16 pixels around the real transformer of the `test` preset, for engine tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visavis.engine.audio.front_end import MelFrontEnd
from visavis.engine.codec.base import DecodedFrames
from visavis.engine.codec.motion_latents import pack_codes, unpack_codes
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.face.framing import Portrait
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.session import AvatarSession

SIDE = 4
PIXELS = 16


@dataclass(frozen=True)
class TinyReference:
    brightness: float


class TinyCodec:
    """Frames are the six code channels of their own latent, drawn as grey patches."""

    latent_channels = 24
    exact_is_read_from_latents = False
    cond_channels = 20
    latent_size = (SIDE, SIDE)
    frame_size = (PIXELS, PIXELS)

    def __init__(self) -> None:
        self.hand_overs: list[Tensor] = []  # the frames given, as drawn

    def reference(self, portrait: Portrait) -> TinyReference:
        return TinyReference(float(portrait.image.mean()))

    def cond_latents(self, reference: TinyReference, chunk_frames: int) -> Tensor:
        return torch.full((20, 1 + (chunk_frames - 1) // 4, SIDE, SIDE), reference.brightness / 255)

    def image_tokens(self, reference: TinyReference) -> Tensor:
        return torch.linspace(-1, 1, 16 * 256).reshape(16, 256)

    def initial_motion(self, reference: TinyReference) -> Tensor:
        return torch.zeros(24, 1, SIDE, SIDE)

    def decode(
        self, latents_CTHW: Tensor, reference: TinyReference, *, skip_frames: int = 0
    ) -> Iterator[DecodedFrames]:
        codes = unpack_codes(latents_CTHW[None])[0][skip_frames:]
        for part in (codes[:1], *codes[1:].split(4)):
            if len(part):
                yield DecodedFrames(draw(part), part)

    def join(self, latents_CTHW: Tensor, motion_latents: Tensor) -> Tensor:
        return latents_CTHW

    def motion_latents(self, frames: Tensor, reference: TinyReference) -> Tensor:
        self.hand_overs.append(draw(frames))
        return pack_codes(frames[None])[0]


def draw(codes_F6hw: Tensor) -> Tensor:
    """uint8 [F, 16, 16, 3]."""
    codes = codes_F6hw.mean(dim=1)  # [F, h, w]
    grey = (torch.sigmoid(codes) * 255).to(torch.uint8)
    enlarged = grey.repeat_interleave(PIXELS // SIDE, 1).repeat_interleave(PIXELS // SIDE, 2)
    return enlarged[..., None].expand(-1, -1, -1, 3)


def tiny_pipeline() -> FlashTalkPipeline:
    torch.manual_seed(0)
    model = FlashTalkDiT(DIT_PRESETS["test"])
    with torch.no_grad():  # training starts from zero velocity; tests need the inputs to matter
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval().requires_grad_(False)
    return FlashTalkPipeline(
        model, TinyCodec(), MelFrontEnd(), torch.device("cpu"), text=empty_prompt(model)
    )


def empty_prompt(model: FlashTalkDiT) -> Tensor:
    return torch.zeros(1, model.config.text_len, model.config.text_dim)


def tiny_session(
    pipeline: FlashTalkPipeline, *, input_rate: int = 16_000, seed: int = 0
) -> AvatarSession:
    conditions = pipeline.conditions(TinyReference(100.0))
    return AvatarSession(pipeline, conditions, input_rate=input_rate, seed=seed, num_steps=2)


def noise(samples: int, seed: int = 1) -> np.ndarray:
    """Loud int16 noise."""
    return np.random.default_rng(seed).integers(-9000, 9000, samples, dtype=np.int16)
