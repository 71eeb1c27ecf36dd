"""Alerts, recorded rules, scaling and the dashboard ask for metrics that the server has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kustomize_build import Json, documents
from prometheus_client.metrics import MetricWrapperBase

from visavis.server.errors import ErrorCode
from visavis.server.metrics import ENGINE_STATES, Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
RULES = KUBERNETES / "monitoring" / "prometheusrule.yaml"
RULE_TESTS = KUBERNETES / "monitoring" / "prometheusrule.test.yaml"
DASHBOARD = DEPLOY / "grafana" / "visavis.json"
ASKING = [*KUBERNETES.rglob("scaledobject.yaml"), RULES, RULE_TESTS, DASHBOARD]
# What Prometheus adds to every series of a pod.
TARGET_LABELS = {"namespace", "pod", "instance", "job"}
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}
# Of visavis_build_info, as components.py says it.
BUILD_LABELS = {"version", "model"}
VALUES = {"state": set(ENGINE_STATES), "code": {str(code) for code in ErrorCode}}
SELECTED = re.compile(r"\b(visavis_[a-z_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*\\?"([^"\\]*)')


@dataclass(frozen=True)
class Series:
    """One name that Prometheus has, with the labels that the server gives it."""

    name: str
    labels: frozenset[str]


def server_series() -> dict[str, Series]:
    found = {}
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family, *_) = metric.describe()
            for suffix in SUFFIXES[family.type]:
                labels = set(metric._labelnames)
                labels |= {"le"} if suffix == "_bucket" else set()
                labels |= BUILD_LABELS if suffix == "_info" else set()
                name = f"{family.name}{suffix}"
                found[name] = Series(name, frozenset(labels))
    return found


SERIES = server_series()


def rules() -> list[Json]:
    (resource,) = documents(RULES.read_text())
    return [rule for group in resource["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """All PromQL of the rules, the scaling and the dashboard."""
    for rule in rules():
        yield rule["expr"]
    for path in KUBERNETES.rglob("scaledobject.yaml"):
        for resource in documents(path.read_text()):
            for trigger in resource["spec"]["triggers"]:
                yield trigger["metadata"]["query"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


@pytest.mark.parametrize("path", ASKING, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_metric_that_is_asked_for_exists(path: Path) -> None:
    asked = {name for name, _ in SELECTED.findall(path.read_text())}
    assert asked
    assert asked <= set(SERIES)


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_expressions_use_labels_and_values_that_there_are(expression: str) -> None:
    known = set(TARGET_LABELS)
    for name, matchers in SELECTED.findall(expression):
        labels = SERIES[name].labels
        known |= labels
        for label, operator, value in MATCHER.findall(matchers):
            assert label in labels | TARGET_LABELS, f"{name} has no label {label}"
            if label in VALUES and "$" not in value:
                values = value.split("|") if "~" in operator else [value]
                assert set(values) <= VALUES[label]
    if not SELECTED.search(expression):
        return  # of recorded rules, which are checked themselves
    for grouping in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        assert {label.strip() for label in grouping.split(",")} <= known
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


def test_a_histogram_is_asked_for_by_its_buckets() -> None:
    for expression in expressions():
        for inner in re.findall(r"histogram_quantile\(.*?\b(visavis_\w+)", expression):
            assert inner.endswith("_bucket")
    for name in SERIES:
        if name.endswith("_bucket"):
            assert "le" in SERIES[name].labels


def test_names_that_alerts_use_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = set()
    for expression in expressions():
        used |= set(re.findall(r"\bvisavis:[a-z0-9_:]+", expression))
    assert used
    assert used <= recorded


def test_the_tests_of_alerts_are_of_alerts_that_there_are() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    names = []
    for case in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for expected in case.get("alert_rule_test", ()):
            rule = alerts[expected["alertname"]]
            names.append(expected["alertname"])
            for firing in expected["exp_alerts"]:
                assert firing["exp_labels"]["severity"] == rule["labels"]["severity"]
                assert firing["exp_annotations"]["remedy"] == rule["annotations"]["remedy"]
                assert set(firing["exp_annotations"]) == set(rule["annotations"])
    assert names


def test_labels_in_texts_of_alerts_survive_the_expression() -> None:
    """`$labels.pod` is empty where the expression has summed it away."""
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    for rule in rules():
        if "alert" not in rule:
            continue
        expression = rule["expr"]
        for name, source in recorded.items():
            expression = expression.replace(name, source)
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
        shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert shown <= kept, rule["alert"]


def test_the_dashboard_is_whole() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}
    assert len(places) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert all(target["expr"] for target in panel["targets"])


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, on Debian: apt-get install prometheus")
    (rule,) = documents(RULES.read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    shutil.copy(RULE_TESTS, tmp_path / "test.yaml")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]):
        result = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr
