"""What Prometheus reads: every metric is explained, in base units, and in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from visavis.server.metrics import Metrics

REPOSITORY = Path(__file__).resolve().parents[3]
# https://prometheus.io/docs/practices/naming/: seconds and bytes, and ratios instead of percent.
OTHER_UNITS = re.compile(
    r"_(ns|us|ms|milliseconds|microseconds|minutes|hours|bits|kb|mb|mib|gib|kilobytes|megabytes|"
    r"percent)(_|$)"
)


@pytest.fixture
def families() -> list[Metric]:
    """Of the server's own; the library adds when each counter was made, and its process_*."""
    found = list(text_string_to_metric_families(Metrics().render().decode()))
    assert found
    return [f for f in found if not f.name.startswith("process_") and f.name[-8:] != "_created"]


def test_every_metric_is_explained_and_has_its_prefix(families: list[Metric]) -> None:
    for family in families:
        assert family.name.startswith("visavis_")
        assert re.fullmatch(r"[A-Z0-9].+\.", family.documentation), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name


def test_times_are_seconds_and_sizes_are_bytes(families: list[Metric]) -> None:
    for family in families:
        assert not OTHER_UNITS.search(family.name)
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_factor")), family.name
        if re.search(r"(memory|size|traffic)", family.name):
            assert "_bytes" in family.name


def test_the_documentation_names_them_all_and_no_other(families: list[Metric]) -> None:
    text = (REPOSITORY / "docs/operations.md").read_text()
    section = text.partition("## Metrics")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    documented = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    exposed = {
        family.name.removeprefix("visavis_") + ("_total" if family.type == "counter" else "")
        for family in families
    }
    assert documented == exposed
