"""The rows of the table: each changes one thing of the base, on the same seeds.

Compute is counted in network evaluations (a forward pass of any of the three networks on a batch; a
backward pass counts two) and is the same for every row: a row whose rounds are dear makes fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from visavis.training.ablation.sessions import Deployment
from visavis.training.recipes import StudentRecipe, small_student

BASE: Final = "random k ≤ 5"
TEACHER: Final = "teacher, 16 steps"
UNTRAINED: Final = "teacher, 4 steps"
HEADLINE_SEEDS: Final = (1, 2, 3)
# How often over the codec's own errors are handed over where they are meant to hurt.
HARSH: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is trained, with which seeds, and how the result is sampled.

    Training hands over with as many errors as `how` says. `also`: further ways to sample the first
    seed's network, by the title of their own row. `long`: seeds that also speak for much longer.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seeds: tuple[int, ...] = (1,)
    trained: bool = True  # False: the teacher itself, its seeds are those of the sampling
    how: Deployment = Deployment()
    also: Mapping[str, Deployment] = field(default_factory=lambda: MappingProxyType({}))
    long: tuple[int, ...] = ()

    def recipe(self, seed: int) -> StudentRecipe:
        """The base with this row's changes."""
        return replace(small_student(), seed=seed, **self.changes)


_ONE: Final = MappingProxyType({"max_chunks": 1, "random_chunks": False})

ROWS: Final = (
    Row(title=UNTRAINED, seeds=HEADLINE_SEEDS, trained=False, long=(1,)),
    Row(
        title=TEACHER,
        seeds=HEADLINE_SEEDS,
        trained=False,
        how=Deployment(num_steps=16, sampler="euler"),
    ),
    # Number of steps and sampler differ between the two above; each of these changes one of them.
    Row(
        title="teacher, 4 steps, Euler",
        seeds=HEADLINE_SEEDS,
        trained=False,
        how=Deployment(sampler="euler"),
    ),
    Row(
        title="teacher, 16 steps, re-noising",
        seeds=HEADLINE_SEEDS,
        trained=False,
        how=Deployment(num_steps=16),
    ),
    Row(
        title=BASE,
        seeds=HEADLINE_SEEDS,
        also={
            "base sampled in 2 steps": Deployment(num_steps=2),
            "base sampled in 1 step": Deployment(num_steps=1),
            "base sampled by Euler": Deployment(sampler="euler"),
        },
        long=HEADLINE_SEEDS,
    ),
    Row(title="K = 1", changes=_ONE, seeds=HEADLINE_SEEDS, long=HEADLINE_SEEDS),
    Row(
        title="K = 3",
        changes={"max_chunks": 3, "random_chunks": False},
        seeds=HEADLINE_SEEDS,
    ),
    Row(
        title="K = 5",
        changes={"max_chunks": 5, "random_chunks": False},
        seeds=HEADLINE_SEEDS,
    ),
    Row(title="causal in the chunk", changes={"causal": True}, seeds=HEADLINE_SEEDS),
    Row(
        title=f"{UNTRAINED}, harsh",
        seeds=HEADLINE_SEEDS,
        trained=False,
        how=Deployment(errors=HARSH),
        long=(1,),
    ),
    Row(title=f"{BASE}, harsh", seeds=HEADLINE_SEEDS, how=Deployment(errors=HARSH), long=(1,)),
    Row(
        title="K = 1, harsh",
        changes=_ONE,
        seeds=HEADLINE_SEEDS,
        how=Deployment(errors=HARSH),
        long=(1,),
    ),
    Row(title="2 steps", changes={"num_steps": 2}, how=Deployment(num_steps=2)),
    Row(title="1 step", changes={"num_steps": 1}, how=Deployment(num_steps=1)),
    Row(
        title="Euler",
        changes={"sampler": "euler"},
        how=Deployment(sampler="euler"),
        also={"Euler, sampled by re-noising": Deployment()},
    ),
    Row(title="motion alignment", changes={"motion_alignment": 1.0}),
    Row(title="weak motion alignment", changes={"motion_alignment": 0.1}),
    Row(title="no anchored starts", changes={"recorded_start": 0.0}),
    Row(title="noise of the exit step", changes={"noise_range": "exit"}),
    Row(title="with lips' regression", changes={"regression_weight": 0.5}),
)


def slug(title: str) -> str:
    """A title as a file name."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in title.lower())
    return "-".join(part for part in kept.split("-") if part)
