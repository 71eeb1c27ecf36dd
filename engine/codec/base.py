"""What the engine asks of a codec: latents to pixels and back, with a portrait as reference.

Letters: C channels, T latent frames, h w latent size, F pixel frames, H W frame size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from visavis.engine.face.framing import Portrait

# What a codec knows about one portrait: constant, shared by all sessions of the avatar. Opaque to
# the engine; only the codec that made it reads it.
ReferenceT = TypeVar("ReferenceT")


@dataclass(frozen=True, slots=True)
class DecodedFrames:
    """Consecutive frames, as they are shown and as the codec wants them back for the hand-over.

    `pixels` is uint8 RGB [n, H, W, 3]. `exact` is [n, ...] in the codec's own form: motion codes,
    or pixels before they were rounded. Sessions keep it for a few seconds, to go on from any frame.
    """

    pixels: Tensor
    exact: Tensor


class FrameSizeError(ValueError):
    """A frame size that the model does not make; the message lists those that it does."""


class LatentCodec(Protocol[ReferenceT]):
    """Weights without session state: one instance serves every session of a model.

    All tensors that go in and come out live on the codec's device; latents are float32.
    """

    @property
    def latent_channels(self) -> int: ...

    @property
    def cond_channels(self) -> int:
        """Mask (4) and reference channels."""
        ...

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w)."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        ...

    @property
    def exact_is_read_from_latents(self) -> bool:
        """Whether `DecodedFrames.exact` of a motion frame is what was handed over for it."""
        ...

    def reference(self, portrait: Portrait) -> ReferenceT:
        """Everything that is constant for an avatar."""
        ...

    def cond_latents(self, reference: ReferenceT, chunk_frames: int) -> Tensor:
        """Mask and reference latents of a chunk, [cond_channels, T, h, w]."""
        ...

    def image_tokens(self, reference: ReferenceT) -> Tensor | None:
        """Tokens for the image cross-attention, [N, image_dim]; None: the model has none."""
        ...

    def initial_motion(self, reference: ReferenceT) -> Tensor:
        """Motion latent of a session's first chunk, [C, 1, h, w]: the portrait at rest."""
        ...

    def decode(
        self, latents_CTHW: Tensor, reference: ReferenceT, *, skip_frames: int = 0
    ) -> Iterator[DecodedFrames]:
        """Frames of a chunk in order, any n >= 1 at a time.

        The first `skip_frames` of the F = 4 (T - 1) + 1 frames are left out. The consumer may stop
        early (surplus frames of a tail are never rendered).
        """
        ...

    def join(self, latents_CTHW: Tensor, motion_latents: Tensor) -> Tensor:
        """The sampled chunk as a continuation of what was handed over, same shape.

        A codec whose latents allow it may take out a step at the chunk's border; others return
        the latents as they are.
        """
        ...

    def motion_latents(self, frames: Tensor, reference: ReferenceT) -> Tensor:
        """Hand-over: motion latents of the next chunk, [C, 2, h, w] (method section 1.7).

        They code the five frames that were shown last, in that order: `DecodedFrames.exact` of
        each, [5, ...]. Usually these end a chunk; after an interruption they are whatever the
        viewer saw.
        """
        ...


@runtime_checkable
class SizedCodec(Protocol):
    """A codec that makes frames of several sizes from the same latents."""

    @property
    def frame_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every (H, W), the smallest first; a reference begins with `frame_size`."""
        ...

    def resized(self, reference: Any, frame_size: tuple[int, int]) -> Any:
        """The same reference, whose latents `decode` makes frames of one of `frame_sizes` of."""
        ...


@runtime_checkable
class EarlyDecoder(Protocol):
    """A codec that can start on a chunk's motion latents while the others are denoised."""

    def begin_decode(self, motion_latents: Tensor) -> Any | None:
        """What `decode` then takes as `begun`, giving the same frames; None: not worth it here."""
        ...


@runtime_checkable
class RestingCodec(Protocol):
    """A codec that corrects how a portrait looks at rest, once it has seen the model be silent."""

    def needs_rest(self, reference: Any) -> bool:
        """Whether there may be something to correct."""
        ...

    def rested(self, reference: Any, latents_CTHW: Tensor) -> Any:
        """The reference with its correction, from the latents of a chunk in silence."""
        ...
