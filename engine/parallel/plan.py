"""How a group of processes splits a chunk: by heads (Ulysses), by tokens (ring), or both."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd


class ParallelError(ValueError):
    """A split of the work that cannot be, with the way out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePlan:
    """`ulysses_degree * ring_degree` processes share one chunk's tokens.

    Within a Ulysses group of neighbouring ranks each process attends with some of the heads over
    the group's tokens (arXiv 2309.14509); between the groups keys and values travel in a ring
    (arXiv 2310.01889). Ulysses sends less and needs heads that divide; a ring takes any number.

    Raises:
        ParallelError: a degree below 1.
    """

    ulysses_degree: int = 1
    ring_degree: int = 1

    def __post_init__(self) -> None:
        for name, degree in (
            ("ulysses_degree", self.ulysses_degree),
            ("ring_degree", self.ring_degree),
        ):
            if degree < 1:
                raise ParallelError(f"{name}={degree}: must be at least 1")

    @classmethod
    def choose(
        cls,
        world: int,
        num_heads: int,
        *,
        ulysses_degree: int | None = None,
        ring_degree: int | None = None,
    ) -> SequencePlan:
        """A plan for `world` processes; what is not told is chosen, heads before tokens.

        Raises:
            ParallelError: the degrees do not multiply to `world`, or heads do not divide.
        """
        if ulysses_degree is None:
            share = world // ring_degree if ring_degree else world
            ulysses_degree = share if ring_degree else gcd(world, num_heads)
        if ring_degree is None:
            ring_degree = max(1, world // max(1, ulysses_degree))
        plan = cls(ulysses_degree=ulysses_degree, ring_degree=ring_degree)
        plan.check(world, num_heads)
        return plan

    @property
    def world(self) -> int:
        """Processes in the group."""
        return self.ulysses_degree * self.ring_degree

    def check(self, world: int, num_heads: int) -> None:
        """See that the plan fits.

        Raises:
            ParallelError: the degrees do not multiply to `world`, or heads do not divide.
        """
        if self.world != world:
            raise ParallelError(
                f"ulysses_degree={self.ulysses_degree} times ring_degree={self.ring_degree} is "
                f"{self.world}, but there are {world} processes; the product must be their number"
            )
        if num_heads % self.ulysses_degree:
            raise ParallelError(
                f"ulysses_degree={self.ulysses_degree}: the model's {num_heads} heads do not "
                f"divide by it; use {gcd(world, num_heads)} and "
                f"ring_degree={world // gcd(world, num_heads)}"
            )
