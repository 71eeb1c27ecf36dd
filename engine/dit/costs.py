"""What the transformer costs, from its configuration alone: FLOPs, memory, bytes between processes.

A multiplication and an addition are two FLOPs; only matrix products, convolutions and attention
count. `tests/unit/engine/test_dit_costs.py` holds these formulas against counters on meta tensors.

Letters as in the formulas of docs/parallelism.md: n rows of a process, N tokens, D model width,
H A folded audio keys of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from visavis.engine.dit.audio_adapter import fold_saves
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.layout import TokenLayout


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkShape:
    """What a chunk asks of the transformer, and how many processes share it.

    `text_tokens`: keys of the prompt with those that stand for its padding. `motion_slots`: latent
    frames that are given. `ulysses` and `ring` multiply to the number of processes.
    """

    frames: int = 9
    latent_size: tuple[int, int]
    steps: int = 4
    text_tokens: int = 33
    motion_slots: int = 2
    ulysses: int = 1
    ring: int = 1

    @property
    def world(self) -> int:
        """Processes that share the chunk."""
        return self.ulysses * self.ring

    def layout(self, config: DiTConfig, rank: int = 0) -> TokenLayout:
        """The rows of one process."""
        spatial = config.frame_tokens(self.latent_size)
        return TokenLayout.shard(self.frames, spatial, rank=rank, world=self.world)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCost:
    """Of the process that has most to do: FLOPs and bytes sent, per step or once a chunk.

    `products`: FLOPs of matrix products; `attention`: of self- and cross-attention.
    """

    products: int
    attention: int
    once_products: int
    sent_bytes: int

    def flops(self, steps: int) -> int:
        """FLOPs of a whole chunk."""
        return steps * (self.products + self.attention) + self.once_products


def process_cost(
    config: DiTConfig, shape: ChunkShape, *, rank: int = 0, element_bytes: int = 2
) -> ProcessCost:
    """What process `rank` of the group computes and sends; contexts are prepared already."""
    layout = shape.layout(config, rank)
    first, end = layout.frame_range
    rows, tokens, spatial, dim = layout.length, layout.tokens, layout.frame_tokens, config.dim
    folds = fold_saves(config, spatial)
    patch = prod(config.patch_size)

    def per_row(queries_only: bool = False) -> int:
        """Products of one row through one block."""
        projections = (2 if queries_only else 4) + 2  # q, k, v, o and the cross-attention's q, o
        audio = 2 * config.num_heads * config.audio_tokens * dim
        if not folds:
            audio = 2 * dim * dim
        return 2 * (projections * dim * dim + audio + 2 * dim * config.ffn_dim)

    context = (shape.text_tokens if config.has_text else 0) + config.image_tokens
    keys = tokens + context + (0 if folds else config.audio_tokens)
    skipped = shape.motion_slots * spatial if shape.world == 1 else 0
    head_rows = rows - skipped
    products = config.num_layers * rows * per_row() - skipped * per_row(queries_only=True)
    products += 2 * rows * config.in_channels * patch * dim
    products += 2 * head_rows * dim * config.latent_channels * patch
    attention = 4 * dim * keys * (config.num_layers * rows - skipped)
    return ProcessCost(
        products=products,
        attention=attention,
        once_products=_audio_flops(config, shape.frames, end - first, folds),
        sent_bytes=sent_bytes(config, shape, rank=rank, element_bytes=element_bytes),
    )


def _audio_flops(config: DiTConfig, frames: int, own_frames: int, folds: bool) -> int:
    """The adapter over the chunk, keys, values and folding over the process's frames."""
    features = config.audio_layers * config.audio_channels
    hidden, wide = config.audio_hidden, config.audio_tokens * config.audio_dim
    windows = config.audio_window + (frames - 1) * config.later_window
    adapter = 2 * (windows * features * hidden + frames * hidden * (hidden + wide))
    tokens = own_frames * config.audio_tokens
    kv = 2 * tokens * config.audio_dim * 2 * config.dim
    fold = tokens * (4 * config.dim**2 + 2 * config.dim) if folds else 0
    return adapter + config.num_layers * (kv + fold)


def sent_bytes(
    config: DiTConfig, shape: ChunkShape, *, rank: int = 0, element_bytes: int = 2
) -> int:
    """Bytes that process `rank` sends in one step: the least that the two algorithms need.

    Not counted: the float32 result gathered once a step.
    """
    sent = block_sent_bytes(config, shape, rank=rank, element_bytes=element_bytes)
    return config.num_layers * sum(sent)


def block_sent_bytes(
    config: DiTConfig, shape: ChunkShape, *, rank: int = 0, element_bytes: int = 2
) -> tuple[int, int]:
    """Bytes that process `rank` sends in one block, by Ulysses and by the ring.

    Ulysses sends (U - 1) / U of q, k, v and of the output; the ring passes its run of k and v on,
    R - 1 times, without padding.
    """
    layout = shape.layout(config, rank)
    row = config.dim * element_bytes
    ulysses = 4 * layout.length * row * (shape.ulysses - 1) // shape.ulysses
    run = layout.length * shape.ulysses
    place = rank // shape.ulysses
    runs = [max(0, min(run, layout.tokens - i * run)) for i in range(shape.ring)]
    # in turn its own, then what it got from the one before; the last one stays
    passed = sum(runs[(place - turn) % shape.ring] for turn in range(shape.ring - 1))
    return ulysses, 2 * passed * row // shape.ulysses


