"""OpenTelemetry spans, if the extra `otel` is installed and asked for; else nothing at all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Protocol

from visavis.server.config import ServerConfig

Value = str | int | float | bool


class Span(Protocol):
    """What is used of a span."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something of what it covers."""
        ...


class _NoSpan:
    def set_attribute(self, key: str, value: Any) -> None:
        """Nobody listens."""


_NO_SPAN = _NoSpan()


class TracingError(ValueError):
    """Tracing was asked for and cannot be had."""


class Tracing:
    """Makes spans with an OpenTelemetry tracer provider; None makes none, for free."""

    def __init__(self, provider: Any | None = None) -> None:
        self._provider = provider
        self._tracer: Any = (
            provider.get_tracer("visavis", version("visavis")) if provider is not None else None
        )

    @classmethod
    def from_config(cls, config: ServerConfig) -> Tracing:
        """Spans over OTLP to where OTEL_EXPORTER_OTLP_ENDPOINT points. Raises TracingError."""
        if not config.otlp_traces:
            return cls()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingError(
                f"otlp_traces: {error.name} is missing; pip install 'visavis[otel]'"
            ) from error
        resource = Resource.create(
            {"service.name": "visavis", "service.version": version("visavis")}
        )
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> Iterator[Span]:
        """A span around the block; spans inside of it are its children."""
        if self._tracer is None:
            yield _NO_SPAN
            return
        with self._tracer.start_as_current_span(name, attributes=dict(attributes or {})) as span:
            yield span

    def record(self, name: str, seconds: float, attributes: Mapping[str, Value]) -> None:
        """A span that ends now and began `seconds` ago, below the current one."""
        if self._tracer is None:
            return
        end_ns = time.time_ns()
        span = self._tracer.start_span(
            name, attributes=dict(attributes), start_time=end_ns - round(seconds * 1e9)
        )
        span.end(end_ns)

    def shutdown(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()
