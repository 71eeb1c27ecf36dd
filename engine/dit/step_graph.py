"""Denoising steps recorded once per shape and replayed: CUDA graphs.

A step of the full-size model starts thousands of kernels; on many GPUs each is so short that the
host cannot keep up. A replay starts them all with one call and reads the arguments from where they
lay when it was recorded, so that they are copied there first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import TimeConstants

WARM_UPS = 2


class StepInputs(NamedTuple):
    """The tensors of one call of `FlashTalkDiT.velocity`."""

    latents: Tensor
    time: TimeConstants
    cond_latents: Tensor
    audio: AudioCache
    context: ContextCache
    target_masks: Tensor | None
    given_slots: int


Step = Callable[[StepInputs], Tensor]
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]
"""Record a call -> (what repeats it, its result, rewritten by every repetition)."""


@dataclass(slots=True)
class _Recording:
    held: StepInputs
    replay: Callable[[], None]
    result: Tensor
    given: StepInputs


class StepGraphs:
    """Replays `step`; one recording per shape, whose memory is kept.

    The caches of audio and context are large and change once a chunk or less: they are copied when
    they are other objects than last time.
    """

    def __init__(self, step: Step, capture: Capture | None = None) -> None:
        """`capture`: for tests; None records a CUDA graph."""
        self._step = step
        self._capture = capture or capture_cuda_graph
        self._recordings: dict[Any, _Recording] = {}

    def __call__(self, inputs: StepInputs) -> Tensor:
        """The step's result; a tensor of the caller's own."""
        inputs = inputs._replace(
            audio=inputs.audio._replace(handles=()), context=inputs.context._replace(handles=())
        )
        key = _shapes(inputs)
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = self._record(inputs)
        for name in StepInputs._fields:
            given = getattr(inputs, name)
            if not _same(given, getattr(recording.given, name)):
                _copy(getattr(recording.held, name), given)
        recording.given = inputs
        recording.replay()
        return recording.result.clone()

    def _record(self, inputs: StepInputs) -> _Recording:
        held: StepInputs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, inputs)
        replay, result = self._capture(lambda: self._step(held))
        return _Recording(held, replay, result, inputs)


def capture_cuda_graph(call: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Run a few times (libraries choose kernels, collectives connect), then record."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads use the GPU meanwhile: the next chunk's sound is heard on one.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = call()
    return graph.replay, result


def _tensors(part: object) -> list[Any]:
    return [leaf for leaf in tree_flatten(part)[0] if isinstance(leaf, Tensor)]


def _same(given: object, before: object) -> bool:
    """Whether they are the very same tensors: cheap, and enough for caches that nobody writes to.

    Latents are the sampler's to write to and always count as new.
    """
    one, other = _tensors(given), _tensors(before)
    if len(one) < 2:
        return not one
    return all(a is b for a, b in zip(one, other, strict=True))


def _copy(held: object, given: object) -> None:
    for target, source in zip(_tensors(held), _tensors(given), strict=True):
        target.copy_(source, non_blocking=True)


def _shapes(inputs: StepInputs) -> Any:
    leaves, structure = tree_flatten(inputs)
    return str(structure), tuple(
        (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in leaves
    )