def original_step_flops(config: DiTConfig, shape: ChunkShape) -> int:
    """FLOPs per step and process of the original, which prepares every condition in every step.

    Its processes share the visual tokens, and repeat the text's and the image's part.
    """
    spatial = config.frame_tokens(shape.latent_size)
    tokens, dim, world = shape.frames * spatial, config.dim, shape.world
    patch = prod(config.patch_size)
    context = config.text_len + config.image_tokens
    audio = shape.frames * config.audio_tokens
    block = 2 * tokens * dim * (8 * dim + 2 * config.ffn_dim)  # self 4, cross 2, audio 2
    block += 4 * tokens * dim * (tokens + context + config.audio_tokens)
    block += 2 * audio * config.audio_dim * 2 * dim
    ends = 2 * tokens * dim * patch * (config.in_channels + config.latent_channels)
    alone = config.num_layers * 4 * context * dim * dim
    alone += 2 * config.text_len * dim * (config.text_dim + dim)
    alone += 2 * config.image_tokens * config.image_dim * (config.image_dim + dim)
    alone += 2 * dim * (config.freq_dim + 7 * dim)
    alone += _audio_flops(config, shape.frames, 0, folds=False)
    return (config.num_layers * block + ends) // world + alone


def _linear(rows: int, columns: int) -> int:
    return rows * columns + columns


def parameters(config: DiTConfig) -> int:
    """Weights of the transformer."""
    dim, hidden = config.dim, config.audio_hidden
    features = config.audio_layers * config.audio_channels
    patch = prod(config.patch_size)
    rest = _linear(config.in_channels * patch, dim)
    rest += _linear(dim, config.latent_channels * patch) + 2 * dim
    rest += _linear(config.freq_dim, dim) + _linear(dim, dim) + _linear(dim, 6 * dim)
    if config.has_text:
        rest += _linear(config.text_dim, dim) + _linear(dim, dim)
    if config.has_image:
        rest += 2 * config.image_dim + _linear(config.image_dim, config.image_dim)
        rest += _linear(config.image_dim, dim) + 2 * dim
    rest += _linear(config.audio_window * features, hidden)
    rest += _linear(config.later_window * features, hidden) + _linear(hidden, hidden)
    rest += _linear(hidden, config.audio_tokens * config.audio_dim) + 2 * config.audio_dim
    return config.num_layers * block_parameters(config) + rest


def block_parameters(config: DiTConfig) -> int:
    """Weights of one block."""
    dim = config.dim
    block = 8 * _linear(dim, dim) + 3 * dim  # self 4, cross 2, audio 2; three RMS norms
    block += _linear(config.audio_dim, 2 * dim) + 6 * dim + 4 * dim
    block += _linear(dim, config.ffn_dim) + _linear(config.ffn_dim, dim)
    return block + (2 * _linear(dim, dim) + dim) * (config.has_text + config.has_image)


def context_bytes(config: DiTConfig, text_tokens: int, element_bytes: int = 2) -> int:
    """Keys and values of one avatar's text and image, held by every process."""
    keys = (text_tokens if config.has_text else 0) + config.image_tokens
    return 2 * keys * config.dim * config.num_layers * element_bytes


def audio_bytes(config: DiTConfig, shape: ChunkShape, element_bytes: int = 2) -> int:
    """The audio's keys and values of one chunk, folded where that saves work: the largest share."""
    ranges = [shape.layout(config, rank).frame_range for rank in range(shape.world)]
    keys = max(end - first for first, end in ranges) * config.audio_tokens
    per_layer = 2 * keys * config.dim
    if fold_saves(config, config.frame_tokens(shape.latent_size)):
        per_layer = keys * config.num_heads * (2 * config.dim + 1)
    return per_layer * config.num_layers * element_bytes


def activation_bytes(config: DiTConfig, shape: ChunkShape, element_bytes: int = 2) -> int:
    """The most that one block holds at a time, beside what is cached.

    The float32 residual stream before and after, a block's input, and either q, k, v with their
    copies on the way through the exchange and the output, or the feed-forward's hidden layer twice.
    """
    rows = shape.layout(config).length
    passes = 4 if shape.world == 1 else 9 if shape.ring == 1 else 13
    inner = max(passes * config.dim, 2 * config.ffn_dim) * element_bytes
    return rows * (2 * config.dim * 4 + 2 * config.dim * element_bytes + inner)


def other_bytes(config: DiTConfig, shape: ChunkShape, element_bytes: int = 2) -> int:
    """Bytes read and written between the products in one step, float32 residual stream.

    Each operator of `fused` is one pass: a norm, three gated additions to the stream with a norm
    and one without, q and k normed and turned, the query of the cross-attention normed, its two
    outputs added, the activation, the audio's softmax.
    """
    layout = shape.layout(config)
    half, full = element_bytes, 4
    branches = int(config.has_text) + int(config.has_image)
    width = (full + half) + 3 * 2 * (full + half) + (2 * full + half) + 2 * 2 * half + 2 * half
    width += 3 * half * (branches - 1)
    row = config.dim * width + 2 * half * config.ffn_dim
    if fold_saves(config, layout.frame_tokens):
        row += config.num_heads * config.audio_tokens * (2 * half + 4 * full)
    return config.num_layers * layout.length * row
