"""Decides, for one session, what the engine does next: speak, idle, or wait. No I/O."""

from __future__ import annotations

import math

from visavis.engine.plan import CHUNK_LENGTHS, ENGINE_RATE, FPS, new_frames
from visavis.server import events as ev
from visavis.server.chunk_policy import MARGIN_S, ChunkPolicy
from visavis.server.config import ServerConfig
from visavis.server.conversation import Conversation
from visavis.server.metrics import Metrics
from visavis.server.model_host import ModelHost
from visavis.server.order import Order, Outcome
from visavis.server.pacing import FRAME_S, Pacer

# Frames that may wait for their time to be sent: one steady chunk, so that the next is begun
# while the client still has the lead of the one before.
MAX_READY_FRAMES = new_frames(CHUNK_LENGTHS[-1])
# An utterance whose audio stops for so long lets the avatar go idle until it goes on.
STARVED_S = 0.4
# A client that has waited so long gets the little that there is: twelve frames of live speech would
# have come after four by then.
HURRY_S = 0.35
# Idle frames are made so long before they may be sent.
IDLE_AHEAD_S = 0.16
IDLE_REPEATS = 6
# Audio at other rates than the engine's is final so much later.
RESAMPLING_S = 0.015


class TurnPlanner:
    """Knows what is ready and what the client has, and writes the next order."""

    def __init__(
        self,
        *,
        conversation: Conversation,
        pacer: Pacer,
        host: ModelHost,
        config: ServerConfig,
        metrics: Metrics,
        idle_policy: ev.IdlePolicy,
    ) -> None:
        self.idle_policy: ev.IdlePolicy = idle_policy
        self._conversation = conversation
        self._pacer = pacer
        self._host = host
        self._config = config
        self._metrics = metrics
        self._longest_chunk = CHUNK_LENGTHS[-2]  # as after silence
        self._cut = False

    def turn_ended(self, outcome: Outcome) -> None:
        """What came of the last order."""
        self._longest_chunk = outcome.longest_chunk
        self._cut = outcome.abandoned and not outcome.speech

    def until_idle_s(self, now_s: float) -> float:
        """Seconds until idle frames are wanted, if nothing else comes; below 0 for now."""
        return self._lead_s(now_s) - self._config.idle_lead_ms / 1000

    def _lead_s(self, now_s: float) -> float:
        """How long the client can play from what was sent and what is ready."""
        return self._sent_lead_s(now_s) + len(self._conversation.ready) * FRAME_S

    def _sent_lead_s(self, now_s: float) -> float:
        end_s = self._pacer.playback_end_s(self._conversation.next_index, now_s)
        return end_s - now_s

    def _supply(self) -> tuple[int, bool]:
        """Frames of the response in turn whose audio is there, about; whether it is whole."""
        head = self._conversation.head
        if head is None:
            return 0, False
        rate = self._conversation.rate
        samples = self._conversation.buffered_ms * rate / 1000
        if head.committed:
            # Its last frame may be a short one; without it the response would not be over.
            return max(1, math.ceil(samples * FPS / rate - 1e-6)), True
        margin = 0 if rate == ENGINE_RATE else RESAMPLING_S * rate
        return max(0, int((samples - margin) * FPS / rate)), False

    def speech_can_begin(self) -> bool:
        """Whether an utterance waits that has enough audio."""
        ready, committed = self._supply()
        return committed or ready >= self._host.load.fewest_frames

    def _idle_wanted(self, now_s: float) -> bool:
        lead_s = self._config.idle_lead_ms / 1000
        if self.idle_policy == "generate":
            lead_s = max(lead_s, self._host.load.start_s()[self._idle_chunk] + MARGIN_S)
        if self._lead_s(now_s) >= lead_s:
            return False
        head = self._conversation.head
        if head is None:
            return True
        if not head.generated:
            return not self.speech_can_begin()
        return self._pacer.late_s(self._conversation.next_index, now_s) > STARVED_S

    @property
    def _idle_chunk(self) -> int:
        """Long chunks cost least; a face that then freezes needs but one frame."""
        return CHUNK_LENGTHS[0] if self.idle_policy == "freeze" else self._config.idle_chunk_frames

    def _speech_policy(self, now_s: float) -> ChunkPolicy | None:
        """None while enough is ready, or while there cannot be anything to say."""
        conversation = self._conversation
        if conversation.head is None or len(conversation.ready) >= MAX_READY_FRAMES:
            return None
        ready, committed = self._supply()
        if not ready and not committed:
            return None
        late_s = self._pacer.late_s(conversation.next_index, now_s)
        return ChunkPolicy(
            lead_s=self._lead_s(now_s),
            start_s=self._host.load.start_s(),
            fewest_frames=self._host.load.fewest_frames,
            hurry=late_s > HURRY_S,
        )

    def next_order(self, now_s: float) -> Order | None:
        """The next turn; None while there is nothing to do."""
        conversation = self._conversation
        policy = self._speech_policy(now_s)
        chunk = None
        if policy is not None:
            ready, committed = self._supply()
            chunk = policy.choose(ready=ready, committed=committed, longest=self._longest_chunk)
        allow_idle = chunk is None and self._idle_wanted(now_s)
        if not (conversation.has_input or self._cut or chunk is not None or allow_idle):
            return None
        if conversation.head is not None:
            self._metrics.input_buffer.observe(conversation.buffered_ms / 1000)
        after_silence = self._longest_chunk < CHUNK_LENGTHS[-1]
        cut_ordinal = self._cut_idle(now_s, chunk)
        lead_s = self._lead_s(now_s)
        return Order(
            input=conversation.take_input(),
            speech=policy,
            allow_idle=allow_idle,
            idle_policy=self.idle_policy,
            idle_chunk_frames=self._idle_chunk,
            idle_frames=IDLE_REPEATS,
            idle_ahead_s=self._config.idle_lead_ms / 1000 + IDLE_AHEAD_S,
            deadline_s=now_s if after_silence and chunk is not None else now_s + lead_s,
            play_by_s=now_s + lead_s,
            urgent=after_silence and chunk is not None,
            listening=conversation.listening,
            quality=self._host.load.quality,
            cut_ordinal=cut_ordinal,
        )

    def _cut_idle(self, now_s: float, chunk: int | None) -> int | None:
        """Before speech, throw away the idle frames that nobody need see meanwhile.

        Returns the engine's number of the last one that will be seen, if any were cut off.
        """
        ready = self._conversation.ready
        idle_ready = bool(ready) and all(frame.response == 0 for frame in ready)
        if chunk is not None and idle_ready:
            needed_s = self._host.load.start_s()[chunk] + MARGIN_S - self._sent_lead_s(now_s)
            keep = max(0, math.ceil(needed_s / FRAME_S))
            while len(ready) > keep:
                ready.pop()
                self._cut = True
        if not self._cut:
            return None
        self._cut = False
        return ready[-1].ordinal if ready else self._conversation.last_ordinal
