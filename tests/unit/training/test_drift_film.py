"""Which chunks a long run is looked at, and chunks of another length."""

import numpy as np
import pytest
from numpy.typing import NDArray

from visavis.engine.avatar_engine import Avatar, AvatarEngine
from visavis.engine.long_run import LongRun, LongSession
from visavis.engine.plan import PlanError
from visavis.training.evaluation.drift import drift
from visavis.training.evaluation.stability import RECOVERY_CHUNKS, recover
from visavis.training.landmarks import POINTS, IndependentLandmarker, Landmarks

SEED = 3


class FixedLandmarker(IndependentLandmarker):
    """Sees the same face whatever is shown."""

    def __init__(self) -> None:
        self._points = np.random.default_rng(0).uniform(60, 200, (1, POINTS, 2)).astype(np.float32)

    def detect(self, frames_NHWC: NDArray[np.uint8]) -> Landmarks:
        return np.repeat(self._points, len(frames_NHWC), axis=0)


def opened(run: LongRun, tiny_avatar: Avatar) -> LongSession:
    sound = np.random.default_rng(0).normal(0, 0.1, 60_000).astype(np.float32)
    return run.open(tiny_avatar, sound, SEED)


def test_the_film_shows_the_checkpoints_own_chunks(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar
) -> None:
    run = LongRun(tiny_engine.pipeline, num_steps=1, chunk_frames=9)
    (found,) = drift(run, [opened(run, tiny_avatar)], (1, 3, 8), FixedLandmarker())
    twin = opened(run, tiny_avatar)
    last = {}
    for chunk in range(1, 9):
        (codes,) = run.advance([twin])
        last[chunk] = run.draw(codes[-1:], twin)[0]
    assert list(found.film) == [1, 3, 8]
    for chunk, picture in found.film.items():
        nearest = min(last, key=lambda n: np.abs(last[n].astype(int) - picture.astype(int)).mean())
        assert nearest == chunk


@pytest.mark.parametrize("chunk_frames", [9, 13, 17])
def test_long_runs_take_the_length_of_their_chunks(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar, chunk_frames: int
) -> None:
    run = LongRun(tiny_engine.pipeline, num_steps=1, chunk_frames=chunk_frames)
    session = opened(run, tiny_avatar)
    heard = session.position
    (codes,) = run.advance([session])
    new = chunk_frames - 5
    assert len(codes) == run.new_frames == new
    assert session.position - heard == new * 640
    (found,) = drift(run, [session], (1,), FixedLandmarker())
    assert np.isfinite(found.value(1))
    assert np.isfinite(found.jumps[1])


def test_recovery_is_measured_in_short_chunks_too(
    tiny_engine: AvatarEngine, tiny_avatar: Avatar
) -> None:
    run = LongRun(tiny_engine.pipeline, num_steps=1, chunk_frames=9)
    left = recover(run, lambda: opened(run, tiny_avatar)).residual
    assert all(shares.shape == (len(RECOVERY_CHUNKS),) for shares in left.values())


def test_a_length_that_the_engine_does_not_make_is_refused(tiny_engine: AvatarEngine) -> None:
    with pytest.raises(PlanError, match="chunk_frames=12"):
        LongRun(tiny_engine.pipeline, chunk_frames=12)
