"""What one session is, whatever socket carries it: engine stream, conversation, limits, its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Protocol

import structlog
from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.config import ServerConfig
from visavis.server.conversation import MAX_FADE_MS, Conversation
from visavis.server.deadlines import Deadlines
from visavis.server.encoder import codec_level
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.input_rate import InputMeter
from visavis.server.metrics import Metrics, Stopwatch
from visavis.server.model_host import ModelHost, decode_image_field
from visavis.server.negotiation import SessionSetup, changed_setup, effective
from visavis.server.outbound import Outbound
from visavis.server.pacing import Pacer
from visavis.server.producer import Producer
from visavis.server.protocol import FRAME_US
from visavis.server.recode import Recoder, recoded
from visavis.server.resume import ResumeDesk
from visavis.server.sent_ring import SentEvent, SentMedia, as_first, with_picture
from visavis.server.timeline import SEQ_MASK
from visavis.server.worker import WorkerBusyError

log = structlog.get_logger(__name__)


class Caller(Protocol):
    """Who opens a session, as authentication knows it."""

    @property
    def name(self) -> str: ...

    @property
    def max_session_s(self) -> float | None: ...

    def check_open(self, avatar_id: str | None) -> None:
        """Raises ProtocolError when the caller may not show that avatar, or open anything."""
        ...


class Connection(Protocol):
    """The socket that carries a session now."""

    async def dismiss(self) -> None:
        """Say that a newer connection took over, and close."""
        ...


class LiveSession:
    """One session from its greeting to its end.

    Sockets come and go: `out` writes to the present one. `end` frees everything, once.
    """

    def __init__(
        self,
        socket: WebSocket,
        *,
        host: ModelHost,
        admission: Admission,
        config: ServerConfig,
        metrics: Metrics,
        desk: ResumeDesk,
        caller: Caller | None = None,
        lease: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.id = f"sess_{uuid.uuid4().hex[:20]}"
        self.out = Outbound(socket, config, metrics, admission)
        self.connection: Connection | None = None
        self.caller = caller
        self.max_session_s = config.max_session_s
        if caller is not None and caller.max_session_s is not None:
            self.max_session_s = min(self.max_session_s, caller.max_session_s)
        limits = config.model_copy(update={"max_session_s": self.max_session_s})
        self.deadlines = Deadlines(limits, time.monotonic())
        self.conversation: Conversation | None = None
        self.setup: SessionSetup | None = None
        self.effective: ev.EffectiveSettings | None = None
        self.received_seq: int | None = None
        self._host = host
        self._admission = admission
        self._config = config
        self._metrics = metrics
        self._desk = desk
        self._lease = lease
        self._stack = ExitStack()
        self._producer: Producer | None = None
        self._producing: asyncio.Task[None] | None = None
        self._meter: InputMeter | None = None
        self._watch = Stopwatch()
        self._ended = False

    # Configuration

    async def open(self, setup: SessionSetup) -> ev.SessionUpdated:
        """Take a place, prepare the avatar, and begin to produce.

        Raises ProtocolError; then the place is free again, and another try is possible.
        """
        if self.caller is not None:
            self.caller.check_open(setup.avatar_id)
        try:
            return await self._open(setup)
        except BaseException:
            self._stack.close()
            raise

    async def _open(self, setup: SessionSetup) -> ev.SessionUpdated:
        if self._lease is not None:
            self._stack.enter_context(self._lease())
        self._stack.callback(await self._admission.join(self, self._queued))
        self.out.post(ev.SessionLoading(stage="avatar", progress=0.0))
        if setup.avatar_id is not None:
            avatar = await self._host.prepare_stored(setup.avatar_id)
        else:
            image = decode_image_field(setup.image or "", self._config.max_image_bytes)
            avatar = await self._host.prepare_image(image)
        stream, codec = await self._host.open_stream(
            avatar, rate=setup.rate, seed=setup.seed, output=setup.output
        )
        self.out.post(ev.SessionLoading(stage="avatar", progress=1.0))
        self.effective = effective(setup, codec=codec, warnings=tuple(avatar.warnings))
        self.setup = setup
        config = self._config
        fmp4 = Fmp4Writer(fps=setup.fps) if setup.output.video == "fmp4" else None
        self._meter = InputMeter(
            rate=config.max_input_rate, burst_s=config.max_buffered_input_ms / 1000 + 1
        )
        self.conversation = conversation = Conversation(
            rate=setup.rate,
            max_buffered_input_ms=config.max_buffered_input_ms,
        )
        pacer = Pacer(
            speech_lead_s=config.speech_lead_ms / 1000,
            idle_lead_s=config.idle_lead_ms / 1000,
            max_inflight_us=config.max_inflight_ms * 1000,
        )
        self._producer = Producer(
            conversation=conversation,
            pacer=pacer,
            stream=stream,
            host=self._host,
            config=config,
            metrics=self._metrics,
            idle_policy=setup.idle,
            on_change=self.out.wake,
            on_events=lambda events: self.out.post(*events),
        )
        self.out.attach(conversation, pacer, self._producer, fmp4)
        self._producing = asyncio.create_task(self._produce(self._producer))
        self._desk.add(self)
        return ev.SessionUpdated(session=self.effective)

    @property
    def age_s(self) -> float:
        """Seconds since the greeting."""
        return self._watch.elapsed_s()

    def _queued(self, position: int, eta_s: float | None) -> None:
        self.out.post(ev.SessionQueued(position=position, eta_s=eta_s))

    def change(self, settings: ev.SessionSettings) -> ev.SessionUpdated:
        """A later session.update. Raises ProtocolError `immutable_field`."""
        assert self.setup is not None
        assert self.effective is not None
        assert self._producer is not None
        idle, on_disconnect = changed_setup(self.setup, settings)
        self.setup = replace(self.setup, idle=idle, on_disconnect=on_disconnect)
        self._producer.idle_policy = idle
        self.effective.idle = idle
        self.effective.on_disconnect = on_disconnect
        return ev.SessionUpdated(session=self.effective)

    async def _produce(self, producer: Producer) -> None:
        try:
            await producer.run()
        except ProtocolError as error:
            self.fail(error)
        except Exception as error:
            log.error("session failed", session_id=self.id, exc_info=error)
            self.fail(
                ProtocolError(
                    ErrorCode.ENGINE_FAILED,
                    "the session failed inside the server; open a new one",
                    retry_after_s=1.0,
                )
            )

    # The client's side

    def wake(self) -> None:
        """Something came from the client that the producer may wait for."""
        if self._producer is not None:
            self._producer.wake()

    def append(self, pcm: bytes, response_id: str | None, now_s: float) -> list[ev.ServerEvent]:
        """Audio of the client. Raises ProtocolError as Conversation.append and InputMeter do."""
        assert self.conversation is not None
        assert self._meter is not None
        # First what would never fit: no pause makes room for it.
        self.conversation.check_room(pcm)
        self._meter.take(len(pcm) / 2 / self.conversation.rate, now_s)
        return self.conversation.append(pcm, response_id, now_s)

    def cancel(self, event: ev.ResponseCancel, now_s: float) -> list[ev.ServerEvent]:
        """Barge-in: the engine goes on from what the viewer sees when the fade is over."""
        assert self.conversation is not None
        media = self.out.media
        assert media is not None
        epoch = self.conversation.epoch
        fade_ms = min(max(event.fade_ms or 0, 0), MAX_FADE_MS)
        events = self.conversation.cancel(
            event.response_id,
            fade_ms=fade_ms,
            shown_pts_us=media.shown_pts_us(now_s) + fade_ms * 1000,
        )
        if self.conversation.epoch != epoch:
            self.out.cleared(now_s)
        return events

    # The end

    def drain(self, deadline_s: float) -> None:
        """The server stops: finish what is being said, within `deadline_s` seconds."""
        self.deadlines.drain(time.monotonic() + deadline_s)
        self.out.post(ev.SessionExpiring(reason="server_draining", deadline_s=deadline_s))
        if self._desk.waits(self):
            # Nobody listens to what would be said.
            task = asyncio.create_task(self.end("server_draining"))
            self._stack.callback(task.cancel)

    def fail(self, error: ProtocolError) -> None:
        """End the session with `error`, after the done events of what is open."""
        if self.out.closing:
            return
        if self.conversation is not None:
            engine = error.code in (ErrorCode.ENGINE_FAILED, ErrorCode.INTERNAL_ERROR)
            status: ev.ResponseStatus = "failed" if engine else "cancelled"
            self.out.post(*self.conversation.close(status, error.code))
        self.out.close_with(error)

    def leave(self, *, drain: bool) -> None:
        """The client's session.close."""
        if drain and self.conversation is not None and self.conversation.has_open_responses:
            self.deadlines.close_when_done = True
            return
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self.conversation is not None:
            self.out.post(*self.conversation.close("cancelled", "session_closed"))
        self.out.close(1000, "closed_by_client")

    def housekeep(self, now_s: float) -> None:
        """Called by the writer a few times a second: limits, announced first."""
        conversation = self.conversation
        open_responses = conversation is not None and conversation.has_open_responses
        if open_responses:
            self.deadlines.active(now_s)
        warning, end = self.deadlines.due(now_s, busy=open_responses)
        if warning is not None:
            self.out.post(warning)
        if (
            conversation is not None
            and self.deadlines.close_when_done
            and not conversation.has_committed_responses
        ):
            self._say_goodbye()
        if end is not None:
            self.fail(end)
        elif self.out.blocked_s(now_s) > self._config.slow_client_s:
            limit = self._config.slow_client_s
            self.fail(
                ProtocolError(
                    ErrorCode.SLOW_CLIENT, f"no playback.update made room for media in {limit:g} s"
                )
            )

    @property
    def holdable(self) -> bool:
        """Whether the session outlives its socket."""
        return (
            self.setup is not None
            and self.setup.on_disconnect == "hold"
            and not self.out.closing
            and not self._ended
            and not self._admission.draining
        )

    async def end(self, reason: str) -> None:
        """Free the engine's stream and the place; a second call does nothing."""
        if self._ended:
            return
        self._ended = True
        self._desk.remove(self)
        if self.conversation is not None:
            self.conversation.close("cancelled", "disconnected")
        # A client that comes in this moment must not find it.
        self.out.close(1000, reason)
        try:
            if self._producing is not None:
                self._producing.cancel()
                await asyncio.gather(self._producing, return_exceptions=True)
            if self._producer is not None:
                # A stopped engine thread has nothing left to free.
                with contextlib.suppress(WorkerBusyError, asyncio.CancelledError):
                    await self._producer.close()
        finally:
            self._stack.close()
            self._metrics.sessions.labels(end_reason=reason).inc()
            self._metrics.session_duration.observe(self._watch.elapsed_s())

    # Resuming

    async def resume(self, request: ev.SessionResume, socket: WebSocket) -> None:
        """Go on on `socket`: the missed part first, then what was waiting.

        Raises ProtocolError `invalid_event` for a `last_seq` that was never sent.
        """
        conversation, media = self.conversation, self.out.media
        assert conversation is not None
        assert media is not None
        assert self.effective is not None
        timeline, ring = conversation.timeline, self.out.ring
        seq = request.last_seq
        num_after = 0 if seq is None else (timeline.next_seq - seq - 1) & SEQ_MASK
        if num_after > timeline.next_index:
            raise ProtocolError(
                ErrorCode.INVALID_EVENT,
                f"last_seq={seq} was not sent yet, the next one is {timeline.next_seq}; "
                "give the seq of the last media message received",
                param="last_seq",
                event_id=request.event_id,
            )
        missed = ring.after(
            seq,
            _event_number(request.last_event_id),
            epoch=timeline.epoch,
            played_pts_us=conversation.played_pts_us,
        )
        frames = [item for item in missed if isinstance(item, SentMedia)]
        lost = 0
        if seq is not None:
            lost = max(0, num_after - len(frames) - ring.num_void_after(seq, timeline.epoch))
        conversation.request_keyframe()
        missed, recoder = await self._with_keyframe(missed, frames)
        first = next((item for item in missed if isinstance(item, SentMedia)), None)
        if first is None:
            timeline.mark_discontinuity()
        first_us = timeline.next_pts_us if first is None else first.header.pts_us
        resumed = ev.SessionResumed(
            session_id=self.id,
            from_seq=timeline.next_seq if first is None else first.header.seq,
            lost_frames=lost,
            epoch=timeline.epoch,
            from_pts_us=first_us,
            session=self.effective,
            resume=self._desk.offer(self.id),
            received_seq=self.received_seq,
        )
        if request.event_id is not None:
            resumed.source_event_id = request.event_id
        media.restart(first_us // FRAME_US, time.monotonic(), recoder)
        self.deadlines.active(time.monotonic())
        self.out.rebind(socket, resumed, missed)
        self.wake()

    async def _with_keyframe(
        self, missed: list[SentEvent | SentMedia], frames: list[SentMedia]
    ) -> tuple[list[SentEvent | SentMedia], Recoder | None]:
        """The same, but what comes next can be decoded alone: by a page that was loaded anew.

        The recoder goes on with what was made before and not sent yet.
        """
        assert self.setup is not None
        assert self.effective is not None
        ring = self.out.ring
        replay: dict[int, SentMedia] = {frame.order: frame for frame in frames}
        recoder = None
        if self.setup.output.video in ("h264", "fmp4"):
            level = codec_level(self.effective.output.codec)
            recoder = Recoder(fps=self.setup.fps, level=level)
            reference = ring.reference(frames[0] if frames else None)
            pictures = [frame.video for frame in frames]
            coded = await asyncio.to_thread(recoded, recoder, reference, pictures)
            for frame, (video, keyframe) in zip(frames, coded, strict=True):
                replay[frame.order] = with_picture(frame, video, keyframe=keyframe)
                # What is lost again is predicted from what was sent now.
                ring.replace(replay[frame.order])
        if frames:
            replay[frames[0].order] = as_first(replay[frames[0].order])
        again = [replay[item.order] if isinstance(item, SentMedia) else item for item in missed]
        return again, recoder


def _event_number(event_id: str | None) -> int | None:
    """The number in one of our event ids; None for anything else."""
    if event_id is None or not event_id.removeprefix("evt_").isdecimal():
        return None
    return int(event_id.removeprefix("evt_"))
