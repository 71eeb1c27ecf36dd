"""Heartbeats between the process that leads and those that follow, over sockets of their own.

They depend on no collective and no GPU: a process whose GPU hangs still says that it lives and what
it waits for, and one that is dead or stopped says nothing. One JSON object a line, both ways.
"""

from __future__ import annotations

import json
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from visavis.engine.parallel.loss import GroupLimits, GroupLostError, Loss
from visavis.engine.parallel.watchdog import StepWatch

logger = logging.getLogger(__name__)

Phase = Literal["started", "joined", "loaded"]
PHASES: tuple[Phase, ...] = ("started", "joined", "loaded")
MAX_LINE = 4096
# How often the thread looks, whatever the heartbeat: a loss is to be known soon.
LOOK_EVERY_S = 0.05
# A collective may fail before this thread knows whose death it was.
BLAME_WITHIN_S = 2.0
# A follower that was told to end is given so long before its leader's absence is an error.
GOODBYE_S = 10.0


@dataclass(slots=True)
class Member:
    """What a follower last said of itself."""

    heard_s: float
    phase: Phase = "started"
    busy: str = ""
    busy_s: float = 0.0
    pid: int = 0


class _Lines:
    """Lines of a socket that does not block."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """What has come; None at the end, and for what is no such line."""
        try:
            data = self.socket.recv(MAX_LINE)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return None
        if len(self._rest) > MAX_LINE or not all(isinstance(m, dict) for m in messages):
            return None
        return messages

    def write(self, **message: object) -> bool:
        """Say something, if there is room: whoever does not read is silent, too."""
        try:
            self.socket.send(json.dumps(message).encode() + b"\n")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True


class Lookout:
    """The leader's end: a thread that watches followers, their processes and the leader's work.

    The first loss is the last: `on_loss` is called once, on that thread, and `loss` stays.
    """

    def __init__(
        self,
        world: int,
        limits: GroupLimits,
        watch: StepWatch,
        *,
        token: str,
        on_loss: Callable[[Loss], None],
        dead: Callable[[], Loss | None] = lambda: None,
        host: str = "127.0.0.1",
    ) -> None:
        """`token`: what followers must know. `dead`: asked for processes that have ended."""
        self.loss: Loss | None = None
        self._world, self._limits, self._watch = world, limits, watch
        self._token, self._on_loss, self._dead = token, on_loss, dead
        self._members: dict[int, Member] = {}
        self._lines: dict[int, _Lines] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._listener = socket.create_server((host, 0), backlog=world)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where followers report."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def alive(self) -> int:
        """Processes that are heard of, the leader included."""
        return 1 + len(self._members)

    def wait_for(self, phase: Phase, timeout_s: float) -> None:
        """Wait until every follower is that far.

        Raises:
            GroupLostError: one was lost, or it took longer.
        """
        wanted = PHASES.index(phase)

        def there() -> bool:
            far = [m for m in self._members.values() if PHASES.index(m.phase) >= wanted]
            return self.loss is not None or self._closing or len(far) == self._world - 1

        with self._changed:
            in_time = self._changed.wait_for(there, timeout_s)
        if not in_time:
            self.report(Loss("stuck", None, f"not all were {phase} within {timeout_s:g} s"))
        self.check()

    def blame(self, error: Exception, what: str) -> Loss:
        """Work of this process failed: the loss of another that explains it, else its own."""
        with self._changed:
            self._changed.wait_for(lambda: self.loss is not None, BLAME_WITHIN_S)
        return self.report(Loss("failed", 0, f"{what}: {type(error).__name__}: {error}"))

    def check(self) -> None:
        """Raises GroupLostError once the group is lost, or closed."""
        if self.loss is not None:
            raise GroupLostError(self.loss)
        if self._closing:
            raise GroupLostError(Loss("died", 0, "the group was closed"))

    def report(self, loss: Loss) -> Loss:
        """The group is lost; the first reason stands, and is returned."""
        with self._changed:
            if self.loss is not None:
                return self.loss
            if self._closing:
                return loss
            self.loss = loss
            self._changed.notify_all()
        logger.error("group lost: %s", loss)
        self._on_loss(loss)
        return loss

    def dismiss(self) -> None:
        """Tell all followers that can hear it to end at once."""
        for lines in list(self._lines.values()):
            lines.write(end="now")

    def close(self, *, kill: bool = False) -> None:
        """Tell followers to end (`kill`: at once) and stop looking; safe to call twice."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        for lines in list(self._lines.values()):
            lines.write(end="now" if kill else "soon")
            lines.socket.close()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        beat_s = time.monotonic()
        while not self._closing:
            for key, _ in self._selector.select(LOOK_EVERY_S):
                if key.data is None:
                    self._accept()
                else:
                    self._hear(key.data)
            now_s = time.monotonic()
            if now_s >= beat_s:
                beat_s = now_s + self._limits.beat_s
                for lines in list(self._lines.values()):
                    lines.write()
            self._judge(now_s)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._selector.register(connection, selectors.EVENT_READ, _Lines(connection))

    def _hear(self, lines: _Lines) -> None:
        messages = lines.read()
        for message in messages or ():
            rank = message.get("rank")
            known = message.get("token") == self._token
            if not known or not isinstance(rank, int) or message.get("phase") not in PHASES:
                messages = None
                break
            with self._changed:
                self._lines[rank] = lines
                self._members[rank] = Member(
                    heard_s=time.monotonic(),
                    phase=message["phase"],
                    busy=str(message.get("busy", "")),
                    busy_s=float(message.get("busy_s", 0.0)),
                    pid=int(message.get("pid", 0)),
                )
                self._changed.notify_all()
        if messages is not None:
            return
        self._selector.unregister(lines.socket)
        lines.socket.close()
        gone = [rank for rank, its in self._lines.items() if its is lines]
        for rank in gone:
            del self._lines[rank], self._members[rank]
            if self.loss is None:
                self.report(Loss("died", rank, "its connection has ended"))

    def _judge(self, now_s: float) -> None:
        if self.loss is not None:
            return
        dead = self._dead()
        if dead is not None:
            self.report(dead)
            return
        for rank, member in self._members.items():
            silence_s = now_s - member.heard_s
            if silence_s > self._limits.silent_s:
                detail = f"no heartbeat for {silence_s:.1f} s, {self._limits.silent_s:g} at most"
                self.report(Loss("silent", rank, detail))
                return
        overdue = self._watch.overdue()
        if overdue is not None:
            self.report(
                Loss(
                    "stuck",
                    None,
                    f"{overdue.name} has taken {overdue.seconds:.1f} s, "
                    f"{overdue.limit_s:.1f} at most; {self._told()}",
                )
            )

    def _told(self) -> str:
        busy = [
            f"rank {rank} is at {member.busy or 'nothing'} for {member.busy_s:.1f} s"
            for rank, member in sorted(self._members.items())
        ]
        return ", ".join(busy) or "no follower has been heard of"


