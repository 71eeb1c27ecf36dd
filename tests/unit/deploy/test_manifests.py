"""The manifests against Kubernetes' schemas, the server's settings and the server's metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
from kustomize_build import Json, build, build_from, documents

from visavis.server.config import ServerConfig

DEPLOY = Path(__file__).parents[3] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("overlays/cpu-embedded", "overlays/gpu-14b", "monitoring")
MANIFESTS = sorted(
    path
    for path in KUBERNETES.rglob("*.yaml")
    if path.name != "kustomization.yaml" and not path.name.endswith(("-patch.yaml", ".test.yaml"))
)
VERSIONS = ("1.30", "1.37")


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


def traced() -> list[Json]:
    """An overlay that sends traces."""
    kustomization = {
        "namespace": "visavis",
        "resources": ["cpu-embedded"],
        "components": ["../components/traces"],
    }
    return build_from(KUBERNETES / "overlays", kustomization)


@pytest.fixture(params=[*OVERLAYS, "traced"])
def built(request: pytest.FixtureRequest) -> list[Json]:
    """What `kubectl apply -k` would send."""
    return traced() if request.param == "traced" else build(KUBERNETES / request.param)


def in_any_order(value: Any) -> Any:
    """The same with the items of all lists in one order."""
    if isinstance(value, dict):
        return {name: in_any_order(item) for name, item in value.items()}
    if isinstance(value, list):
        items = [in_any_order(item) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    return value


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_builds_the_same(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl 1.24 or newer")
    command = [kubectl, "kustomize", str(KUBERNETES / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "patchesStrategicMerge" in result.stderr or "json: unknown field" in result.stderr:
        pytest.skip("kubectl is too old")
    assert result.returncode == 0, result.stderr
    expected = sorted(map(json_of, documents(result.stdout)))
    assert sorted(map(json_of, build(KUBERNETES / overlay))) == expected


def json_of(resource: Json) -> str:
    return json.dumps(in_any_order(resource), sort_keys=True)


def test_traces_have_a_way_out_where_they_are_made() -> None:
    def policy(resources: list[Json]) -> Json:
        (found,) = [r for r in resources if r["kind"] == "NetworkPolicy"]
        spec: Json = found["spec"]
        return spec

    assert policy(build(KUBERNETES / "overlays/cpu-embedded"))["egress"] == []
    (pod,) = pods(traced())
    variables = {v["name"]: v.get("value") for v in pod["containers"][0]["env"]}
    assert variables["VISAVIS_OTLP_TRACES"] == "1"
    collector = urlsplit(str(variables["OTEL_EXPORTER_OTLP_ENDPOINT"]))
    namespace = str(collector.hostname).split(".")[1]
    ways = {
        (rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port)
        for rule in policy(traced())["egress"]
        for port in (p["port"] for p in rule["ports"])
    }
    assert ways == {(namespace, collector.port), ("kube-system", 53)}


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
        if variable["name"].startswith("OTEL_"):
            continue
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
