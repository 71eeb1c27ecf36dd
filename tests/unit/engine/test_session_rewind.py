"""Going back to the frame that the viewer saw: state, audio and timeline as if nothing followed."""

import numpy as np
import pytest
from tiny_model import TinyCodec, noise, tiny_pipeline, tiny_session

from visavis.engine.history import HISTORY_FRAMES, RewindError
from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.session import AvatarFrame, AvatarSession, ChunkAbandoned


@pytest.fixture
def pipeline() -> FlashTalkPipeline:
    return tiny_pipeline()


def _pixels(frames: list[AvatarFrame]) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames])


def _last_handed_over(pipeline: FlashTalkPipeline) -> np.ndarray:
    assert isinstance(pipeline.codec, TinyCodec)
    return pipeline.codec.hand_overs[-1].numpy()


@pytest.mark.parametrize("index", [3, 4, 11, 12, 20, 39])
def test_the_next_chunk_starts_from_the_last_five_frames_seen(
    pipeline: FlashTalkPipeline, index: int
) -> None:
    session = tiny_session(pipeline)
    frames = list(session.generate_idle(17)) + list(session.generate_idle(33))
    session.rewind(index)
    seen = _pixels(frames[max(0, index - 4) : index + 1])
    np.testing.assert_array_equal(_last_handed_over(pipeline)[-len(seen) :], seen)
    following = list(session.generate_idle(9))
    assert following[0].index == index + 1


def test_the_model_hears_what_was_heard_up_to_that_frame_and_no_more(
    pipeline: FlashTalkPipeline,
) -> None:
    """After a rewind at a chunk's border, and with its random state, all goes on as from there."""
    pcm = noise(640 * 60)
    session, twin = tiny_session(pipeline), tiny_session(pipeline)
    for each in (session, twin):
        each.push_audio(pcm)
        list(each.generate(chunk_frames=17))
    at_border = twin.snapshot()
    list(session.generate(chunk_frames=33))
    session.rewind(11)
    session.clear_audio()
    undone = session.snapshot()
    np.testing.assert_array_equal(undone.chunk.motion, at_border.chunk.motion)
    assert len(undone.history.moments) == len(at_border.history.moments) == 12
    for ours, theirs in zip(undone.history.moments, at_border.history.moments, strict=True):
        np.testing.assert_array_equal(ours.heard, theirs.heard)


def test_frames_of_a_chunk_under_way_count_once_they_were_seen(
    pipeline: FlashTalkPipeline,
) -> None:
    pcm = noise(640 * 20)
    session = tiny_session(pipeline)
    session.push_audio(pcm)
    iterator = session.generate(chunk_frames=17)
    given = [next(iterator) for _ in range(7)]
    session.rewind(4)
    with pytest.raises(ChunkAbandoned):
        next(iterator)
    np.testing.assert_array_equal(_last_handed_over(pipeline), _pixels(given[:5]))
    assert session.buffered_samples == 640 * 15
    following = list(session.generate(chunk_frames=17))
    assert following[0].index == 5
    np.testing.assert_array_equal(following[0].audio, pcm[640 * 5 : 640 * 6])


def test_idle_frames_undone_leave_buffered_audio_alone(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline)
    iterator = session.generate_idle(33)
    for _ in range(9):
        next(iterator)
    session.push_audio(noise(640 * 4))
    session.rewind(6)
    frames = list(session.generate())
    assert [f.index for f in frames] == [7, 8, 9, 10]
    assert session.buffered_samples == 0


def test_what_was_undone_is_not_repeated_but_the_same_way_back_is(
    pipeline: FlashTalkPipeline,
) -> None:
    runs = []
    for _ in range(2):
        session = tiny_session(pipeline)
        first = list(session.generate_idle(17))
        session.rewind(3)
        runs.append(_pixels(list(session.generate_idle(17))))
        assert np.any(runs[-1] != _pixels(first))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_before_anything_was_seen_the_portrait_is_at_rest(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline)
    list(session.generate_idle(9))
    session.rewind(-1)
    assert session.snapshot().chunk.motion.shape[1] == 1
    assert next(iter(session.generate_idle(9))).index == 0


def test_frames_that_are_not_remembered_are_refused(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline)
    for _ in range(5):
        list(session.generate_idle(33))
    with pytest.raises(RewindError, match="frame 140 is not remembered") as later:
        session.rewind(140)
    assert later.value.nearest == 139
    with pytest.raises(RewindError, match=f"less than {HISTORY_FRAMES}") as earlier:
        session.rewind(20)
    assert earlier.value.nearest == 139 - HISTORY_FRAMES + 1
    session.rewind(earlier.value.nearest)
    assert next(iter(session.generate_idle(9))).index == earlier.value.nearest + 1


def test_where_nothing_is_remembered_nothing_is_nearest(pipeline: FlashTalkPipeline) -> None:
    with pytest.raises(RewindError) as refused:
        tiny_session(pipeline).rewind(0)
    assert refused.value.nearest is None


class TestReplay:
    def test_it_shows_the_picture_again_and_goes_on_from_it(
        self, pipeline: FlashTalkPipeline
    ) -> None:
        session = tiny_session(pipeline, input_rate=48_000)
        frames = list(session.generate_idle(17))
        again = [session.replay(frames[i]) for i in (11, 10, 9, 8, 7, 6)]
        assert [f.index for f in again] == [12, 13, 14, 15, 16, 17]
        assert all(len(f.audio) == 1920 and not f.audio.any() for f in again)
        np.testing.assert_array_equal(again[-1].pixels, frames[6].pixels)
        shown = _pixels([frames[i] for i in (10, 9, 8, 7, 6)])
        np.testing.assert_array_equal(_last_handed_over(pipeline), shown)

    def test_it_can_be_undone_like_any_frame(self, pipeline: FlashTalkPipeline) -> None:
        session = tiny_session(pipeline)
        frames = list(session.generate_idle(17))
        for frame in reversed(frames):
            session.replay(frame)
        session.rewind(13)
        shown = _pixels([frames[i] for i in (9, 10, 11, 11, 10)])
        np.testing.assert_array_equal(_last_handed_over(pipeline), shown)

    def test_a_frame_from_elsewhere_is_refused(self, pipeline: FlashTalkPipeline) -> None:
        silent = np.zeros(640, np.int16)
        stranger = AvatarFrame(0, np.zeros((16, 16, 3), np.uint8), silent, False, False)
        with pytest.raises(ValueError, match="pose"):
            tiny_session(pipeline).replay(stranger)


def test_a_snapshot_can_be_rewound(pipeline: FlashTalkPipeline) -> None:
    session: AvatarSession = tiny_session(pipeline)
    frames = list(session.generate_idle(17))
    heir = tiny_session(pipeline, seed=3)
    heir.restore(session.snapshot())
    heir.rewind(8)
    np.testing.assert_array_equal(_last_handed_over(pipeline), _pixels(frames[4:9]))
