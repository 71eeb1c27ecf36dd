"""Checkpoints are read strictly: what does not fit is named."""

import json
import stat
from pathlib import Path

import pytest
import torch
from parity_fixtures import randomized
from safetensors.torch import load_file, save_file

from visavis.engine.dit.checkpoint import export_original, load_original, load_own
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.original_keys import original_to_ours
from visavis.engine.tensor_files import CheckpointError

CONFIG = DIT_PRESETS["test"]


@pytest.fixture(scope="module")
def model() -> FlashTalkDiT:
    torch.manual_seed(0)
    return randomized(FlashTalkDiT(CONFIG))


@pytest.fixture
def shards(model: FlashTalkDiT, tmp_path: Path) -> Path:
    export_original(model, tmp_path, shard_bytes=400_000)
    return tmp_path


def edit(shards: Path, change: object, name: str) -> None:
    """Rewrite the shard that holds `name`; the index follows."""
    index = next(shards.glob("*.index.json"))
    content = json.loads(index.read_text())
    file = shards / content["weight_map"][name]
    tensors = {key: value.clone() for key, value in load_file(file).items()}
    change(tensors)  # type: ignore[operator]
    save_file(tensors, file)
    weight_map = {k: v for k, v in content["weight_map"].items() if v != file.name}
    content["weight_map"] = weight_map | dict.fromkeys(tensors, file.name)
    index.write_text(json.dumps(content))


def same(one: FlashTalkDiT, two: FlashTalkDiT) -> bool:
    other = two.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("preset", list(DIT_PRESETS))
def test_every_parameter_has_one_original_name(preset: str) -> None:
    with torch.device("meta"):
        model = FlashTalkDiT(DIT_PRESETS[preset])
    ours = list(original_to_ours(DIT_PRESETS[preset]).values())
    assert sorted(ours) == sorted(model.state_dict())


def test_sharded_original_layout_survives_the_round_trip(model: FlashTalkDiT, shards: Path) -> None:
    assert len(list(shards.glob("*.safetensors"))) > 1
    loaded = load_original(CONFIG, shards)
    assert same(model, loaded)
    assert torch.equal(loaded.rope.cos, model.rope.cos)


def test_own_layout_survives_the_round_trip(model: FlashTalkDiT, tmp_path: Path) -> None:
    file = tmp_path / "dit.safetensors"
    save_file(model.state_dict(), file)
    assert same(model, load_own(CONFIG, file))


def test_what_is_exported_may_be_read_by_those_who_read_other_files(shards: Path) -> None:
    (shards / "other.txt").touch()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in shards.iterdir()}
    assert len(modes) > 2
    assert set(modes.values()) == {modes["other.txt"]}


def test_load_converts_dtype(shards: Path) -> None:
    loaded = load_original(CONFIG, shards, dtype=torch.bfloat16)
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}


def test_missing_tensor_is_named(shards: Path) -> None:
    edit(shards, lambda t: t.pop("blocks.1.ffn.2.bias"), "blocks.1.ffn.2.bias")
    with pytest.raises(CheckpointError, match=r"missing.*blocks\.1\.ffn\.2\.bias"):
        load_original(CONFIG, shards)


def test_surplus_tensor_is_named(shards: Path) -> None:
    edit(shards, lambda t: t.update({"blocks.9.extra": torch.ones(1)}), "head.modulation")
    with pytest.raises(CheckpointError, match=r"surplus.*blocks\.9\.extra"):
        load_original(CONFIG, shards)


def test_tensor_of_another_shape_is_named(shards: Path) -> None:
    edit(shards, lambda t: t.update({"head.head.bias": torch.ones(3)}), "head.head.bias")
    with pytest.raises(CheckpointError, match=r"head\.head\.bias"):
        load_original(CONFIG, shards)


def test_missing_shard_is_named(shards: Path) -> None:
    lost = sorted(shards.glob("*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        load_original(CONFIG, shards)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "dit.safetensors"
    file.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="dit.safetensors"):
        load_own(CONFIG, file)


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        load_original(CONFIG, tmp_path)
