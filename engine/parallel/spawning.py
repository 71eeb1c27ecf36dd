"""The followers of this machine as child processes, which one leader starts and can end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from visavis.engine.parallel.loss import GroupLimits, Loss
from visavis.engine.parallel.plan import ParallelError

VARIABLE = "VISAVIS_GROUP"
KILLED_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summons:
    """What a follower that the leader started has to know; it comes in the environment."""

    rank: int
    world: int
    store_port: int
    lookout_port: int
    token: str
    limits: GroupLimits

    def encode(self) -> str:
        """As one variable."""
        return json.dumps(asdict(self))

    @classmethod
    def of_this_process(cls) -> Summons | None:
        """None for a process that no leader started.

        Raises:
            ParallelError: the variable is not a leader's.
        """
        text = os.environ.get(VARIABLE)
        if text is None:
            return None
        try:
            fields = json.loads(text)
            return cls(**{**fields, "limits": GroupLimits(**fields["limits"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ParallelError(
                f"{VARIABLE} is not what a leader sets ({error}); unset it"
            ) from error


class FollowerProcesses:
    """Children that run `command`, one a rank from 1 on; each gets a `Summons`."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`environment`: variables that they get beside this process's own."""
        self._command = list(command)
        self._environment = dict(environment)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def pids(self) -> dict[int, int]:
        """By rank."""
        return {rank: child.pid for rank, child in self._children.items()}

    def start(self, summons: Sequence[Summons]) -> None:
        """Start them anew; those that were there are killed first."""
        self.kill()
        for one in summons:
            environment = os.environ | self._environment | {VARIABLE: one.encode()}
            self._children[one.rank] = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.DEVNULL,
                # A Ctrl-C at the terminal is the leader's to handle.
                start_new_session=True,
            )

    def dead(self) -> Loss | None:
        """One that has ended, if any."""
        for rank, child in list(self._children.items()):
            code = child.poll()
            if code is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return Loss("died", rank, f"process {child.pid} ended by {how}")
        return None

    def wait(self, timeout_s: float) -> None:
        """Let them end, and kill those that do not; together they have `timeout_s`."""
        until_s = time.monotonic() + timeout_s
        for child in list(self._children.values()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until_s - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End them at once, stopped ones included."""
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.kill()
        for child in children:
            # One that hangs in a driver ends when the driver lets it: nobody waits for that.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(KILLED_WITHIN_S)
