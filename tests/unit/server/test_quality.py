"""Quality under load: one lever at a time, in order, back only when it will stay."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.quality import (
    DEGRADE_AFTER_S,
    DEGRADE_LOAD,
    RESTORE_AFTER_S,
    RESTORE_LOAD,
    DegradePolicy,
    Quality,
    QualityControl,
)

FULL = Quality(num_steps=4)
ORDERS = [order for count in range(4) for order in permutations(("steps", "size", "fps"), count)]
policies = st.builds(
    DegradePolicy,
    order=st.sampled_from(ORDERS),
    min_steps=st.integers(1, 5),
    min_scale=st.sampled_from((0.25, 0.5, 1.0)),
    min_fps=st.sampled_from((5.0, 12.5, 25.0)),
)


def cost(quality: Quality) -> float:
    """Of one session: steps and pictures both count."""
    return 0.05 * quality.num_steps + 0.3 * quality.picture_work


@given(policy=policies)
def test_each_lever_makes_something_smaller_and_nothing_else(policy: DegradePolicy) -> None:
    levers = policy.levers(FULL)
    assert [lever for lever in policy.order if lever in levers] == list(levers)
    stages = [policy.lowered(FULL, count) for count in range(len(levers) + 1)]
    assert stages[0] == FULL
    for (before, after), lever in zip(pairwise(stages), levers, strict=True):
        fields = {"steps": "num_steps", "size": "scale", "fps": "fps"}
        for name, field in fields.items():
            if name == lever:
                assert getattr(after, field) < getattr(before, field)
            else:
                assert getattr(after, field) == getattr(before, field)


@given(
    policy=policies,
    sessions=st.lists(st.tuples(st.floats(0, 6), st.floats(0.05, 15)), max_size=40),
)
def test_the_machine_under_any_load(
    policy: DegradePolicy, sessions: list[tuple[float, float]]
) -> None:
    control = QualityControl(policy, FULL)
    now_s, changed_s, last = 0.0, float("-inf"), 0
    for speaking, seconds in sessions:
        until_s = now_s + seconds
        while now_s < until_s:
            before, quality_before = control.pulled, control.quality
            changed = control.update(now_s, lambda q, n=speaking: n * cost(q))  # type: ignore[misc]
            assert changed == (control.pulled != before)
            assert 0 <= control.pulled <= len(policy.levers(FULL))
            assert control.degraded == policy.levers(FULL)[: control.pulled]
            if changed:
                step = control.pulled - before
                assert abs(step) == 1
                # Not sooner than a state has lasted, so that it cannot flap.
                assert now_s - changed_s >= (DEGRADE_AFTER_S if step > 0 else RESTORE_AFTER_S)
                if step > 0:
                    assert speaking * cost(quality_before) > DEGRADE_LOAD
                else:
                    assert speaking * cost(control.quality) < RESTORE_LOAD
                changed_s, last = now_s, step
            now_s += 0.25
    assert last in (-1, 0, 1)


@given(policy=policies, speaking=st.floats(0, 10))
def test_under_a_constant_load_it_comes_to_rest(policy: DegradePolicy, speaking: float) -> None:
    control = QualityControl(policy, FULL)
    changes = [now_s for now_s in range(200) if control.update(now_s, lambda q: speaking * cost(q))]
    assert len(changes) == control.pulled
    assert changes == sorted(changes)
    # What was lowered was needed, and when all is over everything comes back, last things first.
    if control.pulled < len(policy.levers(FULL)):
        assert speaking * cost(control.quality) <= DEGRADE_LOAD
    seen = [control.degraded]
    for now_s in range(200, 300):
        if control.update(now_s, lambda q: 0.0):
            seen.append(control.degraded)
    assert seen[-1] == ()
    assert all(later == earlier[:-1] for earlier, later in pairwise(seen))


def test_a_load_between_the_two_marks_changes_nothing() -> None:
    control = QualityControl(DegradePolicy(), FULL)
    high = 1.2 / cost(FULL)
    assert not control.update(0.0, lambda q: high * cost(q))
    assert control.update(1.0, lambda q: high * cost(q))
    middle = 0.9 / cost(FULL)
    assert not any(control.update(float(n), lambda q: middle * cost(q)) for n in range(2, 90))
    assert control.degraded == ("steps",)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_model_of_few_steps_has_no_such_lever(steps: int) -> None:
    assert DegradePolicy().levers(Quality(num_steps=steps)) == ("size", "fps")
