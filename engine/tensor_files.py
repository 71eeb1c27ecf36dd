"""Checkpoint files read tensor by tensor, and their names moved onto a module's, strictly."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

LISTED = 5  # names given in an error message


class CheckpointError(ValueError):
    """A checkpoint that does not fit its model; names the tensors and the file."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all, for those who may read other new files: the
    library's own are for their owner alone, and an image built from them serves nobody else."""
    partial = path.with_name(path.name + ".partial")
    partial.touch()
    mode = stat.S_IMODE(partial.stat().st_mode)
    save_file(dict(tensors), partial, metadata=metadata)
    partial.chmod(mode)
    partial.replace(path)


@dataclass(frozen=True, slots=True)
class Move:
    """One of our tensors from one of a checkpoint's; `select` cuts or reshapes it."""

    source: str
    target: str
    select: Callable[[Tensor], Tensor] | None = None


class TensorFiles:
    """Tensors of a safetensors file, of a folder of shards, or of a .pth; opened as needed.

    A context manager: files are memory-mapped and close with it.
    """

    def __init__(self, path: Path) -> None:
        """Find the files; no tensor is read.

        Raises:
            CheckpointError: nothing there, or an index that names a missing file.
        """
        self.path = path
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}
        self._where = _locate(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.clear()
        self._stack.close()

    @property
    def names(self) -> set[str]:
        return set(self._where)

    def read(self, name: str) -> Tensor:
        """The stored tensor, on the CPU.

        Raises:
            CheckpointError: the file does not hold it (a wrong index) or is damaged.
        """
        file = self._where[name]
        if file not in self._open:
            self._open[file] = self._enter(file)
        try:
            opened = self._open[file]
            tensor: Tensor = opened[name] if isinstance(opened, dict) else opened.get_tensor(name)
        except (KeyError, SafetensorError) as error:
            raise CheckpointError(
                f"{file}: has no tensor {name!r}, though the index says so; download it again"
            ) from error
        return tensor

    def _enter(self, file: Path) -> Any:
        if file.suffix != ".safetensors":
            return torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        return self._stack.enter_context(safe_open(file, framework="pt"))


def _locate(path: Path) -> dict[str, Path]:
    if path.is_dir():
        indices = sorted(path.glob("*.safetensors.index.json"))
        if indices:
            return _read_index(indices[0])
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{path}: no *.safetensors and no index in this folder")
    elif path.is_file():
        files = [path]
    else:
        raise CheckpointError(f"{path}: no such file or folder")
    where: dict[str, Path] = {}
    for file in files:
        for name in _names(file):
            if name in where:
                raise CheckpointError(f"{file}: tensor {name!r} is also in {where[name]}")
            where[name] = file
    return where


def _names(file: Path) -> list[str]:
    if file.suffix != ".safetensors":
        return list(torch.load(file, map_location="cpu", mmap=True, weights_only=True))
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a whole safetensors file ({error})") from error


def _read_index(index: Path) -> dict[str, Path]:
    weight_map: Mapping[str, str] = json.loads(index.read_text())["weight_map"]
    for name in sorted(set(weight_map.values())):
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: names {name}, which is not there; download it")
    return {tensor: index.parent / file for tensor, file in weight_map.items()}


def move_tensors(
    module: nn.Module,
    files: TensorFiles,
    moves: Sequence[Move],
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    unused: Iterable[str] = (),
    tied: Iterable[str] = (),
) -> None:
    """Fill `module`, usually on meta, one tensor at a time: no second copy of the weights.

    Args:
        unused: stored names that are known to serve no purpose here.
        tied: parameters of the module that share another's tensor.

    Raises:
        CheckpointError: a name is missing or surplus on either side, or a shape differs.
    """
    wanted = dict(module.state_dict(keep_vars=True))
    for name in tied:
        wanted.pop(name, None)
    expected = {move.source for move in moves} | set(unused)
    _compare("missing", {move.source for move in moves} - files.names, files.path)
    _compare("surplus", files.names - expected, files.path)
    _compare("not filled (no rule for)", set(wanted) - {move.target for move in moves}, files.path)
    for move in moves:
        stored = files.read(move.source)
        tensor = stored if move.select is None else move.select(stored)
        parameter = wanted[move.target]
        if tensor.shape != parameter.shape:
            raise CheckpointError(
                f"{files.path}: {move.source!r} has shape {tuple(tensor.shape)}, the model's "
                f"{move.target} needs {tuple(parameter.shape)}; check the model's configuration"
            )
        _assign(module, move.target, tensor.to(device=device, dtype=dtype, copy=True), parameter)


def _compare(kind: str, names: set[str], path: Path) -> None:
    if names:
        listed = ", ".join(sorted(names)[:LISTED])
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        raise CheckpointError(f"{path}: {kind} tensors: {listed}{more}")


def _assign(module: nn.Module, name: str, tensor: Tensor, old: Tensor) -> None:
    owner_name, _, leaf = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    tensor = tensor.contiguous()
    if isinstance(old, nn.Parameter):
        setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
    else:
        setattr(owner, leaf, tensor)
