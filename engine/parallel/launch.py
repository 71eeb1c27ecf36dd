"""Started by torchrun or not: the environment that it sets, and joining the processes' group."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from visavis.engine.parallel.plan import ParallelError

# Followers wait for the next command as long as nobody talks: no limit that could end it.
IDLE_LIMIT = timedelta(days=365)
# A collective within a step that takes longer than this has lost a process.
STEP_LIMIT = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """This process's place among those that torchrun started together."""

    rank: int
    world: int
    local_rank: int

    @property
    def leads(self) -> bool:
        """Whether it serves; the others follow its commands."""
        return self.rank == 0


def torchrun_launch() -> Launch | None:
    """Read RANK, WORLD_SIZE and LOCAL_RANK; None if there is no group, or a group of one.

    Raises:
        ParallelError: one of them is missing or no number.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        return None
    try:
        numbers = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    except (KeyError, ValueError) as error:
        raise ParallelError(
            f"WORLD_SIZE is set but {error} is not a rank; start the program with torchrun"
        ) from error
    return Launch(
        rank=numbers["RANK"], world=numbers["WORLD_SIZE"], local_rank=numbers["LOCAL_RANK"]
    )


def leave(device: torch.device) -> None:
    """Leave a group that was lost, so that another can be joined; the engine's thread does."""
    if dist.is_initialized():
        dist.destroy_process_group()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def abort(device: torch.device) -> None:
    """Let go of collectives that will never end, on any thread.

    gloo's end with an error when the others' sockets close; NCCL's kernels wait for ever.
    """
    if device.type == "cuda" and dist.is_initialized():
        dist.distributed_c10d._abort_process_group()


def join(launch: Launch, device: torch.device, store: Store | None = None) -> torch.device:
    """Enter the group (NCCL between GPUs, gloo between CPUs) -> this process's own device.

    `store`: where the processes meet; None: where torchrun's environment says.

    Raises:
        ParallelError: the machine has fewer GPUs than processes.
    """
    if device.type == "cuda":
        if launch.local_rank >= torch.cuda.device_count():
            raise ParallelError(
                f"LOCAL_RANK={launch.local_rank}: this machine has {torch.cuda.device_count()} "
                "GPUs; start at most so many processes (torchrun --nproc-per-node)"
            )
        device = torch.device("cuda", launch.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        rank, world = (-1, -1) if store is None else (launch.rank, launch.world)
        dist.init_process_group(
            backend, timeout=STEP_LIMIT, world_size=world, rank=rank, store=store
        )
    return device
