"""One chunk of a small FlashTalk on a CPU, stage by stage: `visavis bench engine --preset bench`.

The model has every part of the released one at a size that two cores can run: 103 M transformer,
14 M VAE, 128x128 pixels, 576 tokens, float32, 33-frame chunks of four steps. Seconds are those that
a chunk of a running session takes; preparing the avatar and encoding the speech are not in them.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from visavis.engine.audio.front_end import WINDOW_REACH, MelFrontEnd
from visavis.engine.codec.wan import WanCodec, WanReference
from visavis.engine.codec.wan_network import TEMPORAL_STRIDE, WanConfig, WanNetwork
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.color import ColorMatcher
from visavis.engine.dit.checkpoint import ORIGINAL_STEM, load_original
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.flashtalk_14b import VAE_FILE
from visavis.engine.pipeline import ChunkState, Conditions, FlashTalkPipeline
from visavis.engine.plan import FPS, MOTION_FRAMES, new_frames
from visavis.engine.runtime import set_threads
from visavis.server.bench_beside import (
    Beside,
    DiTInputs,
    Other,
    beside_json,
    beside_lines,
    measure_beside,
)

FRAME_SIZE = (128, 128)
CHUNK_FRAMES = 33
NUM_STEPS = 4
DEFAULT_THREADS = 2
STAGES = ("dit", "vae_decode", "colour", "motion_encode")
TOTAL = "total"

DIT = DiTConfig(
    dim=512,
    ffn_dim=2048,
    num_layers=4,
    num_heads=8,
    latent_channels=16,
    cond_channels=20,
    text_dim=64,
    text_len=512,
    image_dim=1280,
    image_tokens=257,
    audio_layers=12,
    audio_channels=768,
    audio_hidden=512,
    audio_dim=768,
    audio_tokens=32,
)
VAE: dict[str, Any] = {"base_dim": 32}
PROMPT_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetReport:
    """Median seconds a chunk and stage; `cpu_seconds` sums the threads, which other load leaves be.

    `runs` holds the wall-clock seconds of each measured chunk, in order; `beside` another VAE's.
    """

    preset: str
    weights: str
    threads: int
    dtype: str
    torch: str
    frame_size: tuple[int, int]
    chunk_frames: int
    num_steps: int
    dit_parameters: int
    vae_parameters: int
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    frames_per_second: float
    runs: list[dict[str, float]]
    beside: Beside | None = None
    against_float32: Deviation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """What the format costs: outcomes less float32's, root mean square and greatest.

    Of a denoising step, over the velocity's own root mean square. Frames lie in [-1, 1], latents
    have a deviation of about 1.
    """

    velocity_rms: float
    velocity_max: float
    decode_rms: float
    decode_max: float
    encode_rms: float
    encode_max: float


@dataclass(slots=True)
class Stopwatch:
    """Seconds of the chunk under way: wall clock, and processor time of all threads."""

    wall: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    cpu: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] += time.perf_counter() - wall
        self.cpu[name] += time.process_time() - cpu


class PresetBench:
    """A session of the small model over noise for speech; the same seed gives the same frames."""

    def __init__(
        self,
        weights: Path | None = None,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Load the folder's transformer and VAE, or draw random weights; both compute in `dtype`.

        The folder is laid out as the released one: `diffusion_pytorch_model.safetensors` (or its
        shards) and `Wan2.1_VAE.pth`, of this preset's sizes.

        Raises:
            CheckpointError: a file is missing or does not have these sizes.
        """
        torch.manual_seed(seed)
        self.vae = WanVAE(WanNetwork(WanConfig(**VAE)))
        if weights is None:
            dit = FlashTalkDiT(DIT)
            _leave_zero(dit)
        else:
            dit = load_original(DIT, _transformer_file(weights))
            self.vae = WanVAE.load(weights / VAE_FILE, config=VAE)
        self.exact_vae = self.vae
        self.dit = self.exact_dit = dit.eval().requires_grad_(False)
        if dtype != torch.float32:
            network = WanNetwork(self.vae.network.config)
            network.load_state_dict(self.vae.network.state_dict())
            self.vae = WanVAE(network.to(dtype))
            self.dit = deepcopy(dit).to(dtype)
        codec = WanCodec(self.vae, None, FRAME_SIZE)
        self.pipeline = FlashTalkPipeline(self.dit, codec, MelFrontEnd(), torch.device("cpu"))
        self.codec = codec
        self.conditions = self._conditions()
        self.state = self.pipeline.first_state(self.conditions, seed)

    @torch.inference_mode()
    def _conditions(self) -> Conditions:
        picture = torch.rand(3, *FRAME_SIZE) * 2 - 1
        reference = WanReference(picture, ColorMatcher(picture), None)
        self.text = text = torch.randn(1, PROMPT_TOKENS, DIT.text_dim)
        self.image = image = torch.randn(1, DIT.image_tokens, DIT.image_dim)
        return Conditions(
            reference,
            {CHUNK_FRAMES: self.codec.cond_latents(reference, CHUNK_FRAMES)[None]},
            self.dit.prepare_context(text, image),
            self.codec.initial_motion(reference),
        )

    @torch.inference_mode()
    def chunk(self, watch: Stopwatch) -> Tensor:
        """The next chunk's new frames, float32 [3, 28, H, W] in [-1, 1]; what the pipeline does."""
        size = (WINDOW_REACH + CHUNK_FRAMES, DIT.audio_layers, DIT.audio_channels)
        features = torch.randn(size).numpy()
        pipeline, reference = self.pipeline, self.conditions.reference
        with watch.stage("dit"):
            job = pipeline.start_chunk(
                self.state,
                features,
                self.conditions,
                shown=new_frames(CHUNK_FRAMES),
                num_steps=NUM_STEPS,
            )
            while not job.denoised:
                pipeline.denoise([job])
        frames, start = [], 0
        decoded = self.vae.decode(job.denoising.latents)
        while True:
            with watch.stage("vae_decode"):
                part = next(decoded, None)
            if part is None:
                break
            with watch.stage("colour"):
                kept = part[:, :, max(0, MOTION_FRAMES - start) :]
                start += part.shape[2]
                if kept.shape[2]:
                    frames.append(reference.colors(kept, self.codec.color_strength)[0])
        shown = torch.cat(frames, dim=1)
        with watch.stage("motion_encode"):
            motion = self.codec.encode_motion(shown[:, -MOTION_FRAMES:])
        self.state = ChunkState(motion, job.generator.get_state())
        return shown

    def beside(self, rounds: int) -> Beside:
        """This VAE and diffusers', over a chunk's latents and the frames that the next remembers.

        And the transformer beside itself without its caches.

        Raises:
            BesideError: diffusers is not installed.
        """
        latents, video, audio = self._inputs()
        given = DiTInputs(
            latents_BCTHW=latents,
            cond_BCTHW=self.conditions.cond_latents[CHUNK_FRAMES],
            audio_BFWLC=audio,
            text_BLC=self.text,
            image_BLC=self.image,
            given_slots=self.state.motion.shape[1],
            num_steps=NUM_STEPS,
        )
        return measure_beside(self.vae, latents, video, rounds, (self.dit, given))

    @torch.inference_mode()
    def deviation(self) -> Deviation:
        """A step's and the VAE's outcomes less those of the same weights in float32."""
        latents, video, audio = self._inputs()
        pairs = [
            [self._velocity(dit, latents, audio) for dit in (self.dit, self.exact_dit)],
            [torch.cat(list(vae.decode(latents)), dim=2) for vae in (self.vae, self.exact_vae)],
            [vae.encode(video) for vae in (self.vae, self.exact_vae)],
        ]
        velocity, decode, encode = ((ours - exact).float() for ours, exact in pairs)
        velocity /= pairs[0][1].square().mean().sqrt()
        return Deviation(
            velocity_rms=velocity.square().mean().sqrt().item(),
            velocity_max=velocity.abs().max().item(),
            decode_rms=decode.square().mean().sqrt().item(),
            decode_max=decode.abs().max().item(),
            encode_rms=encode.square().mean().sqrt().item(),
            encode_max=encode.abs().max().item(),
        )

    def _velocity(self, dit: FlashTalkDiT, latents: Tensor, audio: Tensor) -> Tensor:
        """The first step's velocity of noise."""
        return dit.velocity(
            latents,
            dit.prepare_time(torch.ones(1)),
            self.conditions.cond_latents[CHUNK_FRAMES],
            dit.prepare_audio(audio, latent_size=self.codec.latent_size),
            dit.prepare_context(self.text, self.image),
            given_slots=self.state.motion.shape[1],
        )

    def _inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised latents of a chunk, as many frames as the next chunk remembers, and audio
        windows."""
        size = (FRAME_SIZE[0] // SPATIAL_STRIDE, FRAME_SIZE[1] // SPATIAL_STRIDE)
        count = 1 + (CHUNK_FRAMES - 1) // TEMPORAL_STRIDE
        latents = torch.randn(1, self.vae.latent_channels, count, *size)
        video = torch.rand(1, 3, MOTION_FRAMES, *FRAME_SIZE) * 2 - 1
        windows = (1, CHUNK_FRAMES, DIT.audio_window, DIT.audio_layers, DIT.audio_channels)
        return latents, video, torch.randn(windows)


def measure_preset(
    weights: Path | None,
    num_threads: int | None,
    chunks: int,
    *,
    warm_up: int = 1,
    beside: Other | None = None,
    dtype: torch.dtype = torch.float32,
) -> PresetReport:
    """Time `chunks` chunks after `warm_up` others, then as many of the VAE and of another in turn.

    Raises:
        ValueError: no chunk to measure; DeviceError: fewer than one thread; CheckpointError;
            BesideError: the other VAE is not installed.
    """
    if chunks < 1:
        raise ValueError(f"chunks={chunks}: must be at least 1")
    threads = set_threads(DEFAULT_THREADS if num_threads is None else num_threads)
    bench = PresetBench(weights, dtype=dtype)
    watches = []
    for number in range(warm_up + chunks):
        watch = Stopwatch()
        bench.chunk(watch)
        if number >= warm_up:
            watches.append(watch)
    runs = [_with_total(watch.wall) for watch in watches]
    seconds = _medians(runs)
    return PresetReport(
        preset="bench",
        weights="random" if weights is None else str(weights),
        threads=threads,
        dtype=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
        frame_size=FRAME_SIZE,
        chunk_frames=CHUNK_FRAMES,
        num_steps=NUM_STEPS,
        dit_parameters=_count(bench.dit),
        vae_parameters=_count(bench.vae.network),
        seconds=seconds,
        cpu_seconds=_medians([_with_total(watch.cpu) for watch in watches]),
        frames_per_second=new_frames(CHUNK_FRAMES) / seconds[TOTAL],
        runs=runs,
        beside=None if beside is None else bench.beside(chunks),
        against_float32=None if dtype == torch.float32 else bench.deviation(),
    )


def print_preset(report: PresetReport) -> None:
    """The report on stdout."""
    height, width = report.frame_size
    title = (
        f"{report.dit_parameters / 1e6:.0f} M transformer, {report.vae_parameters / 1e6:.1f} M VAE,"
        f" in {report.dtype}, {width}x{height}, {report.threads} threads"
    )
    table = Table(title=title)
    for heading in ("seconds a chunk", "median", "least", "most", "CPU time"):
        table.add_column(heading, justify="left" if heading == "seconds a chunk" else "right")
    for stage in (*STAGES, TOTAL):
        taken = [run[stage] for run in report.runs]
        figures = (report.seconds[stage], min(taken), max(taken), report.cpu_seconds[stage])
        table.add_row(stage.replace("_", " "), *(f"{figure:.3f}" for figure in figures))
    console = Console()
    console.print(table)
    playing = new_frames(report.chunk_frames) / FPS
    console.print(
        f"{report.frames_per_second:.2f} frames a second; a chunk plays for {playing:.2f} s",
        highlight=False,
    )
    found = report.against_float32
    if found is not None:
        console.print(
            f"{report.dtype} less float32, rms and greatest: velocity of a step, over its own rms, "
            f"{found.velocity_rms:.1e}, {found.velocity_max:.1e}; frames in [-1, 1] "
            f"{found.decode_rms:.1e}, {found.decode_max:.1e}; motion latents "
            f"{found.encode_rms:.1e}, {found.encode_max:.1e}",
            highlight=False,
        )
    if report.beside is not None:
        for line in beside_lines(report.beside):
            console.print(line, highlight=False)


def write_preset_json(report: PresetReport, path: Path) -> None:
    """The report; `seconds` holds each stage's median and the total's."""
    figures = asdict(report)
    if report.beside is not None:
        figures["beside"] = beside_json(report.beside)
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _transformer_file(folder: Path) -> Path:
    """The one file, or the folder of shards without the VAE's files."""
    single = folder / f"{ORIGINAL_STEM}.safetensors"
    return single if single.is_file() else folder


def _leave_zero(dit: FlashTalkDiT) -> None:
    """A fresh transformer's modulation and head are zero; random ones do the work of trained."""
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


def _with_total(stages: dict[str, float]) -> dict[str, float]:
    return {**stages, TOTAL: sum(stages.values())}


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(run[stage] for run in runs) for stage in (*STAGES, TOTAL)}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
