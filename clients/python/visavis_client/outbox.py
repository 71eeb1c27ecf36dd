"""Audio on its way, kept until the server has surely taken it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from visavis_client import wire


@dataclass(slots=True)
class Outgoing:
    """An AUDIO_IN message; `sent` once the operating system has taken all of it."""

    seq: int
    samples: int
    data: bytes
    sent: bool = False


class Outbox:
    """Numbers the audio messages, and remembers those whose sound has not come back.

    It holds no more than the server does: what comes back with frames is forgotten.
    """

    def __init__(self) -> None:
        self._next = 0
        self._kept: deque[Outgoing] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, pcm: bytes) -> Outgoing:
        """The message of the next piece."""
        data = wire.audio_message(pcm, self._next)
        message = Outgoing(self._next, len(pcm) // wire.SAMPLE_BYTES, data)
        self._next += 1
        self._kept.append(message)
        return message

    def keep_at_most(self, samples: int) -> None:
        """Forget the oldest messages that are not among the last `samples`."""
        held = sum(message.samples for message in self._kept)
        while self._kept and held - self._kept[0].samples >= samples:
            held -= self._kept.popleft().samples

    def missing(self, received: int | None) -> Iterator[Outgoing]:
        """What to send again: all after number `received`; without it, what was never sent.

        Numbers on the wire wrap; of those kept one alone can be meant.
        """
        position = None
        if received is not None:
            numbers = [message.seq % wire.SEQ_MODULUS for message in self._kept]
            position = numbers.index(received) + 1 if received in numbers else 0
        kept = list(self._kept)
        if position is None:
            return (message for message in kept if not message.sent)
        return iter(kept[position:])
