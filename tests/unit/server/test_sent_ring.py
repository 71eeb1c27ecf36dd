"""What was sent lately is there for a client that comes back, and no more than that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from visavis.server.protocol import FRAME_US, Flag, Header, Kind
from visavis.server.sent_ring import (
    MAX_EVENTS,
    REPLAY_US,
    SentEvent,
    SentMedia,
    SentRing,
    as_first,
    is_after,
    with_picture,
)

REPLAY_FRAMES = REPLAY_US // FRAME_US


def filled(frames: int, *, epoch_from: int | None = None, first_seq: int = 0) -> SentRing:
    """A keyframe every 50 frames; from `epoch_from` on the next epoch."""
    ring = SentRing()
    for index in range(frames):
        epoch = int(epoch_from is not None and index >= epoch_from)
        flags = Flag.KEYFRAME if index % 50 == 0 else Flag(0)
        header = Header(
            kind=Kind.MEDIA,
            flags=flags,
            seq=(first_seq + index) & 0xFFFF_FFFF,
            pts_us=index * FRAME_US,
            epoch=epoch,
            video_len=1,
        )
        ring.add_media(header, b"", bytes([index % 256]))
    return ring


def seqs(
    ring: SentRing, seq: int | None, *, epoch: int = 0, played: int | None = None
) -> list[int]:
    missed = ring.after(seq, None, epoch=epoch, played_pts_us=played)
    return [item.header.seq for item in missed if isinstance(item, SentMedia)]


def test_what_comes_after_the_last_seq_is_missed() -> None:
    assert seqs(filled(10), 6) == [7, 8, 9]
    assert seqs(filled(10), 9) == []


def test_media_older_than_two_seconds_is_not_sent_again() -> None:
    missed = seqs(filled(200), 0)
    assert missed == list(range(200 - REPLAY_FRAMES, 200))


def test_the_keyframe_that_the_oldest_was_predicted_from_is_kept() -> None:
    ring = filled(120)
    first = next(m for m in ring.media if m.header.seq == seqs(ring, 0)[0])
    reference = ring.reference(first)
    assert len(ring.media) <= REPLAY_FRAMES + 50
    assert reference[0] == bytes([50])
    assert len(reference) == first.header.seq - 50


def test_void_epochs_are_neither_replayed_nor_missed() -> None:
    ring = filled(20, epoch_from=15)
    assert seqs(ring, 10, epoch=1) == [15, 16, 17, 18, 19]
    assert ring.num_void_after(10, 1) == 4


def test_without_a_seq_what_was_not_shown_is_replayed() -> None:
    assert seqs(filled(10), None, played=6 * FRAME_US) == [7, 8, 9]
    assert seqs(filled(10), None) == []


def test_events_and_media_keep_the_order_of_the_wire() -> None:
    ring = filled(2)
    ring.add_event(1, "a")
    ring.add_media(Header(kind=Kind.MEDIA, seq=2, pts_us=2 * FRAME_US), b"", b"")
    ring.add_event(2, "b")
    missed = ring.after(0, 0, epoch=0, played_pts_us=None)
    names = [i.text if isinstance(i, SentEvent) else i.header.seq for i in missed]
    assert names == [1, "a", 2, "b"]


def test_events_are_bounded() -> None:
    ring = SentRing()
    for number in range(2 * MAX_EVENTS):
        ring.add_event(number, "x")
    assert len(ring.after(None, -1, epoch=0, played_pts_us=None)) == MAX_EVENTS


@given(st.integers(0, 2**32 - 1), st.integers(1, 150))
def test_sequence_numbers_may_wrap(first: int, frames: int) -> None:
    ring = filled(frames, first_seq=first)
    assert len(seqs(ring, (first - 1) & 0xFFFF_FFFF)) == min(frames, REPLAY_FRAMES)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1))
def test_after_is_strict(seq: int, step: int) -> None:
    assert is_after((seq + step) & 0xFFFF_FFFF, seq) == (step > 0)


def test_a_frame_with_another_picture() -> None:
    media = filled(1).media[0]
    other = with_picture(media, b"abc", keyframe=False)
    assert (other.header.video_len, other.header.flags, other.order) == (3, Flag(0), media.order)
    assert as_first(other).header.flags == Flag.DISCONTINUITY


def with_events() -> SentRing:
    """Event 1 before any media, then an event after each second frame: 2 after seq 1, and so on."""
    ring = SentRing()
    ring.add_event(1, "first")
    for seq in range(100):
        header = Header(kind=Kind.MEDIA, seq=seq, pts_us=seq * FRAME_US)
        ring.add_media(header, b"", b"")
        if seq % 2:
            ring.add_event(2 + seq // 2, f"after {seq}")
    return ring


def events(ring: SentRing, seq: int | None, number: int | None, played: int | None) -> list[str]:
    missed = ring.after(seq, number, epoch=0, played_pts_us=played)
    return [item.text for item in missed if isinstance(item, SentEvent)]


def test_without_an_event_id_events_after_the_last_media_come_again() -> None:
    ring = with_events()
    assert events(ring, 95, None, None) == ["after 95", "after 97", "after 99"]
    assert events(ring, 96, None, None) == ["after 97", "after 99"]
    assert events(ring, 99, None, 0) == ["after 99"]
    assert events(ring, 99, 51, None) == []
    # Also long after that media was forgotten.
    assert events(ring, 3, None, None)[0] == "after 3"
    assert "first" not in events(ring, 0, None, None)


def test_a_client_that_names_nothing_gets_events_after_what_it_showed() -> None:
    ring = with_events()
    assert events(ring, None, None, 97 * FRAME_US) == ["after 97", "after 99"]
    assert len(events(ring, None, None, None)) == 51


@given(count=st.integers(0, 300), seq=st.none() | st.integers(0, 300))
def test_a_copy_of_a_ring_goes_on_like_the_ring(count: int, seq: int | None) -> None:
    ring = filled(count)
    ring.add_event(1, "told")
    copy = SentRing.load(ring.save())
    for both in (ring, copy):
        both.add_event(2, "more")
        header = Header(
            kind=Kind.MEDIA, seq=count, pts_us=count * FRAME_US, audio_len=5, video_len=7
        )
        both.add_media(header, b"sound", b"picture")
    one, other = (r.after(seq, None, epoch=0, played_pts_us=0) for r in (ring, copy))
    assert one == other
    assert copy.save() == ring.save()
