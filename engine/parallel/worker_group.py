"""The processes that torchrun started, as one engine: rank 0 serves, the others follow.

group = WorkerGroup.from_environment(device)
if group is None: ...                        # an ordinary process
elif group.leads: AvatarEngine.load(..., group=group)
else: group.follow()                         # returns when the leader has stopped
"""

from __future__ import annotations

import atexit
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from visavis.engine.dit.compilation import speed_up
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.parallel.commands import LEADER, STOP, CommandChannel
from visavis.engine.parallel.following import Follower
from visavis.engine.parallel.launch import Launch, join, torchrun_launch
from visavis.engine.parallel.leading import LeadingTransformer
from visavis.engine.parallel.plan import ParallelError, SequencePlan
from visavis.engine.parallel.sequence import parallelize
from visavis.engine.registry import model_spec
from visavis.engine.runtime import choose_device

logger = logging.getLogger(__name__)

LOAD = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """How the group shares a chunk; None: chosen, heads before tokens (`SequencePlan.choose`).

    `compiled` and `recorded` are the switches of `engine.dit.compilation`.
    """

    ulysses_degree: int | None = None
    ring_degree: int | None = None
    compiled: bool = False
    recorded: bool = False


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
        self._options = options or GroupOptions()
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
        self._assignment = Assignment(
            model=model, folder=folder, dtype=dtype, options=self._options
        )
        self.channel.send(LOAD, self._assignment)

    def lead(self, model: FlashTalkDiT) -> LeadingTransformer:
        """Leader: the transformer that takes the followers along, after `announce`.

        Raises:
            ParallelError: the model's heads do not divide as the options say.
        """
        if self._assignment is None:
            raise ParallelError("nothing was announced, so the followers have no transformer")
        self._share(model, self._assignment)
        atexit.register(self.channel.close)
        return LeadingTransformer(model, self.channel)

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
        model = spec.load_dit(spec.dit, assignment.folder, self.device, assignment.dtype)
        logger.info("follower %d has %s on %s", self.launch.rank, assignment.model, self.device)
        self._share(model, assignment)
        Follower(model, self.channel).run()

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
