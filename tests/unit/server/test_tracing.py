"""Spans: none by default, and with OpenTelemetry one for each chunk below its socket's."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from visavis.server.config import ServerConfig
from visavis.server.tracing import Tracing


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def tracing_to(exporter: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider)


async def test_chunks_of_a_sessions_tasks_lie_below_its_socket(
    exporter: InMemorySpanExporter,
) -> None:
    tracing = tracing_to(exporter)

    async def produce() -> None:
        tracing.record("visavis.chunk", 0.25, {"visavis.frames": 28})

    with tracing.span("visavis.socket", {"session.id": "sess_1"}) as span:
        await asyncio.create_task(produce())
        span.set_attribute("visavis.end_reason", "client_left")
    tracing.record("visavis.chunk", 0.1, {})
    chunk, socket, lonely = exporter.get_finished_spans()
    assert (chunk.name, socket.name) == ("visavis.chunk", "visavis.socket")
    assert chunk.parent is not None
    assert socket.context is not None
    assert chunk.parent.span_id == socket.context.span_id
    assert lonely.parent is None
    assert socket.attributes == {"session.id": "sess_1", "visavis.end_reason": "client_left"}
    assert chunk.attributes == {"visavis.frames": 28}
    assert chunk.start_time is not None
    assert chunk.end_time is not None
    assert (chunk.end_time - chunk.start_time) / 1e9 == pytest.approx(0.25)


def test_a_failure_marks_the_span_and_goes_on(exporter: InMemorySpanExporter) -> None:
    tracing = tracing_to(exporter)
    with pytest.raises(KeyError), tracing.span("visavis.socket"):
        raise KeyError("x")
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok


def test_off_by_default() -> None:
    tracing = Tracing.from_config(ServerConfig())
    assert not tracing.enabled
    with tracing.span("visavis.socket") as span:
        span.set_attribute("a", 1)
        tracing.record("visavis.chunk", 1.0, {})
    tracing.shutdown()
