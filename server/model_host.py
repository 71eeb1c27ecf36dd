"""Loads the model on the engine thread, measures it, and opens streams with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import structlog

from visavis.engine.parallel.loss import GroupLostError
from visavis.server.avatar_preparation import AvatarPreparation, ImageLoader
from visavis.server.avatar_preparation import OnProgress as OnProgress
from visavis.server.avatar_preparation import decode_image_field as decode_image_field
from visavis.server.avatar_preparation import unwatched as unwatched
from visavis.server.avatars import AvatarStore
from visavis.server.config import ServerConfig
from visavis.server.engine_load import EngineLoad, expected_slowness
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import Features, OutputMedia, OutputOffer
from visavis.server.group import join_group
from visavis.server.group_recovery import GroupRecovery
from visavis.server.interruption import refused_work, restarting
from visavis.server.metrics import Metrics, Stopwatch
from visavis.server.order import StreamState
from visavis.server.output_choice import made_size, output_offer
from visavis.server.picture_costs import measure_engine_pictures
from visavis.server.picture_line import PictureLine, picture_threads
from visavis.server.picture_stream import PictureStream
from visavis.server.stream import EngineStream, IdleLoops
from visavis.server.worker import EngineWorker, WorkerBusyError

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import Avatar, AvatarEngine
    from visavis.engine.batching import ChunkScheduler

log = structlog.get_logger(__name__)

T = TypeVar("T")
HostState = Literal["loading", "ready", "restarting", "failed"]
EngineLoader = Callable[[ServerConfig], "AvatarEngine"]


def load_engine(config: ServerConfig) -> AvatarEngine:
    """The engine that the settings name; imports torch, so it is called on the engine thread."""
    from visavis.engine.avatar_engine import AvatarEngine

    return AvatarEngine.load(
        config.model,
        weights=config.weights,
        device=config.device,
        num_threads=config.num_threads,
        group=join_group(config),
        compiled=config.compiled,
        recorded=config.recorded,
        memory=config.memory,
    )


class ModelHost:
    """Owns the engine thread and what is on it; every public coroutine belongs to the event loop.

    `load` makes the engine from the settings, on the engine thread.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        store: AvatarStore,
        load: EngineLoader = load_engine,
        *,
        decode_image: ImageLoader,
    ) -> None:
        self.avatars = AvatarPreparation(self, store, decode_image=decode_image)
        self.worker = EngineWorker()
        self._picture_threads = picture_threads()
        self.state: HostState = "loading"
        self.realtime_factor: float | None = None
        self.load = EngineLoad(lambda: None, num_steps=config.num_steps or 1)
        self.load_error: str | None = None
        self.interruption: str | None = None
        self.failed = asyncio.Event()
        # Not set while the engine restarts: whoever waits for that waits for this.
        self.computing = asyncio.Event()
        self.computing.set()
        self._config = config
        self._metrics = metrics
        self._load = load
        self._engine: AvatarEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self.recovery = GroupRecovery(
            self, metrics, self._tell, max_restarts=config.group_max_restarts
        )
        # Whoever has sessions says how they are told that the engine restarts.
        self.on_interrupted: Callable[[bool], Awaitable[None]] | None = None

    def start(self) -> None:
        """Begin to load; returns at once."""
        self.worker.start()
        self._loading = asyncio.create_task(self._load_model())

    async def stop(self) -> None:
        """End the engine thread after the piece that it works on."""
        if self._loading is not None:
            self._loading.cancel()
        self.recovery.stop()
        await asyncio.to_thread(self.worker.stop)
        self._picture_threads.shutdown(wait=False)

    async def wait_loaded(self) -> None:
        """Wait for the model; returns also when it failed (see `state`)."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _load_model(self) -> None:
        watch = Stopwatch()
        try:
            engine = await self.worker.run(partial(self._load, self._config), deadline_s=0.0)
            await self.worker.run(engine.warm_up, deadline_s=0.0)
            pictures = await self.worker.run(
                partial(measure_engine_pictures, engine, self._config.max_output_side),
                deadline_s=0.0,
            )
        except Exception as error:
            self.gave_up(f"{type(error).__name__}: {error}")
            log.error("model failed to load", model=self._config.model, exc_info=error)
            return
        self._engine = engine
        self.realtime_factor = engine.chunk_realtime_factor
        self.load = EngineLoad(
            lambda: engine.costs,
            num_steps=self._config.num_steps or engine.num_steps,
            policy=self._config.degrade_policy,
            pictures=pictures,
            slowness=expected_slowness(engine.device.type),
        )
        await self.worker.run(self._attach, deadline_s=0.0)
        self.computes_again()
        self.recovery.watch(engine)
        self._metrics.model_load.set(watch.elapsed_s())
        self._metrics.sessions_max.set(self.max_sessions)
        log.info(
            "model ready",
            model=self._config.model,
            seconds=round(watch.elapsed_s(), 2),
            chunk_realtime_factor=self.realtime_factor,
            max_sessions=self.max_sessions,
        )

    @property
    def computes(self) -> bool:
        """Whether the engine can work now; False while it restarts.

        Raises ProtocolError `engine_failed` when it never will again.
        """
        if self.state == "failed":
            raise ProtocolError(
                ErrorCode.ENGINE_FAILED,
                "the engine has failed; open a new session elsewhere",
                retry_after_s=1.0,
            )
        return self.state != "restarting"

    def interrupted(self, why: str) -> None:
        """Processes of the engine were lost: nobody new comes until `computes_again`."""
        self.state, self.interruption = "restarting", why
        self.computing.clear()
        self._metrics.set_engine_state("restarting")

    def computes_again(self) -> None:
        """The engine is as it was."""
        self.state, self.interruption = "ready", None
        self.computing.set()
        self._metrics.set_engine_state("ready")

    def gave_up(self, why: str) -> None:
        """The engine will not come (back); the server is to end."""
        self.state, self.load_error = "failed", why
        self._metrics.set_engine_state("failed")
        self.computing.set()
        self.failed.set()

    async def _tell(self, kept: bool) -> None:
        if self.on_interrupted is not None:
            await self.on_interrupted(kept)

    def _attach(self) -> None:
        self.worker.steps = self.scheduler

    @property
    def model(self) -> str:
        """The model's name in the registry."""
        return self._config.model

    @property
    def max_sessions(self) -> int:
        """As configured, else what was measured; it may fall when the machine gets slower."""
        return self.places()

    def places(self, picture_s: float | None = None) -> int:
        """The same when those that are still to come need so much for each frame's picture."""
        return self._config.max_sessions or self.load.places(picture_s)

    @property
    def max_queued(self) -> int:
        """Sessions that may wait for a place."""
        return self._config.max_queued_sessions

    @property
    def scheduler(self) -> ChunkScheduler:
        """The engine's chunks under way. Raises as `engine`."""
        return self.engine.scheduler

    @property
    def engine(self) -> AvatarEngine:
        """The engine. Raises ProtocolError `model_loading` before it is there."""
        if self._engine is None:
            why = self.load_error or "try again in a few seconds"
            raise ProtocolError(
                ErrorCode.MODEL_LOADING, f"the model is {self.state}: {why}", retry_after_s=2.0
            )
        return self._engine

    def check_computes(self) -> None:
        """Raises ProtocolError `engine_restarting` or `engine_failed`, or as `engine`."""
        _ = self.engine
        if not self.computes:
            raise restarting(self.recovery.retry_after_s)

    async def on_engine(self, run: Callable[[], T], *, deadline_s: float) -> T:
        """Await `run` on the engine thread.

        Raises ProtocolError if the engine is lost in it, or `capacity` if too much waits for it.
        """
        self.check_computes()
        try:
            return await self.worker.run(run, deadline_s=deadline_s)
        except GroupLostError as error:
            raise restarting(self.recovery.retry_after_s) from error
        except WorkerBusyError as error:
            raise refused_work(error) from error

    @property
    def output_offer(self) -> OutputOffer:
        """Sizes and rates of pictures that sessions may have. Raises as `engine`."""
        largest = max(max(size) for size in self.engine.frame_sizes)
        side = max(self._config.max_output_side, largest)
        return output_offer(self.engine.frame_size, side)

    @property
    def features(self) -> Features:
        """What the loaded model can do. Raises as `engine`."""
        return Features(prompt=False, listening=self.engine.listens)

    async def prepare_stored(self, avatar_id: str, on_progress: OnProgress = unwatched) -> Avatar:
        """As `AvatarPreparation.stored`."""
        return await self.avatars.stored(avatar_id, on_progress)

    async def prepare_image(self, data: bytes, on_progress: OnProgress = unwatched) -> Avatar:
        """As `AvatarPreparation.image`."""
        return await self.avatars.image(data, on_progress)

    async def stored_digest(self, avatar_id: str) -> str:
        """As `AvatarPreparation.digest`."""
        return await self.avatars.digest(avatar_id)

    async def open_stream(
        self,
        avatar: Avatar,
        *,
        rate: int,
        seed: int,
        output: OutputMedia,
        state: StreamState | None = None,
    ) -> tuple[EngineStream, str]:
        """A stream for one session, going on from `state` if given, and its codec string.

        Raises ValueError for a state that does not fit.
        """
        from visavis.engine.idle import IdleLoop

        engine = self.engine

        def open_on_engine_thread() -> tuple[EngineStream, str]:
            height, width = engine.frame_size
            size = (output.height or height, output.width or width)
            session = engine.open_session(
                avatar,
                input_rate=rate,
                seed=seed,
                num_steps=self._config.num_steps,
                frame_size=made_size(size, engine.frame_sizes),
            )
            pictures = PictureStream(output, size, fps=output.fps or engine.fps)
            loops = IdleLoops(idle=IdleLoop(), listening=IdleLoop())
            stream = EngineStream(session, pictures, loops, PictureLine(self._picture_threads))
            if state is not None:
                stream.load(state, engine.device)
            return stream, pictures.codec

        return await self.on_engine(open_on_engine_thread, deadline_s=time.monotonic())
