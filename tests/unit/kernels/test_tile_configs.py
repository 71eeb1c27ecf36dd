"""The file of tile sizes: looked up by the nearest entry, checked, extended by measurements."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visavis.kernels.attention.configs import (
    CONFIG_VARIABLE,
    SHIPPED,
    TileConfig,
    TileConfigError,
    read_configs,
    record,
    tile_config,
)

TILES = TileConfig(m=64, n=32, num_warps=4, num_stages=2, descriptors=False, specialize=False)


@pytest.fixture
def own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "configs.json"
    monkeypatch.setenv(CONFIG_VARIABLE, str(path))
    read_configs.cache_clear()
    return path


def test_every_shipped_entry_is_valid() -> None:
    for architecture, sizes in read_configs(SHIPPED).items():
        for size, kinds in sizes.items():
            for kind in kinds:
                tiles = tile_config(int(architecture), int(size), kind)
                # descriptors need Hopper's tensor memory accelerator
                assert not tiles.descriptors or int(architecture) >= 90


@pytest.mark.parametrize(("architecture", "like"), [(86, 80), (103, 90), (121, 120), (75, 80)])
def test_an_architecture_without_an_entry_takes_a_neighbour_s(architecture: int, like: int) -> None:
    assert tile_config(architecture, 128) == tile_config(like, 128)


def test_a_size_or_kind_without_an_entry_takes_a_neighbour_s() -> None:
    assert tile_config(90, 32) == tile_config(90, 64)
    assert tile_config(80, 128, "fp8") == tile_config(80, 128)


def test_measured_tiles_join_the_shipped_ones(own_file: Path) -> None:
    record(own_file, "a GPU", 90, 128, "exact", TILES)
    assert tile_config(90, 128) == TILES
    shipped = read_configs(SHIPPED)["90"]["64"]["exact"]
    assert tile_config(90, 64) == TileConfig(**shipped)
    assert json.loads(own_file.read_text())["measured"] == {"90/128/exact": "a GPU"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "visavis.kernels.tune"),
        ("[]", "visavis.kernels.tune"),
        ('{"configs": {}}', "nothing for architecture 90"),
        ('{"configs": {"90": {"128": {"exact": {"m": 128}}}}}', "an entry has"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(own_file: Path, text: str, words: str) -> None:
    own_file.write_text(text)
    with pytest.raises(TileConfigError, match=words) as caught:
        tile_config(90, 128)
    assert str(own_file) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"m": 48}, "m=48"), ({"n": 8}, "n=8"), ({"num_stages": 0}, "num_stages=0")],
)
def test_tiles_that_cannot_work_are_named(change: dict[str, int], words: str) -> None:
    values = {"m": 64, "n": 32, "num_warps": 4, "num_stages": 2} | change
    with pytest.raises(TileConfigError, match=words):
        TileConfig(**values, descriptors=False, specialize=False)
