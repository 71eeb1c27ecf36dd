"""`visavis serve` under torchrun: one process serves, the others follow it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from visavis.server.config import ServerConfig

if TYPE_CHECKING:
    from visavis.engine.parallel.worker_group import WorkerGroup


def follows() -> bool:
    """Whether torchrun started this process to follow another; does not import torch."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and os.environ.get("RANK", "0") != "0"


def join_group(config: ServerConfig) -> WorkerGroup | None:
    """The group that torchrun started this process in; None if it started alone.

    Raises:
        ParallelError, DeviceError: ValueErrors that say what to change.
    """
    from visavis.engine.parallel.worker_group import GroupOptions, WorkerGroup

    return WorkerGroup.from_environment(
        config.device,
        GroupOptions(
            ulysses_degree=config.ulysses_degree,
            ring_degree=config.ring_degree,
            compiled=config.compiled,
            recorded=config.recorded,
            memory=config.memory,
        ),
    )


def follow(config: ServerConfig) -> None:
    """Compute for the process that serves until it stops.

    Raises:
        ValueError: the group, the device or the weights; the message says what to change.
    """
    group = join_group(config)
    assert group is not None  # the caller asked `follows`
    group.follow()
