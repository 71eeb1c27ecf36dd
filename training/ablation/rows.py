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
# What handing over through pixels adds to the codes (docs/research.md says how it was measured).
HAND_OVER_NOISE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is trained, with which seeds, and how the result is sampled.

    `also`: further ways to sample the first seed's network, by the title of their own row.
    """

    title: str
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    seeds: tuple[int, ...] = (1,)
    trained: bool = True  # False: the teacher itself, its seeds are those of the sampling
    how: Deployment = Deployment(hand_over_noise=HAND_OVER_NOISE)
    also: Mapping[str, Deployment] = field(default_factory=lambda: MappingProxyType({}))

    def recipe(self, seed: int) -> StudentRecipe:
        """The base with this row's changes."""
        base = replace(small_student(), seed=seed, hand_over_noise=HAND_OVER_NOISE)
        return replace(base, **self.changes)


def _sampled(**how: Any) -> Deployment:
    return Deployment(**{"hand_over_noise": HAND_OVER_NOISE, **how})


ROWS: Final = (
    Row(title=UNTRAINED, seeds=HEADLINE_SEEDS, trained=False),
    Row(
        title=TEACHER,
        seeds=HEADLINE_SEEDS,
        trained=False,
        how=_sampled(num_steps=16, sampler="euler"),
    ),
    Row(
        title=BASE,
        seeds=HEADLINE_SEEDS,
        also={
            "base sampled in 2 steps": _sampled(num_steps=2),
            "base sampled in 1 step": _sampled(num_steps=1),
            "base sampled by Euler": _sampled(sampler="euler"),
        },
    ),
    Row(
        title="K = 1",
        changes={"max_chunks": 1, "random_chunks": False},
        seeds=HEADLINE_SEEDS,
    ),
    Row(
        title="K = 5",
        changes={"max_chunks": 5, "random_chunks": False},
        seeds=HEADLINE_SEEDS,
    ),
    Row(title="causal in the chunk", changes={"causal": True}, seeds=HEADLINE_SEEDS),
    Row(title="K = 3", changes={"max_chunks": 3, "random_chunks": False}),
    Row(
        title="Euler",
        changes={"sampler": "euler"},
        how=_sampled(sampler="euler"),
        also={"Euler, sampled by re-noising": _sampled()},
    ),
    Row(title="motion alignment", changes={"motion_alignment": 1.0}),
    Row(title="no anchored starts", changes={"recorded_start": 0.0}),
    Row(title="2 steps", changes={"num_steps": 2}, how=_sampled(num_steps=2)),
    Row(title="1 step", changes={"num_steps": 1}, how=_sampled(num_steps=1)),
    Row(title="noise of the exit step", changes={"noise_range": "exit"}),
    Row(title="with lips' regression", changes={"regression_weight": 0.5}),
)


def slug(title: str) -> str:
    """A title as a file name."""
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in title.lower())
    return "-".join(part for part in kept.split("-") if part)
