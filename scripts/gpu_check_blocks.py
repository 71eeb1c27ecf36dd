"""The 14B model's blocks in `gpu_check.py`: plain, compiled, as CUDA graphs, in eight bits.

Letters: B batch, N rows of a process, H heads, K head size, P people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from gpu_check_report import Report
from gpu_check_sections import Context
from gpu_check_sizes import FULL, TINY, Sizes, median_s, repeated
from torch import Tensor

from visavis.engine.dit.attention import attend
from visavis.engine.dit.block import Block
from visavis.engine.dit.caches import AudioCache
from visavis.engine.dit.compilation import speed_up
from visavis.engine.dit.layout import TokenLayout
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.step_graph import StepGraphs
from visavis.engine.quantize import quantize
from visavis.engine.weight_memory import Precision

GPUS = (1, 8, 4, 2)  # in the order of what is worth knowing
COLUMNS = ("weights", "how", "GPUs", "block ms", "around the blocks ms", "a chunk's audio ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a model is made to run; `precision` None: weights as they are."""

    compiled: bool = False
    recorded: bool = False
    precision: Precision | None = None

    @property
    def name(self) -> str:
        """As in the table and in the names of figures."""
        switches = [x for x in ("compiled", "recorded") if getattr(self, x)]
        return ", ".join(switches) or "plain"

    @property
    def weights(self) -> str:
        """In words."""
        return self.precision or "as trained"


PLAIN = Mode()
MODES = (PLAIN, Mode(compiled=True), Mode(compiled=True, recorded=True))
# dynamic rounding is many small operations, which only a compiler joins
QUANTIZED = (
    Mode(compiled=True, precision="fp8-dynamic"),
    Mode(compiled=True, precision="int8-dynamic"),
    Mode(compiled=True, precision="int8"),
    Mode(compiled=True, precision="fp8"),
    Mode(precision="fp8-dynamic"),
)


