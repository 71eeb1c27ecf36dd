"""What a page's sockets carried: audio in both directions, each message counted once."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page, WebSocket

from visavis.server.protocol import Flag, Kind, decode_frame


class WireTap:
    """Listens to the sockets that `page` opens from now on, of one session."""

    def __init__(self, page: Page) -> None:
        self.events: list[dict[str, Any]] = []
        self.rate = 0
        self._said: dict[int, bytes] = {}
        self._spoken: dict[int, tuple[int, bytes]] = {}
        page.on("websocket", self._watch)

    def said(self) -> bytes:
        """The pcm16 that the page sent, in its order."""
        return b"".join(self._said[seq] for seq in sorted(self._said))

    def spoken(self, response: int) -> bytes:
        """The pcm16 that came back as speech of that response, in its order."""
        return b"".join(audio for _, audio in self._frames(response))

    def num_frames(self, response: int) -> int:
        """Frames of speech of that response."""
        return len(self._frames(response))

    def num_events(self, kind: str) -> int:
        """Events of that type; those that came twice count once."""
        return len({event["event_id"] for event in self.events if event["type"] == kind})

    def _frames(self, response: int) -> list[tuple[int, bytes]]:
        ordered = [self._spoken[seq] for seq in sorted(self._spoken)]
        return [item for item in ordered if item[0] == response]

    def _watch(self, socket: WebSocket) -> None:
        socket.on("framesent", self._on_sent)
        socket.on("framereceived", self._on_received)

    def _on_sent(self, message: str | bytes) -> None:
        if isinstance(message, str):
            event = json.loads(message)
            if event["type"] == "session.update" and "input_audio" in event["session"]:
                self.rate = event["session"]["input_audio"]["rate"]
            return
        frame = decode_frame(message)
        if frame.header.kind == Kind.AUDIO_IN:
            # What is said again must be the same.
            assert self._said.setdefault(frame.header.seq, frame.audio) == frame.audio

    def _on_received(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self.events.append(json.loads(message))
            return
        header, audio = decode_frame(message).header, decode_frame(message).audio
        if header.kind == Kind.MEDIA and not header.flags & Flag.IDLE:
            self._spoken[header.seq] = (header.response, audio)
