"""Pictures that are compressed beside the engine thread: in order, bounded, given up, failing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from virtual_engine import RATE, TWO_CORES, TimedPipeline, VirtualEngine, run_virtually

from visavis.engine.batching import ChunkScheduler
from visavis.engine.idle import IdleLoop
from visavis.engine.pipeline import ChunkFrame
from visavis.engine.plan import CHUNK_LENGTHS
from visavis.engine.session import AvatarSession
from visavis.server.chunk_policy import ChunkPolicy
from visavis.server.conversation import Conversation
from visavis.server.events import OutputMedia
from visavis.server.media_source import MediaSource
from visavis.server.order import Order
from visavis.server.pacing import Pacer
from visavis.server.picture_line import PictureLine
from visavis.server.picture_stream import PictureStream
from visavis.server.quality import Quality
from visavis.server.stream import EngineStream, IdleLoops
from visavis.server.timeline import EngineInput, FrameInTheMaking, MediaFrame, Picture


class ByHand(Executor):
    """Threads that begin when the test says so."""

    def __init__(self) -> None:
        self.submitted: list[Callable[[], Any]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted.append(fn)
        return Future()

    def run(self) -> None:
        while self.submitted:
            self.submitted.pop(0)()


def picture(number: int) -> Picture:
    return Picture(bytes([number]), False)


def test_pictures_are_made_in_order_and_a_full_line_makes_its_caller_wait() -> None:
    by_hand, order = ByHand(), []

    def work(number: int) -> Picture:
        order.append(number)
        return picture(number)

    line = PictureLine(by_hand, max_waiting=2)
    made = [line.add(n, lambda n=n: work(n)) for n in range(2)]  # type: ignore[misc]
    adder = threading.Thread(target=lambda: made.append(line.add(2, lambda: work(2))))
    adder.start()
    adder.join(0.05)
    assert adder.is_alive()
    assert not line.idle
    by_hand.run()
    adder.join()
    by_hand.run()
    line.wait()
    assert line.idle
    assert order == [0, 1, 2]
    assert [f.result() for f in made] == [picture(n) for n in range(3)]


def test_what_is_not_wanted_any_more_is_not_made() -> None:
    by_hand, order = ByHand(), []
    line = PictureLine(by_hand)
    made = [line.add(n, lambda n=n: order.append(n) or picture(n)) for n in range(4)]  # type: ignore[misc, func-returns-value]
    line.drop(1)
    by_hand.run()
    line.close()
    assert order == [0, 1]
    assert [f.cancelled() for f in made] == [False, False, True, True]


def test_after_a_failure_nothing_more_is_made() -> None:
    by_hand = ByHand()
    line = PictureLine(by_hand)

    def fail() -> Picture:
        raise ValueError("no picture")

    failed, later = line.add(0, fail), line.add(1, lambda: picture(1))
    by_hand.run()
    assert isinstance(failed.exception(), ValueError)
    assert later.cancelled()
    with pytest.raises(ValueError, match="no picture"):
        line.add(2, lambda: picture(2))
    with pytest.raises(ValueError, match="no picture"):
        line.check()
    line.close()


def test_a_frame_keeps_its_place_and_goes_out_when_its_picture_is_made() -> None:
    talk = Conversation(rate=RATE, max_buffered_input_ms=1000)
    source = MediaSource(talk, Pacer(speech_lead_s=1.12, idle_lead_s=0.24, max_inflight_us=10**6))
    pictures: list[Future[Picture]] = [Future(), Future()]
    for number, made in enumerate(pictures):
        talk.offer(
            FrameInTheMaking(
                generation=0,
                response=0,
                audio=bytes(1280),
                video=b"",
                keyframe=False,
                ordinal=number,
                picture=made,
            )
        )
    assert source.wait_s(0.0) is None
    pictures[1].set_result(Picture(b"second", False))
    assert source.wait_s(0.0) is None
    pictures[0].set_result(Picture(b"first", True))
    assert source.wait_s(0.0) == 0
    sent = [source.take(0.0) for _ in range(2)]
    assert [s.frame.video for s in sent] == [b"first", b"second"]
    assert [s.frame.keyframe for s in sent] == [True, False]
    assert [s.header.video_len for s in sent] == [5, 6]


class ShadedPipeline(TimedPipeline):
    """Every frame another grey."""

    def decode(self, job: Any) -> Any:
        for number, frame in enumerate(super().decode(job)):
            shade = np.full((2, 2, 3), (40 * len(self.chunks) + 3 * number) % 255, np.uint8)
            yield ChunkFrame(shade, frame.pose, frame.next_state)


class Speaker:
    """An EngineStream that says what it is told, chunk by chunk."""

    def __init__(self, line: PictureLine | None, video: str) -> None:
        pipeline: Any = ShadedPipeline(TWO_CORES)
        nobody: Any = None
        self.scheduler = ChunkScheduler(pipeline)
        session = AvatarSession(pipeline, nobody, input_rate=RATE, seed=0, num_steps=2)
        pictures = PictureStream(OutputMedia(video=video), (64, 64))  # type: ignore[arg-type]
        self.stream = EngineStream(session, pictures, IdleLoops(IdleLoop(12), IdleLoop(12)), line)
        self.frames: list[MediaFrame] = []
        self.generation = 0

    def say(self, frames: int, *, shown: int | None = None) -> list[MediaFrame]:
        """One chunk; after a barge-in, if `shown` is the last frame that was seen."""
        self.generation += shown is not None
        order = Order(
            input=EngineInput(
                generation=self.generation,
                response=self.generation + 1,
                audio=(bytes(2 * 640 * frames),),
                commit=True,
                reset=shown is not None,
                shown_ordinal=-1 if shown is None else shown,
            ),
            speech=ChunkPolicy(
                lead_s=0, start_s=dict.fromkeys(CHUNK_LENGTHS, 0), fewest_frames=4, hurry=True
            ),
            allow_idle=False,
            idle_policy="generate",
            idle_chunk_frames=9,
            idle_frames=0,
            idle_ahead_s=0,
            deadline_s=0,
            play_by_s=float("inf"),
            urgent=True,
            listening=False,
            quality=Quality(2),
        )
        made: list[MediaFrame] = []
        turn = self.stream.start(order, self.scheduler, made.append, lambda: False)
        while not turn.ended.done():
            self.scheduler.tick()
        assert turn.ended.result().frames == frames
        return made


@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_the_stream_is_the_same_beside_the_engine_thread(video: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        line = PictureLine(threads)
        here, beside = Speaker(None, video), Speaker(line, video)
        expected = [*here.say(12), *here.say(4)]
        frames = [*beside.say(12), *beside.say(4)]
        line.wait()
    assert sum(isinstance(frame, FrameInTheMaking) for frame in frames) >= 14
    assert [frame.settled() for frame in frames] == expected


def test_a_chunk_ends_before_its_pictures_are_made_and_a_barge_in_gives_them_up() -> None:
    by_hand = ByHand()
    here, beside = Speaker(None, "jpeg"), Speaker(PictureLine(by_hand), "jpeg")
    here.say(12)
    first = beside.say(12)
    assert first[0].made  # an answer's first picture waits for no other thread
    assert not any(frame.made for frame in first[1:])
    expected = here.say(4, shown=5)
    again = beside.say(4, shown=5)
    by_hand.run()
    assert [isinstance(f, FrameInTheMaking) and f.picture.cancelled() for f in first] == (
        [False] * 6 + [True] * 6
    )
    assert [frame.settled() for frame in again] == expected
    assert again[0].settled().keyframe
    assert [frame.ordinal for frame in again] == [12, 13, 14, 15]


def test_a_picture_that_fails_ends_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("no picture")

    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            client.stream._line = PictureLine(threads)
            monkeypatch.setattr(client.stream._pictures, "encode", fail)
            await asyncio.wait([client.producing])
            assert isinstance(client.producing.exception(), ValueError)
            engine.forget(client)

    with ThreadPoolExecutor(1) as threads:
        run_virtually(monkeypatch, main)
