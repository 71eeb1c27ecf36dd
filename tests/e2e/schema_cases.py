"""Requests generated from an OpenAPI document, the same ones each time."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings


def every_case(operation: Any, try_out: Callable[[Any], object], examples: int) -> None:
    """Call `try_out` with so many requests of an operation."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def run(case: Any) -> None:
        try_out(case)

    run()
