"""Chunks of the 14B pipeline in `gpu_check.py`: every way to run it shows the same pictures.

Sizes are the model's own but for the number of blocks; weights are random. What is looked for are
races between streams and recordings that read the wrong memory, which no CPU has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from gpu_check_blocks import Mode, switch
from gpu_check_report import Report
from gpu_check_sections import Context
from gpu_check_sizes import FULL, TINY, Sizes, median_s, repeated
from gpu_check_vae import random_vae
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.audio.front_end import WINDOW_REACH, MelFrontEnd
from visavis.engine.codec.wan import WanCodec, WanReference
from visavis.engine.codec.wan_compilation import speed_up_vae
from visavis.engine.codec.wan_network import TEMPORAL_STRIDE
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE
from visavis.engine.color import ColorMatcher
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.offload import BlockOffload, CudaTransport, DirectTransport
from visavis.engine.pipeline import ChunkJob, ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import new_frames

BLOCKS = 4
STEPS = 4
CHUNKS = 2
# Levels of 255. What runs the same kernels is to give the same pictures; a compiler rounds
# elsewhere, and one chunk begins with what the last one ended with.
SAME, NEAR = 1.0, 8.0

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a pipeline is run; `together`: two sessions, whose chunks are under way at once."""

    mode: Mode
    early: bool = False
    together: bool = False

    @property
    def name(self) -> str:
        """In words."""
        more = [("motion latents beforehand", self.early), ("two sessions", self.together)]
        return ", ".join([self.mode.name, *(words for words, on in more if on)])


WAYS = (
    Way(mode=Mode(), early=True),
    Way(mode=Mode(), early=True, together=True),
    Way(mode=Mode(recorded=True), early=True),
    Way(mode=Mode(recorded=True), early=True, together=True),
    Way(mode=Mode(compiled=True, recorded=True), early=True, together=True),
)


def chunk(report: Report, context: Context) -> None:
    """Two chunks of a session in every way, against the plain one; offloaded blocks."""
    report.section(
        "14B model: chunks of the pipeline",
        f"Random weights, {BLOCKS} blocks, one GPU, {CHUNKS} chunks of {STEPS} steps: from speech "
        "features to pictures in host memory, colours and hand-over included. Differences are of "
        f"pictures, in levels of 255, from the plain way; at most {SAME:g} where the same kernels "
        f"run, {NEAR:g} where a compiler rounds elsewhere.",
    )
    sizes = TINY if context.dry_run else FULL
    report.header(("way", "a chunk ms", "greatest difference", "mean"))
    plain = Run(sizes, context.device, Way(mode=Mode()))
    wanted = plain.frames(0)
    seconds = median_s(lambda: plain.frames(0), context.device, sizes.vae_plan)
    report.row(plain.way.name, f"{seconds * 1e3 / CHUNKS:.1f}", "", "")
    other = plain.frames(1)
    for way in WAYS:
        if not context.budget.allows(way.name, report):
            return
        run = Run(sizes, context.device, way)
        # The second time nothing is compiled or recorded any more.
        pairs = [pair for _ in range(2) for pair in zip(run.all(), (wanted, other), strict=False)]
        seconds = median_s(run.all, context.device, sizes.vae_plan) / CHUNKS
        worst = max(float(_difference(*pair).max()) for pair in pairs)
        mean = max(float(_difference(*pair).mean()) for pair in pairs)
        report.row(way.name, f"{seconds * 1e3:.1f}", f"{worst:.0f}", f"{mean:.3f}")
        judge_pictures(report, way, worst, mean)
    _offloaded(report, context, sizes)


def judge_pictures(report: Report, way: Way, worst: float, mean: float) -> None:
    """Fail where a way shows other pictures; of the compiled ones the mean counts."""
    found, limit = (mean, NEAR) if way.mode.compiled else (worst, SAME)
    if not found <= limit:
        report.fail(f"{way.name}: pictures differ by {found:.2f} levels")


