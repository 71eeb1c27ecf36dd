"""Bundles are sealed, stored once, taken once, and too old or strange ones are nobody's session."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visavis.server import events as ev
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.event_queue import OutboundState
from visavis.server.handover.bundle import (
    BUNDLE_VERSION,
    Bundle,
    BundleError,
    pack_bundle,
    unpack_bundle,
)
from visavis.server.handover.desk import HandOverDesk
from visavis.server.handover.seal import LEEWAY_S, Sealer, SealError
from visavis.server.handover.store import FolderStore
from visavis.server.negotiation import SessionSetup
from visavis.server.order import StreamState
from visavis.server.sent_ring import SentRing

SEALER = Sealer("a secret of all replicas", ttl_s=30, max_bytes=1000)
SEALED = SEALER.seal("sess_1", b"somebody's voice", now_s=1000.0)


def bundle(session_id: str = "sess_1", **changes: Any) -> Bundle:
    conversation = Conversation(rate=16_000, max_buffered_input_ms=10_000)
    conversation.append(b"\1\0" * 800, "mine", 0.0)
    conversation.commit("mine")
    conversation.append(b"\2\0" * 10, "next", 0.0)
    fields: dict[str, Any] = {
        "version": BUNDLE_VERSION,
        "model": "embedded",
        "session_id": session_id,
        "caller": "app",
        "setup": SessionSetup(
            avatar_id="drawn",
            image=None,
            rate=16_000,
            seed=3,
            output=ev.OutputMedia(fps=25, width=256, height=256),
            idle="loop",
            on_disconnect="hold",
        ),
        "avatar_digest": "ab",
        "age_s": 4.5,
        "received_seq": 7,
        "stream": StreamState(session=b"state", ordinal=5, places=((4, 4),), committed=True),
        "conversation": conversation.save(),
        "out": OutboundState(ring=SentRing().save(), num_events=9, waiting=()),
    }
    return Bundle(**(fields | changes))


@given(data=st.binary(max_size=1000), name=st.text(max_size=40))
def test_what_was_sealed_is_opened(data: bytes, name: str) -> None:
    sealed = SEALER.seal(name, data, now_s=50.0)
    assert SEALER.open(name, sealed, now_s=79.0) == data
    # After the header, whose time of expiry has zeros.
    assert data not in sealed[24:] or len(data) < 6


@given(position=st.integers(0, len(SEALED) - 1), bit=st.integers(0, 7))
def test_any_changed_bit_breaks_the_seal(position: int, bit: int) -> None:
    changed = bytearray(SEALED)
    changed[position] ^= 1 << bit
    with pytest.raises(SealError):
        SEALER.open("sess_1", bytes(changed), now_s=1001.0)


@pytest.mark.parametrize("length", [0, 3, 16, 24, 35, len(SEALED) - 1])
def test_a_part_is_not_opened(length: int) -> None:
    with pytest.raises(SealError):
        SEALER.open("sess_1", SEALED[:length], now_s=1001.0)


def test_neither_another_session_nor_another_secret_nor_a_later_day() -> None:
    with pytest.raises(SealError, match="broken"):
        SEALER.open("sess_2", SEALED, now_s=1001.0)
    with pytest.raises(SealError, match="broken"):
        Sealer("another", ttl_s=30, max_bytes=1000).open("sess_1", SEALED, now_s=1001.0)
    with pytest.raises(SealError, match="too old"):
        SEALER.open("sess_1", SEALED, now_s=1030.0 + LEEWAY_S + 0.1)
    with pytest.raises(SealError, match="1,001 bytes, 1,000 at most"):
        SEALER.seal("sess_1", bytes(1001), now_s=0.0)


@pytest.mark.parametrize("jump_s", [-86_400.0, -LEEWAY_S, 30.0 + LEEWAY_S])
def test_a_replica_whose_clock_is_another_still_opens(jump_s: float) -> None:
    assert SEALER.open("sess_1", SEALED, now_s=1000.0 + jump_s) == b"somebody's voice"


def test_a_session_is_taken_once(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "shared", ttl_s=30, max_bytes=100)
    assert store.take("sess_1") is None
    store.put("sess_1", b"old")
    store.put("sess_1", b"new")
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.take("sess_1"), range(8)))
    assert [data for data in taken if data is not None] == [b"new"]
    assert list((tmp_path / "shared").iterdir()) == []


def test_files_tell_nothing_and_do_not_stay(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "shared", ttl_s=30, max_bytes=100)
    store.put("../sess_1", b"data")
    (path,) = (tmp_path / "shared").iterdir()
    assert "sess" not in path.stem
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "shared" / "readme.txt").write_text("not ours")
    before_s = time.time() - 30 - LEEWAY_S - 1
    os.utime(path, (before_s, before_s))
    store.put("sess_2", bytes(200))
    assert store.take("../sess_1") is None
    assert store.take("sess_2") is None  # larger than is ever written
    assert [p.name for p in (tmp_path / "shared").iterdir()] == ["readme.txt"]


def test_a_bundle_comes_back_as_it_was() -> None:
    before = bundle()
    assert unpack_bundle(pack_bundle(before)) == before


def test_another_version_and_other_bytes_are_refused() -> None:
    with pytest.raises(BundleError, match="version=9"):
        unpack_bundle(pack_bundle(bundle(version=9)))
    for data in (b"", b"\xc1", pack_bundle(bundle())[:-4]):
        with pytest.raises(BundleError):
            unpack_bundle(data)


def test_a_copied_conversation_owes_the_same(tmp_path: Path) -> None:
    state = bundle().conversation
    copy = Conversation.load(state, max_buffered_input_ms=10_000)
    assert copy.save() == state
    taken = copy.take_input()
    assert taken.audio == (b"\1\0" * 800,)
    assert taken.commit
    assert taken.keyframe
    assert [event.status for event in copy.close("cancelled", "over")] == ["cancelled"] * 2  # type: ignore[attr-defined]


def desk(folder: Path, now: list[float], secret: str = "shared") -> HandOverDesk:
    sealer = Sealer(secret, ttl_s=30, max_bytes=1 << 20)
    store = FolderStore(folder, ttl_s=30, max_bytes=1 << 20)
    return HandOverDesk(store, sealer, clock=lambda: now[0])


def test_a_session_goes_from_desk_to_desk(tmp_path: Path) -> None:
    now = [1000.0]

    async def main() -> None:
        one, other = desk(tmp_path, now), desk(tmp_path, now)
        await one.leave(bundle())
        assert await other.collect("sess_2") is None
        assert await other.collect("sess_1") == bundle()
        assert await one.collect("sess_1") is None
        await one.leave(bundle())
        now[0] += 36
        assert await other.collect("sess_1") is None
        await one.leave(bundle())
        assert await desk(tmp_path, now, "foreign").collect("sess_1") is None

    asyncio.run(main())


def test_a_folder_without_a_common_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="VISAVIS_RESUME_SECRET"):
        ServerConfig(handover_dir=tmp_path)
    config = ServerConfig(handover_dir=tmp_path, resume_secret="s" * 32)  # type: ignore[arg-type]
    assert HandOverDesk.from_config(config) is not None
    assert HandOverDesk.from_config(ServerConfig()) is None
    assert "s" * 32 not in repr(config)
