"""The learned parts of the embedded motion codec: interior painter and motion encoder.

Legend: N frames, C channels, H W pixels.
"""

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.codec.composition import Layers
from visavis.engine.codec.motion_latents import CODE_CHANNELS, GRID
from visavis.engine.face.layout import LAYOUT_CHANNELS

# What the painter sees of every pixel of the mouth's window; `painter_inputs` fills it in order.
PAINTER_CHANNELS: Final = 24
# What the encoder sees of every pixel; `encoder_inputs` fills it in order.
ENCODER_CHANNELS: Final = 19
ENCODER_SIZE: Final = 128
ENCODER_CELL: Final = ENCODER_SIZE // GRID


@dataclass(frozen=True, slots=True, kw_only=True)
class PainterConfig:
    """Widths of the painter; it works on 2x2 pixel blocks."""

    width: int = 40
    depth: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """Widths of the encoder and how often it refines its estimate."""

    width: int = 112
    depth: int = 3
    iterations: int = 2


def _start_at_zero(layer: nn.Conv2d) -> None:
    """An untrained network then answers with nothing, not with noise."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class InteriorPainter(nn.Module):
    """Paints what the lips uncover, and retouches the lips' edges.

    It predicts the interior's colours and a small residual on the composed window, from both warped
    layers, their coverage and each pixel's place on the skull and on the jaw (teeth hang on one or
    the other).
    """

    def __init__(self, config: PainterConfig) -> None:
        super().__init__()
        width = config.width
        layers: list[nn.Module] = [nn.Conv2d(4 * PAINTER_CHANNELS, width, 3, padding=1), nn.SiLU()]
        for _ in range(config.depth - 1):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, 4 * 6, 3, padding=1)
        _start_at_zero(self.head)

    def forward(self, inputs_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Interior colours [N, 3, H, W] in 0..1 and residual [N, 3, H, W], |.| <= 0.25.

        Inputs are `painter_inputs`; H and W are even.
        """
        x = F.pixel_unshuffle(inputs_NCHW, 2)
        x = F.pixel_shuffle(self.head(self.body(x)), 2)
        return torch.sigmoid(x[:, :3] - 1.5), 0.25 * torch.tanh(x[:, 3:])


def painter_inputs(
    layers: Layers, own: Tensor, centre_N2: Tensor, width_N: Tensor, tone_N6: Tensor
) -> Tensor:
    """The painter's view of a window [N, 24, H, W].

    Args:
        layers: composition of the window.
        own: the portrait seen through the still head [N, 3, H, W] (teeth it shows itself).
        centre_N2: mouth centre (x, y) in portrait pixels.
        width_N: mouth width in pixels.
        tone_N6: light and skin colour of the face, see `face_tone`.
    """
    scale = (0.5 * width_N)[:, None, None, None]
    centre = centre_N2[:, :, None, None]
    places = [
        ((position - centre) / scale).clamp(-3, 3)
        for position in (layers.sources.head, layers.sources.upper, layers.sources.lower)
    ]
    height, breadth = own.shape[2:]
    tone = tone_N6[:, :, None, None].expand(-1, -1, height, breadth)
    return torch.cat(
        [
            layers.upper - 0.5,
            layers.lower - 0.5,
            own - 0.5,
            layers.cover_upper,
            layers.cover_lower,
            layers.gap,
            *places,
            tone,
        ],
        dim=1,
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.context = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.first(x)) + self.context(x.mean(dim=(2, 3)))[:, :, None, None]
        sum_of_both: Tensor = x + self.second(F.silu(y))
        return sum_of_both


class MotionEncoder(nn.Module):
    """Finds the motion code of a frame against the portrait, by repeated correction.

    Every pass warps the portrait by the code so far and reads from the difference what is
    missing; the products of gradients that it is shown are those of a Lucas-Kanade step.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.iterations = config.iterations
        # All of a cell's pixels at once: at 16x16 positions the body is cheap, and it sees far.
        self.stem = nn.Conv2d(ENCODER_CELL**2 * ENCODER_CHANNELS, config.width, 1)
        joined = config.width + LAYOUT_CHANNELS + CODE_CHANNELS
        self.join = nn.Conv2d(joined, config.width, 3, padding=1)
        self.body = nn.Sequential(*(_Residual(config.width) for _ in range(config.depth)))
        self.head = nn.Conv2d(config.width, CODE_CHANNELS, 3, padding=1)
        _start_at_zero(self.head)

    def forward(self, inputs_NCHW: Tensor, layout_NLhw: Tensor, codes_N6hw: Tensor) -> Tensor:
        """A better code [N, 6, 16, 16] than `codes`; inputs are `encoder_inputs`."""
        x = F.silu(self.stem(F.pixel_unshuffle(inputs_NCHW, ENCODER_CELL)))
        x = F.silu(self.join(torch.cat([x, layout_NLhw, codes_N6hw], dim=1)))
        correction: Tensor = self.head(self.body(x))
        return codes_N6hw + correction


def encoder_inputs(layers: Layers, interior: Tensor, frames_N3HW: Tensor) -> Tensor:
    """What the encoder sees [N, 19, 128, 128]: prediction, frame and the terms of a flow step."""
    warped = layers.blend(interior)
    grey = warped.mean(dim=1, keepdim=True)
    difference = frames_N3HW - warped
    it = difference.mean(dim=1, keepdim=True)
    ix = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    iy = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    return torch.cat(
        [
            warped - 0.5,
            frames_N3HW - 0.5,
            4 * difference,
            4 * ix,
            4 * iy,
            40 * it * ix,
            40 * it * iy,
            20 * ix * ix,
            20 * iy * iy,
            20 * ix * iy,
            layers.cover_upper,
            layers.cover_lower,
            layers.gap,
        ],
        dim=1,
    )