@dataclass(frozen=True, slots=True)
class OneRank:
    """Process 0 of `world`, alone: it attends as Ulysses has it attend, and sends nothing.

    Its rows, read as all rows of its share of the heads, have just the right size.
    """

    world: int
    rank: int = 0

    def attend(
        self,
        q_BNHK: Tensor,
        k_BNHK: Tensor,
        v_BNHK: Tensor,
        layout: TokenLayout,
        person_masks_PS: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The time of one process's part; the numbers are meaningless."""
        batch, rows, heads, size = q_BNHK.shape
        shape = (batch, rows * self.world, heads // self.world, size)
        q, k, v = (x.reshape(shape) for x in (q_BNHK, k_BNHK, v_BNHK))
        out = attend(q, k[:, : layout.tokens], v[:, : layout.tokens], "sdpa")
        return out.reshape(batch, rows, heads * size), None

    def extremes(self, routing_BPN: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Of its own rows."""
        return routing_BPN.amin(-1, keepdim=True), routing_BPN.amax(-1, keepdim=True)

    def gather(self, x_BNC: Tensor, layout: TokenLayout) -> Tensor:
        """Its own rows in place of everybody's."""
        return torch.cat([x_BNC] * self.world, dim=1)[:, : layout.tokens]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of one step of one process: a block, and everything around the blocks."""

    block_s: float
    around_s: float
    prepare_s: float  # a chunk's audio, one block's part


def blocks(report: Report, context: Context) -> None:
    """A block in every mode, on one GPU and as a part of several."""
    report.section(
        "14B model: a block",
        "Random weights. A block's time is the difference between models of two and of one block; "
        "for several GPUs, one process's part runs here alone, without communication.",
    )
    sizes = TINY if context.dry_run else FULL
    worlds = [world for world in GPUS if sizes.dit.num_heads % world == 0]
    _time_modes(report, context, sizes, MODES, worlds)


def quantized_blocks(report: Report, context: Context) -> None:
    """A block with weights in eight bits, on one GPU."""
    report.section(
        "14B model: a block in eight bits",
        "As above, on one GPU. `-dynamic` multiplies in eight bits, the others in bfloat16.",
    )
    sizes = TINY if context.dry_run else FULL
    _time_modes(report, context, sizes, QUANTIZED, (1,))


def _time_modes(
    report: Report, context: Context, sizes: Sizes, modes: Sequence[Mode], worlds: Sequence[int]
) -> None:
    """A row each; one that cannot run is told about below, and ends no other."""
    report.header(COLUMNS)
    troubles: list[str] = []
    for mode in modes:
        for world in worlds:
            words = f"{mode.weights}, {mode.name}, {world} GPU(s)"
            if context.budget.left() <= 0:
                troubles.append(f"{words}: not measured, the section's time was up")
                continue
            try:
                times = step_times(sizes, context.device, world, mode)
            except (RuntimeError, ValueError, ImportError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                troubles.append(f"{words}: {reason}")
                continue
            report.row(
                mode.weights,
                mode.name,
                str(world),
                f"{times.block_s * 1e3:.3f}",
                f"{times.around_s * 1e3:.3f}",
                f"{times.prepare_s * 1e3:.3f}",
            )
            for name in ("block_s", "around_s", "prepare_s"):
                key = f"{name}: {mode.weights}, {mode.name}, {world}"
                report.figure(key, getattr(times, name))
    report.say("")
    for line in troubles:
        report.say(f"- {line}")


def step_times(sizes: Sizes, device: torch.device, world: int, mode: Mode = PLAIN) -> StepTimes:
    """Time one process of `world` through models of one and of two blocks."""
    one, prepare_one = _model_times(sizes, device, 1, world, mode)
    two, prepare_two = _model_times(sizes, device, 2, world, mode)
    block_s = max(two - one, 0.0)
    return StepTimes(
        block_s=block_s,
        around_s=max(one - block_s, 0.0),
        prepare_s=max(prepare_two - prepare_one, 0.0),
    )


def _model_times(
    sizes: Sizes, device: torch.device, layers: int, world: int, mode: Mode
) -> tuple[float, float]:
    """Median seconds of one velocity, and of preparing the audio."""
    torch._dynamo.reset()  # code of models that are gone counts against a limit
    config = replace(sizes.dit, num_layers=layers)
    with torch.device(device):
        model = FlashTalkDiT(config).to(sizes.dtype).requires_grad_(False).eval()
    if mode.precision is not None:
        quantize(model, mode.precision)
    if world > 1:
        model.exchange = OneRank(world)
    switch(model, mode)
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device).to(sizes.dtype)

    grid = (sizes.frames, *sizes.latent_size)
    latents = draw(1, config.latent_channels, *grid)
    cond = draw(1, config.cond_channels, *grid)
    audio = draw(
        1,
        config.num_frames(sizes.frames),
        config.audio_window,
        config.audio_layers,
        config.audio_channels,
    )
    text = None
    if config.has_text:  # a short prompt, whose padding the model merges
        text = draw(1, max(1, config.text_len // 16), config.text_dim)
    image = draw(1, config.image_tokens, config.image_dim) if config.has_image else None
    context = model.prepare_context(text, image)
    level = model.prepare_time(torch.full((1,), 0.7, device=device))

    def prepare() -> AudioCache:
        return model.prepare_audio(audio, latent_size=sizes.latent_size)

    heard = prepare()
    step = median_s(
        lambda: model.velocity(latents, level, cond, heard, context, given_slots=0),
        device,
        sizes.plan,
    )
    return step, median_s(prepare, device, sizes.plan)


def switch(model: FlashTalkDiT, mode: Mode) -> None:
    """Turn a mode on; a CPU has stand-ins for the compiler's backend and for CUDA graphs."""
    device = model.head.projection.weight.device
    if device.type == "cuda":
        speed_up(model, compiled=mode.compiled, recorded=mode.recorded)
        return
    if mode.compiled:
        for block in model.blocks:
            assert isinstance(block, Block)
            block.compile(fullgraph=model.exchange is None, dynamic=False, backend="eager")
    if mode.recorded:
        model.recorded_step = StepGraphs(model.step, repeated)
