"""What one session is, whatever socket carries it: engine stream, conversation, limits, its end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.caller import Caller, Connection, Quota
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.deadlines import Deadlines
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.handover.bundle import Bundle
from visavis.server.handover.departure import Departure
from visavis.server.input_rate import InputMeter
from visavis.server.lease_watch import LeaseWatch
from visavis.server.metrics import Metrics, Stopwatch
from visavis.server.model_host import ModelHost
from visavis.server.negotiation import SessionSetup, changed_setup, effective
from visavis.server.outbound import Outbound
from visavis.server.production import Production, begin_production
from visavis.server.resume import ResumeDesk
from visavis.server.stream import EngineStream


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
        quota: Quota | None = None,
    ) -> None:
        self.id = f"sess_{uuid.uuid4().hex[:20]}"
        self.out = Outbound(socket, config, metrics, admission, on_slow=self.fail)
        self.connection: Connection | None = None
        self.opening = False
        self.has_place = False
        self.avatar_id: str | None = None
        self.caller = caller
        self.max_session_s = config.max_session_s
        if caller is not None and caller.max_session_s is not None:
            self.max_session_s = min(self.max_session_s, caller.max_session_s)
        self._limits = config.model_copy(update={"max_session_s": self.max_session_s})
        self.deadlines = Deadlines(self._limits, time.monotonic())
        self.conversation: Conversation | None = None
        self.setup: SessionSetup | None = None
        self.effective: ev.EffectiveSettings | None = None
        self.received_seq: int | None = None
        self.host = host
        self._admission = admission
        self.config = config
        self.metrics = metrics
        self._desk = desk
        self._quota = quota
        self.lease: LeaseWatch | None = None
        self._stack = ExitStack()
        self.production: Production | None = None
        self._meter: InputMeter | None = None
        self._watch = Stopwatch()
        self._earlier_s = 0.0
        self.departure: Departure | None = None
        self._ended = False

    # Configuration

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """While its place and its avatar are waited for, nothing is expected of the client."""
        self.opening = True
        try:
            yield
        finally:
            self.opening = False
            self.deadlines.active(time.monotonic())

    async def take_place(self, setup: SessionSetup) -> None:
        """Wait for a place for such a session; from then on it ages, and uses what the caller may.

        `end` gives both back. Raises ProtocolError as Admission.join and Quota do.
        """
        self.avatar_id = setup.avatar_id
        picture_s = self.host.load.picture_s(setup.output.video, setup.frame_size, setup.fps)
        with nullcontext() if self._quota is None else self._quota.wait():
            leave = await self._admission.join(self, self._queued, picture_s)
        self._stack.callback(leave)
        self.has_place = True
        if self._quota is not None:
            self.lease = LeaseWatch(self._stack.enter_context(self._quota.lease()))
        self._watch = Stopwatch()
        self.deadlines.begin(time.monotonic())

    def begin(
        self,
        setup: SessionSetup,
        stream: tuple[EngineStream, str, tuple[str, ...]],
        conversation: Conversation,
    ) -> ev.EffectiveSettings:
        """Be the session of those settings from here on; `stream` as `open_stream` gives it."""
        engine_stream, codec, warnings = stream
        self.setup = setup
        self.effective = effective(setup, codec=codec, warnings=warnings)
        self.conversation = conversation
        self._meter = InputMeter(
            rate=self.config.max_input_rate,
            burst_s=self.config.max_buffered_input_ms / 1000 + 1,
        )
        self.production = begin_production(self, engine_stream)
        self._desk.add(self)
        return self.effective

    def take_identity(self, bundle: Bundle) -> None:
        """Be that session, as old as it is; nothing is sent until it is resumed."""
        self.out.hold()
        self.id = bundle.session_id
        self.received_seq = bundle.received_seq
        self._earlier_s = bundle.age_s
        now_s = time.monotonic()
        self.deadlines.begin(now_s - self.age_s)
        self.deadlines.active(now_s)
        self.out.load(bundle.out)

    def free(self) -> None:
        """Give back the place: the session did not come to be."""
        self._stack.close()
        self.lease, self.has_place, self.avatar_id = None, False, None

    def offer(self) -> ev.ResumeOffer:
        """How the client comes back."""
        return self._desk.offer(self.id)

    @property
    def age_s(self) -> float:
        """Seconds since it got its place, on whatever replica that was; before, since the
        greeting."""
        return self._earlier_s + self._watch.elapsed_s()

    def _queued(self, position: int, eta_s: float | None) -> None:
        self.out.post(ev.SessionQueued(position=position, eta_s=eta_s))

    def change(self, settings: ev.SessionSettings, given: dict[str, Any]) -> ev.SessionUpdated:
        """A later session.update, as `changed_setup` takes it. Raises ProtocolError
        `immutable_field`."""
        assert self.setup is not None
        assert self.effective is not None
        assert self.production is not None
        idle, on_disconnect = changed_setup(self.setup, settings, given)
        self.setup = replace(self.setup, idle=idle, on_disconnect=on_disconnect)
        self.production.producer.planner.idle_policy = idle
        self.effective.idle = idle
        self.effective.on_disconnect = on_disconnect
        return ev.SessionUpdated(session=self.effective)

    # The client's side

    def wake(self) -> None:
        """Something came from the client that the producer may wait for."""
        if self.production is not None:
            self.production.producer.wake()

    def append(self, pcm: bytes, response_id: str | None, now_s: float) -> list[ev.ServerEvent]:
        """Audio of the client. Raises ProtocolError as Conversation.append and InputMeter do."""
        assert self.conversation is not None
        assert self._meter is not None
        # First what would never fit: no pause makes room for it.
        self.conversation.check_room(pcm)
        self._meter.take(len(pcm) / 2 / self.conversation.rate, now_s)
        return self.conversation.append(pcm, response_id, now_s)

    # The end

    def drain(self, deadline_s: float) -> None:
        """The server stops: finish what is being said, within `deadline_s` seconds; what goes on
        then, goes on on another replica if there can be one."""
        self.deadlines.drain(time.monotonic() + deadline_s)
        self.out.post(
            ev.SessionExpiring(
                reason="server_draining", deadline_s=deadline_s, resumable=self.can_depart
            )
        )
        if not self._desk.waits(self):
            return
        # Nobody listens to what would be said.
        if self.can_depart:
            self.depart()
        else:
            self._end_soon("server_draining")

    def _end_soon(self, reason: str) -> None:
        """For a session without a socket, at whose end it would come to its own."""
        task = asyncio.create_task(self.end(reason))
        self._stack.callback(task.cancel)

    @property
    def can_depart(self) -> bool:
        """Whether another replica may go on with the session."""
        return self._outlives_socket and self._desk.handover is not None

    @property
    def departed(self) -> bool:
        """Whether the session is no longer this replica's: what its client says is not for us."""
        return self.departure is not None and self.departure.gone

    def depart(self) -> Departure:
        """Leave the session for another replica; the same departure if one is under way."""
        if self.departure is None:
            assert self._desk.handover is not None
            self.departure = Departure(self, self._desk.handover)
        return self.departure

    def fail(self, error: ProtocolError) -> None:
        """End the session with `error`, after the done events of what is open."""
        if self.out.closing:
            return
        if self.conversation is not None:
            engine = error.code in (ErrorCode.ENGINE_FAILED, ErrorCode.INTERNAL_ERROR)
            status: ev.ResponseStatus = "failed" if engine else "cancelled"
            self.out.post(*self.conversation.close(status, error.code))
        self.out.close_with(error)
        if self._desk.waits(self):
            self._end_soon(error.code)

    def leave(self, *, drain: bool) -> None:
        """The client's session.close."""
        if drain and self.conversation is not None and self.conversation.has_open_responses:
            self.deadlines.close_when_done = True
            return
        self.say_goodbye()

    def say_goodbye(self) -> None:
        """Close as the client asked for, and cancel what is open."""
        if self.conversation is not None:
            self.out.post(*self.conversation.close("cancelled", "session_closed"))
        self.out.close(1000, "closed_by_client")

    @property
    def holdable(self) -> bool:
        """Whether the session waits here when its socket is lost."""
        return self._outlives_socket and not self._admission.draining

    @property
    def _outlives_socket(self) -> bool:
        return (
            self.setup is not None
            and self.setup.on_disconnect == "hold"
            and not self.out.closing
            and not self._ended
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
            if self.production is not None:
                await self.production.end()
        finally:
            # The parts of a session know each other: the garbage collector alone would free what
            # they hold, dozens of sessions later.
            self.production = None
            self.out.detach()
            self._stack.close()
            self.metrics.sessions.labels(end_reason=reason).inc()
            self.metrics.session_duration.observe(self._watch.elapsed_s())
