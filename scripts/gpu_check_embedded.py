"""The embedded model in `gpu_check.py`: frames a second of one session, and how many at once."""

from __future__ import annotations

import torch
from gpu_check_report import Report
from gpu_check_sections import Context

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.costs import ChunkCosts, measure_costs, settled_clock
from visavis.engine.plan import CHUNK_LENGTHS, new_frames
from visavis.engine.schematic import schematic_portrait

FIRST, LONGEST = CHUNK_LENGTHS[0], CHUNK_LENGTHS[-1]
NEW_FRAMES = new_frames(LONGEST)
SESSION_LIMIT = 512


def embedded(report: Report, context: Context) -> None:
    """From the engine's warm-up, in both dtypes."""
    report.section(
        "Embedded model",
        "As the engine's warm-up measures, with the device waited for: best of a few runs, chunks "
        f"of {NEW_FRAMES} new frames, without speech features, pictures' encoding or a server. "
        "Sessions: all speaking at once within 90 % of the engine's time.",
    )
    report.header(("dtype", "steps", "frames/s", "first frame ms", "sessions", "warm-up s"))
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        if not context.budget.allows(name, report):
            return
        model = "test" if context.dry_run else "embedded"
        engine = AvatarEngine.load(model, device=context.device, dtype=dtype)
        seconds = engine.warm_up()
        costs, steps = _costs(engine, context.device), engine.num_steps
        report.row(
            name,
            str(steps),
            f"{NEW_FRAMES / costs.chunk_s(LONGEST, steps):.0f}",
            f"{costs.start_s(FIRST, steps) * 1e3:.1f}",
            str(costs.capacity(steps, 0.9, SESSION_LIMIT)),
            f"{seconds:.1f}",
        )


def _costs(engine: AvatarEngine, device: torch.device) -> ChunkCosts:
    """The engine's costs by a clock that waits for the device."""
    avatar = engine.prepare_avatar(schematic_portrait(engine.frame_size[0]))
    return measure_costs(
        engine.pipeline,
        lambda length: engine.open_session(avatar).begin_idle(length),
        clock=settled_clock(device),
    )
