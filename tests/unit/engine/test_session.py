"""The session's laws: no sample lost, no slicing visible, state explicit and exact."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import noise, tiny_pipeline, tiny_session

from visavis.engine.history import HISTORY_FRAMES
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.plan import PlanError
from visavis.engine.session import (
    AudioFormatError,
    AvatarFrame,
    AvatarSession,
    ChunkAbandoned,
    NotEnoughAudioError,
)

PROPERTY = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def pipeline() -> FlashTalkPipeline:
    return tiny_pipeline()


def _drain(session: AvatarSession) -> Iterator[AvatarFrame]:
    while session.next_chunk() is not None:
        yield from session.generate()


def _pixels(frames: list[AvatarFrame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames])


@PROPERTY
@given(
    rate=st.sampled_from([8000, 11025, 12345, 16000, 24000, 44100, 48000]),
    slices=st.lists(st.floats(0.0001, 0.9), min_size=1, max_size=8),
)
def test_every_sample_comes_back_once_with_ceil_frames(
    pipeline: FlashTalkPipeline, rate: int, slices: list[float]
) -> None:
    session = tiny_session(pipeline, input_rate=rate)
    lengths = [int(seconds * rate) for seconds in slices]
    pcm = noise(sum(lengths))
    frames: list[AvatarFrame] = []
    for piece in np.split(pcm, np.cumsum(lengths)[:-1]):
        session.push_audio(piece)
        frames += _drain(session)
    promised = session.commit()
    tail = list(_drain(session))
    assert len(tail) == promised
    frames += tail

    assert len(frames) == -(-len(pcm) * 25 // rate)
    returned = [frame.audio for frame in frames] or [np.zeros(0, np.int16)]
    np.testing.assert_array_equal(np.concatenate(returned), pcm)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert all(frame.speech for frame in frames)
    assert [frame.last for frame in frames] == [i == len(frames) - 1 for i in range(len(frames))]
    assert session.buffered_samples == 0
    assert session.next_chunk() is None


@PROPERTY
@given(cuts=st.lists(st.integers(0, 40_000), max_size=30), rate=st.sampled_from([16000, 22050]))
def test_slicing_never_changes_a_pixel(
    pipeline: FlashTalkPipeline, cuts: list[int], rate: int
) -> None:
    pcm = noise(40_000)
    whole = tiny_session(pipeline, input_rate=rate)
    whole.push_audio(pcm)
    whole.commit()
    sliced = tiny_session(pipeline, input_rate=rate)
    for piece in np.split(pcm, sorted(cuts)):
        sliced.push_audio(piece)
    sliced.commit()
    np.testing.assert_array_equal(_pixels(list(_drain(sliced))), _pixels(list(_drain(whole))))


def test_audio_that_trickles_in_gives_the_same_chunks(pipeline: FlashTalkPipeline) -> None:
    pcm = noise(16_000)
    at_once, trickling = tiny_session(pipeline), tiny_session(pipeline)
    at_once.push_audio(pcm)
    at_once.commit()
    expected = list(at_once.generate(chunk_frames=17)) + list(at_once.generate(chunk_frames=33))
    frames: list[AvatarFrame] = []
    for start in range(0, len(pcm), 16):  # 1 ms
        trickling.push_audio(pcm[start : start + 16])
        chunk = 33 if frames else 17
        if trickling.buffered_samples >= 640 * (chunk - 5) and len(frames) < 12:
            frames += trickling.generate(chunk_frames=chunk)
    trickling.commit()
    frames += trickling.generate(chunk_frames=33)
    np.testing.assert_array_equal(_pixels(frames), _pixels(expected))


def test_the_face_hears_the_audio(pipeline: FlashTalkPipeline) -> None:
    pictures = []
    for seed in (1, 2):
        session = tiny_session(pipeline)
        session.push_audio(noise(2560, seed))
        pictures.append(_pixels(list(session.generate())))
    assert np.any(pictures[0] != pictures[1])


def test_digital_silence_is_the_same_as_idling(pipeline: FlashTalkPipeline) -> None:
    speaking, idling = tiny_session(pipeline), tiny_session(pipeline)
    speaking.push_audio(np.zeros(2560, np.int16))
    np.testing.assert_array_equal(
        _pixels(list(speaking.generate())), _pixels(list(idling.generate_idle()))
    )


def test_idle_frames_share_the_timeline_and_carry_silence(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline, input_rate=48_000)
    frames = list(session.generate_idle())
    session.push_audio(noise(1920 * 2))
    session.commit()
    frames += _drain(session)
    frames += session.generate_idle(17)
    assert [frame.index for frame in frames] == list(range(4 + 2 + 12))
    assert [frame.speech for frame in frames] == [False] * 4 + [True] * 2 + [False] * 12
    assert all(len(frame.audio) == 1920 for frame in frames)
    assert not any(frame.audio.any() for frame in frames if not frame.speech)
    assert [frame.index for frame in frames if frame.last] == [5]


def test_idling_between_leaves_buffered_audio_alone(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline)
    session.push_audio(noise(1000))
    list(session.generate_idle())
    assert session.buffered_samples == 1000
    session.commit()
    frames = list(_drain(session))
    np.testing.assert_array_equal(np.concatenate([f.audio for f in frames]), noise(1000))


def test_the_same_seed_gives_the_same_face_and_another_another(
    pipeline: FlashTalkPipeline,
) -> None:
    first, same, other = (
        _pixels(list(tiny_session(pipeline, seed=seed).generate_idle())) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)


class TestChunkPolicy:
    def test_the_first_chunk_after_silence_is_short_and_later_ones_long(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 100))
        chunks = []
        for _ in range(3):
            chunks.append(session.next_chunk())
            list(session.generate())
        assert chunks == [17, 33, 33]

    @pytest.mark.parametrize(
        ("frames", "chunk"), [(3, None), (4, 9), (7, 9), (11, 13), (12, 17), (40, 17)]
    )
    def test_little_audio_gives_a_short_first_chunk(
        self, pipeline: FlashTalkPipeline, frames: int, chunk: int | None
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * frames))
        assert session.next_chunk() == chunk

    @pytest.mark.parametrize(("frames", "chunk"), [(1, 9), (5, 13), (9, 17), (13, 33), (28, 33)])
    def test_a_tail_takes_the_shortest_chunk_that_covers_it(
        self, pipeline: FlashTalkPipeline, frames: int, chunk: int
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * (12 + frames)))
        list(session.generate())
        session.commit()
        assert session.next_chunk() == chunk
        assert len(list(session.generate())) == frames

    def test_a_second_utterance_waits_for_the_first(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        for length in (700, 1300):
            session.push_audio(noise(length))
            session.commit()
        frames = list(_drain(session))
        assert [len(f.audio) for f in frames] == [640, 60, 640, 640, 20]
        assert [f.last for f in frames] == [False, True, False, False, True]

    def test_asking_for_too_long_a_chunk_says_what_is_there(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        with pytest.raises(NotEnoughAudioError, match="0 frames.*push more"):
            session.generate()
        session.push_audio(noise(640 * 5))
        with pytest.raises(NotEnoughAudioError, match="chunk_frames=17 needs 12 .* 5 are ready"):
            session.generate(chunk_frames=17)
        with pytest.raises(PlanError, match="chunk_frames=11"):
            session.generate(chunk_frames=11)


class TestAbandoning:
    def test_an_abandoned_chunk_never_happened(self, pipeline: FlashTalkPipeline) -> None:
        session, twin = tiny_session(pipeline), tiny_session(pipeline)
        for each in (session, twin):
            each.push_audio(noise(640 * 12))
        polls = iter([False, True])
        with pytest.raises(ChunkAbandoned):
            list(session.generate(should_stop=lambda: next(polls)))
        assert session.buffered_samples == 640 * 12
        np.testing.assert_array_equal(
            _pixels(list(session.generate())), _pixels(list(twin.generate()))
        )

    def test_a_dropped_iterator_never_happened(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 12))
        iterator = session.generate()
        first = next(iterator)
        del iterator
        frames = list(session.generate())
        assert len(frames) == 12
        assert frames[0].index == first.index == 0
        np.testing.assert_array_equal(frames[0].pixels, first.pixels)

    def test_the_last_frame_completes_the_chunk(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 4))
        iterator = session.generate()
        for _ in range(4):
            next(iterator)
        assert session.buffered_samples == 0

    def test_clearing_drops_buffered_audio_and_the_chunk_under_way(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 12 + 5))
        iterator = session.generate()
        next(iterator)
        assert session.clear_audio() == 640 * 12 + 5
        with pytest.raises(ChunkAbandoned):
            next(iterator)
        assert session.buffered_samples == 0
        session.push_audio(noise(100))
        session.commit()
        (frame,) = _drain(session)
        np.testing.assert_array_equal(frame.audio, noise(100))

    def test_audio_pushed_and_committed_while_frames_come_out_is_kept(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        pcm = noise(640 * 5)
        session.push_audio(pcm[: 640 * 4])
        iterator = session.generate()
        frames = [next(iterator)]
        session.push_audio(pcm[640 * 4 :])
        session.commit()
        frames += iterator
        frames += _drain(session)
        np.testing.assert_array_equal(np.concatenate([f.audio for f in frames]), pcm)
        assert [f.last for f in frames] == [False] * 4 + [True]


class TestCommit:
    def test_it_tells_how_many_frames_are_to_come(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        assert session.commit() == 0
        session.push_audio(noise(640 * 4 + 1))
        assert session.commit() == 5
        assert session.commit() == 0

    def test_after_the_last_full_frame_nothing_is_to_come(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 4))
        list(session.generate())
        assert session.commit() == 0
        assert session.next_chunk() is None


class TestState:
    @pytest.mark.parametrize("rate", [16_000, 22_050, 44_101])
    def test_restoring_repeats_bit_for_bit(self, pipeline: FlashTalkPipeline, rate: int) -> None:
        session = tiny_session(pipeline, input_rate=rate)
        pcm = noise(rate * 2)
        session.push_audio(pcm[:rate])
        list(session.generate())
        state = session.snapshot()
        results = []
        for _ in range(2):
            session.push_audio(pcm[rate:])
            session.commit()
            frames = list(_drain(session)) + list(session.generate_idle())
            results.append(frames)
            session.restore(state)
        np.testing.assert_array_equal(_pixels(results[0]), _pixels(results[1]))
        for first, second in zip(*results, strict=True):
            np.testing.assert_array_equal(first.audio, second.audio)
            assert (first.index, first.last) == (second.index, second.last)

    def test_another_session_takes_over(self, pipeline: FlashTalkPipeline) -> None:
        session, heir = tiny_session(pipeline), tiny_session(pipeline, seed=9)
        session.push_audio(noise(640 * 40))
        list(session.generate())
        heir.restore(session.snapshot())
        np.testing.assert_array_equal(
            _pixels(list(heir.generate())), _pixels(list(session.generate()))
        )

    @pytest.mark.parametrize("rate", [16_000, 44_101])
    def test_it_does_not_grow(self, pipeline: FlashTalkPipeline, rate: int) -> None:
        session = tiny_session(pipeline, input_rate=rate)
        sizes = []
        for second in range(12):
            session.push_audio(noise(rate, second))
            list(_drain(session))
            state = session.snapshot()
            moments = state.history.moments
            assert len(moments) <= HISTORY_FRAMES
            remembered = sum(m.pose.nbytes + m.heard.nbytes for m in moments)
            tensors = state.chunk.motion.nbytes + state.chunk.random.nbytes
            tensors += state.history.before.nbytes + remembered
            sizes.append(tensors + sum(p.nbytes for u in state.utterances for p in u.pieces))
        assert max(sizes) < 3.3 * rate + 60_000 + HISTORY_FRAMES * 3000
        assert max(sizes[6:]) <= max(sizes[:6]) + 2 * 16_384

    def test_an_hour_pushed_at_once_is_freed_as_it_is_used(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline)
        session.push_audio(np.zeros(16_000 * 3600, np.int16))
        before = sum(p.nbytes for p in session.snapshot().utterances[0].pieces)
        list(session.generate())
        list(session.generate())
        after = sum(p.nbytes for p in session.snapshot().utterances[0].pieces)
        assert before - after >= 2 * 640 * 40 - 2 * 8192

    def test_a_snapshot_is_not_changed_by_what_follows(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        session.push_audio(noise(640 * 20))
        state = session.snapshot()
        motion = state.chunk.motion.clone()
        list(session.generate())
        session.clear_audio()
        assert torch.equal(state.chunk.motion, motion)
        session.restore(state)
        assert session.buffered_samples == 640 * 20


class TestInput:
    def test_the_callers_buffer_may_be_reused(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        buffer = noise(640 * 4)
        session.push_audio(buffer)
        buffer[:] = 0
        frames = list(session.generate())
        np.testing.assert_array_equal(np.concatenate([f.audio for f in frames]), noise(640 * 4))

    @pytest.mark.parametrize(
        "pcm", [np.zeros(10, np.float32), np.zeros((10, 2), np.int16), b"\0\0"], ids=repr
    )
    def test_other_formats_are_refused(self, pipeline: FlashTalkPipeline, pcm: object) -> None:
        with pytest.raises(AudioFormatError, match="int16"):
            tiny_session(pipeline).push_audio(pcm)  # type: ignore[arg-type]

    def test_other_rates_are_refused(self, pipeline: FlashTalkPipeline) -> None:
        with pytest.raises(PlanError, match="input_rate=4000"):
            tiny_session(pipeline, input_rate=4000)
