"""The manifests against Kubernetes' schemas, the server's settings and the server's metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from visavis.server.config import ServerConfig
from visavis.server.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("overlays/cpu-embedded", "overlays/gpu-14b", "monitoring")
MANIFESTS = sorted(
    path
    for path in KUBERNETES.rglob("*.yaml")
    if path.name not in ("kustomization.yaml", "deployment-patch.yaml")
    and not path.name.endswith(".test.yaml")
)
VERSIONS = ("1.30", "1.37")
Json = dict[str, Any]


def strict(properties: Json, *required: str) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
RULE = {
    "oneOf": [
        strict({"record": TEXT, "expr": TEXT}, "record", "expr"),
        strict(
            {
                "alert": TEXT,
                "expr": TEXT,
                "for": {"pattern": "^[0-9]+[smh]$"},
                "labels": strict({"severity": {"enum": ["warning", "critical"]}}, "severity"),
                "annotations": strict({"summary": TEXT, "remedy": TEXT}, "summary", "remedy"),
            },
            "alert",
            "expr",
            "for",
            "labels",
            "annotations",
        ),
    ]
}
# What is used of the custom resources; a field that is misspelt is none of these.
CUSTOM = {
    "ScaledObject": strict(
        {
            "scaleTargetRef": strict({"name": {"const": "visavis"}}, "name"),
            "minReplicaCount": COUNT,
            "maxReplicaCount": COUNT,
            "pollingInterval": COUNT,
            "advanced": strict(
                {
                    "horizontalPodAutoscalerConfig": strict(
                        {
                            "behavior": strict(
                                {
                                    "scaleUp": strict({"stabilizationWindowSeconds": COUNT}),
                                    "scaleDown": strict(
                                        {
                                            "stabilizationWindowSeconds": {
                                                "type": "integer",
                                                "minimum": 600,
                                                "maximum": 3600,
                                            },
                                            "policies": {"type": "array"},
                                        }
                                    ),
                                }
                            )
                        }
                    )
                }
            ),
            "triggers": {
                "type": "array",
                "minItems": 1,
                "items": strict(
                    {
                        "type": {"const": "prometheus"},
                        "metricType": {"enum": ["AverageValue", "Value"]},
                        "metadata": strict(
                            {
                                "serverAddress": TEXT,
                                "query": TEXT,
                                "threshold": TEXT,
                                "ignoreNullValues": TEXT,
                            },
                            "serverAddress",
                            "query",
                            "threshold",
                        ),
                    },
                    "type",
                    "metadata",
                ),
            },
            "fallback": strict({"failureThreshold": COUNT, "replicas": COUNT}),
        },
        "scaleTargetRef",
        "triggers",
    ),
    "PrometheusRule": strict(
        {
            "groups": {
                "type": "array",
                "items": strict(
                    {"name": TEXT, "interval": TEXT, "rules": {"type": "array", "items": RULE}},
                    "name",
                    "rules",
                ),
            }
        },
        "groups",
    ),
    "PodMonitor": strict(
        {
            "selector": strict({"matchLabels": {"type": "object"}}),
            "podMetricsEndpoints": {
                "type": "array",
                "items": strict({"port": TEXT, "path": TEXT, "interval": TEXT}, "port"),
            },
        },
        "selector",
        "podMetricsEndpoints",
    ),
}


def documents(text: str) -> Iterator[Json]:
    for document in yaml.safe_load_all(text):
        if document is not None:
            yield document


def check(resource: Json, version: str) -> None:
    """Raises for a resource that is not what its kind's schema says, or has none."""
    custom = CUSTOM.get(resource["kind"])
    if custom is not None:
        jsonschema.validate(resource["spec"], custom)
        assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
        return
    with warnings.catch_warnings():
        # A kind without a schema is only a warning there.
        warnings.simplefilter("error")
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_are_valid(path: Path, version: str) -> None:
    for resource in documents(path.read_text()):
        check(resource, version)


