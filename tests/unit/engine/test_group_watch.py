"""A leader and its followers watch each other: real sockets and processes, kill -9 and SIGSTOP."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.engine.parallel.loss import GroupLimits, GroupLostError, Loss
from visavis.engine.parallel.plan import ParallelError
from visavis.engine.parallel.side_channel import Lookout, Tether
from visavis.engine.parallel.spawning import VARIABLE, FollowerProcesses, Summons
from visavis.engine.parallel.watchdog import (
    FIRST_LIMIT_S,
    KNOWN_AFTER,
    PATIENCE,
    SHORTEST_LIMIT_S,
    StepWatch,
)

# Nothing below waits so long unless it fails.
WAIT_S = 60.0
LIVELY = GroupLimits(silent_s=60.0, start_s=WAIT_S)
SHORT = GroupLimits(silent_s=1.5, start_s=WAIT_S)
TOKEN = "open sesame"

FOLLOWER = """
import os, threading
from visavis.engine.parallel.side_channel import Tether
from visavis.engine.parallel.spawning import Summons
summons = Summons.of_this_process()
tether = Tether(("127.0.0.1", summons.lookout_port), summons.limits, rank=summons.rank,
                token=summons.token, pid=os.getpid(), on_leader_gone=lambda why: os._exit(75))
tether.busy("velocity")
tether.reached("joined")
threading.Event().wait()
"""
LEADER = """
import sys, threading
from visavis.engine.parallel.loss import GroupLimits
from visavis.engine.parallel.side_channel import Lookout
from visavis.engine.parallel.watchdog import StepWatch
lookout = Lookout(2, GroupLimits(silent_s=float(sys.argv[1])), StepWatch(), token="open sesame",
                  on_loss=lambda loss: None)
print(lookout.port, flush=True)
threading.Event().wait()
"""


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Group:
    lookout: Lookout
    losses: queue.SimpleQueue[Loss]
    processes: FollowerProcesses

    def loss(self) -> Loss:
        return self.losses.get(timeout=WAIT_S)


Start = Callable[..., Group]


@pytest.fixture
def start() -> Iterator[Start]:
    """Groups of a lookout here and followers as child processes; all are gone at the end."""
    with ExitStack() as stack:

        def make(world: int, limits: GroupLimits, watch: StepWatch | None = None) -> Group:
            losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
            processes = FollowerProcesses([sys.executable, "-c", FOLLOWER], {})
            stack.callback(processes.kill)
            lookout = Lookout(
                world,
                limits,
                watch or StepWatch(),
                token=TOKEN,
                on_loss=losses.put,
                dead=processes.dead,
            )
            stack.callback(lookout.close, kill=True)
            processes.start(
                [
                    Summons(
                        rank=rank,
                        world=world,
                        store_port=1,
                        lookout_port=lookout.port,
                        token=TOKEN,
                        limits=limits,
                    )
                    for rank in range(1, world)
                ]
            )
            lookout.wait_for("joined", WAIT_S)
            return Group(lookout, losses, processes)

        yield make


def test_a_killed_follower_is_known_by_its_rank_and_those_who_wait_are_told(start: Start) -> None:
    group = start(3, LIVELY)
    assert group.lookout.alive == 3
    os.kill(group.processes.pids[2], signal.SIGKILL)
    loss = group.loss()
    assert (loss.kind, loss.rank) == ("died", 2)
    with pytest.raises(GroupLostError, match="rank 2 died"):
        group.lookout.wait_for("loaded", WAIT_S)
    with pytest.raises(GroupLostError):
        group.lookout.check()


def test_a_stopped_follower_is_silent_and_can_be_ended_all_the_same(start: Start) -> None:
    group = start(2, SHORT)
    pid = group.processes.pids[1]
    os.kill(pid, signal.SIGSTOP)
    loss = group.loss()
    assert (loss.kind, loss.rank) == ("silent", 1)
    assert "rank 1 is silent" in str(loss)
    group.processes.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_work_that_takes_too_long_is_stuck_and_the_message_says_what_followers_do(
    start: Start,
) -> None:
    watch = StepWatch(limit_s=0.2)
    group = start(2, LIVELY, watch)
    with watch.piece("velocity"):
        loss = group.loss()
    assert (loss.kind, loss.rank) == ("stuck", None)
    assert "velocity has taken" in loss.detail
    assert "rank 1 is at velocity" in loss.detail


def test_the_first_loss_stands_and_is_told_once(start: Start) -> None:
    group = start(2, LIVELY)
    first = group.lookout.report(Loss("failed", 0, "out of memory"))
    again = group.lookout.report(Loss("stuck", None, "later"))
    assert again is first is group.lookout.loss
    assert group.loss() is first
    group.processes.kill()
    group.lookout.close()
    assert group.losses.empty()


def test_a_collective_that_fails_is_blamed_on_the_process_that_died(start: Start) -> None:
    group = start(2, LIVELY)
    os.kill(group.processes.pids[1], signal.SIGKILL)
    loss = group.lookout.blame(RuntimeError("connection reset"), "velocity")
    assert (loss.kind, loss.rank) == ("died", 1)


def test_followers_that_do_not_come_in_time_are_a_loss() -> None:
    lookout = Lookout(2, LIVELY, StepWatch(), token=TOKEN, on_loss=lambda loss: None)
    try:
        with pytest.raises(GroupLostError, match="not all were started within"):
            lookout.wait_for("started", 0.05)
    finally:
        lookout.close()


def test_strangers_are_no_followers() -> None:
    losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
    lookout = Lookout(2, LIVELY, StepWatch(), token=TOKEN, on_loss=losses.put)
    try:
        for words in (
            b'{"rank": 1, "token": "?", "phase": "joined"}\n',
            b"GET / HTTP/1.1\r\n\r\n",
            b'["rank"]\n',
            b"x" * 10_000,
            b'{"rank": "1", "token": "open sesame", "phase": "joined"}\n',
        ):
            with socket.create_connection(("127.0.0.1", lookout.port), WAIT_S) as stranger:
                stranger.settimeout(WAIT_S)
                stranger.sendall(words)
                # Heartbeats may come first, then the end: never an answer.
                with suppress(ConnectionError):
                    while stranger.recv(4096):
                        pass
        assert lookout.alive == 1
        assert losses.empty()
    finally:
        lookout.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_follower_learns_that_its_leader_is_gone(sign: signal.Signals) -> None:
    limits = LIVELY if sign == signal.SIGKILL else SHORT
    command = [sys.executable, "-c", LEADER, str(limits.silent_s)]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert leader.stdout is not None
        port = int(leader.stdout.readline())
        gone: queue.SimpleQueue[str] = queue.SimpleQueue()
        tether = Tether(("127.0.0.1", port), limits, rank=1, token=TOKEN, on_leader_gone=gone.put)
        os.kill(leader.pid, sign)
        why = gone.get(timeout=WAIT_S)
        assert ("no heartbeat" if sign == signal.SIGSTOP else "connection") in why
        tether.close()
    finally:
        leader.kill()
        leader.wait()
        assert leader.stdout is not None
        leader.stdout.close()


def test_a_leader_that_stops_is_no_accident() -> None:
    lookout = Lookout(2, LIVELY, StepWatch(), token=TOKEN, on_loss=lambda loss: None)
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()
    tether = Tether(
        ("127.0.0.1", lookout.port), LIVELY, rank=1, token=TOKEN, on_leader_gone=gone.put
    )
    tether.reached("loaded")
    lookout.wait_for("loaded", WAIT_S)
    lookout.close()
    lookout.close()
    tether.close()
    assert gone.empty()
    with pytest.raises(GroupLostError, match="closed"):
        lookout.check()


def test_a_group_that_is_given_up_lets_its_followers_go_at_once() -> None:
    lookout = Lookout(2, LIVELY, StepWatch(), token=TOKEN, on_loss=lambda loss: None)
    gone: queue.SimpleQueue[str] = queue.SimpleQueue()
    tether = Tether(
        ("127.0.0.1", lookout.port), LIVELY, rank=1, token=TOKEN, on_leader_gone=gone.put
    )
    lookout.wait_for("started", WAIT_S)
    lookout.dismiss()
    assert "gives the group up" in gone.get(timeout=WAIT_S)
    lookout.close(kill=True)
    tether.close()


def test_a_summons_comes_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Summons.of_this_process() is None
    summons = Summons(rank=3, world=4, store_port=5, lookout_port=6, token="t", limits=SHORT)
    monkeypatch.setenv(VARIABLE, summons.encode())
    assert Summons.of_this_process() == summons
    for broken in ("", "[]", '{"rank": 1}', '{"limits": {"never": 1}}'):
        monkeypatch.setenv(VARIABLE, broken)
        with pytest.raises(ParallelError, match=VARIABLE):
            Summons.of_this_process()


def test_limits_follow_what_such_work_took() -> None:
    clock = Clock()
    watch = StepWatch(clock=clock)
    assert watch.limit_s("velocity", 33) == FIRST_LIMIT_S
    for seconds in (1.0, 2.0, 1.5):
        with watch.piece("velocity", 33):
            clock.now_s += seconds
    assert watch.limit_s("velocity", 33) == PATIENCE * 2.0
    assert watch.limit_s("velocity", 17) == FIRST_LIMIT_S
    with watch.piece("velocity", 33):
        clock.now_s += 19.0
        assert watch.overdue() is None
        clock.now_s += 2.0
        overdue = watch.overdue()
        assert overdue is not None
        assert (overdue.name, overdue.seconds, overdue.limit_s) == ("velocity", 21.0, 20.0)
    assert watch.overdue() is None
    watch.forget()
    assert watch.limit_s("velocity", 33) == FIRST_LIMIT_S


def test_work_that_failed_says_nothing_about_the_time_it_takes() -> None:
    clock = Clock()
    watch = StepWatch(clock=clock)
    for _ in range(KNOWN_AFTER):
        with pytest.raises(ZeroDivisionError), watch.piece("velocity"):
            clock.now_s += 1 / 0
    assert watch.limit_s("velocity") == FIRST_LIMIT_S
    assert watch.overdue() is None


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1000.0), min_size=KNOWN_AFTER, max_size=64), st.floats(0.0, 1.0))
def test_work_as_slow_as_before_is_never_stuck(taken: list[float], share: float) -> None:
    clock = Clock()
    watch = StepWatch(clock=clock)
    for seconds in taken:
        with watch.piece("step"):
            clock.now_s += seconds
    limit_s = watch.limit_s("step")
    assert limit_s >= max(SHORTEST_LIMIT_S, taken[-1])
    with watch.piece("step"), watch.piece("part of it"):
        clock.now_s += share * taken[-1]
        assert watch.overdue() is None


def test_a_watch_is_asked_while_another_thread_works() -> None:
    watch = StepWatch(limit_s=0.0)
    began, ended = threading.Event(), threading.Event()

    def work() -> None:
        with watch.piece("step"):
            began.set()
            ended.wait(WAIT_S)

    thread = threading.Thread(target=work)
    thread.start()
    assert began.wait(WAIT_S)
    overdue = None
    while overdue is None:
        overdue = watch.overdue()
    ended.set()
    thread.join(WAIT_S)
    assert overdue.name == "step"
