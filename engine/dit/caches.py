"""What does not change during a session or a chunk, prepared once for every layer.

Letters: B batch, L context tokens, H heads, K head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.engine.dit.attention import ContextKV
from visavis.engine.dit.audio_adapter import AudioFold, AudioKV

Part = TypeVar("Part", AudioKV, AudioFold)


class ContextCache(NamedTuple):
    """Keys and values of text and image for every layer: constant for a session.

    `handles` name the copies that other processes keep (`engine/parallel`), one per sample.
    """

    layers: tuple[ContextKV, ...]
    handles: tuple[object, ...] = ()

    @classmethod
    def stack(cls, caches: Sequence[ContextCache]) -> ContextCache:
        """One cache for a batch, in order; prompts may differ in length."""
        if len(caches) == 1:
            return caches[0]
        layers = zip(*(cache.layers for cache in caches), strict=True)
        handles = tuple(handle for cache in caches for handle in cache.handles)
        return cls(tuple(_stack_context(layer) for layer in layers), handles)


class AudioCache(NamedTuple):
    """Keys and values of the audio for every layer: constant for a chunk.

    They begin at latent frame `first_frame` of `frames`: a process of a group keeps those of its
    own tokens. `handles` as in `ContextCache`.
    """

    layers: tuple[AudioKV, ...] | tuple[AudioFold, ...]
    people: int
    frames: int
    first_frame: int = 0
    handles: tuple[object, ...] = ()

    @classmethod
    def stack(cls, caches: Sequence[AudioCache]) -> AudioCache:
        """One cache for a batch, in order.

        Raises:
            ValueError: caches of chunks of different lengths, or of one and of two people.
        """
        if len(caches) == 1:
            return caches[0]
        shapes = {(cache.people, cache.frames, cache.first_frame) for cache in caches}
        if len(shapes) > 1:
            raise ValueError(
                f"(people, frames, first frame) differ: {sorted(shapes)}; batch chunks of one "
                "length and one number of people"
            )
        stacked = tuple(
            type(layer[0])(*(torch.cat(parts) for parts in zip(*layer, strict=True)))
            for layer in zip(*(cache.layers for cache in caches), strict=True)
        )
        handles = tuple(handle for cache in caches for handle in cache.handles)
        return caches[0]._replace(layers=stacked, handles=handles)


def _stack_context(parts: Sequence[ContextKV]) -> ContextKV:
    lengths = [0 if part.text_k is None else part.text_k.shape[1] for part in parts]
    longest = max(lengths)

    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        given = [tensor for tensor in tensors if tensor is not None]
        if not given:
            return None
        return torch.cat(
            [F.pad(x, (0, 0, 0, 0, 0, longest - x.shape[1])) for x in given]
            if longest and len({x.shape[1] for x in given}) > 1
            else given
        )

    bias = None
    if len(set(lengths)) > 1 or any(part.text_bias is not None for part in parts):
        bias = torch.cat([_whole_bias(part, longest) for part in parts])
    return ContextKV(
        joined([part.text_k for part in parts]),
        joined([part.text_v for part in parts]),
        joined([part.image_k for part in parts]),
        joined([part.image_v for part in parts]),
        bias,
    )


def _whole_bias(part: ContextKV, length: int) -> Tensor:
    """The bias over `length` keys, those past the text's own shut off."""
    assert part.text_k is not None  # the caller has seen that there is text
    batch, own = part.text_k.shape[:2]
    bias = part.text_bias if part.text_bias is not None else part.text_k.new_zeros(batch, own)
    return F.pad(bias, (0, length - own), value=float("-inf"))
