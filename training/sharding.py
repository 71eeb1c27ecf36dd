"""Models in pieces: every process holds a part of each parameter (FSDP2) and gathers a block's
weights for its turn.

The trainers are those of the embedded model; they are given these `Workers` instead. On GPUs the
pieces travel by NCCL, on CPUs by gloo.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.late import LatePass
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.tensor_files import CheckpointError
from visavis.training.parallel import Model, RunParts, Workers
from visavis.training.recipes import MODELS

SHARDED: Final = "checkpoint"  # folder of the newest whole checkpoint in a run's folder
_OLD, _NEW = f"{SHARDED}.old", f"{SHARDED}.new"
_PLAIN = "run.json"
ReadWeight = Callable[[str], Tensor]
"""Our name of a parameter -> the whole tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingPlan:
    """How models lie in pieces.

    bf16: gathered weights and activations in bfloat16; pieces of trained models, their gradients
    and averages stay float32, frozen models are kept in bfloat16.
    recompute: of a block only its input is kept for the gradient (activation checkpointing).
    offload: pieces wait in host memory, optimisers step there. Slow, and a few cards are enough.
    """

    bf16: bool = True
    recompute: bool = True
    offload: bool = False


class ShardedWorkers(Workers):
    """Processes that share every parameter, its gradient, its average and its optimiser's state."""

    def __init__(self, plan: ShardingPlan | None = None) -> None:
        super().__init__()
        self.plan = plan or ShardingPlan()
        self._mesh: DeviceMesh | None = None

    def __enter__(self) -> "ShardedWorkers":
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.count > 1:
            dist.init_process_group(self.backend)
        else:
            dist.init_process_group(self.backend, store=HashStore(), rank=0, world_size=1)
        return self

    @property
    def mesh(self) -> DeviceMesh:
        """All processes in a row."""
        if self._mesh is None:
            self._mesh = init_device_mesh(self.device.type, (self.count,))
        return self._mesh

    @property
    def backend(self) -> str:
        """Offloaded gradients have their norm taken on the CPU."""
        return "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"

    @property
    def device(self) -> torch.device:
        """The process's own GPU, where there are GPUs."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    def autocast(self, enabled: bool) -> AbstractContextManager[object]:
        """Nothing: gathered weights have their precision from the plan."""
        return nullcontext()

    def place(self, model: Model, *, trained: bool = True) -> Model:
        """Cut a transformer in pieces, block by block; one that is, is left alone.

        A model on the meta device stays there, see `build`.

        Raises:
            TypeError: it is no transformer.
        """
        if isinstance(model, FSDPModule):
            return model
        if not isinstance(model, FlashTalkDiT):
            raise TypeError(f"{type(model).__name__}: only the transformer can be sharded")
        if self.plan.bf16 and not trained:
            model.to(torch.bfloat16)
        model.late = LatePass(recompute=self.plan.recompute and trained)
        gathered = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if self.plan.bf16 else None,
            reduce_dtype=torch.float32,
            # Noise levels are float32 numbers that bfloat16 cannot tell apart; layers cast.
            cast_forward_inputs=False,
        )
        exact = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        offload = CPUOffloadPolicy() if self.plan.offload and trained else OffloadPolicy()

        def shard(module: nn.Module, policy: MixedPrecisionPolicy) -> None:
            fully_shard(module, mesh=self.mesh, mp_policy=policy, offload_policy=offload)

        for block in model.blocks:
            shard(block, gathered)
            register_fsdp_forward_method(block, "whole")
        shard(model.time_embedding, exact)
        shard(model.head, exact)
        register_fsdp_forward_method(model.head, "steer")
        shard(model, gathered)
        return model

    def average_gradients(self, model: nn.Module, clock: float = 0.0) -> float:
        """Gradients are means already, each process has its piece; the clock is averaged."""
        return self.average({"clock": clock})["clock"]

    def clip(self, model: nn.Module, limit: float) -> float:
        """Scale gradients down to a norm, taken over all pieces, of at most `limit`."""
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def has_checkpoint(self, folder: Path) -> bool:
        """Whether there is a whole one, the one before the last included."""
        return newest_checkpoint(folder) is not None

    def save(self, folder: Path, parts: RunParts) -> None:
        """Every process writes its pieces; the old checkpoint goes when the new one is whole."""
        new, old, present = folder / _NEW, folder / _OLD, folder / SHARDED
        if self.leads:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        dist.barrier()
        save(_pieces(parts), checkpoint_id=new)
        if self.leads:
            (new / _PLAIN).write_text(json.dumps(dict(parts.plain)) + "\n", encoding="utf-8")
            shutil.rmtree(old, ignore_errors=True)
            if present.exists():
                present.rename(old)
            new.rename(present)
            shutil.rmtree(old, ignore_errors=True)
        dist.barrier()

    def read_plain(self, folder: Path) -> dict[str, Any]:
        """A checkpoint's plain values, nothing filled.

        Raises:
            FileNotFoundError: there is none.
        """
        plain: dict[str, Any] = json.loads((_newest(folder) / _PLAIN).read_text(encoding="utf-8"))
        return plain

    def load(self, folder: Path, parts: RunParts) -> dict[str, Any]:
        """Fill the pieces from a checkpoint, written by any number of processes.

        Raises:
            FileNotFoundError: there is none.
        """
        path = _newest(folder)
        state = _pieces(parts)
        load(state, checkpoint_id=path)
        for name, model in parts.models.items():
            set_model_state_dict(model, state[name])
        for name, average in parts.averages.items():
            average.load_state_dict(state[name])
        for name, (model_name, optimizer) in parts.optimizers.items():
            set_optimizer_state_dict(
                parts.models[model_name], optimizer, optim_state_dict=state[name]
            )
        return self.read_plain(folder)

    def build(
        self, config: DiTConfig, source: ReadWeight | Path, *, trained: bool = True
    ) -> FlashTalkDiT:
        """A model in pieces that was never whole.

        `source` gives one whole parameter at a time, of which each process keeps its piece; or is
        the folder of a sharded run, from whose averages each reads its piece alone.

        Raises:
            CheckpointError: a tensor of another shape.
            FileNotFoundError: the run has no checkpoint.
        """
        model = self.place(empty_model(config), trained=trained)
        offloaded = self.plan.offload and trained
        model.to_empty(device=torch.device("cpu") if offloaded else self.device)
        model.rope.reset(self.device)
        if isinstance(source, Path):
            load({"ema": dict(model.named_parameters())}, checkpoint_id=_newest(source))
        else:
            for name, parameter in model.named_parameters():
                fill(name, parameter, source(name))
        return model if trained else model.eval().requires_grad_(False)


def empty_model(config: DiTConfig) -> FlashTalkDiT:
    """Sizes without weights."""
    with torch.device("meta"):
        return FlashTalkDiT(config, attention_impl="sdpa" if torch.cuda.is_available() else "plain")


@torch.no_grad()
def fill(name: str, parameter: Tensor, whole: Tensor) -> None:
    """Copy this process's piece out of a parameter that everyone reads whole.

    Raises:
        CheckpointError: they differ in shape.
    """
    if whole.shape != parameter.shape:
        raise CheckpointError(
            f"{name} has shape {tuple(whole.shape)}, the model needs {tuple(parameter.shape)}; "
            "check the recipe's model"
        )
    whole = whole.to(parameter.dtype)
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        local = parameter.to_local()
        whole = whole.to(mesh.device_type)
        # Nothing is sent: each process cuts its piece out of its own copy.
        piece = distribute_tensor(whole, mesh, placements, src_data_rank=None).to_local()
        local.copy_(piece)
    else:
        parameter.copy_(whole)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole sharded checkpoint of a run; None: it has none."""
    paths = (folder / SHARDED, folder / _OLD)
    return next((path for path in paths if (path / _PLAIN).exists()), None)


