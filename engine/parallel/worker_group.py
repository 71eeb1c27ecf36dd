"""The processes that torchrun started, as one engine: rank 0 serves, the others follow.

group = WorkerGroup.from_environment(device)
if group is None: ...                        # an ordinary process
elif group.leads: AvatarEngine.load(..., group=group)
else: group.follow()                         # returns when the leader has stopped
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from visavis.engine.codec.base import LatentCodec
from visavis.engine.dit.compilation import speed_up
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.model_parts import ModelParts
from visavis.engine.parallel.commands import LEADER, STOP, CommandChannel
from visavis.engine.parallel.following import Follower, Handler
from visavis.engine.parallel.launch import Launch, join, torchrun_launch
from visavis.engine.parallel.leading import LeadingTransformer
from visavis.engine.parallel.plan import ParallelError, SequencePlan
from visavis.engine.parallel.sequence import parallelize
from visavis.engine.registry import model_spec
from visavis.engine.runtime import choose_device
from visavis.engine.weight_memory import WeightMemory

if TYPE_CHECKING:
    from visavis.engine.codec.wan_vae import WanVAE

logger = logging.getLogger(__name__)

LOAD = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """How the group shares a chunk; None: chosen, heads before tokens (`SequencePlan.choose`).

    `compiled` and `recorded` are the switches of `engine.dit.compilation`; `memory` is how each
    process holds its weights.
    """

    ulysses_degree: int | None = None
    ring_degree: int | None = None
    compiled: bool = False
    recorded: bool = False
    memory: WeightMemory = field(default_factory=WeightMemory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What every process of the group loads. `folder` None: the leader's random numbers."""

    model: str
    folder: Path | None
    dtype: torch.dtype
    options: GroupOptions


class WorkerGroup:
    """One process's view of the group."""

    def __init__(
        self, launch: Launch, device: torch.device, options: GroupOptions | None = None
    ) -> None:
        """Join the group; every process must. Only the leader's `options` count."""
        self.launch = launch
        self.device = join(launch, device)
        self.channel = CommandChannel(self.device)
        self.options = options or GroupOptions()
        self._assignment: Assignment | None = None

    @classmethod
    def from_environment(
        cls, device: str, options: GroupOptions | None = None
    ) -> WorkerGroup | None:
        """The group of this process if torchrun started it, with others.

        Raises:
            ParallelError: a broken environment, or fewer GPUs than processes.
            DeviceError: `device` is not in this machine.
        """
        launch = torchrun_launch()
        return None if launch is None else cls(launch, choose_device(device), options)

    @property
    def leads(self) -> bool:
        """Whether this process serves; otherwise it has to `follow`."""
        return self.launch.leads

    def announce(self, model: str, folder: Path | None, dtype: torch.dtype) -> None:
        """Leader: let the followers load the same transformer, at the same time as `lead`'s."""
        self._assignment = Assignment(model=model, folder=folder, dtype=dtype, options=self.options)
        self.channel.send(LOAD, self._assignment)

    def lead(self, parts: ModelParts) -> ModelParts:
        """Leader: the parts that take the followers along, after `announce`.

        A picture's VAE is shared by tiles. Raises:
            ParallelError: the model's heads do not divide as the options say, or the picture has
                not enough rows and columns.
        """
        if self._assignment is None:
            raise ParallelError("nothing was announced, so the followers have no transformer")
        self._share(parts.dit, self._assignment)
        if model_spec(self._assignment.model).load_vae is not None:
            self._share_pictures(parts.codec)
        atexit.register(self.channel.close)
        return replace(parts, dit=LeadingTransformer(parts.dit, self.channel))

    def _share_pictures(self, codec: LatentCodec[Any]) -> None:
        from visavis.engine.codec.wan import WanCodec
        from visavis.engine.parallel.halo import PictureGrid
        from visavis.engine.parallel.halo_vae import HaloVAE
        from visavis.engine.parallel.shared_vae import LeadingVAE

        assert isinstance(codec, WanCodec)  # a spec with `load_vae` has this codec
        grid = PictureGrid.best(codec.latent_size, self.launch.world)
        codec.vae = LeadingVAE(HaloVAE(codec.vae, grid), self.channel)

    def follow(self) -> None:
        """Follower: load what the leader announces, then compute with it until it stops.

        Raises:
            WeightsError, CheckpointError, ConfigError: the weights cannot be loaded here.
        """
        command = self.channel.receive()
        if command.name == STOP:
            return
        assignment: Assignment = command.arguments[0]
        spec = model_spec(assignment.model)
        model = spec.load_dit(
            spec.dit, assignment.folder, self.device, assignment.dtype, assignment.options.memory
        )
        logger.info("follower %d has %s on %s", self.launch.rank, assignment.model, self.device)
        vae = None
        if spec.load_vae is not None:
            vae = spec.load_vae(assignment.folder, self.device, assignment.dtype)
        self._share(model, assignment)
        handlers = {} if vae is None else self._following_vae(*vae)
        Follower(model, self.channel, handlers).run()

    def _following_vae(self, vae: WanVAE, latent_size: tuple[int, int]) -> Mapping[str, Handler]:
        from visavis.engine.parallel.halo import PictureGrid
        from visavis.engine.parallel.halo_vae import HaloVAE
        from visavis.engine.parallel.shared_vae import FollowingVAE

        grid = PictureGrid.best(latent_size, self.launch.world)
        return FollowingVAE(HaloVAE(vae, grid)).handlers

    def _share(self, model: FlashTalkDiT, assignment: Assignment) -> None:
        options = assignment.options
        plan = SequencePlan.choose(
            self.launch.world,
            model.config.num_heads,
            ulysses_degree=options.ulysses_degree,
            ring_degree=options.ring_degree,
        )
        if assignment.folder is None:
            for parameter in model.parameters():
                dist.broadcast(parameter.data, LEADER)
        parallelize(model, plan)
        speed_up(model, compiled=options.compiled, recorded=options.recorded)
        logger.info(
            "rank %d of %d: ulysses %d, ring %d",
            self.launch.rank,
            self.launch.world,
            plan.ulysses_degree,
            plan.ring_degree,
        )
