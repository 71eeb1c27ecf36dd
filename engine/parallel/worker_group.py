"""Several processes as one engine: rank 0 serves, the others follow.

group = WorkerGroup.from_environment(device)  # torchrun started them, or the leader this one
group = WorkerGroup.start(4, command, device) # the leader starts the others itself
if group is None: ...                         # an ordinary process
elif group.leads: AvatarEngine.load(..., group=group)
else: group.follow()                          # returns when the leader has stopped

A group whose leader started the others can be made anew when one was lost (`restart`); the
leader's process, weights and sessions stay.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from visavis.engine.codec.base import LatentCodec
from visavis.engine.codec.wan_compilation import speed_up_vae
from visavis.engine.dit.compilation import record_steps, speed_up
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.host_copies import HostCopies
from visavis.engine.model_parts import ModelParts
from visavis.engine.parallel.commands import LEADER, STOP, CommandChannel
from visavis.engine.parallel.following import Follower, Handler
from visavis.engine.parallel.launch import Launch, abort, join, leave, torchrun_launch
from visavis.engine.parallel.leading import Followers, LeadingTransformer
from visavis.engine.parallel.loss import GroupLimits, GroupLostError, Loss
from visavis.engine.parallel.plan import ParallelError, SequencePlan
from visavis.engine.parallel.sequence import parallelize
from visavis.engine.parallel.side_channel import Lookout, Phase, Tether
from visavis.engine.parallel.spawning import FollowerProcesses, Summons
from visavis.engine.parallel.watchdog import StepWatch
from visavis.engine.parallel.watched_copies import WatchedCopies
from visavis.engine.placing import vae_format
from visavis.engine.registry import model_spec
from visavis.engine.runtime import choose_device
from visavis.engine.weight_memory import WeightMemory

if TYPE_CHECKING:
    from visavis.engine.codec.wan_vae import WanVAE
    from visavis.engine.parallel.shared_vae import LeadingVAE

logger = logging.getLogger(__name__)

LOAD = "load"
WATCHED = "watched"
LOCAL = "127.0.0.1"
# What a follower ends with when its leader is gone: no failure of its own.
LEADER_GONE = 75
STOP_WITHIN_S = 5.0


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
        self,
        launch: Launch,
        device: torch.device,
        options: GroupOptions | None = None,
        *,
        limits: GroupLimits | None = None,
        processes: FollowerProcesses | None = None,
        summons: Summons | None = None,
    ) -> None:
        """Join the group; every process must. Only the leader's `options` and `limits` count.

        `processes`: the followers that this leader starts. `summons`: what such a follower got.
        None of them: torchrun started all.

        Raises:
            ParallelError: the machine has fewer GPUs than processes.
            GroupLostError: (leader) not all followers came.
        """
        self.launch = launch
        self.device = device
        self.options = options or GroupOptions()
        self.limits = limits or (GroupLimits() if summons is None else summons.limits)
        self.restarts = 0
        self.on_loss: Callable[[Loss], object] = lambda loss: None
        self._processes = processes
        self._assignment: Assignment | None = None
        self._leading: LeadingTransformer | None = None
        self._pictures: LeadingVAE | None = None
        self._keepers: list[Followers] = []
        self._watch = StepWatch(self.limits.step_s)
        self._lookout: Lookout | None = None
        self._tether: Tether | None = None
        if summons is not None:
            self._answer(summons)
        elif processes is not None:
            self._gather()
        else:
            self.device = join(launch, device)
            self.channel = CommandChannel(self.device)
            self._be_watched()

    @classmethod
    def from_environment(
        cls,
        device: str,
        options: GroupOptions | None = None,
        limits: GroupLimits | None = None,
    ) -> WorkerGroup | None:
        """The group that torchrun, or a leader, started this process for; None if nobody did.

        Raises:
            ParallelError: a broken environment, or fewer GPUs than processes.
            DeviceError: `device` is not in this machine.
        """
        summons = Summons.of_this_process()
        if summons is not None:
            launch = Launch(rank=summons.rank, world=summons.world, local_rank=summons.rank)
            return cls(launch, choose_device(device), options, summons=summons)
        torchrun = torchrun_launch()
        if torchrun is None:
            return None
        return cls(torchrun, choose_device(device), options, limits=limits)

    @classmethod
    def start(
        cls,
        world: int,
        processes: FollowerProcesses,
        device: str,
        options: GroupOptions | None = None,
        limits: GroupLimits | None = None,
    ) -> WorkerGroup:
        """Lead `world` processes of this machine, the others started here.

        Raises:
            ParallelError: fewer than two processes, or fewer GPUs than processes.
            DeviceError: `device` is not in this machine.
            GroupLostError: not all followers came.
        """
        if world < 2:
            raise ParallelError(f"processes={world}: a group has at least 2; leave it out for one")
        launch = Launch(rank=0, world=world, local_rank=0)
        return cls(launch, choose_device(device), options, limits=limits, processes=processes)

    @property
    def leads(self) -> bool:
        """Whether this process serves; otherwise it has to `follow`."""
        return self.launch.leads

    @property
    def restartable(self) -> bool:
        """Whether `restart` can be called: this process started the others."""
        return self._processes is not None

    @property
    def alive(self) -> int:
        """Leader: processes that are heard of, this one included."""
        return 1 if self._lookout is None or self._lookout.loss else self._lookout.alive

    @property
    def pids(self) -> dict[int, int]:
        """Leader: its followers' processes by rank, if it started them."""
        return {} if self._processes is None else self._processes.pids

    @property
    def loss(self) -> Loss | None:
        """Leader: why the group cannot compute now."""
        return None if self._lookout is None else self._lookout.loss

    def announce(self, model: str, folder: Path | None, dtype: torch.dtype) -> None:
        """Leader: let the followers load the same transformer, at the same time as `lead`'s."""
        self._assignment = Assignment(model=model, folder=folder, dtype=dtype, options=self.options)
        with self._all_or_none():
            self.channel.send(LOAD, self._assignment)

    def lead(self, parts: ModelParts) -> ModelParts:
        """Leader: the parts that take the followers along, after `announce`.

        A picture's VAE is shared by tiles. Raises:
            ParallelError: the model's heads do not divide as the options say, or the picture has
                not enough rows and columns.
            GroupLostError: a follower could not load, or not in time.
        """
        if self._assignment is None:
            raise ParallelError("nothing was announced, so the followers have no transformer")
        self._wait_for("loaded", self.limits.start_s)
        with self._all_or_none():
            self._share(parts.dit, self._assignment)
        if model_spec(self._assignment.model).load_vae is not None:
            with self._all_or_none():
                self._share_pictures(parts.codec)
        self._leading = LeadingTransformer(parts.dit, self.channel)
        self._keepers.append(self._leading.followers)
        atexit.register(self.close)
        return replace(parts, dit=self._leading)

    def restart(self) -> None:
        """Leader: other followers in place of those that were lost; all it has told them to keep
        for a session they get again. On the engine's thread; what was under way is lost.

        Raises:
            GroupLostError: it did not come to that; another try is possible.
            ParallelError: torchrun started the others, and starts all of them anew.
        """
        if self._processes is None or self._assignment is None or self._leading is None:
            raise ParallelError("this process did not start the others; restart all of them")
        self._part()
        self._watch.forget()
        self._gather()
        with self._all_or_none():
            self.channel.send(LOAD, self._assignment)
        self._wait_for("loaded", self.limits.start_s)
        with self._all_or_none():
            self._share(self._leading, self._assignment, anew=True)
            if self._pictures is not None:
                self._pictures.rejoin(dist.new_group())
        for keeper in self._keepers:
            keeper.recall()
        self.restarts += 1

    def close(self) -> None:
        """Leader: let the followers end, or see to it. Safe to call twice."""
        if self._lookout is None or not self.leads:
            self.channel.close()
            return
        # First the watch: followers that end now are no loss.
        lost = self._lookout.loss is not None
        self._lookout.close()
        if not lost:
            try:
                self.channel.close()
            except RuntimeError as error:
                logger.warning("followers could not be told to stop: %s", error)
        if self._processes is not None:
            self._processes.wait(STOP_WITHIN_S)

    def cancel(self) -> None:
        """Leader, on any thread: whoever waits for followers is to give up."""
        if self._lookout is not None:
            self._lookout.report(Loss("died", 0, "the leader stops"))

    def watched(self, copies: HostCopies) -> HostCopies:
        """Leader: the same copies to host memory, each of which raises GroupLostError in the end
        if what the group made does not count."""
        return WatchedCopies(copies, self.channel)

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
            dtype = vae_format(assignment.options.memory, assignment.dtype)
            vae = spec.load_vae(assignment.folder, self.device, dtype)
            speed_up_vae(vae[0], compiled=assignment.options.compiled)
        if self._tether is not None:
            self._tether.reached("loaded")
        self._share(model, assignment)
        recorded = assignment.options.recorded
        handlers = {} if vae is None else self._following_vae(*vae, recorded=recorded)
        Follower(model, self.channel, handlers).run()
        if self._tether is not None:
            self._tether.close()

    # Coming together

    def _gather(self) -> None:
        """Leader: start followers, and join them once all are there."""
        assert self._processes is not None
        token = secrets.token_hex(16)
        self._lookout = lookout = self._look_out(token, LOCAL)
        store = TCPStore(LOCAL, 0, self.launch.world, is_master=True, wait_for_workers=False)
        self._processes.start(
            [
                Summons(
                    rank=rank,
                    world=self.launch.world,
                    store_port=store.port,
                    lookout_port=lookout.port,
                    token=token,
                    limits=self.limits,
                )
                for rank in range(1, self.launch.world)
            ]
        )
        self._wait_for("started", self.limits.start_s)
        with self._all_or_none():
            self.device = join(self.launch, self.device, store)
            self._attach()

    def _attach(self) -> None:
        if self.restartable and hasattr(self, "channel"):
            self.channel.open()
        else:
            self.channel = CommandChannel(self.device)
        self.channel.watch, self.channel.lookout = self._watch, self._lookout
        self.channel.tether = self._tether

    def _answer(self, summons: Summons) -> None:
        """Follower: report to the leader that started this process, then join."""
        self._tether = self._tie((LOCAL, summons.lookout_port), summons.token)
        store = TCPStore(LOCAL, summons.store_port, summons.world, is_master=False)
        self.device = join(self.launch, self.device, store)
        self._attach()
        self._tether.reached("joined")

    def _be_watched(self) -> None:
        """Under torchrun: the same watch, whose place the leader tells once all have joined."""
        if self.leads:
            token, host = secrets.token_hex(16), os.environ.get("MASTER_ADDR", LOCAL)
            self._lookout = self._look_out(token, LOCAL if host in (LOCAL, "localhost") else "")
            self.channel.send(WATCHED, host, self._lookout.port, token, self.limits)
        else:
            host, port, token, self.limits = self.channel.receive().arguments
            self._tether = self._tie((host, port), token)
            self._tether.reached("joined")
        self.channel.watch, self.channel.lookout = self._watch, self._lookout
        self.channel.tether = self._tether
        self._wait_for("joined", self.limits.start_s)

    def _look_out(self, token: str, host: str) -> Lookout:
        dead = (lambda: None) if self._processes is None else self._processes.dead
        return Lookout(
            self.launch.world,
            self.limits,
            self._watch,
            token=token,
            on_loss=self._lost,
            dead=dead,
            host=host,
        )

    def _tie(self, address: tuple[str, int], token: str) -> Tether:
        return Tether(
            address,
            self.limits,
            rank=self.launch.rank,
            token=token,
            on_leader_gone=self._leader_gone,
            pid=os.getpid(),
        )

    # Coming apart

    def _lost(self, loss: Loss) -> None:
        """On the lookout's thread: tell, then free whoever waits for a process that is gone."""
        self.on_loss(loss)
        if self._lookout is not None:
            self._lookout.dismiss()
        if self._processes is not None:
            self._processes.kill()
        try:
            abort(self.device)
        except RuntimeError as error:
            logger.warning("collectives could not be aborted: %s", error)

    def _leader_gone(self, why: str) -> None:
        """On the tether's thread: this process may be stuck in a collective, so it just ends."""
        logger.error("rank %d ends without its leader: %s", self.launch.rank, why)
        logging.shutdown()
        os._exit(LEADER_GONE)

    def _part(self) -> None:
        assert self._lookout is not None
        assert self._processes is not None
        self._lookout.close(kill=True)
        self._processes.kill()
        leave(self.device)

    def _wait_for(self, phase: Phase, timeout_s: float) -> None:
        if self._lookout is not None:
            self._lookout.wait_for(phase, timeout_s)

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """What fails in the block has left the group in pieces, unless the arguments are wrong."""
        try:
            yield
        except (GroupLostError, ValueError):
            raise
        except RuntimeError as error:
            if self._lookout is None:
                raise
            raise GroupLostError(self._lookout.blame(error, "joining")) from error

    # Sharing the work

    def _share_pictures(self, codec: LatentCodec[Any]) -> None:
        from visavis.engine.codec.wan import WanCodec
        from visavis.engine.parallel.halo import PictureGrid
        from visavis.engine.parallel.halo_vae import HaloVAE
        from visavis.engine.parallel.shared_vae import LeadingVAE

        assert isinstance(codec, WanCodec)  # a spec with `load_vae` has this codec
        grid = PictureGrid.best(codec.latent_size, self.launch.world)
        # A group of its own, so that its messages need not keep the order of the transformer's.
        shared = HaloVAE(codec.vae, grid, dist.new_group(), root=LEADER)
        codec.vae = self._pictures = LeadingVAE(shared, self.channel)

    def _following_vae(
        self, vae: WanVAE, latent_size: tuple[int, int], *, recorded: bool
    ) -> Mapping[str, Handler]:
        from visavis.engine.parallel.halo import PictureGrid
        from visavis.engine.parallel.halo_vae import HaloVAE
        from visavis.engine.parallel.shared_vae import FollowingVAE

        grid = PictureGrid.best(latent_size, self.launch.world)
        shared = HaloVAE(vae, grid, dist.new_group(), root=LEADER)
        speed_up_vae(shared, recorded=recorded)
        return FollowingVAE(shared).handlers

    def _share(self, model: FlashTalkDiT, assignment: Assignment, *, anew: bool = False) -> None:
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
        if not anew:
            speed_up(model, compiled=options.compiled, recorded=options.recorded)
        elif options.recorded and self.device.type == "cuda":
            # The old recordings hold collectives of processes that are gone.
            record_steps(model)
        logger.info(
            "rank %d of %d: ulysses %d, ring %d",
            self.launch.rank,
            self.launch.world,
            plan.ulysses_degree,
            plan.ring_degree,
        )
