"""What `kubectl apply -k` would send, as far as our manifests use kustomize."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
# Lists that strategic merges join by a key; all others are replaced.
MERGE_KEYS = {"containers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath"}
KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "labels",
    "images",
    "patches",
}


def documents(text: str) -> Iterator[Json]:
    for document in yaml.safe_load_all(text):
        if document is not None:
            yield document


def build(folder: Path) -> list[Json]:
    """The resources of a folder with a kustomization.yaml."""
    (kustomization,) = documents((folder / "kustomization.yaml").read_text())
    return build_from(folder, kustomization)


def build_from(folder: Path, kustomization: Json) -> list[Json]:
    """The resources of a kustomization whose paths begin in `folder`."""
    assert set(kustomization) <= KNOWN, set(kustomization) - KNOWN
    resources: list[Json] = []
    for name in kustomization.get("resources", ()):
        path = folder / name
        resources += build(path) if path.is_dir() else list(documents(path.read_text()))
    for name in kustomization.get("components", ()):
        (component,) = documents((folder / name / "kustomization.yaml").read_text())
        assert component["kind"] == "Component"
        resources = [patched(r, patches_of(folder / name, component)) for r in resources]
    patches = patches_of(folder, kustomization)
    resources = [patched(resource, patches) for resource in resources]
    for resource in resources:
        metadata = resource["metadata"]
        if "namespace" in kustomization:
            metadata["namespace"] = kustomization["namespace"]
        for labels in kustomization.get("labels", ()):
            metadata["labels"] = metadata.get("labels", {}) | labels["pairs"]
        if resource["kind"] == "Deployment":
            for container in resource["spec"]["template"]["spec"]["containers"]:
                set_image(container, kustomization.get("images", ()))
    return resources


def patches_of(folder: Path, kustomization: Json) -> list[Json]:
    """The strategic merges that a kustomization names."""
    found: list[Json] = []
    for patch in kustomization.get("patches", ()):
        found += documents((folder / patch["path"]).read_text())
    return found


def patched(resource: Json, patches: list[Json]) -> Json:
    """The resource with the patches of its kind and name."""

    def key(item: Json) -> tuple[str, str]:
        return item["kind"], item["metadata"]["name"]

    for patch in patches:
        if key(patch) == key(resource):
            resource = merged(resource, patch)
    return resource


def merged(old: Any, new: Any, field: str = "") -> Any:
    """A strategic merge: objects by their fields, some lists by a key of their items."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: merged(old.get(name), value, name) for name, value in new.items()}
    key = MERGE_KEYS.get(field)
    if key is None or not isinstance(old, list):
        return new
    items = {item[key]: item for item in old}
    for item in new:
        items[item[key]] = merged(items.get(item[key]), item)
    return list(items.values())


def set_image(container: Json, images: Any) -> None:
    for image in images:
        if container["image"].partition(":")[0] == image["name"]:
            container["image"] = f"{image['newName']}:{image['newTag']}"