def test_a_misspelt_field_would_be_found() -> None:
    (deployment,) = documents((KUBERNETES / "base/deployment.yaml").read_text())
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, VERSIONS[-1])
    (scaled,) = documents((KUBERNETES / "overlays/cpu-embedded/scaledobject.yaml").read_text())
    scaled["spec"]["minReplicas"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(scaled, VERSIONS[-1])


@pytest.fixture(scope="module", params=OVERLAYS)
def built(request: pytest.FixtureRequest) -> list[Json]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl 1.24 or newer")
    command = [kubectl, "kustomize", str(KUBERNETES / request.param)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "patchesStrategicMerge" in result.stderr:
        pytest.skip("kubectl is too old")
    assert result.returncode == 0, result.stderr
    return list(documents(result.stdout))


def test_overlays_build_valid_resources(built: list[Json]) -> None:
    for resource in built:
        check(resource, VERSIONS[-1])
        assert resource["metadata"]["namespace"] == "visavis"


def pods(resources: list[Json]) -> Iterator[Json]:
    for resource in resources:
        if resource["kind"] == "Deployment":
            yield resource["spec"]["template"]["spec"]


def settings_of(pod: Json) -> dict[str, str]:
    """VISAVIS_ variables with a value or, from a secret, a stand-in."""
    found = {}
    for variable in pod["containers"][0]["env"]:
        assert variable["name"].startswith("VISAVIS_")
        found[variable["name"]] = variable.get("value", "0123456789" * 4)
    return found


def test_the_pods_settings_are_the_servers(
    built: list[Json], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[keys.a]\nsha256 = "{"0" * 64}"\n')
    for pod in pods(built):
        variables = settings_of(pod)
        for name, value in variables.items():
            assert name.removeprefix("VISAVIS_").lower() in ServerConfig.model_fields
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("VISAVIS_API_KEYS_FILE", str(keys))
        config = ServerConfig(host="0.0.0.0")
        (admin,) = [p for p in pod["containers"][0]["ports"] if p["name"] == "admin"]
        assert config.admin_port == admin["containerPort"]
        # The kubelet kills what is still there after the grace period, however it talks.
        drain_s = config.drain_notice_s + config.drain_timeout_s
        assert pod["terminationGracePeriodSeconds"] >= drain_s + 30
        assert config.drain_notice_s >= 5


def test_probes_ask_what_the_server_answers(built: list[Json]) -> None:
    for pod in pods(built):
        container = pod["containers"][0]
        for probe, path in (
            ("startupProbe", "/health/startup"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ):
            assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
        startup = container["startupProbe"]
        minutes = startup["periodSeconds"] * startup["failureThreshold"] / 60
        assert minutes >= (20 if "nvidia.com/gpu" in str(container["resources"]) else 1)
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"] == {"drop": ["ALL"]}


def known_metrics() -> set[str]:
    names = set()
    for family in Metrics().registry.collect():
        names.add(family.name)
        names.update(f"{family.name}_{end}" for end in ("bucket", "sum", "count", "total", "info"))
    return names


@pytest.mark.parametrize(
    "path",
    [*KUBERNETES.rglob("scaledobject.yaml"), *KUBERNETES.glob("monitoring/*.yaml"),
     *DEPLOY.glob("grafana/*.json")],
    ids=lambda path: path.name,
)  # fmt: skip
def test_every_metric_that_is_asked_for_exists(path: Path) -> None:
    asked = set(re.findall(r"\bvisavis_[a-z_]+", path.read_text()))
    assert asked <= known_metrics()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((DEPLOY / "grafana/visavis.json").read_text())
    panels = dashboard["panels"]
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
    (rule,) = documents((KUBERNETES / "monitoring/prometheusrule.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
    shutil.copy(KUBERNETES / "monitoring/prometheusrule.test.yaml", tmp_path / "test.yaml")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "test.yaml"]):
        result = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_metric_has_help(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, on Debian: apt-get install prometheus")
    metrics = Metrics()
    result = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.render(), capture_output=True, check=False
    )
    told = (result.stdout + result.stderr).decode()
    # It also has opinions on names; process_* are the library's.
    complaints = [line for line in told.splitlines() if "help" in line.lower()]
    assert not complaints
