"""One connection: a receive loop, a paced send loop, and the producer between them."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import time
import uuid
from collections.abc import Coroutine
from importlib.metadata import version
from typing import Any

import structlog
from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import FPS, Conversation, stamp_source
from visavis.server.deadlines import Deadlines
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost, decode_image_field
from visavis.server.negotiation import SessionSetup, changed_setup, effective, first_setup
from visavis.server.outbound import Outbound
from visavis.server.pacing import Pacer
from visavis.server.producer import Producer
from visavis.server.protocol import Kind, check_pcm16, decode_frame
from visavis.server.worker import WorkerBusyError

log = structlog.get_logger(__name__)
# Errors that a client may cause before it is taken for broken.
MAX_CLIENT_ERRORS = 20
CHUNK_FRAMES = 28


class RealtimeSession:
    """Runs one accepted WebSocket until it ends; see `run`."""

    def __init__(
        self,
        socket: WebSocket,
        *,
        host: ModelHost,
        admission: Admission,
        config: ServerConfig,
        metrics: Metrics,
    ) -> None:
        self.id = f"sess_{uuid.uuid4().hex[:20]}"
        self._socket = socket
        self._host = host
        self._admission = admission
        self._config = config
        self._metrics = metrics
        self._out = Outbound(socket, config, metrics, admission)
        self._deadlines = Deadlines(config, time.monotonic())
        self._setup: SessionSetup | None = None
        self._conversation: Conversation | None = None
        self._producer: Producer | None = None
        self._producing: asyncio.Task[None] | None = None
        self._client_errors = 0

    async def run(self) -> str:
        """Serve the socket, which is accepted and has a place; returns why it ended."""
        self._out.post(self._created())
        receiving = asyncio.create_task(self._guard(self._receive()))
        sending = asyncio.create_task(self._out.run(self._housekeep))
        try:
            await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
            if self._out.closing and not sending.done():
                # The reason to close is still on its way out.
                await sending
        finally:
            await self._end(receiving, sending)
        return self._out.end_reason

    async def _end(self, *tasks: asyncio.Task[None]) -> None:
        if self._conversation is not None:
            self._conversation.close("cancelled", "disconnected")
        every = [task for task in (*tasks, self._producing) if task is not None]
        for task in every:
            task.cancel()
        results = await asyncio.gather(*every, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log.error("session task failed", exc_info=result)
        if self._producer is not None:
            # A stopped engine thread has nothing left to free.
            with contextlib.suppress(WorkerBusyError, asyncio.CancelledError):
                await self._producer.close()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Turn whatever fails into an error on the wire and the end of this session alone."""
        try:
            await work
        except ProtocolError as error:
            self._fail(error)
        except Exception as error:
            log.error("session failed", exc_info=error)
            self._fail(
                ProtocolError(
                    ErrorCode.ENGINE_FAILED,
                    "the session failed inside the server; open a new one",
                    retry_after_s=1.0,
                )
            )

    def drain(self, deadline_s: float) -> None:
        """The server stops: finish what is being said, within `deadline_s` seconds."""
        self._deadlines.drain(time.monotonic() + deadline_s)
        self._out.post(ev.SessionExpiring(reason="server_draining", deadline_s=deadline_s))

    # Receiving

    async def _receive(self) -> None:
        while not self._out.closing:
            message = await self._next_message()
            if message["type"] == "websocket.disconnect":
                self._out.end_reason = "client_left"
                return
            event_id: str | None = None
            try:
                text, data = message.get("text"), message.get("bytes")
                self._check_size(text if text is not None else data or b"")
                if text is not None:
                    event = ev.decode_client_event(text)
                    if event is not None:
                        event_id = event.event_id
                        await self._on_event(event)
                elif data is not None:
                    self._on_binary(data)
            except ProtocolError as error:
                error.event_id = error.event_id or event_id
                self._refuse(error)
            if self._producer is not None:
                self._producer.wake()

    async def _next_message(self) -> Any:
        if self._conversation is not None:
            return await self._socket.receive()
        try:
            async with asyncio.timeout(self._config.handshake_timeout_s):
                return await self._socket.receive()
        except TimeoutError:
            raise ProtocolError(
                ErrorCode.SESSION_UPDATE_TIMEOUT,
                f"no session.update came within {self._config.handshake_timeout_s:g} s",
            ) from None

    def _check_size(self, message: str | bytes) -> None:
        size = len(message.encode()) if isinstance(message, str) else len(message)
        self._metrics.ws_bytes.labels(dir="in").inc(size)
        if size > self._config.max_message_bytes:
            raise ProtocolError(
                ErrorCode.MESSAGE_TOO_LARGE,
                f"the message has {size:,} bytes, {self._config.max_message_bytes:,} at most; "
                "send audio in pieces, and large pictures to POST /v1/avatars",
            )

    def _refuse(self, error: ProtocolError) -> None:
        """Tell the client; close only when the code says so, or after too many errors."""
        self._client_errors += 1
        if error.spec.close is not None:
            self._fail(error)
        elif self._client_errors >= MAX_CLIENT_ERRORS and error.code not in (
            ErrorCode.INPUT_BUFFER_OVERFLOW,
            ErrorCode.INPUT_BUFFER_EMPTY,
        ):
            self._out.error(error)
            self._fail(
                ProtocolError(
                    ErrorCode.TOO_MANY_ERRORS,
                    f"{self._client_errors} messages were wrong, the last one: {error.message}",
                )
            )
        else:
            self._out.error(error)

    def _fail(self, error: ProtocolError) -> None:
        """End the session with `error`, after the done events of what is open."""
        if self._out.closing:
            return
        if self._conversation is not None:
            engine = error.code is ErrorCode.ENGINE_FAILED
            status: ev.ResponseStatus = "failed" if engine else "cancelled"
            self._out.post(*self._conversation.close(status, error.code))
        self._out.error(error)
        self._out.close(error.spec.close or 1011, error.code)

    async def _on_event(self, event: ev.ClientEvent) -> None:
        now_s = time.monotonic()
        if not isinstance(event, ev.PlaybackUpdate):
            self._deadlines.active(now_s)
        match event:
            case ev.SessionPing(t=t):
                reply = ev.SessionPong(t=t, server_time_us=time.monotonic_ns() // 1000)
                self._reply([reply], event)
            case ev.SessionClose(drain=drain):
                self._on_close(drain=drain)
            case ev.SessionUpdate(session=settings):
                await self._on_update(settings, event)
            case _ if self._conversation is None:
                raise ProtocolError(
                    ErrorCode.SESSION_NOT_CONFIGURED,
                    "session.update must come first: it says which avatar speaks",
                )
            case _:
                self._reply(self._on_conversation_event(event, self._conversation, now_s), event)

    def _on_conversation_event(
        self, event: ev.ClientEvent, conversation: Conversation, now_s: float
    ) -> list[ev.ServerEvent]:
        match event:
            case ev.AudioAppend(audio=audio, response_id=response_id):
                return conversation.append(_decode_audio(audio), response_id, now_s)
            case ev.AudioCommit(response_id=response_id):
                return conversation.commit(response_id)
            case ev.AudioClear():
                return conversation.clear()
            case ev.ResponseCancel(response_id=response_id):
                epoch = conversation.epoch
                replies = conversation.cancel(response_id)
                if conversation.epoch != epoch:
                    self._out.cleared(now_s)
                return replies
            case ev.SetState(state=state):
                return conversation.set_base_state(state)
            case ev.PlaybackUpdate():
                return self._on_playback(event, conversation, now_s)
        return []

    def _on_playback(
        self, event: ev.PlaybackUpdate, conversation: Conversation, now_s: float
    ) -> list[ev.ServerEvent]:
        replies = conversation.playback(event.pts_us, now_s)
        self._out.acknowledged(conversation.played_pts_us or 0, event)
        return replies

    def _reply(self, replies: list[ev.ServerEvent], event: ev.ClientEvent) -> None:
        stamp_source(replies, event.event_id)
        self._out.post(*replies)

    def _on_binary(self, data: bytes) -> None:
        frame = decode_frame(data)
        if frame.header.kind != Kind.AUDIO_IN:
            return
        if self._conversation is None:
            raise ProtocolError(
                ErrorCode.SESSION_NOT_CONFIGURED, "session.update must come before audio"
            )
        now_s = time.monotonic()
        self._deadlines.active(now_s)
        self._out.post(*self._conversation.append(check_pcm16(frame.audio), None, now_s))

    def _on_close(self, *, drain: bool) -> None:
        if drain and self._conversation is not None and self._conversation.has_open_responses:
            self._deadlines.close_when_done = True
            return
        if self._conversation is not None:
            self._out.post(*self._conversation.close("cancelled", "session_closed"))
        self._out.close(1000, "closed_by_client")

    # Configuration

    async def _on_update(self, settings: ev.SessionSettings, event: ev.ClientEvent) -> None:
        if self._setup is not None and self._producer is not None:
            idle, on_disconnect = changed_setup(self._setup, settings)
            self._producer.idle_policy = idle
            self._effective.idle = idle
            self._effective.on_disconnect = on_disconnect
        else:
            await self._configure(first_setup(settings))
        self._reply([ev.SessionUpdated(session=self._effective)], event)

    async def _configure(self, setup: SessionSetup) -> None:
        self._out.post(ev.SessionLoading(stage="avatar", progress=0.0))
        if setup.avatar_id is not None:
            avatar = await self._host.prepare_stored(setup.avatar_id)
        else:
            image = decode_image_field(setup.image or "", self._config.max_image_bytes)
            avatar = await self._host.prepare_image(image)
        stream, codec = await self._host.open_stream(
            avatar, rate=setup.rate, seed=setup.seed, output=setup.output
        )
        self._out.post(ev.SessionLoading(stage="avatar", progress=1.0))
        self._effective = effective(
            setup,
            codec=codec,
            frame_size=self._host.engine.frame_size,
            fps=FPS,
            warnings=tuple(avatar.warnings),
        )
        self._setup = setup
        self._conversation = conversation = Conversation(
            rate=setup.rate, max_buffered_input_ms=self._config.max_buffered_input_ms
        )
        pacer = Pacer(
            speech_lead_s=self._config.speech_lead_ms / 1000,
            idle_lead_s=self._config.idle_lead_ms / 1000,
            max_inflight_us=self._config.max_inflight_ms * 1000,
        )
        self._producer = Producer(
            conversation=conversation,
            pacer=pacer,
            stream=stream,
            worker=self._host.worker,
            config=self._config,
            metrics=self._metrics,
            idle_policy=setup.idle,
            on_change=self._out.wake,
            on_events=lambda events: self._out.post(*events),
        )
        self._out.attach(conversation, pacer, self._producer)
        self._producing = asyncio.create_task(self._guard(self._producer.run()))

    def _created(self) -> ev.SessionCreated:
        config = self._config
        return ev.SessionCreated(
            session_id=self.id,
            server_version=version("visavis"),
            engine="visavis",
            model=config.model,
            limits=ev.Limits(
                max_message_bytes=config.max_message_bytes,
                max_buffered_input_ms=config.max_buffered_input_ms,
                max_session_s=config.max_session_s,
                idle_timeout_s=config.idle_timeout_s,
                max_inflight_ms=config.max_inflight_ms,
            ),
            timing=ev.Timing(
                fps=FPS,
                chunk_frames=CHUNK_FRAMES,
                chunk_ms=CHUNK_FRAMES * 1000 / FPS,
                first_frame_ms_p50=self._admission.first_frame_ms_p50,
            ),
        )

    # Time

    def _housekeep(self, now_s: float) -> None:
        """Called by the send loop a few times a second."""
        conversation = self._conversation
        open_responses = conversation is not None and conversation.has_open_responses
        if open_responses:
            self._deadlines.active(now_s)
        warning, end = self._deadlines.due(now_s, busy=open_responses)
        if warning is not None:
            self._out.post(warning)
        if conversation is None:
            pass
        elif self._deadlines.close_when_done and not conversation.has_committed_responses:
            self._out.post(*conversation.close("cancelled", "session_closed"))
            self._out.close(1000, "closed_by_client")
        if end is not None:
            self._fail(end)
        elif self._out.blocked_s(now_s) > self._config.slow_client_s:
            limit = self._config.slow_client_s
            self._fail(
                ProtocolError(
                    ErrorCode.SLOW_CLIENT, f"no playback.update made room for media in {limit:g} s"
                )
            )


def _decode_audio(text: str) -> bytes:
    try:
        pcm = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_AUDIO, "audio is not valid base64", param="audio"
        ) from error
    return check_pcm16(pcm)
