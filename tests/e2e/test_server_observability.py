"""What a live server says of itself: stages in its metrics, spans, lines that name a session."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from live_server import client_of, make_config, noise, running
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from stand_in import load_painting_engine
from websockets.exceptions import ConnectionClosed

from visavis.server.logging import configure_logging
from visavis.server.tracing import Tracing

STAGES = {"audio", "dit", "vae", "encode"}


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("json", "info")
    stream = io.StringIO()
    formatter = root.handlers[0].formatter
    root.handlers[:] = [logging.StreamHandler(stream)]
    root.handlers[0].setFormatter(formatter)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def stage_seconds(text: str) -> dict[str, float]:
    found = re.findall(r'chunk_generate_seconds_sum\{stage="(\w+)"\} (\S+)', text)
    return {stage: float(seconds) for stage, seconds in found}


async def test_the_stages_of_a_chunk_are_counted_apart_and_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(Tracing, "from_config", lambda config: Tracing(provider))
    with running(make_config(tmp_path), load_painting_engine) as server:
        async with client_of(server) as client:
            await client.configure(idle="freeze")
            await client.send_audio(noise(32_000))
            await client.send("input_audio_buffer.commit")
            await client.until("response.done")
        async with httpx.AsyncClient() as http:
            seconds = stage_seconds((await http.get(f"{server.http}/metrics")).text)
    assert set(seconds) == STAGES
    assert all(value > 0 for value in seconds.values())

    spans = exporter.get_finished_spans()
    (socket,) = [span for span in spans if span.name == "visavis.socket"]
    assert socket.context is not None
    below = [s for s in spans if s.parent and s.parent.span_id == socket.context.span_id]
    chunks = [span for span in below if attribute(span, "visavis.speech") is True]
    assert sum(attribute(span, "visavis.frames") for span in chunks) == 50
    for chunk in chunks:
        assert all(attribute(chunk, f"visavis.{stage}_s") >= 0 for stage in STAGES)
        assert attribute(chunk, "gen_ai.server.time_per_output_chunk") > 0
    (first,) = [span for span in below if span.name == "visavis.first_frame"]
    waited_s = attribute(first, "gen_ai.server.time_to_first_chunk")
    assert first.start_time is not None
    assert first.end_time is not None
    assert (first.end_time - first.start_time) / 1e9 == pytest.approx(waited_s, rel=0.01)


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


async def test_every_line_of_a_session_names_it(tmp_path: Path, json_log: io.StringIO) -> None:
    engine = load_painting_engine(make_config(tmp_path))
    open_session = engine.open_session

    def open_broken(avatar: Any, *, seed: int = 0, **options: Any) -> Any:
        session = open_session(avatar, seed=seed, **options)
        structlog.get_logger("engine").warning("on the engine's thread", seed=seed)
        if seed == 13:

            def begin(**_: Any) -> Any:
                raise FloatingPointError("not a number")

            session.begin = begin
        return session

    engine.open_session = open_broken
    with running(make_config(tmp_path), lambda _: engine) as server:
        async with client_of(server) as broken, client_of(server) as sound:
            await broken.configure(seed=13)
            await sound.configure(seed=1)
            await broken.send_audio(noise(16_000))
            await broken.send("input_audio_buffer.commit")
            with pytest.raises(ConnectionClosed):
                await broken.until("never")
            await sound.send("session.close")
            with pytest.raises(ConnectionClosed):
                await sound.until("never")
    lines = [json.loads(line) for line in json_log.getvalue().splitlines()]
    for client, told in (
        (broken, ["socket opened", "on the engine's thread", "session failed", "socket closed"]),
        (sound, ["socket opened", "on the engine's thread", "socket closed"]),
    ):
        (created,) = client.of_type("session.created")
        own = [line for line in lines if line.get("session_id") == created["session_id"]]
        # The web server adds lines of its own.
        assert [line["event"] for line in own if line["event"] in told] == told
        assert {line["key"] for line in own} == {"anonymous"}
    known = {
        created["session_id"] for c in (broken, sound) for created in c.of_type("session.created")
    }
    assert all(line.get("session_id") in known for line in lines if line["event"] in told)
    seeds = [line["seed"] for line in lines if line["event"] == "on the engine's thread"]
    assert seeds == [13, 1]
