"""Tile sizes of the Triton attention, kept in a file: by architecture, head size and kind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

CONFIG_VARIABLE = "VISAVIS_KERNEL_CONFIGS"
SHIPPED = Path(__file__).with_name("configs.json")


class TileConfigError(ValueError):
    """A configuration file that cannot be used, with the entry and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileConfig:
    """How the work is cut: queries `m` and keys `n` of a tile, warps, stages of the pipeline.

    `descriptors` lets the tensor memory accelerator load the tiles (compute capability 9.0 and
    up); `specialize` splits the warps into loaders and workers, where the compiler can.
    """

    m: int
    n: int
    num_warps: int
    num_stages: int
    descriptors: bool
    specialize: bool

    def __post_init__(self) -> None:
        for name in ("m", "n", "num_warps"):
            value = getattr(self, name)
            if value < 1 or value & (value - 1):
                raise TileConfigError(f"{name}={value}: must be a power of two")
        if min(self.m, self.n) < 16:
            raise TileConfigError(f"m={self.m}, n={self.n}: matrix units need at least 16")
        if self.num_stages < 1:
            raise TileConfigError(f"num_stages={self.num_stages}: must be at least 1")


@cache
def read_configs(path: Path) -> Mapping[str, Any]:
    """The `configs` of a file: architecture -> head size -> kind -> values."""
    try:
        document = json.loads(path.read_text())
        configs: Mapping[str, Any] = document["configs"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TileConfigError(
            f"{path}: {error}; write it with python -m visavis.kernels.tune --output {path}"
        ) from error
    return configs


def config_path() -> Path:
    """The file that is read: VISAVIS_KERNEL_CONFIGS, or the shipped one."""
    return Path(os.environ.get(CONFIG_VARIABLE, SHIPPED))


def tile_config(architecture: int, head_dim: int, kind: str = "exact") -> TileConfig:
    """The tiles for an architecture (90 for compute capability 9.0), a head size and a kind.

    An architecture, size or kind without an entry takes that of the nearest below it.

    Args:
        kind: `exact` or `fp8`.
    """
    path = config_path()
    configs = read_configs(path)
    for by_size in (configs[key] for key in _nearest(configs, architecture)):
        for key in _nearest(by_size, head_dim):
            kinds = by_size[key]
            values = kinds.get(kind, kinds.get("exact"))
            if values is not None:
                return _config(path, values)
    raise TileConfigError(
        f"{path}: nothing for architecture {architecture} and head size {head_dim}; add an entry "
        "or unset " + CONFIG_VARIABLE
    )


def _nearest(entries: Mapping[str, Any], wanted: int) -> list[str]:
    """Keys at or below `wanted`, the greatest first; then those above, the least first."""
    keys = sorted(entries, key=int)
    return [k for k in reversed(keys) if int(k) <= wanted] + [k for k in keys if int(k) > wanted]


def _config(path: Path, values: Mapping[str, Any]) -> TileConfig:
    names = {field.name for field in fields(TileConfig)}
    if set(values) != names:
        raise TileConfigError(f"{path}: an entry has {sorted(values)}, needs {sorted(names)}")
    return TileConfig(**values)


def record(
    path: Path, device: str, architecture: int, head_dim: int, kind: str, config: TileConfig
) -> None:
    """Keep a measured choice in a file, beside what the file (or the shipped one) holds."""
    document = json.loads((path if path.exists() else SHIPPED).read_text())
    sizes = document["configs"].setdefault(str(architecture), {})
    sizes.setdefault(str(head_dim), {})[kind] = asdict(config)
    document["measured"][f"{architecture}/{head_dim}/{kind}"] = device
    path.write_text(json.dumps(document, indent=2) + "\n")
    read_configs.cache_clear()
