"""Avatars on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from visavis.server.avatars import AvatarStore, check_avatar_id
from visavis.server.errors import ErrorCode, ProtocolError


@pytest.fixture
def store(tmp_path: Path) -> AvatarStore:
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    Image.new("RGB", (8, 8)).save(gallery / "one.png")
    entries = [
        {"id": "one", "name": "One", "file": "one.png", "source": "drawn", "licence": "CC0-1.0"},
        {"id": "gone", "name": "Gone", "file": "gone.png"},
        {"id": "../bad", "name": "Bad", "file": "one.png"},
        {"id": "outside", "name": "Outside", "file": "../../secret.png"},
    ]
    (gallery / "index.json").write_text(json.dumps(entries))
    return AvatarStore(tmp_path / "data" / "avatars", gallery)


def pixels(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_gallery_lists_only_what_is_there(store: AvatarStore) -> None:
    (avatar,) = store.list()
    assert (avatar.meta.id, avatar.meta.name, avatar.builtin) == ("one", "One", True)
    assert avatar.meta.credit == "drawn, CC0-1.0"


def test_without_a_gallery_there_are_no_avatars(tmp_path: Path) -> None:
    assert AvatarStore(tmp_path / "a", tmp_path / "b").list() == []


def test_uploads_outlive_the_store(store: AvatarStore, tmp_path: Path) -> None:
    added = store.add("  My \n name ", pixels(3000, 1500), pixels(256, 256), ("dark",))
    again = AvatarStore(tmp_path / "data" / "avatars", tmp_path / "gallery").get(added.meta.id)
    assert again.meta == added.meta
    assert (again.meta.name, again.meta.warnings) == ("My name", ["dark"])
    assert Image.open(again.source).size == (512, 1024)
    assert Image.open(again.portrait).size == (256, 256)
    store.delete(added.meta.id)
    assert [a.meta.id for a in store.list()] == ["one"]


def test_damaged_uploads_are_not_listed(store: AvatarStore, tmp_path: Path) -> None:
    added = store.add("x", pixels(64, 64), pixels(64, 64), ())
    (tmp_path / "data" / "avatars" / added.meta.id / "avatar.json").write_text("{")
    (tmp_path / "data" / "avatars" / ".new-half").mkdir()
    assert [a.meta.id for a in store.list()] == ["one"]


def test_built_in_avatars_are_read_only(store: AvatarStore) -> None:
    with pytest.raises(ProtocolError) as caught:
        store.delete("one")
    assert caught.value.code is ErrorCode.AVATAR_READ_ONLY


@given(st.text(max_size=80))
def test_ids_are_harmless_as_file_names(avatar_id: str) -> None:
    try:
        check_avatar_id(avatar_id)
    except ProtocolError:
        return
    assert avatar_id.isascii()
    assert Path("root", avatar_id).resolve().parent == Path("root").resolve()
    assert not avatar_id.startswith((".", "-"))
