"""The process groups of a plan: who is in which, and which tokens lie where."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist

from visavis.engine.parallel.plan import ParallelError, SequencePlan


@dataclass(frozen=True, slots=True)
class SequenceGroups:
    """Ranks count ring segment by ring segment: `rank = ring_index * ulysses + ulysses_index`.

    So a Ulysses group, neighbouring ranks (one machine's fastest links), holds one contiguous run
    of the chunk's tokens, and a ring joins the ranks that work on the same heads.
    """

    plan: SequencePlan
    rank: int
    everyone: dist.ProcessGroup
    ulysses: dist.ProcessGroup
    ring: dist.ProcessGroup

    @classmethod
    def create(cls, plan: SequencePlan) -> SequenceGroups:
        """Make the groups; every process of the default group must call this, with one plan.

        Raises:
            ParallelError: torch.distributed is not initialised, or has another number of processes.
        """
        if not dist.is_initialized():
            raise ParallelError(
                "torch.distributed is not initialised; start the program under torchrun"
            )
        world, rank = dist.get_world_size(), dist.get_rank()
        plan.check(world, plan.ulysses_degree)
        ulysses, ring = plan.ulysses_degree, plan.ring_degree
        # A group must be created by all processes, those outside it included, in one order.
        rows = [list(range(i * ulysses, (i + 1) * ulysses)) for i in range(ring)]
        columns = [list(range(i, world, ulysses)) for i in range(ulysses)]
        row_groups = [dist.new_group(ranks) for ranks in rows]
        column_groups = [dist.new_group(ranks) for ranks in columns]
        everyone = dist.group.WORLD
        assert everyone is not None  # is_initialized was true
        return cls(plan, rank, everyone, row_groups[rank // ulysses], column_groups[rank % ulysses])

    @property
    def ulysses_index(self) -> int:
        return self.rank % self.plan.ulysses_degree

    @property
    def ring_index(self) -> int:
        return self.rank // self.plan.ulysses_degree

    @property
    def ring_next(self) -> int:
        """Global rank of the process that this one's keys and values go to."""
        return (self.rank + self.plan.ulysses_degree) % self.plan.world

    @property
    def ring_previous(self) -> int:
        """Global rank of the process whose keys and values come here."""
        return (self.rank - self.plan.ulysses_degree) % self.plan.world
