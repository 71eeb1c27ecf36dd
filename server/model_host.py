"""Loads the model on the engine thread, measures it, and prepares avatars and streams with it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from visavis.engine.parallel.loss import GroupLostError
from visavis.server.avatars import AvatarStore, StoredAvatar
from visavis.server.config import ServerConfig
from visavis.server.engine_load import EngineLoad, expected_slowness
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.events import Features, OutputMedia, OutputOffer
from visavis.server.group import join_group
from visavis.server.group_recovery import GroupRecovery
from visavis.server.interruption import restarting
from visavis.server.metrics import Metrics, Stopwatch
from visavis.server.order import StreamState
from visavis.server.output_choice import made_size, output_offer
from visavis.server.picture_costs import measure_engine_pictures
from visavis.server.picture_line import PictureLine, picture_threads
from visavis.server.picture_stream import PictureStream
from visavis.server.stream import EngineStream, IdleLoops
from visavis.server.worker import EngineWorker

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import Avatar, AvatarEngine
    from visavis.engine.batching import ChunkScheduler

log = structlog.get_logger(__name__)

T = TypeVar("T")
HostState = Literal["loading", "ready", "restarting", "failed"]
EngineLoader = Callable[[ServerConfig], "AvatarEngine"]
# Encoded bytes to uint8 RGB [H, W, 3].
ImageLoader = Callable[[bytes], Awaitable[NDArray[np.uint8]]]
OnProgress = Callable[[float], None]
MAX_PREPARED = 16
# An avatar may take so long before it is more urgent than frames that are due now.
PREPARE_WITHIN_S = 0.5
# Of an avatar's preparation, told once its picture was decoded.
DECODED_SHARE = 0.25


def unwatched(share: float) -> None:
    """Nobody wants to know how far it is."""


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
        self._decode_image = decode_image
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
        self._store = store
        self._load = load
        self._engine: AvatarEngine | None = None
        self._prepared: OrderedDict[str, Avatar] = OrderedDict()
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

    async def _on_engine(self, run: Callable[[], T], *, deadline_s: float) -> T:
        """Await `run` on the engine thread. Raises ProtocolError if the engine is lost in it."""
        self.check_computes()
        try:
            return await self.worker.run(run, deadline_s=deadline_s)
        except GroupLostError as error:
            raise restarting(self.recovery.retry_after_s) from error

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
        """The prepared avatar of a stored one; `on_progress` as for `prepare_image`.

        Raises ProtocolError when there is none.
        """
        stored = await asyncio.to_thread(self._store.get, avatar_id)
        cached = self._prepared.get(avatar_id)
        if cached is not None:
            self._prepared.move_to_end(avatar_id)
            return cached
        data = await asyncio.to_thread(stored.source.read_bytes)
        avatar = await self.prepare_image(data, on_progress)
        self._remember(avatar_id, avatar)
        return avatar

    async def prepare_image(self, data: bytes, on_progress: OnProgress = unwatched) -> Avatar:
        """Decode an encoded picture and find its face; `on_progress` is told what share of that
        is done, after each step of it.

        Raises ProtocolError `invalid_image`.
        """
        avatar, _ = await self._prepare(data, on_progress)
        return avatar

    async def _prepare(
        self, data: bytes, on_progress: OnProgress = unwatched
    ) -> tuple[Avatar, NDArray[np.uint8]]:
        engine, loop = self.engine, asyncio.get_running_loop()

        def on_step(share: float) -> None:
            told = DECODED_SHARE + (1 - DECODED_SHARE) * share
            loop.call_soon_threadsafe(on_progress, told)

        try:
            pixels = await self._decode_image(data)
            on_progress(DECODED_SHARE)
            avatar = await self._on_engine(
                partial(engine.prepare_avatar, pixels, on_step=on_step),
                deadline_s=time.monotonic() + PREPARE_WITHIN_S,
            )
        except ValueError as error:
            raise ProtocolError(
                ErrorCode.INVALID_IMAGE, str(error), param="session.image"
            ) from error
        return avatar, pixels

    async def upload(
        self,
        name: str,
        data: bytes,
        *,
        owner: str | None = None,
        share: int | None = None,
        consent: bool | None = None,
    ) -> StoredAvatar:
        """Store a picture as an avatar. Raises ProtocolError `invalid_image`, or as
        AvatarStore.add."""
        await asyncio.to_thread(self._store.check_room, owner, share)
        avatar, pixels = await self._prepare(data)
        stored = await asyncio.to_thread(
            self._store.add,
            name,
            pixels,
            avatar.portrait.image,
            tuple(avatar.warnings),
            owner=owner,
            share=share,
            consent=consent,
        )
        self._remember(stored.meta.id, avatar)
        return stored

    async def delete(self, avatar_id: str) -> None:
        """Delete an upload; sessions that show it go on. Raises ProtocolError."""
        await asyncio.to_thread(self._store.delete, avatar_id)
        self._prepared.pop(avatar_id, None)

    def _remember(self, avatar_id: str, avatar: Avatar) -> None:
        self._prepared[avatar_id] = avatar
        while len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)

    async def stored_digest(self, avatar_id: str) -> str:
        """Of a stored avatar's picture, so that it is the same elsewhere. Raises ProtocolError."""

        def digest() -> str:
            return hashlib.sha256(self._store.get(avatar_id).source.read_bytes()).hexdigest()

        return await asyncio.to_thread(digest)

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

        return await self._on_engine(open_on_engine_thread, deadline_s=time.monotonic())


def decode_image_field(text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 picture, with or without a `data:` prefix.

    Raises ProtocolError `invalid_image`. Addresses are never fetched.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_IMAGE,
            "image is not valid base64; send the bytes of a JPEG, PNG or WebP file as base64",
            param="session.image",
        ) from error
    if len(data) > max_bytes:
        raise ProtocolError(
            ErrorCode.INVALID_IMAGE,
            f"image has {len(data):,} bytes, more than {max_bytes:,}; upload a smaller one",
            param="session.image",
        )
    return data
