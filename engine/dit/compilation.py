"""Compiled blocks and recorded steps: switches that change no result beyond rounding."""

from __future__ import annotations

import logging
import os
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from visavis.engine.dit.block import Block
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.step_graph import StepGraphs

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
# Four lengths of chunks, four batches, and the last block another one: 32 shapes of one code,
# where torch gives up after eight (with an error, as breaks are not allowed).
SHAPES_OF_ONE_CODE = 64


def speed_up(model: FlashTalkDiT, *, compiled: bool, recorded: bool) -> None:
    """Set the switches that are on; recording needs a GPU, and is left off without one."""
    if compiled:
        compile_blocks(model)
    if recorded:
        device = model.head.projection.weight.device
        if device.type == "cuda":
            record_steps(model)
        else:
            logger.warning("recorded: CUDA graphs need a GPU, not %s; left off", device)


def compile_blocks(model: FlashTalkDiT) -> None:
    """Compile by region: all blocks have one code and one set of shapes, so that one serves all.

    A block is one graph without breaks, in a group as well; call this after `parallelize`.
    """
    keep_compiled_code()
    limit = room_for_shapes()
    for block in model.blocks:
        assert isinstance(block, Block)
        block.compile(fullgraph=True, dynamic=False, **limit)


def room_for_shapes() -> dict[str, Any]:
    """Arguments of `torch.compile` that let one function have the code of every shape.

    Torch's setting of that name holds for the thread that sets it, and the engine has its own; a
    torch that has no such argument has that setting alone.
    """
    if "recompile_limit" in signature(torch.compile).parameters:
        return {"recompile_limit": SHAPES_OF_ONE_CODE}
    torch._dynamo.config.recompile_limit = SHAPES_OF_ONE_CODE
    return {}


def keep_compiled_code() -> None:
    """Let the next start find what this one compiles: in the user's cache folder.

    Torch's own place is in /tmp, which containers and restarts lose. TORCHINDUCTOR_CACHE_DIR names
    another; where the folder cannot be made, torch's is left.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named and not _is_torchs_own(Path(named)):
        return
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "visavis" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        logger.warning("compiled code is not kept: %s; set %s", error, CACHE_VARIABLE)
        return
    os.environ[CACHE_VARIABLE] = str(folder)


def _is_torchs_own(folder: Path) -> bool:
    """Whether torch has set the variable itself, as it does when its compiler is imported."""
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")


def record_steps(model: FlashTalkDiT) -> None:
    """Replay denoising steps as CUDA graphs, one per shape.

    Pays where steps are short, from a few GPUs on. Holds a second copy of the caches of one chunk.
    """
    model.recorded_step = StepGraphs(model.step)
