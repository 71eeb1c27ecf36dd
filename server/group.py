"""`visavis serve` with several processes: one serves, the others follow it.

`python -m visavis.server.group` is a follower that a leader has started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from visavis.engine.parallel.loss import GroupLimits
from visavis.server.config import ServerConfig

if TYPE_CHECKING:
    from visavis.engine.parallel.worker_group import GroupOptions, WorkerGroup


# All that a follower needs of the settings; the rest is the leader's affair, which has taken its
# secrets out of the environment, so that what depends on them would be refused.
FOLLOWERS_SETTINGS = ("device", "log_format", "log_level")


def follows() -> bool:
    """Whether torchrun started this process to follow another; does not import torch."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1 and os.environ.get("RANK", "0") != "0"


def join_group(config: ServerConfig) -> WorkerGroup | None:
    """The group of this process: one that torchrun or a leader started, or one to lead.

    None for a process alone.

    Raises:
        ParallelError, DeviceError: ValueErrors that say what to change.
        GroupLostError: followers that were started did not come.
    """
    from visavis.engine.parallel.plan import ParallelError
    from visavis.engine.parallel.spawning import FollowerProcesses
    from visavis.engine.parallel.worker_group import WorkerGroup

    options, limits = _options(config), group_limits(config)
    group = WorkerGroup.from_environment(config.device, options, limits)
    if group is not None and group.leads and config.processes > 1:
        raise ParallelError(
            f"processes={config.processes}, and torchrun has started {group.launch.world}; "
            "leave one of them out"
        )
    if group is not None or config.processes == 1:
        return group
    command = [sys.executable, "-m", "visavis.server.group"]
    environment = {
        "VISAVIS_DEVICE": config.device,
        "VISAVIS_LOG_FORMAT": config.log_format,
        "VISAVIS_LOG_LEVEL": config.log_level,
    }
    processes = FollowerProcesses(command, environment)
    return WorkerGroup.start(config.processes, processes, config.device, options, limits)


def group_limits(config: ServerConfig) -> GroupLimits:
    """When processes are given up."""
    return GroupLimits(
        silent_s=config.heartbeat_timeout_s,
        step_s=config.step_timeout_s,
        start_s=config.group_start_timeout_s,
    )


def _options(config: ServerConfig) -> GroupOptions:
    from visavis.engine.parallel.worker_group import GroupOptions

    return GroupOptions(
        ulysses_degree=config.ulysses_degree,
        ring_degree=config.ring_degree,
        compiled=config.compiled,
        recorded=config.recorded,
        memory=config.memory,
    )


def follow(config: ServerConfig) -> None:
    """Compute for the process that serves until it stops.

    Raises:
        ValueError: the group, the device or the weights; the message says what to change.
    """
    group = join_group(config)
    assert group is not None  # the caller asked `follows`
    group.follow()


def forget_settings() -> None:
    """Take out of the environment what a follower does not need."""
    needless = {
        f"VISAVIS_{name.upper()}"
        for name in ServerConfig.model_fields
        if name not in FOLLOWERS_SETTINGS
    }
    for variable in list(os.environ):
        if variable.upper() in needless:
            del os.environ[variable]


def main() -> None:
    """A follower's whole life."""
    from visavis.server.logging import configure_logging

    forget_settings()
    given: dict[str, Any] = {}  # all from the environment
    config = ServerConfig(**given)
    configure_logging(config.log_format, config.log_level)
    follow(config)


if __name__ == "__main__":
    main()
