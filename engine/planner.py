"""Which ways to run a model fit on which cards, and which is best: `visavis plan`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from visavis.engine.cards import CardRates
from visavis.engine.dit.costs import original_step_flops, process_cost
from visavis.engine.offload import BlockOffload
from visavis.engine.parallel.plan import SequencePlan
from visavis.engine.plan import FPS, new_frames
from visavis.engine.plan_estimates import (
    GIB,
    RESERVE_BYTES,
    TEXT_ENCODER_BYTES,
    Memory,
    Request,
    Times,
    memory_of,
    records,
    times_of,
)
from visavis.engine.weight_memory import PRECISIONS, WeightMemory

PLAIN = WeightMemory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One way to run the model, what it takes, and how long a chunk would be under way.

    `flops_ratio`: the transformer's FLOPs per process over the original's at as many processes.
    """

    plan: SequencePlan
    weights: WeightMemory
    memory: Memory
    times: Times
    fits: bool
    realtime_factor: float
    flops_ratio: float

    @property
    def exact(self) -> bool:
        """Whether the weights are as they were trained."""
        return self.weights.quantize is None

    @property
    def name(self) -> str:
        """How the weights are held, in a few words."""
        if self.weights.offload:
            return f"offload {self.weights.offload}"
        return self.weights.quantize or "bfloat16"

    @property
    def flags(self) -> tuple[str, ...]:
        """Of `visavis serve`, beside model and weights."""
        flags = ["--device cuda"]
        if self.weights.offload:
            flags.append(f"--offload {self.weights.offload}")
        else:
            flags.append("--compiled")
        if self.weights.quantize is not None:
            flags.append(f"--quantize {self.weights.quantize}")
        if self.plan.world > 1:
            flags += [
                f"--ulysses-degree {self.plan.ulysses_degree}",
                f"--ring-degree {self.plan.ring_degree}",
            ]
        if self.memory.recorded:
            flags.append("--recorded")
        return tuple(flags)


def options(request: Request, rates: CardRates) -> tuple[Option, ...]:
    """Every split of the GPUs whose heads divide, with every way to hold the weights.

    First those that fit, of them first the exact ones, the fastest first.
    """
    heads = request.config.num_heads
    found: list[Option] = []
    for ulysses in range(1, request.gpus + 1):
        if request.gpus % ulysses or heads % ulysses:
            continue
        plan = SequencePlan(ulysses_degree=ulysses, ring_degree=request.gpus // ulysses)
        found += _of_split(request, rates, plan)
    return tuple(sorted(found, key=lambda o: (not o.fits, not o.exact, o.times.chunk)))


def best_of_each(found: Sequence[Option]) -> tuple[Option, ...]:
    """The first of `options` for each way to hold the weights."""
    return tuple({_kind(option): option for option in reversed(found)}.values())[::-1]


def faster_rounded(found: Sequence[Option]) -> Option | None:
    """The quickest with rounded weights, if it fits and is quicker than the first of `options`."""
    rounded = [option for option in found if option.fits and not option.exact]
    best = min(rounded, key=lambda option: option.times.chunk, default=None)
    return best if best is not None and best.times.chunk < found[0].times.chunk else None


def _kind(option: Option) -> tuple[str | None, bool]:
    return option.weights.quantize, option.weights.offload > 0


def _of_split(request: Request, rates: CardRates, plan: SequencePlan) -> Iterator[Option]:
    plain = _option(request, rates, plan, PLAIN)
    yield plain
    if not plain.fits:
        yield _offloaded(request, rates, plan)
    for precision in PRECISIONS:
        if not precision.endswith("-dynamic") or rates.products_8bit is not None:
            yield _option(request, rates, plan, WeightMemory(quantize=precision))


def _offloaded(request: Request, rates: CardRates, plan: SequencePlan) -> Option:
    """With as few blocks in host memory as will do; all of them where even that is too little."""
    blocks = request.config.num_layers
    for offload in range(BlockOffload.PLACES + 1, blocks):
        option = _option(request, rates, plan, WeightMemory(offload=offload))
        if option.fits:
            return option
    return _option(request, rates, plan, WeightMemory(offload=blocks))


def _option(
    request: Request, rates: CardRates, plan: SequencePlan, weights: WeightMemory
) -> Option:
    shape = request.shape(plan)
    memory = memory_of(request, shape, weights, recorded=records(shape.world, weights))
    if memory.recorded and not _fits(request, memory):
        memory = memory_of(request, shape, weights, recorded=False)
    times = times_of(request, rates, shape, weights)
    config = request.config
    worst = max(
        process_cost(config, shape, rank=rank).flops(shape.steps) for rank in range(plan.world)
    )
    return Option(
        plan=plan,
        weights=weights,
        memory=memory,
        times=times,
        fits=_fits(request, memory),
        realtime_factor=times.chunk * FPS / new_frames(request.chunk_frames),
        flops_ratio=worst / (shape.steps * original_step_flops(config, shape)),
    )


def _fits(request: Request, memory: Memory) -> bool:
    return max(memory.total, TEXT_ENCODER_BYTES + RESERVE_BYTES) <= request.vram * GIB
