"""Prometheus metrics: one table of names, in seconds and bytes, on a registry of their own."""

from __future__ import annotations

import sys
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from visavis.server.tracing import Tracing

_FAST = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_STAGE = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0)
_RATIO = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 4.0)
_SESSION = (1, 5, 15, 60, 300, 600, 1800, 3600, 7200)
ENGINE_STATES = ("loading", "ready", "restarting", "failed", "draining")


class Metrics:
    """Every metric of the server, each registered under the prefix `visavis_`.

    tracing: where spans of the same moments go, nowhere by default.
    """

    def __init__(self, tracing: Tracing | None = None) -> None:
        self.tracing = tracing or Tracing()
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"visavis_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"visavis_{name}", text, labels, registry=registry)

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
        ) -> Histogram:
            return Histogram(f"visavis_{name}", text, labels, buckets=buckets, registry=registry)

        self.sessions_active = gauge("sessions_active", "Sessions that hold a place.")
        self.sessions_max = gauge("sessions_max", "Sessions that this server admits.")
        self.sessions_queued = gauge("sessions_queued", "Sessions that wait for a place.")
        self.sessions = counter("sessions", "Ended sessions by reason.", ("end_reason",))
        self.session_duration = histogram(
            "session_duration_seconds", "Length of a session.", _SESSION
        )
        self.first_frame = histogram(
            "first_frame_seconds", "First audio byte of a response to its first frame sent.", _FAST
        )
        self.chunk_generate = histogram(
            "chunk_generate_seconds",
            "Seconds of work for one chunk by stage: audio (features and all else before the first "
            "step), dit (denoising, its share of batches), vae (decoding; on a GPU also the wait "
            "for steps that were launched), encode (its pictures).",
            _STAGE,
            ("stage",),
        )
        self.chunk_realtime_factor = histogram(
            "chunk_realtime_factor", "Time to make a chunk over the time that it plays.", _RATIO
        )
        self.interrupt = histogram("interrupt_seconds", "Cancel to output.cleared sent.", _FAST)
        self.frames_sent = counter("frames_sent", "Frames sent by kind.", ("kind",))
        self.frames_dropped = counter("frames_dropped", "Frames dropped by reason.", ("reason",))
        self.output_lag = histogram(
            "output_lag_seconds", "How late frames were sent against real time.", _FAST
        )
        self.client_skew = histogram(
            "client_skew_seconds", "Audio to video skew that clients report.", _FAST
        )
        self.client_underruns = counter("client_underruns", "Underruns that clients report.")
        self.input_buffer = histogram(
            "input_buffer_seconds", "Audio buffered when a chunk starts.", (0.1, 0.5, 1, 2, 5, 30)
        )
        self.ws_bytes = counter("ws_bytes", "WebSocket payload bytes by direction.", ("dir",))
        self.engine_state = gauge("engine_state", "1 for the engine's state.", ("state",))
        self.model_load = gauge("model_load_seconds", "Time to load and warm up the model.")
        self.gpu_memory = gauge(
            "gpu_memory_bytes", "Memory that the engine holds on each GPU.", ("device",)
        )
        self.group_ranks_expected = gauge("group_ranks", "Processes that make up the engine.")
        self.group_ranks_alive = gauge("group_ranks_alive", "Those of them that are heard of.")
        self.group_losses = counter("group_losses", "Lost groups by what happened.", ("kind",))
        self.group_restarts = counter("group_restarts", "Groups that were made anew.")
        self.group_restart_seconds = gauge("group_restart_seconds", "What the last restart took.")
        self.videos = counter("videos", "Ended renderings by status.", ("status",))
        self.errors = counter("errors", "Errors sent to clients by code.", ("code",))
        self.build = Info("visavis_build", "Version and model.", registry=registry)
        self.set_engine_state("loading")

    def set_engine_state(self, state: str) -> None:
        """Exactly one state is 1."""
        for name in ENGINE_STATES:
            self.engine_state.labels(state=name).set(float(name == state))

    def render(self) -> bytes:
        """The text exposition."""
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            for index in range(torch.cuda.device_count()):
                held = torch.cuda.memory_reserved(index)
                self.gpu_memory.labels(device=str(index)).set(held)
        return generate_latest(self.registry)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def elapsed_s(self) -> float:
        return time.monotonic() - self._start_s
