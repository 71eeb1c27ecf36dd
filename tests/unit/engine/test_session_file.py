"""A session that went through bytes goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import noise, tiny_pipeline, tiny_session

from visavis.engine.pipeline import FlashTalkPipeline
from visavis.engine.plan import MOTION_FRAMES
from visavis.engine.session import AvatarFrame, AvatarSession
from visavis.engine.session_file import SessionFileError, pack_session, unpack_session

CPU = torch.device("cpu")
BYTES = 64 << 20


@pytest.fixture(scope="module")
def pipeline() -> FlashTalkPipeline:
    return tiny_pipeline()


def drain(session: AvatarSession) -> Iterator[AvatarFrame]:
    while session.next_chunk() is not None:
        yield from session.generate()


def moved(
    session: AvatarSession, pipeline: FlashTalkPipeline, *, max_bytes: int = BYTES
) -> AvatarSession:
    data = pack_session(session.snapshot(), max_bytes=max_bytes)
    other = tiny_session(pipeline, input_rate=session.input_rate, seed=99)
    other.restore(unpack_session(data, device=CPU))
    return other


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rate=st.sampled_from([8000, 16000, 44100]),
    before=st.integers(0, 30_000),
    after=st.integers(1, 20_000),
    idle=st.booleans(),
)
def test_what_follows_is_the_same(
    pipeline: FlashTalkPipeline, rate: int, before: int, after: int, idle: bool
) -> None:
    session = tiny_session(pipeline, input_rate=rate)
    session.push_audio(noise(before))
    list(drain(session))
    if idle:
        list(session.generate_idle(9))
    other = moved(session, pipeline)
    ends = []
    for each in (session, other):
        each.push_audio(noise(after))
        each.commit()
        ends.append(list(drain(each)))
    assert len(ends[0]) == len(ends[1]) > 0
    for one, two in zip(*ends, strict=True):
        assert one.index == two.index
        assert (one.last, one.speech) == (two.last, two.speech)
        assert np.array_equal(one.pixels, two.pixels)
        assert np.array_equal(one.audio, two.audio)


def test_a_small_file_goes_on_the_same_and_rewinds_less_far(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline, input_rate=16_000)
    for _ in range(4):
        list(session.generate_idle(33))
    whole = pack_session(session.snapshot(), max_bytes=BYTES)
    state = unpack_session(whole, device=CPU)
    smallest = replace(state.history, moments=state.history.moments[-MOTION_FRAMES:])
    limit = len(pack_session(replace(state, history=smallest), max_bytes=BYTES)) + 4000
    other = moved(session, pipeline, max_bytes=limit)
    assert len(other.snapshot().history.moments) < len(state.history.moments)
    one, two = (list(each.generate_idle(9)) for each in (session, other))
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, two, strict=True))
    with pytest.raises(ValueError, match="not remembered"):
        other.rewind(state.history.end - 60)


def test_what_does_not_fit_is_refused(pipeline: FlashTalkPipeline) -> None:
    session = tiny_session(pipeline, input_rate=16_000)
    with pytest.raises(SessionFileError, match="100 at most"):
        pack_session(session.snapshot(), max_bytes=100)


@pytest.mark.parametrize("data", [b"", b"nonsense", bytes(64)])
def test_other_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(SessionFileError):
        unpack_session(data, device=CPU)