def read_averages(folder: Path, config: DiTConfig) -> dict[str, Tensor]:
    """Averaged weights of a sharded run, whole, by parameter name; needs no other process.

    Raises:
        FileNotFoundError: the run has no checkpoint yet.
    """
    model = empty_model(config)
    averages = {
        name: torch.empty(parameter.shape, dtype=torch.float32)
        for name, parameter in model.named_parameters()
    }
    load({"ema": averages}, checkpoint_id=_newest(folder), no_dist=True)
    return averages


def sharded_average(folder: Path, config: DiTConfig | None = None) -> FlashTalkDiT:
    """The averaged weights of a sharded run, in a model of this process's own.

    `config` None: that of the recipe's model.

    Raises:
        FileNotFoundError: the run has no checkpoint yet.
    """
    if config is None:
        plain = json.loads((_newest(folder) / _PLAIN).read_text(encoding="utf-8"))
        config = MODELS[plain["recipe"]["model"]]
    model = empty_model(config)
    model.load_state_dict(read_averages(folder, config), assign=True)
    model.rope.reset("cpu")
    return model.eval().requires_grad_(False)


def _newest(folder: Path) -> Path:
    path = newest_checkpoint(folder)
    if path is None:
        raise FileNotFoundError(f"{folder}: no sharded checkpoint; train a while longer")
    return path


def _pieces(parts: RunParts) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, model in parts.models.items():
        state[name] = get_model_state_dict(model)
    for name, average in parts.averages.items():
        state[name] = average.state_dict()
    for name, (model_name, optimizer) in parts.optimizers.items():
        state[name] = get_optimizer_state_dict(parts.models[model_name], optimizer)
    return state
