"""The models' part of `gpu_check.py`: the 14B model piece by piece, the embedded model whole.

Letters: B batch, N rows of a process, H heads, K head size, P people.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from gpu_check_report import Report
from torch import Tensor

from visavis.engine.avatar_engine import AvatarEngine
from visavis.engine.codec.wan_network import WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.costs import ChunkCosts, measure_costs
from visavis.engine.dit.attention import attend
from visavis.engine.dit.caches import AudioCache
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.costs import ChunkShape, sent_bytes
from visavis.engine.dit.layout import TokenLayout
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.plan import CHUNK_LENGTHS, FPS, new_frames
from visavis.engine.schematic import schematic_portrait
from visavis.kernels.timing import Plan, measure

STEPS = 4
GPUS = (1, 2, 4, 8)
FIRST, LONGEST = CHUNK_LENGTHS[0], CHUNK_LENGTHS[-1]
NEW_FRAMES = new_frames(LONGEST)
CHUNK_S = NEW_FRAMES / FPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What is built and timed; `TINY` is for trying the program on a CPU."""

    dit: DiTConfig
    vae: WanConfig
    frames: int  # latent
    latent_size: tuple[int, int]
    embedded: str
    dtype: torch.dtype
    plan: Plan
    session_limit: int


FULL = Sizes(
    dit=DIT_PRESETS["flashtalk-14b"],
    vae=WanConfig(),
    frames=9,
    latent_size=(96, 56),
    embedded="embedded",
    dtype=torch.bfloat16,
    plan=Plan(),
    session_limit=512,
)
TINY = Sizes(
    dit=DIT_PRESETS["test"],
    vae=WanConfig(base_dim=4, num_res_blocks=1),
    frames=3,
    latent_size=(8, 4),
    embedded="test",
    dtype=torch.float32,
    plan=Plan(least_runs=1, seconds=0.0),
    session_limit=8,
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

    def step_s(self, layers: int) -> float:
        """All blocks and what surrounds them."""
        return layers * self.block_s + self.around_s


def fourteen_b_section(
    report: Report, device: torch.device, sizes: Sizes, link_bytes_s: float
) -> None:
    """One block and the VAE at full size with random weights; chunk times that follow."""
    report.section(
        "14B model: measured parts",
        "Random weights. A block's time is the difference between models of two and of one block; "
        "for several GPUs, one process's part runs here alone, without communication.",
    )
    times = {world: step_times(sizes, device, world) for world in _worlds(sizes.dit)}
    report.table(
        ("GPUs", "block ms", "around the blocks ms", "audio of a chunk ms (a block's)"),
        [
            (
                str(world),
                f"{t.block_s * 1e3:.3f}",
                f"{t.around_s * 1e3:.3f}",
                f"{t.prepare_s * 1e3:.3f}",
            )
            for world, t in times.items()
        ],
    )
    decode_s, prefix_s, encode_s = vae_times(sizes, device)
    report.say("")
    report.table(
        ("VAE", "ms"),
        [
            (f"decode {sizes.frames} latents", f"{decode_s * 1e3:.1f}"),
            ("of it the two motion latents, before the chunk is denoised", f"{prefix_s * 1e3:.1f}"),
            ("encode 5 frames", f"{encode_s * 1e3:.1f}"),
        ],
    )
    _project(report, sizes, times, decode_s - prefix_s, encode_s, link_bytes_s)


def _worlds(config: DiTConfig) -> tuple[int, ...]:
    return tuple(world for world in GPUS if config.num_heads % world == 0)


def _project(
    report: Report,
    sizes: Sizes,
    times: dict[int, StepTimes],
    decode_s: float,
    encode_s: float,
    link_bytes_s: float,
) -> None:
    report.section(
        "14B model: projected chunk",
        f"Not measured: {sizes.dit.num_layers} blocks and {STEPS} steps of the times above, plus "
        f"the bytes between processes at an assumed {link_bytes_s / 1e9:.0f} GB/s, not overlapped; "
        "the VAE's remaining decode and the encode shared evenly. Left out: colour transfer, "
        "speech features, copies, waiting for the slowest. Real time is a chunk in "
        f"{CHUNK_S:.2f} s.",
    )
    rows = []
    for world, measured in times.items():
        shape = ChunkShape(
            frames=sizes.frames, latent_size=sizes.latent_size, steps=STEPS, ulysses=world
        )
        link_s = STEPS * sent_bytes(sizes.dit, shape) / link_bytes_s
        dit_s = STEPS * measured.step_s(sizes.dit.num_layers)
        dit_s += sizes.dit.num_layers * measured.prepare_s
        vae_s = (decode_s + encode_s) / world
        chunk_s = dit_s + link_s + vae_s
        rows.append(
            (
                str(world),
                f"{dit_s:.3f}",
                f"{link_s:.3f}",
                f"{vae_s:.3f}",
                f"{chunk_s:.3f}",
                f"{NEW_FRAMES / chunk_s:.1f}",
                f"{chunk_s / CHUNK_S:.2f}",
            )
        )
    report.table(("GPUs", "DiT s", "link s", "VAE s", "chunk s", "frames/s", "of real time"), rows)


def step_times(sizes: Sizes, device: torch.device, world: int) -> StepTimes:
    """Time one process of `world` through models of one and of two blocks."""
    one, prepare_one = _model_times(sizes, device, 1, world)
    two, prepare_two = _model_times(sizes, device, 2, world)
    block_s = max(two - one, 0.0)
    return StepTimes(
        block_s=block_s,
        around_s=max(one - block_s, 0.0),
        prepare_s=max(prepare_two - prepare_one, 0.0),
    )


def _model_times(
    sizes: Sizes, device: torch.device, layers: int, world: int
) -> tuple[float, float]:
    """Median seconds of one velocity, and of preparing the audio."""
    config = replace(sizes.dit, num_layers=layers)
    with torch.device(device):
        model = FlashTalkDiT(config).to(sizes.dtype).requires_grad_(False).eval()
    if world > 1:
        model.exchange = OneRank(world)
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
    step = _median(
        lambda: model.velocity(latents, level, cond, heard, context, given_slots=0),
        device,
        sizes.plan,
    )
    return step, _median(prepare, device, sizes.plan)


def vae_times(sizes: Sizes, device: torch.device) -> tuple[float, float, float]:
    """Median seconds: decode of a chunk, of its first two latents, encode of five frames."""
    with torch.device(device):
        vae = WanVAE(WanNetwork(sizes.vae).to(sizes.dtype))
    height, width = (SPATIAL_STRIDE * side for side in sizes.latent_size)
    latents = torch.randn(1, sizes.vae.z_dim, sizes.frames, *sizes.latent_size, device=device)
    video = torch.rand(1, 3, 5, height, width, device=device) * 2 - 1
    latents, video = latents.to(sizes.dtype), video.to(sizes.dtype)
    return (
        _median(lambda: _drain(vae.decode(latents)), device, sizes.plan),
        _median(lambda: _drain(vae.decode(latents[:, :, :2])), device, sizes.plan),
        _median(lambda: vae.encode(video), device, sizes.plan),
    )


def _drain(parts: Iterator[Tensor]) -> None:
    for _ in parts:
        pass


def _median(run: Callable[[], object], device: torch.device, plan: Plan) -> float:
    return statistics.median(measure(run, device, plan, "gpu-check"))


def embedded_section(report: Report, device: torch.device, sizes: Sizes) -> None:
    """Frames a second of one session, and how many speak at once, from the engine's warm-up."""
    report.section(
        "Embedded model",
        "As the engine's warm-up measures, with the device waited for: best of a few runs, chunks "
        f"of {NEW_FRAMES} new frames, without speech features, pictures' encoding or a server. "
        "Sessions: all speaking at once within 90 % of the engine's time.",
    )
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = AvatarEngine.load(sizes.embedded, device=device, dtype=dtype)
        seconds = engine.warm_up()
        costs = _costs(engine, device)
        steps = engine.num_steps
        rows.append(
            (
                str(dtype).removeprefix("torch."),
                str(steps),
                f"{NEW_FRAMES / costs.chunk_s(LONGEST, steps):.0f}",
                f"{costs.start_s(FIRST, steps) * 1e3:.1f}",
                str(costs.capacity(steps, 0.9, sizes.session_limit)),
                f"{seconds:.1f}",
            )
        )
    report.table(("dtype", "steps", "frames/s", "first frame ms", "sessions", "warm-up s"), rows)


def _costs(engine: AvatarEngine, device: torch.device) -> ChunkCosts:
    """The engine's costs by a clock that waits for the device."""
    avatar = engine.prepare_avatar(schematic_portrait(engine.frame_size[0]))

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return measure_costs(
        engine.pipeline,
        lambda length: engine.open_session(avatar).begin_idle(length),
        clock=clock,
    )
