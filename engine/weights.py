"""Where a model's weights lie, and reading them with errors that say what is wrong.

A weights folder of a small model holds `config.json` with the transformer's sizes under "dit",
`dit.safetensors`, and its codec's own files.
"""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from visavis.engine.dit.checkpoint import ORIGINAL_INDEX, load_original
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.model import FlashTalkDiT

WEIGHTS_VARIABLE = "VISAVIS_WEIGHTS"
CONFIG_FILE = "config.json"
DIT_FILE = "dit.safetensors"
SPEECH_FILE = "speech.safetensors"
SPEECH_CONFIG_FILE = "speech.json"


class WeightsError(ValueError):
    """Weights that are missing, unreadable or made for another model."""


def find_weights(model: str, weights: str | os.PathLike[str] | None = None) -> Path:
    """The weights folder of a model.

    The first that is given or exists: `weights`; the environment's VISAVIS_WEIGHTS (this folder, or
    its subfolder named like the model); `weights/<model>` of the source tree; the same folder in
    the installed package.

    Raises:
        WeightsError: there is none; the message lists where it looked.
    """
    if weights is not None:
        return _existing(Path(weights), f"weights={str(weights)!r}")
    variable = os.environ.get(WEIGHTS_VARIABLE)
    if variable:
        folder = Path(variable)
        named = folder / model
        return _existing(named if named.is_dir() else folder, f"{WEIGHTS_VARIABLE}={variable!r}")
    candidates = [_source_root() / "weights" / model, _package_folder() / "weights" / model]
    for folder in candidates:
        if (folder / CONFIG_FILE).is_file():
            return folder
    looked = ", ".join(str(folder) for folder in candidates)
    raise WeightsError(
        f"no weights of model {model!r}: looked for {CONFIG_FILE} in {looked}; pass weights=FOLDER "
        f"or set {WEIGHTS_VARIABLE}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json.

    Raises:
        WeightsError: it is missing or not a JSON object.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: {error}; restore the file or choose another folder") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: holds a {type(config).__name__}, needs a JSON object")
    return config


def read_dit_config(folder: Path) -> DiTConfig:
    """Sizes of the folder's transformer, from the `dit` entry of config.json.

    Raises:
        WeightsError: the entry is missing or names fields that `DiTConfig` has not.
        ConfigError: a size cannot work.
    """
    sizes = read_config(folder).get("dit")
    if not isinstance(sizes, dict):
        raise WeightsError(f"{folder / CONFIG_FILE}: 'dit' must hold the transformer's sizes")
    try:
        if "patch_size" in sizes:
            sizes["patch_size"] = tuple(sizes["patch_size"])
        return DiTConfig(**sizes)
    except TypeError as error:
        raise WeightsError(f"{folder / CONFIG_FILE}: dit: {error}") from error


def load_dit(
    config: DiTConfig, folder: Path | None, device: torch.device, dtype: torch.dtype
) -> FlashTalkDiT:
    """The folder's transformer, frozen; without a folder, one of `config` with random weights.

    `dit.safetensors` holds our own names; a folder without it may hold the original's shards.

    Raises:
        WeightsError, ConfigError: as `read_dit_config` and `load_weights` do.
        CheckpointError: shards in the original's layout do not fit the sizes.
    """
    if folder is None:
        dit = FlashTalkDiT(config)
    elif not (folder / DIT_FILE).is_file() and (folder / ORIGINAL_INDEX).is_file():
        dit = load_original(read_dit_config(folder), folder)
    else:
        dit = FlashTalkDiT(read_dit_config(folder))
        load_weights(dit, folder / DIT_FILE)
    return dit.to(device=device, dtype=dtype).eval().requires_grad_(False)


def load_weights(module: nn.Module, path: Path) -> None:
    """Copy a safetensors file into a module, every tensor of both and nothing else.

    Raises:
        WeightsError: the file is missing or damaged, or a tensor is missing, surplus or of another
            shape; the message names them.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: {error}; restore the file or choose another folder") from error
    state = module.state_dict()
    problems = _mismatches(state, tensors)
    if problems:
        shown = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
        raise WeightsError(f"{path} does not fit the model of {CONFIG_FILE}: {shown}")
    module.load_state_dict(tensors)


def _mismatches(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    missing = [f"missing {name}" for name in state if name not in tensors]
    surplus = [f"surplus {name}" for name in tensors if name not in state]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, needs {list(state[name].shape)}"
        for name in state
        if name in tensors and tensors[name].shape != state[name].shape
    ]
    return missing + surplus + shapes


def _existing(folder: Path, source: str) -> Path:
    if not folder.is_dir():
        raise WeightsError(f"{source}: there is no such folder; give the one with {CONFIG_FILE}")
    return folder


def _source_root() -> Path:
    # engine/weights.py is reached through the src/visavis symlink in a source tree
    return Path(__file__).resolve().parent.parent


def _package_folder() -> Path:
    return Path(str(files("visavis.engine")))
