"""Runs a function in several processes joined by gloo, and gives back what each returned."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_S = 120.0
_CONTEXT = multiprocessing.get_context("forkserver")
# imported once, in the process that the others are forked from
_CONTEXT.set_forkserver_preload(
    ["torch", "torch.distributed", "visavis.engine.dit.model", "visavis.engine.parallel.sequence"]
)


def run_group(world: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """`function(rank, *args)` in `world` processes -> results by rank.

    Raises:
        AssertionError: a process failed (with its traceback) or did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            _CONTEXT.Process(target=_member, args=(rank, world, folder, function, args))
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        deadline = time.monotonic() + TIMEOUT_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        stuck = [i for i, process in enumerate(processes) if process.is_alive()]
        for process in processes:
            process.kill()
            process.join()
        errors = [path.read_text() for path in sorted(Path(folder).glob("*.error"))]
        assert not errors, "\n".join(errors)
        assert not stuck, f"processes {stuck} did not end within {TIMEOUT_S} s"
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]


def _member(
    rank: int, world: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world
        )
        torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        (Path(folder) / f"{rank}.error").write_text(f"rank {rank}\n{traceback.format_exc()}")
        raise
