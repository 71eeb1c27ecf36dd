"""One timer for every kernel: warm-up, the median and the 90th percentile, TFLOP/s and GB/s."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

FLUSH_BYTES = 1 << 28  # more than the L2 cache of any GPU
WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure. `once`: a single run of each, for a profiler."""

    least_runs: int = 10
    seconds: float = 0.5
    once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of one run, and what was counted of it."""

    name: str
    implementation: str
    shape: str
    median_s: float
    p90_s: float
    runs: int
    flops: float
    bytes: float

    @property
    def tflops(self) -> float:
        """10¹² FLOPs a second."""
        return self.flops / self.median_s / 1e12

    @property
    def gbytes(self) -> float:
        """10⁹ bytes a second, of those that must be moved at least."""
        return self.bytes / self.median_s / 1e9


def measure(run: Callable[[], object], device: torch.device, plan: Plan, label: str) -> list[float]:
    """Seconds of each run of a function, with the L2 cache emptied between runs on a GPU."""
    if plan.once:
        with range_of(label, device):
            return [_one(run, device)]
    for _ in range(WARM_UP):
        run()
    flush = None
    if device.type == "cuda":
        flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
    times: list[float] = []
    while len(times) < plan.least_runs or sum(times) < plan.seconds:
        if flush is not None:
            flush.zero_()
        times.append(_one(run, device))
    return times


def timing(
    run: Callable[[], object],
    device: torch.device,
    plan: Plan,
    *,
    name: str,
    implementation: str,
    shape: str,
    flops: float = 0.0,
    moved: float = 0.0,
) -> Timing:
    """`measure`, summed up."""
    times = sorted(measure(run, device, plan, f"{name} {implementation} {shape}"))
    return Timing(
        name=name,
        implementation=implementation,
        shape=shape,
        median_s=statistics.median(times),
        p90_s=times[min(len(times) - 1, int(0.9 * len(times)))],
        runs=len(times),
        flops=flops,
        bytes=moved,
    )


def _one(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


@contextmanager
def range_of(label: str, device: torch.device) -> Iterator[None]:
    """An NVTX range, by which `ncu --nvtx --nvtx-include` and Nsight Systems find the kernels."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.nvtx.range_push(label)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
