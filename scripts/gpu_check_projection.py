"""What the measured parts add up to, on 1, 2, 4 and 8 GPUs, beside what the planner says."""

from __future__ import annotations

from dataclasses import replace

from gpu_check_blocks import MODES, QUANTIZED, Mode
from gpu_check_rates import card_rates_of
from gpu_check_report import Report
from gpu_check_sections import Context
from gpu_check_sizes import FULL, TINY, Sizes

from visavis.engine.cards import CardRates
from visavis.engine.dit.costs import ChunkShape, sent_bytes
from visavis.engine.plan import CHUNK_LENGTHS, FPS, new_frames
from visavis.engine.plan_estimates import Request
from visavis.engine.planner import options

STEPS = 4
NEW_FRAMES = new_frames(CHUNK_LENGTHS[-1])
CHUNK_S = NEW_FRAMES / FPS
COLUMNS = (
    *("GPUs", "weights", "how", "DiT s", "link s", "VAE s", "chunk s"),
    *("frames/s", "of real time", "planned s"),
)


def projection(report: Report, context: Context) -> None:
    """A chunk's time from those of a block and of the VAE; needs both."""
    sizes = TINY if context.dry_run else FULL
    report.section(
        "14B model: projected chunk",
        f"Not measured: {sizes.dit.num_layers} blocks and {STEPS} steps of the times above, plus "
        f"the bytes between processes at {context.link_gbytes:.0f} GB/s, assumed, not overlapped; "
        "the VAE's remaining decode and the encode shared evenly. Left out: colour transfer, "
        "speech features, copies, waiting for the slowest. Real time is a chunk in "
        f"{CHUNK_S:.2f} s. *Planned*: what `visavis plan` says with the measured rates.",
    )
    vae_s = vae_seconds(context.figures)
    best = best_modes(context.figures)
    if vae_s is None or not best:
        missing = "the VAE's times" if vae_s is None else "a block's times"
        report.say(f"- Nothing to add up: {missing} were not measured.")
        return
    found = card_rates_of(context.figures, context)
    report.header(COLUMNS)
    for world, mode in best:
        dit_s = dit_seconds(context.figures, sizes, mode, world)
        link_s = link_seconds(sizes, world, context.link_gbytes)
        chunk_s = dit_s + link_s + vae_s / world
        report.row(
            *(str(world), mode.weights, mode.name),
            *(f"{s:.3f}" for s in (dit_s, link_s, vae_s / world, chunk_s)),
            f"{NEW_FRAMES / chunk_s:.1f}",
            f"{chunk_s / CHUNK_S:.2f}",
            "" if found is None else planned(found, mode, world),
        )


def vae_seconds(figures: dict[str, float]) -> float | None:
    """The quickest decode without its known beginning, and encode; None: not measured."""
    ways = {name.split(": ", 1)[1] for name in figures if name.startswith("decode_s: ")}
    times = [
        figures[f"decode_s: {how}"] - figures[f"prefix_s: {how}"] + figures[f"encode_s: {how}"]
        for how in ways
        if {f"prefix_s: {how}", f"encode_s: {how}"} <= set(figures)
    ]
    return min(times, default=None)


def best_modes(figures: dict[str, float]) -> list[tuple[int, Mode]]:
    """(GPUs, mode): the quickest as trained for each number, then each that rounds on one."""
    measured = [
        (world, mode)
        for world in (1, 2, 4, 8)
        for mode in MODES
        if _key("block_s", mode, world) in figures
    ]
    best: dict[int, Mode] = {}
    for world, mode in measured:
        before = best.get(world)
        if before is None or _quicker(figures, mode, before, world):
            best[world] = mode
    rounded = [(1, mode) for mode in QUANTIZED if _key("block_s", mode, 1) in figures]
    return [*best.items(), *rounded]


def _quicker(figures: dict[str, float], one: Mode, other: Mode, world: int) -> bool:
    return figures[_key("block_s", one, world)] < figures[_key("block_s", other, world)]


def _key(name: str, mode: Mode, world: int) -> str:
    return f"{name}: {mode.weights}, {mode.name}, {world}"


def dit_seconds(figures: dict[str, float], sizes: Sizes, mode: Mode, world: int) -> float:
    """All steps, and the chunk's audio."""
    block_s, around_s, prepare_s = (
        figures[_key(name, mode, world)] for name in ("block_s", "around_s", "prepare_s")
    )
    layers = sizes.dit.num_layers
    return STEPS * (layers * block_s + around_s) + layers * prepare_s


def link_seconds(sizes: Sizes, world: int, link_gbytes: float) -> float:
    """All that one process sends in a chunk."""
    shape = ChunkShape(
        frames=sizes.frames, latent_size=sizes.latent_size, steps=STEPS, ulysses=world
    )
    return STEPS * sent_bytes(sizes.dit, shape) / (link_gbytes * 1e9)


def planned(rates: CardRates, mode: Mode, world: int) -> str:
    """The planner's time for the same weights and the same split, on cards without a limit."""
    roomy = replace(rates, vram=1e6)
    for option in options(Request(gpus=world, vram=roomy.vram), roomy):
        same = option.weights.quantize == mode.precision and not option.weights.offload
        if same and option.plan.ulysses_degree == world:
            return f"{option.times.chunk:.3f}"
    return ""
