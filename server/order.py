"""What the engine thread is asked for in one turn, and what it says of it. No logic."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from visavis.server.chunk_policy import ChunkPolicy
from visavis.server.conversation import EngineInput
from visavis.server.events import IdlePolicy
from visavis.server.quality import Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One turn's work: take `input` in, then at most one chunk of speech, else of idle frames.

    `deadline_s`: when its first frame is wanted, on the monotonic clock. `urgent`: somebody waits
    for it. `play_by_s`: when the client has nothing left to play.
    `cut_ordinal`: idle frames after that one were thrown away, the face goes on from it.
    `listening`: the face keeps calmer than in idling. `idle_frames`: how many to show again where
    that is the policy. `idle_ahead_s`: idle frames are decoded so long before their time and no
    earlier.
    """

    input: EngineInput
    speech: ChunkPolicy | None
    allow_idle: bool
    idle_policy: IdlePolicy
    idle_chunk_frames: int
    idle_frames: int
    idle_ahead_s: float
    deadline_s: float
    play_by_s: float
    urgent: bool
    listening: bool
    quality: Quality
    cut_ordinal: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a turn did.

    `longest_chunk`: that can be made next, given the audio; `ask_again_s`: when a shorter chunk
    than was hoped for will do. `chunk_frames`: the chunk that was made, 0 for none; `busy_s`: the
    model's time for it, encoding included; `wait_s`: from its start to its first frame. `prepare_s`
    (audio features and all else before the first step), `denoise_s`, `decode_s` and `encode_s` are
    its parts.
    """

    buffered_samples: int
    longest_chunk: int
    ask_again_s: float | None
    finished: bool
    abandoned: bool
    chunk_frames: int
    frames: int
    speech: bool
    busy_s: float
    encode_s: float
    wait_s: float | None
    prepare_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn that was begun: idle or not, and its end."""

    ended: Future[Outcome]
    idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """A copy of a stream between two turns: the engine's session as `engine.session_file` packs
    it, and which of its frames were `places` in the stream, by their numbers in both."""

    session: bytes
    ordinal: int
    places: tuple[tuple[int, int], ...]
    committed: bool