class Run:
    """A pipeline with its own networks, the same numbers in each."""

    def __init__(self, sizes: Sizes, device: torch.device, way: Way) -> None:
        self.way = way
        self._frames = 1 + TEMPORAL_STRIDE * (sizes.frames - 1)
        torch._dynamo.reset()
        config = small_config(sizes)
        dit = random_dit(config, sizes, device)
        torch.manual_seed(1)
        vae = random_vae(sizes, device)
        switch(dit, way.mode)
        speed_up_vae(vae, compiled=way.mode.compiled, recorded=way.mode.recorded)
        if way.mode.recorded and device.type != "cuda":
            vae.record(repeated)
        height, width = (SPATIAL_STRIDE * side for side in sizes.latent_size)
        codec = WanCodec(vae, None, (height, width), decodes_early=way.early)
        self._pipeline = FlashTalkPipeline(dit, codec, MelFrontEnd(), device)
        draw = torch.Generator().manual_seed(2)

        def noise(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw).to(device)

        picture = noise(3, height, width).tanh()
        reference = WanReference(picture, ColorMatcher(picture), None)
        text = noise(1, max(1, config.text_len // 16), config.text_dim).to(sizes.dtype)
        image = noise(1, config.image_tokens, config.image_dim).to(sizes.dtype)
        self._conditions = Conditions(
            reference,
            {self._frames: codec.cond_latents(reference, self._frames)[None]},
            dit.prepare_context(
                text if config.has_text else None, image if config.has_image else None
            ),
            codec.initial_motion(reference),
        )
        shape = (WINDOW_REACH + self._frames, config.audio_layers, config.audio_channels)
        self._features = [torch.randn(shape, generator=draw).numpy() for _ in range(CHUNKS)]

    def all(self) -> list[Pixels]:
        """The pictures of each session."""
        return self._sessions((0, 1)) if self.way.together else [self.frames(0)]

    def frames(self, seed: int) -> Pixels:
        """The pictures of one session alone."""
        return self._sessions((seed,))[0]

    def _sessions(self, seeds: Sequence[int]) -> list[Pixels]:
        """One chunk of each session after the other, all of them begun before any is decoded."""
        states = [self._pipeline.first_state(self._conditions, seed) for seed in seeds]
        shown: list[list[Pixels]] = [[] for _ in seeds]
        for features in self._features:
            jobs = [self._begin(state, features) for state in states]
            for job in jobs:
                while not job.denoised:
                    self._pipeline.denoise([job])
            for number, job in enumerate(jobs):
                made = list(self._pipeline.decode(job))
                shown[number] += [frame.pixels.copy() for frame in made]
                last = made[-1].next_state
                assert last is not None
                states[number] = last
        return [np.stack(pictures) for pictures in shown]

    def _begin(self, state: ChunkState, features: NDArray[np.float32]) -> ChunkJob:
        return self._pipeline.start_chunk(
            state,
            features,
            self._conditions,
            shown=new_frames(self._frames),
            num_steps=STEPS,
        )


def small_config(sizes: Sizes) -> DiTConfig:
    """The transformer beside this VAE, with few blocks."""
    channels = sizes.vae.z_dim
    return replace(
        sizes.dit, num_layers=BLOCKS, latent_channels=channels, cond_channels=channels + 4
    )


def random_dit(config: DiTConfig, sizes: Sizes, device: torch.device) -> FlashTalkDiT:
    """A fresh one is zero where it steers: nothing would come out."""
    torch.manual_seed(0)
    with torch.device(device):
        model = FlashTalkDiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.to(sizes.dtype).requires_grad_(False).eval()


def _offloaded(report: Report, context: Context, sizes: Sizes) -> None:
    """A step with blocks in host memory against one with all of them on the GPU."""
    if not context.budget.allows("offloaded blocks", report):
        return
    device, config = context.device, small_config(sizes)
    on_gpu = device.type == "cuda"
    resident = random_dit(config, sizes, device)
    moved = deepcopy(resident).to("cpu")
    blocks = list(moved.blocks)
    BlockOffload(blocks, CudaTransport(device) if on_gpu else DirectTransport(), resident=1)
    for name, child in moved.named_children():
        if name != "blocks":
            child.to(device)
    steps = [_step(model, config, sizes, device) for model in (resident, moved)]
    wanted = steps[0]()
    equal = all(torch.equal(steps[1](), wanted) for _ in range(3))
    times = [median_s(step, device, sizes.plan) for step in steps]
    report.say("")
    report.say(
        f"- A step of {BLOCKS} blocks: {times[0] * 1e3:.1f} ms with all of them on the GPU, "
        f"{times[1] * 1e3:.1f} ms with {BLOCKS - 1} in host memory."
    )
    if not equal:
        report.fail("offloaded blocks compute something else")


def _step(
    model: FlashTalkDiT, config: DiTConfig, sizes: Sizes, device: torch.device
) -> Callable[[], Tensor]:
    """A step from conditions that this model prepared."""
    draw = torch.Generator(device).manual_seed(3)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, device=device).to(sizes.dtype)

    grid = (sizes.frames, *sizes.latent_size)
    latents, cond = noise(1, config.latent_channels, *grid), noise(1, config.cond_channels, *grid)
    windows = (config.audio_window, config.audio_layers, config.audio_channels)
    audio = model.prepare_audio(
        noise(1, config.num_frames(sizes.frames), *windows), latent_size=sizes.latent_size
    )
    text = noise(1, max(1, config.text_len // 16), config.text_dim) if config.has_text else None
    image = noise(1, config.image_tokens, config.image_dim) if config.has_image else None
    context = model.prepare_context(text, image)
    level = model.prepare_time(torch.full((1,), 0.7, device=device))
    return lambda: model.velocity(latents, level, cond, audio, context, given_slots=2)


def _difference(found: Pixels, wanted: Pixels) -> Pixels:
    return np.abs(found.astype(np.int16) - wanted.astype(np.int16)).astype(np.uint8)
