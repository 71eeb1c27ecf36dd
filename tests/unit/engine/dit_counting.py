"""Counters for the transformer on meta tensors: nothing is computed, every operator is seen."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "attention"}
# Neither read nor write: views without the mark of one, allocations, questions about types.
FREE = {"_unsafe_view", "empty", "empty_like", "new_empty", "detach", "promote_types"}


class OtherBytes(TorchDispatchMode):
    """Bytes read and written, and kernels started, by all but matrix products and attention.

    Every operator that reaches the dispatcher counts as one kernel that reads its arguments once
    and writes its results once; those that only make a view count for nothing. An argument that is
    a broadcast view counts the memory behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.rpartition("::")[2]
        views = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        if name not in PRODUCTS and not views and name not in FREE:
            moved = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.bytes[name] += sum(_footprint(x) for x in moved)
            self.kernels[name] += 1
        return out


def _footprint(x: Tensor) -> int:
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


def meta_model(config: DiTConfig) -> FlashTalkDiT:
    with torch.device("meta"):
        return FlashTalkDiT(config).to(torch.bfloat16).eval().requires_grad_(False)


def meta_step(
    model: FlashTalkDiT, frames: int, size: tuple[int, int], text_tokens: int
) -> tuple[Tensor, TimeConstants, Tensor, Tensor, ContextCache]:
    """Latents, embedded level, condition, audio windows and context of one sample."""
    config = model.config

    def tensor(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    context = model.prepare_context(
        tensor(1, text_tokens, config.text_dim) if config.has_text else None,
        tensor(1, config.image_tokens, config.image_dim) if config.has_image else None,
    )
    return (
        tensor(1, config.latent_channels, frames, *size),
        model.prepare_time(tensor(1)),
        tensor(1, config.cond_channels, frames, *size),
        tensor(
            1,
            config.num_frames(frames),
            config.audio_window,
            config.audio_layers,
            config.audio_channels,
        ).bfloat16(),
        context,
    )


def run_step(model: FlashTalkDiT, inputs: tuple[Any, ...], audio: AudioCache, slots: int) -> Tensor:
    latents, time, cond, _, context = inputs
    return model.velocity(latents, time, cond, audio, context, given_slots=slots)


class PeakBytes(TorchDispatchMode):
    """The most memory that results of operators held at a time; what was there before is not seen.

    An operator's own workspace is not seen either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if _is_tensor(x)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if not _is_tensor(x):
                continue
            storage = x.untyped_storage()
            if storage._cdata in given or storage._cdata in self._seen:
                continue
            self._seen.add(storage._cdata)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def _is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)
