"""What one of N GPUs holds while a model trains in pieces: counted without weights or GPUs.

Parameters are those of the model on the meta device, cut as FSDP2 cuts them (rows, rounded up).
Activations are counted by what autograd keeps of one block on the meta device; scores of attention
are left out, as the kernels of a GPU never write them. Not counted: fragmentation, NCCL's buffers
and the CUDA context, about 3 GB together.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Final

import torch
from torch import Tensor, nn

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.late import LatePass
from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.sharding import ShardingPlan, empty_model

GPUS: Final = (1, 2, 4, 8, 16, 32, 64)
FULL_SIZE: Final = (96, 56)  # latents of 768x448 pixels
LATENT_FRAMES: Final = 9
_FULL, _HALF = 4, 2
# Wan's VAE in float32: 127 M parameters, and what a decode holds (engine/planner.py).
_VAE_BYTES = 127_000_000 * _FULL + 12_000 * 768 * 448


@dataclass(frozen=True, slots=True, kw_only=True)
class RankBytes:
    """Of one process: what lies there for good, and what comes and goes with a step."""

    student: int
    critic: int
    teacher: int
    gathered: int
    activations: int
    codec: int
    in_host_memory: int = 0

    @property
    def on_device(self) -> int:
        """All but what is offloaded."""
        held = self.student + self.critic + self.teacher - self.in_host_memory
        return held + self.gathered + self.activations + self.codec


def piece_elements(model: nn.Module, world: int) -> int:
    """Parameters that the first process holds of a model cut into `world` pieces."""
    return sum(
        ceil(parameter.shape[0] / world) * (parameter.numel() // parameter.shape[0])
        for parameter in model.parameters()
    )


def rank_bytes(
    config: DiTConfig, plan: ShardingPlan, world: int, *, batch: int, stage: int
) -> RankBytes:
    """Bytes of one of `world` processes in stage 1 or 2, for chunks of 33 frames at full size."""
    model = empty_model(config)
    pieces = piece_elements(model, world)
    width = _HALF if plan.bf16 else _FULL
    # Weights, gradients and two moments; the student's average besides.
    trained = pieces * _FULL * 4
    student, critic = trained + pieces * _FULL, trained if stage == 2 else 0
    block = sum(parameter.numel() for parameter in model.blocks[0].parameters())
    # This block's weights, the next one's on their way, a gradient before it is shared out.
    gathered = block * (2 * width + _FULL)
    return RankBytes(
        student=student,
        critic=critic,
        teacher=pieces * width if stage == 2 else 0,
        gathered=gathered,
        activations=activation_bytes(config, plan, batch),
        codec=_VAE_BYTES,
        in_host_memory=student + critic if plan.offload else 0,
    )


def activation_bytes(config: DiTConfig, plan: ShardingPlan, batch: int) -> int:
    """What autograd keeps for one backward pass: a block's input each and one block, or all."""
    one = kept_bytes(replace(config, num_layers=1), plan.bf16, batch)
    block = kept_bytes(replace(config, num_layers=2), plan.bf16, batch) - one
    if not plan.recompute:
        return one + (config.num_layers - 1) * block
    tokens = LATENT_FRAMES * config.frame_tokens(FULL_SIZE)
    return one + config.num_layers * batch * tokens * config.dim * _FULL


def kept_bytes(config: DiTConfig, bf16: bool, batch: int) -> int:
    """Bytes that autograd keeps of a forward pass, weights aside."""
    model = empty_model(config).to("meta")  # the tables of positions, too
    if bf16:
        model.to(torch.bfloat16)
    model.late = LatePass(recompute=False)
    weights = {id(parameter) for parameter in model.parameters()}
    kept: dict[tuple[int, ...], int] = {}

    def pack(tensor: Tensor) -> Tensor:
        scores = tensor.ndim >= 3 and tensor.shape[-2] > config.head_dim < tensor.shape[-1]
        of_attention = scores and tensor.shape[-1] not in (config.dim, config.ffn_dim)
        if id(tensor) not in weights and not of_attention:
            base = tensor._base if tensor._base is not None else tensor
            kept[(id(base),)] = base.numel() * base.element_size()
            alive.append(base)
        return tensor

    alive: list[Tensor] = []  # ids are of living tensors
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _pass(model, batch)
    return sum(kept.values())


def _pass(model: FlashTalkDiT, batch: int) -> Tensor:
    config, grid = model.config, (LATENT_FRAMES, *FULL_SIZE)
    frames = config.num_frames(LATENT_FRAMES)
    heard = (config.audio_window, config.audio_layers, config.audio_channels)
    with torch.device("meta"):
        text = torch.empty(batch, config.text_len, config.text_dim) if config.has_text else None
        image = None
        if config.has_image:
            image = torch.empty(batch, config.image_tokens, config.image_dim)
        out: Tensor = model(
            torch.empty(batch, config.latent_channels, *grid),
            torch.empty(batch),
            torch.empty(batch, config.cond_channels, *grid),
            torch.empty(batch, frames, *heard),
            text=text,
            image=image,
        )
    return out


def memory_table(config: DiTConfig, plan: ShardingPlan, *, batch: int, stage: int) -> list[str]:
    """The table as lines, in GB (1e9 bytes) for each process."""
    return list(_table(config, plan, batch, stage))


def _table(config: DiTConfig, plan: ShardingPlan, batch: int, stage: int) -> Iterator[str]:
    total = sum(parameter.numel() for parameter in empty_model(config).parameters())
    yield f"stage {stage}, {total / 1e9:.2f} B parameters, batch {batch} a process, {plan}"
    names = ("student", "critic", "teacher", "gathered", "activations", "codec", "in_host_memory")
    shown = [name for name in names if name != "critic" and name != "teacher" or stage == 2]
    yield "  ".join(f"{name.replace('_', ' '):>14}" for name in ("GPUs", *shown, "on_device"))
    for world in GPUS:
        row = rank_bytes(config, plan, world, batch=batch, stage=stage)
        cells = [getattr(row, name) for name in (*shown, "on_device")]
        yield "  ".join([f"{world:>14}", *(f"{cell / 1e9:>11.1f} GB" for cell in cells)])
