"""What one way to run a model needs, and how fast it can be: bytes and seconds, from counts alone.

The counts are those of `engine.dit.costs` and `engine.dit.weight_costs`, which counters on meta
tensors confirm; what a GPU makes of them is predicted, not measured: launches, uneven progress and
the host's work are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from visavis.engine.cards import CardRates
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.costs import (
    ChunkShape,
    activation_bytes,
    audio_bytes,
    block_sent_bytes,
    context_bytes,
    other_bytes,
    process_cost,
)
from visavis.engine.dit.weight_costs import (
    block_bytes,
    offloaded_bytes,
    quantized_bytes,
    rounded_products,
    rounding_bytes,
    transfer_wait_s,
)
from visavis.engine.parallel.halo import PictureGrid
from visavis.engine.parallel.plan import SequencePlan
from visavis.engine.plan import MOTION_LATENTS, check_chunk_frames, latent_frames
from visavis.engine.weight_memory import WeightMemory

GIB = 2**30

# Wan 2.1's VAE, counted on meta tensors (tests/unit/engine/test_planner.py): FLOPs per position
# of a latent frame, and bytes per pixel that a decode holds.
VAE_PARAMETERS = 126_892_531
VAE_FIRST_FLOPS = 1.313e12 / (96 * 56)
VAE_LATER_FLOPS = 11.104e12 / (96 * 56)
VAE_ENCODE_FLOPS = 7.770e12 / (96 * 56)  # five frames, the hand-over
VAE_BYTES_PER_PIXEL = 12_000
# Convolutions that need a border, by rows and by columns: per latent in a group.
VAE_EXCHANGES = 66
# CLIP ViT-H in float16 and wav2vec2-base in float32: beside the VAE on the process that serves.
IMAGE_ENCODER_BYTES = 632_000_000 * 2
SPEECH_ENCODER_BYTES = 95_000_000 * 4
# umT5-xxl; gone before the transformer is loaded.
TEXT_ENCODER_BYTES = 5_700_000_000 * 2
# CUDA context, NCCL's buffers, cuBLAS workspaces, fragmentation: assumed.
RESERVE_BYTES = int(2.5 * GIB)
# Between a few GPUs a step is too long for launches to matter.
RECORD_FROM = 4


class PlannerError(ValueError):
    """A question that the planner cannot answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked: a model on `gpus` cards of `vram` GiB each, at a size in pixels."""

    model: str = "flashtalk-14b"
    gpus: int = 1
    vram: float
    height: int = 768
    width: int = 448
    chunk_frames: int = 33
    steps: int = 4
    avatars: int = 16
    text_tokens: int = 33

    def __post_init__(self) -> None:
        if self.model != "flashtalk-14b":
            raise PlannerError(
                f"model={self.model!r}: only flashtalk-14b needs a plan; the others fit anywhere"
            )
        for name in ("gpus", "vram", "steps", "avatars"):
            value = getattr(self, name)
            if value <= 0:
                raise PlannerError(f"{name}={value}: must be positive")
        check_chunk_frames(self.chunk_frames)
        for name, side in (("height", self.height), ("width", self.width)):
            if side < 16 or side % 16:
                raise PlannerError(f"{name}={side}: must be a positive multiple of 16 pixels")

    @property
    def config(self) -> DiTConfig:
        return DIT_PRESETS[self.model]

    def shape(self, plan: SequencePlan) -> ChunkShape:
        """The chunk as the transformer's costs see it."""
        return ChunkShape(
            frames=latent_frames(self.chunk_frames),
            latent_size=(self.height // SPATIAL_STRIDE, self.width // SPATIAL_STRIDE),
            steps=self.steps,
            text_tokens=self.text_tokens,
            motion_slots=MOTION_LATENTS,
            ulysses=plan.ulysses_degree,
            ring=plan.ring_degree,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on the process that serves, which has most: the others hold no encoders.

    `host`: of its host memory, for blocks that wait there. `recorded`: steps and decodes are
    replayed, each in memory of its own.
    """

    transformer: int
    vae: int
    encoders: int
    contexts: int
    audio: int
    activations: int
    decode: int
    reserve: int = RESERVE_BYTES
    host: int = 0
    recorded: bool = False

    @property
    def total(self) -> int:
        """Bytes at the worst moment: a step and a decode do not run at the same time, but what was
        recorded keeps its memory."""
        fixed = self.transformer + self.vae + self.encoders + self.contexts + self.reserve
        parts = (self.audio + self.activations, self.decode)
        return fixed + (sum(parts) if self.recorded else max(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Predicted seconds of a chunk, one after the other; exchange that hides behind work is not in.

    `decode` and `hand_over` are the VAE's, whose picture the processes share. `transfer`: waiting
    for weights on their way from the host.
    """

    products: float
    attention: float
    between: float
    exchange: float
    decode: float
    hand_over: float
    transfer: float = 0.0

    @property
    def chunk(self) -> float:
        """Seconds from the audio to the next chunk's start."""
        return (
            self.products
            + self.attention
            + self.between
            + self.exchange
            + self.decode
            + self.hand_over
            + self.transfer
        )


def memory_of(
    request: Request, shape: ChunkShape, weights: WeightMemory, *, recorded: bool
) -> Memory:
    """What the process that serves holds, with weights held so and steps recorded or not."""
    config = request.config
    transformer = offloaded_bytes(config, weights.offload)
    if weights.quantize is not None:
        transformer = quantized_bytes(config, weights.quantize)
    copies = 2 if recorded else 1  # a recording has its own copy of the caches
    return Memory(
        transformer=transformer,
        vae=2 * VAE_PARAMETERS,
        encoders=IMAGE_ENCODER_BYTES + SPEECH_ENCODER_BYTES,
        contexts=(request.avatars + copies - 1) * context_bytes(config, shape.text_tokens),
        audio=copies * audio_bytes(config, shape),
        activations=activation_bytes(config, shape),
        decode=int(VAE_BYTES_PER_PIXEL * request.height * request.width * _tile_share(shape)),
        host=weights.offload * block_bytes(config),
        recorded=recorded,
    )


def records(world: int, weights: WeightMemory) -> bool:
    """Whether steps are worth recording, and can be: a graph expects weights to stay in place."""
    return world >= RECORD_FROM and not weights.offload


def times_of(request: Request, rates: CardRates, shape: ChunkShape, weights: WeightMemory) -> Times:
    """How long a chunk is under way, with weights held so."""
    config, steps = request.config, shape.steps
    costs = [process_cost(config, shape, rank=rank) for rank in range(shape.world)]
    step_s = max(
        _products_s(config, rates, shape, weights, rank=rank, products=cost.products)
        for rank, cost in enumerate(costs)
    )
    once_s = max(cost.once_products for cost in costs) / (rates.products * 1e12)
    attention_s = max(cost.attention for cost in costs) / (rates.attention * 1e12)
    moved = other_bytes(config, shape)
    if weights.quantize is not None:
        moved += rounding_bytes(config, shape, weights.quantize)
    between_s = moved / (rates.memory * 1e9)
    exchange_s = _exchange_s(config, rates, shape, attention_s)
    wait_s, once_wait_s = transfer_wait_s(
        blocks=config.num_layers,
        offload=weights.offload,
        compute_s=(step_s + attention_s + between_s + exchange_s) / config.num_layers,
        copy_s=block_bytes(config) / (rates.host_link * 1e9),
        once_compute_s=once_s / config.num_layers,
    )
    positions = shape.latent_size[0] * shape.latent_size[1] * _tile_share(shape)
    decode = VAE_FIRST_FLOPS + (shape.frames - 1) * VAE_LATER_FLOPS
    borders_s = VAE_EXCHANGES * rates.collective_s if shape.world > 1 else 0.0
    return Times(
        products=steps * step_s + once_s,
        attention=steps * attention_s,
        between=steps * between_s,
        exchange=steps * exchange_s,
        decode=positions * decode / (rates.convolutions * 1e12) + shape.frames * borders_s,
        hand_over=positions * VAE_ENCODE_FLOPS / (rates.convolutions * 1e12)
        + MOTION_LATENTS * borders_s,
        transfer=steps * wait_s + once_wait_s,
    )


def _products_s(
    config: DiTConfig,
    rates: CardRates,
    shape: ChunkShape,
    weights: WeightMemory,
    *,
    rank: int,
    products: int,
) -> float:
    """Seconds of one step's matrix products; `-dynamic` does most of them in eight bits."""
    rounded = 0
    if weights.quantize is not None and weights.quantize.endswith("-dynamic"):
        rounded = rounded_products(config, shape, rank=rank)
    eight_bits_s = rounded / (rates.products_8bit * 1e12) if rates.products_8bit else 0.0
    return eight_bits_s + (products - rounded) / (rates.products * 1e12)


def _tile_share(shape: ChunkShape) -> float:
    """The largest process's part of the picture."""
    grid = PictureGrid.best(shape.latent_size, shape.world)
    return max(grid.heights) * max(grid.widths) / (shape.latent_size[0] * shape.latent_size[1])


def _exchange_s(
    config: DiTConfig, rates: CardRates, shape: ChunkShape, attention_s: float
) -> float:
    """Seconds of a step that a process waits for others.

    The all-to-alls are waited for; a ring's transfers only where they outlast the attention that
    they run beside, all runs but the last.
    """
    if shape.world == 1:
        return 0.0
    sent = [block_sent_bytes(config, shape, rank=rank) for rank in range(shape.world)]
    all_to_all = max(turned for turned, _ in sent)
    passed = max(around for _, around in sent)
    calls = 2 if shape.ulysses > 1 else 0
    waited = config.num_layers * (all_to_all / (rates.link * 1e9) + calls * rates.collective_s)
    beside = attention_s * (shape.ring - 1) / shape.ring
    transfers = config.num_layers * (
        passed / (rates.link * 1e9) + (shape.ring - 1) * rates.collective_s
    )
    tokens = shape.frames * config.frame_tokens(shape.latent_size)
    padded = -(-tokens // shape.world) * shape.world
    gathered = 4 * padded * config.latent_channels * 4 / (rates.link * 1e9)
    return waited + max(0.0, transfers - beside) + gathered + rates.collective_s
