"""What a run says while it works: a progress bar, a log line now and then, TensorBoard curves."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("visavis.training")


def configure_logging(path: Path | None = None) -> None:
    """Log to stderr, and to a file too if one is given."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(path))
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers
    )


class RunProgress:
    """Running means of the losses and the speed of one training run.

    `total` is in steps or, where `by_time` is set, in seconds. Ranks other than 0 stay silent.
    """

    def __init__(
        self,
        folder: Path,
        total: float,
        *,
        start: float = 0.0,
        by_time: bool = False,
        every: int = 50,
        silent: bool = False,
    ) -> None:
        self.every = every
        self.silent = silent
        self._by_time = by_time
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._samples = 0
        self._since = time.monotonic()
        self._started = time.monotonic() - (start if by_time else 0.0)
        self._writer = None if silent else SummaryWriter(str(folder / "tensorboard"))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            disable=silent or not sys.stderr.isatty(),
        )
        # Without an end, as runs by their steps alone have none in time, the bar only pulses.
        self._task = self._bar.add_task("training", total=None if math.isinf(total) else total)
        self._bar.update(self._task, completed=start)

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included where the run is timed."""
        return time.monotonic() - self._started

    def step(self, step: int, samples: int, losses: Mapping[str, float]) -> None:
        """Count one step; says a line every `every` steps."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._samples += samples
        self._bar.update(self._task, completed=self.elapsed if self._by_time else step)
        if self._steps < self.every:
            return
        now = time.monotonic()
        means = {name: value / self._steps for name, value in self._sums.items()}
        means["samples_per_s"] = self._samples / (now - self._since)
        self.report(step, "train", means)
        self._sums, self._steps, self._samples, self._since = {}, 0, 0, now

    def picture(self, step: int, name: str, pixels_HW3: NDArray[np.uint8]) -> None:
        """One TensorBoard image."""
        if self._writer is not None:
            self._writer.add_image(name, pixels_HW3, step, dataformats="HWC")

    def report(self, step: int, group: str, values: Mapping[str, float]) -> None:
        """One log line and one TensorBoard point for each value."""
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        line = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        log.info("step %d  %.1f min  %s: %s", step, self.elapsed / 60, group, line)