class Tether:
    """A follower's end: says that it lives and what it does, and learns that its leader is gone.

    `on_leader_gone` is called on the tether's own thread, whatever the process is stuck in.
    """

    def __init__(
        self,
        address: tuple[str, int],
        limits: GroupLimits,
        *,
        rank: int,
        token: str,
        on_leader_gone: Callable[[str], None],
        pid: int = 0,
    ) -> None:
        """Raises OSError when nobody listens there."""
        self._limits, self._rank, self._token, self._pid = limits, rank, token, pid
        self._gone = on_leader_gone
        self._phase: Phase = "started"
        self._busy: tuple[str, float] = ("", time.monotonic())
        self._closed = threading.Event()
        self._lines = _Lines(socket.create_connection(address, timeout=limits.silent_s))
        self._write_lock = threading.Lock()
        self._say()
        self._thread = threading.Thread(target=self._run, name="tether", daemon=True)
        self._thread.start()

    def reached(self, phase: Phase) -> None:
        """Say at once how far this process is."""
        self._phase = phase
        self._say()

    def busy(self, name: str) -> None:
        """What this process does from now on; empty: nothing."""
        self._busy = (name, time.monotonic())

    def close(self) -> None:
        """The leader may go now."""
        self._closed.set()
        self._thread.join()
        self._lines.socket.close()

    def _say(self) -> bool:
        name, since_s = self._busy
        with self._write_lock:
            return self._lines.write(
                rank=self._rank,
                token=self._token,
                pid=self._pid,
                phase=self._phase,
                busy=name,
                busy_s=round(time.monotonic() - since_s, 1) if name else 0.0,
            )

    def _run(self) -> None:
        heard_s = said_s = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._lines.socket, selectors.EVENT_READ)
            while not self._closed.is_set():
                messages = self._lines.read() if selector.select(LOOK_EVERY_S) else []
                now_s = time.monotonic()
                if messages is None:
                    self._leader_gone("its connection has ended")
                    return
                for message in messages:
                    heard_s = now_s
                    if message.get("end") == "now":
                        self._leader_gone("the leader gives the group up")
                        return
                    if message.get("end") == "soon":
                        if not self._closed.wait(GOODBYE_S):
                            self._leader_gone("it has stopped, and this process did not end")
                        return
                if now_s - heard_s > self._limits.silent_s:
                    self._leader_gone(f"no heartbeat of it for {now_s - heard_s:.1f} s")
                    return
                if now_s - said_s >= self._limits.beat_s:
                    said_s = now_s
                    self._say()

    def _leader_gone(self, why: str) -> None:
        if not self._closed.is_set():
            self._gone(why)
