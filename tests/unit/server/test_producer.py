"""What the engine is told to do, on a clock of its own: soon, without gaps, and never for nothing.

Costs are those measured with the embedded model on two idle cores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from virtual_engine import CALM, OUTPUT, TWO_CORES, VirtualEngine, run_virtually

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
FIRST, DISCONTINUITY = 2, 16


@pytest.fixture
def virtually(monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda main: run_virtually(monkeypatch, main)


def test_live_speech_is_answered_within_a_quarter_second_and_has_no_gap(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(3)
            for _ in range(3):
                began_s = asyncio.get_running_loop().time()
                frames = await client.speak(4.0, live=True)
                assert frames[0].at_s - began_s <= 0.25
                assert sum(frame.late_s for frame in frames) == 0
                assert len(frames) == 100
                await asyncio.sleep(1.7)

    virtually(main)


def test_speech_that_comes_at_once_is_made_in_long_chunks(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(1)
            began_s, before = asyncio.get_running_loop().time(), len(engine.pipeline.chunks)
            frames = await client.speak(6.0, live=False)
            chunks = [job.chunk_frames for job in engine.pipeline.chunks[before:]]
            assert frames[0].at_s - began_s <= 0.15
            assert sum(frame.late_s for frame in frames) == 0
            assert chunks[0] == 17
            assert chunks[1:5] == [33] * 4

    virtually(main)


def test_the_first_frame_comes_soon_whatever_idle_chunk_is_under_way(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            for moment in range(12):
                await asyncio.sleep(1.5 + 0.09 * moment)
                began_s = asyncio.get_running_loop().time()
                frames = await client.speak(0.5, live=True)
                assert frames[0].at_s - began_s <= 0.3
                assert len(frames) == 13

    virtually(main)


def test_idling_keeps_real_time_for_a_third_of_the_engine(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(20)
            assert max(frame.late_s for frame in client.sent) == 0
            assert len(client.sent) >= 500
            assert engine.worker.busy_s / 20 < 0.33

    virtually(main)


@pytest.mark.parametrize("idle", ["loop", "freeze"])
def test_repeated_idle_frames_cost_the_model_nothing(idle: Any, virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client(idle=idle) as client:
            await asyncio.sleep(2)
            made = engine.pipeline.decoded
            await asyncio.sleep(20)
            assert engine.pipeline.decoded == made
            assert max(frame.late_s for frame in client.sent) == 0
            frames = await client.speak(1.0, live=True)
            assert len(frames) == 25
            await asyncio.sleep(3)
            made = engine.pipeline.decoded
            await asyncio.sleep(5)
            assert engine.pipeline.decoded == made

    virtually(main)


def test_a_cancel_is_followed_by_the_next_picture_at_once(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            loop = asyncio.get_running_loop()
            for moment in range(6):
                await asyncio.sleep(1)
                speaking = asyncio.create_task(client.speak(6.0, live=False))
                await asyncio.sleep(0.3 + 0.11 * moment)
                client.cancel()
                cancelled_s, made = loop.time(), engine.pipeline.decoded
                await asyncio.sleep(0.2)
                fresh = [f for f in client.sent if f.epoch == client.conversation.epoch]
                assert fresh[0].at_s - cancelled_s <= 0.15
                assert fresh[0].flags & DISCONTINUITY
                assert not any(frame.response for frame in fresh)
                assert engine.pipeline.decoded - made <= 20
                await speaking

    virtually(main)


def test_after_a_cancel_the_face_goes_on_from_the_frame_that_was_seen(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            seen: list[int] = []
            session: Any = client.stream._session
            rewind = session.rewind
            session.rewind = lambda index: (seen.append(index), rewind(index))
            await asyncio.sleep(1)
            speaking = asyncio.create_task(client.speak(6.0, live=False))
            await asyncio.sleep(1.0)
            shown = client.pacer.shown_pts_us(asyncio.get_running_loop().time()) // 40_000
            seen.clear()
            client.cancel()
            await asyncio.sleep(0.2)
            # Nothing was cut off twice, so that the numbers of frames and places agree.
            assert len(seen) == 1
            assert shown - 1 <= seen[0] <= shown + 1
            await speaking

    virtually(main)


def test_two_sessions_share_the_engine_without_gaps(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine:
            async with engine.client(seed=1) as one, engine.client(seed=2) as two:
                await asyncio.sleep(2)
                spoken = await asyncio.gather(
                    *(client.speak(5.0, live=False) for client in (one, two))
                )
                for frames in spoken:
                    assert len(frames) == 125
                    assert sum(frame.late_s for frame in frames) <= 0.04
            assert engine.load.speaking == 0

    virtually(main)


def test_a_speaker_is_not_disturbed_by_sessions_that_idle(virtually: Run) -> None:
    async def main() -> None:
        async with (
            VirtualEngine() as engine,
            engine.client() as speaker,
            engine.client(seed=1),
            engine.client(seed=2),
        ):
            await asyncio.sleep(2.3)
            began_s = asyncio.get_running_loop().time()
            frames = await speaker.speak(4.0, live=False)
            assert frames[0].at_s - began_s <= 0.3
            assert sum(frame.late_s for frame in frames) <= 0.04

    virtually(main)


def test_a_listener_keeps_calm_soon_after_it_is_told_and_speaks_as_ever(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            for listening, temperature in ((True, CALM), (False, 1.0)):
                await asyncio.sleep(3)
                before = len(client.sent)
                client.conversation.set_base_state("listening" if listening else "idle")
                client.producer.wake()
                await asyncio.sleep(0.4)
                assert engine.pipeline.chunks[-1].temperature == temperature
                assert all(frame.late_s == 0 for frame in client.sent[before:])
            client.conversation.set_base_state("listening")
            count = len(engine.pipeline.chunks)
            await client.speak(2.0, live=False)
            made = engine.pipeline.chunks[count:]
            assert {job.temperature for job in made if job.chunk_frames != 33} == {1.0}
            await asyncio.sleep(1)
            assert engine.pipeline.chunks[-1].temperature == CALM

    virtually(main)


@pytest.mark.parametrize("idle", ["loop"])
def test_a_listener_has_a_loop_of_its_own(idle: Any, virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client(idle=idle) as client:
            await asyncio.sleep(2)
            made = engine.pipeline.decoded
            client.conversation.set_base_state("listening")
            client.producer.wake()
            await asyncio.sleep(3)
            assert engine.pipeline.decoded > made
            assert engine.pipeline.chunks[-1].temperature == CALM
            made = engine.pipeline.decoded
            await asyncio.sleep(3)
            assert engine.pipeline.decoded == made

    virtually(main)


def test_a_slow_engine_takes_fewer_steps_and_says_so(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(1)
            stats = client.producer.session_stats(dropped=0)
            assert (stats.degraded, stats.num_steps) == ([], 4)
            engine.pipeline.slowness = 5.0
            speaking = asyncio.create_task(client.speak(40.0, live=False))
            await asyncio.sleep(25)
            stats = client.producer.session_stats(dropped=0)
            assert stats.degraded[:1] == ["steps"]  # type: ignore[index]
            assert stats.num_steps == 2
            engine.pipeline.slowness = 1.0
            await speaking
            await client.speak(60.0, live=False)
            stats = client.producer.session_stats(dropped=0)
            assert (stats.degraded, stats.num_steps) == ([], 4)
            assert (stats.width, stats.height, stats.fps) == (256, 256, 25)

    virtually(main)


def test_an_engine_that_cannot_keep_up_leaves_pictures_out_and_no_sound(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine(degrade="none") as engine, engine.client() as client:
            await asyncio.sleep(1)
            await client.speak(4.0, live=False)
            assert client.source.dropped == 0
            engine.pipeline.slowness = 10.0
            frames = await client.speak(6.0, live=False)
            assert len(frames) == 150
            told = client.source.dropped_events(asyncio.get_running_loop().time())
            assert [event.reason for event in told] == ["late"]  # type: ignore[attr-defined]
            assert 20 < client.source.dropped < 130
            before = client.source.dropped
            engine.pipeline.slowness = 1.0
            await client.speak(4.0, live=False)
            assert client.source.dropped == before

    virtually(main)


def test_smaller_and_fewer_pictures_are_told_to_those_who_get_them(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine(degrade="size,fps") as engine, engine.client() as client:
            for _ in range(40):
                engine.load.observe(33, busy_s=5.0, wait_s=None, encode_s=1.0)
            engine.load.speaking += 3
            for now_s in range(5):
                engine.load.update(float(now_s))
            stats = client.producer.session_stats(dropped=0)
            assert stats.degraded == ["size", "fps"]
            assert (stats.width, stats.height, stats.fps) == (128, 128, 12.5)
            assert stats.num_steps == 4
            client.producer._output = msgspec.structs.replace(OUTPUT, fps=10, video="jpeg")
            assert client.producer.session_stats(dropped=0).degraded == ["size"]
            client.producer._output = msgspec.structs.replace(OUTPUT, video="none")
            assert client.producer.session_stats(dropped=0).degraded == []
            engine.load.speaking -= 3

    virtually(main)


def test_a_failing_engine_ends_the_producer_with_its_error(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(1)

            def fail(jobs: object) -> None:
                raise RuntimeError("out of memory")

            engine.pipeline.denoise = fail  # type: ignore[method-assign]
            client.conversation.append(bytes(32_000), None, 0.0)
            client.producer.wake()
            await asyncio.wait([client.producing], timeout=5)
            assert isinstance(client.producing.exception(), RuntimeError)
            engine.forget(client)

    virtually(main)


@pytest.mark.parametrize("speaks", [False, True])
def test_nothing_is_made_for_a_session_that_is_over(speaks: bool, virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            await asyncio.sleep(1)
            if speaks:
                client.conversation.append(bytes(64_000), None, 0.0)
                client.producer.wake()
                await asyncio.sleep(0.1)
            client.conversation.close("failed", "internal_error")
            made = engine.pipeline.decoded
            await asyncio.sleep(5)
            assert engine.pipeline.decoded - made <= 1
            assert client.producing.done()

    virtually(main)


def test_utterances_in_a_row_all_come(virtually: Run) -> None:
    async def main() -> None:
        slow = replace(TWO_CORES, frame_s=0.02)
        async with VirtualEngine(slow) as engine, engine.client() as client:
            for seconds in (0.04, 1.0, 0.5, 2.02):
                frames = await client.speak(seconds, live=False)
                assert len(frames) == -(-round(seconds * 1000) // 40)
            assert [f.response for f in client.sent if f.flags & FIRST] == [1, 2, 3, 4]

    virtually(main)


def test_chunks_that_are_cut_off_do_not_count_as_slow(virtually: Run) -> None:
    async def main() -> None:
        async with VirtualEngine() as engine, engine.client() as client:
            told = client.producer._metrics.chunk_realtime_factor
            for moment in range(16):
                await asyncio.sleep(1)
                speaking = asyncio.create_task(client.speak(3.0, live=False))
                await asyncio.sleep(0.04 + 0.015 * moment)
                client.cancel()
                await speaking
            (family,) = told.collect()
            count = {s.labels.get("le", s.name): s.value for s in family.samples}
            made = count["visavis_chunk_realtime_factor_count"]
            assert count["1.0"] == made > 0

    virtually(main)
