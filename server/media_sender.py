"""Media of one session on its way out: what goes next, how it is packed, what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from visavis.server import events as ev
from visavis.server.admission import Admission
from visavis.server.event_queue import EventQueue
from visavis.server.fmp4 import Fmp4Writer
from visavis.server.media_source import MediaSource
from visavis.server.metrics import Metrics
from visavis.server.protocol import Flag, Header, Kind, encode_frame
from visavis.server.wire import Wire

if TYPE_CHECKING:
    from visavis.server.producer import Producer


class MediaSender:
    """Takes frames of `source`, one at a time; `producer` is told of each that went."""

    def __init__(
        self,
        source: MediaSource,
        producer: Producer,
        fmp4: Fmp4Writer | None,
        metrics: Metrics,
        admission: Admission,
    ) -> None:
        self.source = source
        self._producer = producer
        self._fmp4 = fmp4
        self._metrics = metrics
        self._admission = admission
        self._audio_since_s: dict[int, float] = {}

    def note(self, items: Iterable[ev.ServerEvent]) -> None:
        """What is said of responses: their first frames are waited for from then on."""
        for item in items:
            if isinstance(item, ev.ResponseCreated):
                self._audio_since_s[item.response_index] = time.monotonic()
            elif isinstance(item, ev.ResponseDone):
                self._audio_since_s.pop(item.response_index, None)

    def restart(self) -> None:
        """What comes next is for another socket."""
        if self._fmp4 is not None:
            self._fmp4.restart()

    async def send(self, wire: Wire, events: EventQueue) -> None:
        """The next frame, and the events right before it; those after it wait in `events`, first.

        Raises IndexError when no frame is ready, and as `Wire`.
        """
        now_s = time.monotonic()
        self._metrics.output_lag.observe(self.source.late_s(now_s))
        stamped = self.source.take(now_s)
        header = stamped.header
        video = stamped.frame.video if header.video_len else b""
        # What is decided must not be lost with the socket: it is kept before it is sent.
        texts = [events.keep(event) for event in stamped.before]
        events.ring.add_media(header, stamped.frame.audio, video)
        events.put_first(stamped.after)
        for text in texts:
            await wire.send_text(text)
        await self.send_frame(wire, header, stamped.frame.audio, video)
        if header.flags & Flag.FIRST and header.response in self._audio_since_s:
            self._first_frame(header.response)
        kind = "idle" if header.flags & Flag.IDLE else "speech"
        self._metrics.frames_sent.labels(kind=kind).inc()
        if stamped.frame.late or (stamped.frame.video and not header.video_len):
            reason = "late" if stamped.frame.late else "slow_client"
            self._metrics.frames_dropped.labels(reason=reason).inc()
        self._producer.wake()

    async def send_frame(self, wire: Wire, header: Header, audio: bytes, video: bytes) -> None:
        """One frame as it is, in its container. Raises as `Wire`."""
        if self._fmp4 is not None:
            config = self._fmp4.config(video)
            if config is not None:
                head = Header(kind=Kind.CODEC_CONFIG, seq=header.seq, video_len=len(config))
                await wire.send_bytes(encode_frame(head, b"", config))
            if video:
                header, video = self._fmp4.message(header, video)
        await wire.send_bytes(encode_frame(header, audio, video))

    def _first_frame(self, response: int) -> None:
        """It went out."""
        took_s = time.monotonic() - self._audio_since_s.pop(response)
        self._admission.observe_first_frame(took_s)
        self._metrics.tracing.record(
            "visavis.first_frame",
            took_s,
            {"visavis.response": response, "gen_ai.server.time_to_first_chunk": took_s},
        )
