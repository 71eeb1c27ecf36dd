"""What can happen to a group of processes, and the error that tells of it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LossKind = Literal["died", "silent", "stuck", "failed"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Why a group can no longer compute.

    `kind`: a process `died`, was `silent` on the side channel, the work was `stuck`, or a step
    `failed` in this process. `rank`: of the process that is to blame, None where nobody can tell.
    """

    kind: LossKind
    rank: int | None
    detail: str

    def __str__(self) -> str:
        who = "the group" if self.rank is None else f"rank {self.rank}"
        return f"{who} {'is ' * (self.kind in ('silent', 'stuck'))}{self.kind}: {self.detail}"


class GroupLostError(RuntimeError):
    """The processes cannot compute together any more; nothing of the step under way counts."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(str(loss))
        self.loss = loss


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """Times after which a group is given up, in seconds.

    `silent_s`: without a heartbeat. `step_s`: of one piece of work that all processes share; None:
    from what such pieces took before (`StepWatch`). `start_s`: until all followers have loaded.
    """

    silent_s: float = 10.0
    step_s: float | None = None
    start_s: float = 900.0

    @property
    def beat_s(self) -> float:
        """Seconds between two heartbeats: a few may be late before anybody is given up."""
        return self.silent_s / 8
