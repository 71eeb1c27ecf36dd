"""What other ways of holding the weights cost: bytes, products in eight bits, bytes on the way.

`tests/unit/engine/test_weight_costs.py` holds these formulas against torchao's tensors and against
`BlockOffload`. Letters: D model width, F feed-forward width.
"""

from __future__ import annotations

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.costs import ChunkShape, block_parameters, parameters
from visavis.engine.offload import BlockOffload
from visavis.engine.weight_memory import Precision

_SCALE_BYTES = 4  # of an output channel, float32; int8 has a zero point besides


def rounded_weights(config: DiTConfig) -> int:
    """Weights of all blocks that `engine.quantize` rounds: self-attention 4 D D, cross-attention
    2 D D and 2 more for text and for image, feed-forward 2 D F."""
    return config.num_layers * (
        _square_layers(config) * config.dim**2 + 2 * config.dim * config.ffn_dim
    )


def _square_layers(config: DiTConfig) -> int:
    return 4 + 2 + 2 * (config.has_text + config.has_image)


def quantized_bytes(config: DiTConfig, precision: Precision, element_bytes: int = 2) -> int:
    """Bytes of the transformer's weights once quantised, scales included."""
    channels = _square_layers(config) * config.dim + config.ffn_dim + config.dim
    scale = _SCALE_BYTES + (1 if precision.startswith("int8") else 0)
    saved = rounded_weights(config) * (element_bytes - 1)
    return parameters(config) * element_bytes - saved + config.num_layers * channels * scale


def block_bytes(config: DiTConfig, element_bytes: int = 2) -> int:
    """Bytes of one block on its way from the host, less some padding."""
    return block_parameters(config) * element_bytes


def offloaded_bytes(config: DiTConfig, offload: int, element_bytes: int = 2) -> int:
    """Bytes of the weights on the device while `offload` blocks wait in host memory."""
    away = max(0, offload - BlockOffload.PLACES)
    return parameters(config) * element_bytes - away * block_bytes(config, element_bytes)


def rounded_products(config: DiTConfig, shape: ChunkShape, *, rank: int = 0) -> int:
    """FLOPs of a step that `-dynamic` precisions do in eight bits; part of `ProcessCost.products`.

    The keys and values of text and image are made once an avatar, not in a step.
    """
    layout = shape.layout(config, rank)
    dim, forward = config.dim, 2 * config.dim * config.ffn_dim
    skipped = shape.motion_slots * layout.frame_tokens if shape.world == 1 else 0
    products = config.num_layers * layout.length * (6 * dim**2 + forward)
    return 2 * (products - skipped * (4 * dim**2 + forward))


def rounding_bytes(config: DiTConfig, shape: ChunkShape, precision: Precision) -> int:
    """Bytes read and written in a step because weights are rounded.

    Weights alone: each is read in eight bits and written as bfloat16 before its product. `-dynamic`
    rounds the inputs of every product instead: read as bfloat16, written in eight bits.
    """
    if not precision.endswith("-dynamic"):
        per_block = 6 * config.dim**2 + 2 * config.dim * config.ffn_dim
        return config.num_layers * per_block * 3
    inputs = (6 + 1) * config.dim + config.ffn_dim
    return config.num_layers * shape.layout(config).length * inputs * 3


def transfer_wait_s(
    *, blocks: int, offload: int, compute_s: float, copy_s: float, once_compute_s: float = 0.0
) -> tuple[float, float]:
    """Seconds that computing waits for weights: in one step, and once a chunk for its audio.

    The copy of a block starts as the one before it starts to compute, and needs `copy_s`; a block
    computes for `compute_s` in a step and for `once_compute_s` while the audio's keys and values
    are made. The first offloaded block's copy has all resident blocks' time to hide behind.
    """
    if offload <= BlockOffload.PLACES:
        return 0.0, 0.0  # they stay where they are
    resident = blocks - offload

    def waited(own_s: float) -> float:
        first = max(0.0, copy_s - (resident + 1) * own_s)
        return first + (offload - 1) * max(0.0, copy_s - own_s)

    return waited(compute_s), waited(once_compute_s)
