"""The embedded model's codec: motion latents to pixels by warping and painting, and back.

Legend: C channels, T latent frames, h w control grid, F N frames, H W pixels.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from visavis.engine.codec.base import DecodedFrames, FrameSizeError
from visavis.engine.codec.composition import WHOLE, Layers, Window, compose, reduced, sample
from visavis.engine.codec.continuation import join_motion
from visavis.engine.codec.layout_condition import layout_condition, layout_tokens
from visavis.engine.codec.motion_latents import (
    CODE_CHANNELS,
    FRAME_SIZE,
    GRID,
    LATENT_CHANNELS,
    TEMPORAL_STRIDE,
    pack_codes,
    unpack_codes,
)
from visavis.engine.codec.motion_reference import (
    PORTRAIT_REDUCTION,
    MotionReference,
    make_reference,
)
from visavis.engine.codec.networks import (
    ENCODER_SIZE,
    EncoderConfig,
    InteriorPainter,
    MotionEncoder,
    PainterConfig,
    encoder_inputs,
    painter_inputs,
)
from visavis.engine.codec.raster import FRAME_SIZES, moved_frames
from visavis.engine.dit.config import MASK_CHANNELS
from visavis.engine.face.framing import Portrait
from visavis.engine.face.layout import LAYOUT_CHANNELS
from visavis.engine.tensor_files import save_tensors

# The encoder's first guess of an opened mouth's colour; the painter's own is not needed there.
DARK = 0.12
DECODE_BATCH = 4
DEFAULT_FRAME_SIZE = 256
# How much further than its code the head is shown to move. The shipped student's heads have 0.73 of
# the recorded variance (six portraits that it was trained on, held-out speech); this makes it 0.92.
HEAD_GAIN = 1.12


class MotionCodec(nn.Module):
    """Weights of the embedded codec (painter and encoder); implements `LatentCodec`.

    `reencode` chooses the hand-over: False repacks the codes of the last frames exactly, True
    encodes the decoded pixels again as the paper does (method section 1.7).
    """

    latent_channels = LATENT_CHANNELS
    cond_channels = MASK_CHANNELS + LAYOUT_CHANNELS
    latent_size = (GRID, GRID)
    frame_sizes = tuple((side, side) for side in FRAME_SIZES)

    def __init__(
        self, painter: PainterConfig, encoder: EncoderConfig, *, reencode: bool = False
    ) -> None:
        super().__init__()
        self.configs = (painter, encoder)
        self.painter = InteriorPainter(painter)
        self.encoder = MotionEncoder(encoder)
        self.reencode = reencode
        self.frame_size = (DEFAULT_FRAME_SIZE, DEFAULT_FRAME_SIZE)

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = "cpu", *, reencode: bool = False
    ) -> Self:
        """Read `codec.json` and `codec.safetensors`; raises FileNotFoundError naming the file."""
        config = json.loads((folder / "codec.json").read_text(encoding="utf-8"))
        codec = cls(
            PainterConfig(**config["painter"]),
            EncoderConfig(**config["encoder"]),
            reencode=reencode,
        )
        state = {k: v.float() for k, v in load_file(folder / "codec.safetensors").items()}
        codec.load_state_dict(state)
        codec.requires_grad_(False)
        return codec.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def save(self, folder: Path) -> None:
        """Write `codec.json` and `codec.safetensors` (float32)."""
        folder.mkdir(parents=True, exist_ok=True)
        painter, encoder = self.configs
        config = {"painter": asdict(painter), "encoder": asdict(encoder)}
        (folder / "codec.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        state = {k: v.detach().float().contiguous() for k, v in self.state_dict().items()}
        save_tensors(state, folder / "codec.safetensors")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.painter.head.weight.device

    @property
    def exact_is_read_from_latents(self) -> bool:
        return not self.reencode

    def reference(self, portrait: Portrait) -> MotionReference:
        """Everything that is constant for an avatar, shown at `frame_size`."""
        reference = make_reference(portrait, self.device).shown_at(self.frame_size[0])
        if not self.reencode:
            _ = reference.shown.head_share  # now, not before the first frame
        return reference

    def resized(self, reference: MotionReference, frame_size: tuple[int, int]) -> MotionReference:
        """The same portrait for frames of another size. Raises FrameSizeError."""
        resized = reference.shown_at(square_side(frame_size))
        _ = resized.canvas  # now, not before the first frame
        return resized

    def cond_latents(self, reference: MotionReference, chunk_frames: int) -> Tensor:
        """Mask and layout latents [20, T, 16, 16]."""
        return layout_condition(reference.layout, 1 + (chunk_frames - 1) // TEMPORAL_STRIDE)[0]

    def image_tokens(self, reference: MotionReference) -> Tensor:
        """Image tokens [16, 256]: the layout's 4x4 patches."""
        return layout_tokens(reference.layout)[0]

    def initial_motion(self, reference: MotionReference) -> Tensor:
        """The code of the portrait itself, which is zero, [24, 1, 16, 16]."""
        return torch.zeros(LATENT_CHANNELS, 1, GRID, GRID, device=reference.layout.device)

    def needs_rest(self, reference: MotionReference) -> bool:
        """Whether the portrait's mouth is open; not where frames are encoded again, see `shown`."""
        return reference.shows_open_mouth and not self.reencode

    def rested(self, reference: MotionReference, latents_CTHW: Tensor) -> MotionReference:
        """The same portrait, shown with what shuts its mouth as far as these latents do not: those
        of a chunk in silence, of whose second half the median counts."""
        codes = unpack_codes(latents_CTHW[None].float())[0]
        return reference.rested(codes[len(codes) // 2 :])

    def join(self, latents_CTHW: Tensor, motion_latents: Tensor) -> Tensor:
        """Lets the head go on from where the last chunk left it, see `continuation`."""
        return join_motion(latents_CTHW, motion_latents.shape[1])

    def decode(
        self, latents_CTHW: Tensor, reference: MotionReference, *, skip_frames: int = 0
    ) -> Iterator[DecodedFrames]:
        """Frames [n, S, S, 3] in order, one at first so that it can be shown at once.

        S is the reference's `shown_size`. The pixels come on the CPU. For the hand-over they have
        their codes with them, or their bytes when it encodes those.
        """
        codes = unpack_codes(latents_CTHW[None].float())[0]
        shown = codes if self.reencode else reference.lids.blinking(codes)
        for begin, end in _batches(skip_frames, len(codes)):
            pixels = self.draw(self.shown(shown[begin:end], reference), reference)
            yield DecodedFrames(pixels, pixels if self.reencode else codes[begin:end])

    def shown(self, codes_N6hw: Tensor, reference: MotionReference) -> Tensor:
        """Codes as they are shown, blinks apart (`Lids`): the head moves by `HEAD_GAIN`, and a
        mouth that the portrait shows open is shut at rest. Not if frames are encoded again: each
        hand-over would add it."""
        if self.reencode:
            return codes_N6hw
        head = HEAD_GAIN * codes_N6hw[:, :2]
        return torch.cat([head, codes_N6hw[:, 2:] + reference.rest[2:]], dim=1)

    @torch.no_grad()
    def draw(self, codes_N6hw: Tensor, reference: MotionReference) -> Tensor:
        """Frames as they are shown, uint8 [N, S, S, 3]: `render` at any size, and faster.

        Two things differ from it. The mouth's inside is painted by rule (`interior.py`), sharp at
        any size, and not by the painter, who sees 256 pixels. And what lies behind the head keeps
        still, unless the frames are to be encoded again.
        """
        # What is encoded again must show what the codes say, behind the head too.
        share = None if self.reencode else reference.shown.head_share
        moved = moved_frames(codes_N6hw, reference.seams, reference.window, share)
        canvas = reference.canvas
        return torch.stack([torch.from_numpy(canvas.draw(frame)) for frame in moved])

    def motion_latents(self, frames: Tensor, reference: MotionReference) -> Tensor:
        """Motion latents [24, 2, 16, 16] of five frames: codes [5, 6, 16, 16], or bytes."""
        codes = frames
        if self.reencode:
            pixels = frames.to(self.device).permute(0, 3, 1, 2).float() / 255
            pixels = F.interpolate(pixels, size=(FRAME_SIZE, FRAME_SIZE), mode="area")
            codes = self.encode(pixels, reference)
        return pack_codes(codes[None])[0]

    def render(self, codes_N6hw: Tensor, reference: MotionReference) -> Tensor:
        """Frames [N, 3, 256, 256] in 0..1 of motion codes."""
        count = len(codes_N6hw)
        layers = self._compose(codes_N6hw, reference, WHOLE)
        inner = crop_layers(layers, reference.window)
        interior, residual = self.paint(inner, reference)
        frames = layers.cover_upper * layers.upper + layers.cover_lower * layers.lower
        window = reference.window
        y, x = int(window.y), int(window.x)
        area = frames[:, :, y : y + window.height, x : x + window.width]
        area += inner.gap * interior + residual
        return frames.clamp_(0, 1).reshape(count, 3, FRAME_SIZE, FRAME_SIZE)

    def paint(self, layers: Layers, reference: MotionReference) -> tuple[Tensor, Tensor]:
        """Interior and residual of the mouth's window, see `InteriorPainter`.

        The residual fades out at the window's border and away from the mouth.
        """
        count = len(layers.gap)
        own = sample(
            reference.portrait.expand(count, -1, -1, -1),
            reduced(layers.sources.head, PORTRAIT_REDUCTION),
        )
        inputs = painter_inputs(
            layers,
            own,
            reference.mouth_centre.expand(count, -1),
            reference.mouth_width.expand(count),
            reference.tone.expand(count, -1),
        )
        interior, residual = self.painter(inputs.contiguous(memory_format=torch.channels_last))
        return interior, residual * layers.sources.opens

    def encode(self, frames_N3HW: Tensor, reference: MotionReference) -> Tensor:
        """Motion codes [N, 6, 16, 16] of frames [N, 3, 256, 256] in 0..1."""
        with torch.no_grad():
            return self.encode_passes(F.avg_pool2d(frames_N3HW, 2), reference)[-1]

    def encode_passes(self, frames_N3HW: Tensor, reference: MotionReference) -> list[Tensor]:
        """Codes after every pass, of frames at half size [N, 3, 128, 128]."""
        count = len(frames_N3HW)
        codes = frames_N3HW.new_zeros(count, CODE_CHANNELS, GRID, GRID)
        layout = reference.layout.expand(count, -1, -1, -1)
        half = Window(x=0.5, y=0.5, width=ENCODER_SIZE, height=ENCODER_SIZE, step=2.0)
        dark = torch.full((1, 1, 1, 1), DARK, device=codes.device)
        passes = []
        for _ in range(self.encoder.iterations):
            with torch.no_grad():
                layers = compose(
                    reference.reduced.expand(count, -1, -1, -1),
                    reference.seams.expand(count, -1, -1, -1),
                    codes.detach(),
                    half,
                    reduction=2,
                )
                inputs = encoder_inputs(layers, dark, frames_N3HW)
            codes = self.encoder(
                inputs.contiguous(memory_format=torch.channels_last), layout, codes.detach()
            )
            passes.append(codes)
        return passes

    def _compose(self, codes: Tensor, reference: MotionReference, window: Window) -> Layers:
        count = len(codes)
        return compose(
            reference.portrait.expand(count, -1, -1, -1),
            reference.seams.expand(count, -1, -1, -1),
            codes,
            window,
            reduction=PORTRAIT_REDUCTION,
        )


def _batches(first: int, count: int) -> Iterator[tuple[int, int]]:
    """Begin and end of the frames that are drawn together: one, then several."""
    begin, size = first, 1
    while begin < count:
        yield begin, min(begin + size, count)
        begin, size = begin + size, DECODE_BATCH


def crop_layers(layers: Layers, window: Window) -> Layers:
    """The part of a whole frame's composition that lies in a window (views)."""
    y, x = int(window.y), int(window.x)
    rows, columns = slice(y, y + window.height), slice(x, x + window.width)

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:, :, rows, columns]

    return Layers(
        upper=cut(layers.upper),
        lower=cut(layers.lower),
        cover_upper=cut(layers.cover_upper),
        cover_lower=cut(layers.cover_lower),
        gap=cut(layers.gap),
        sources=type(layers.sources)(
            head=cut(layers.sources.head),
            upper=cut(layers.sources.upper),
            lower=cut(layers.sources.lower),
            opens=cut(layers.sources.opens),
        ),
    )


def square_side(frame_size: tuple[int, int]) -> int:
    """The side of a square frame (height, width). Raises FrameSizeError for another shape."""
    height, width = frame_size
    if height != width:
        raise FrameSizeError(f"frame_size={height}x{width}: this model makes square frames")
    return height
