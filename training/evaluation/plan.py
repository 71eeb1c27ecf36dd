"""How much is evaluated, and what can be left out."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from visavis.engine.dit.sampler import timesteps
from visavis.engine.plan import CHUNK_LENGTHS, check_chunk_frames

Part = Literal[
    "speed", "autoencoder", "talking", "recordings", "photographs", "endurance", "stability"
]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
DEFAULT_SEEDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """How much is evaluated.

    `seeds`: how often each talk, recording and recovery is made, with noise of its own.
    `chunk_frames`: talks are made in chunks of that length at most, as live speech is, and long
    runs in chunks of that very length.
    `drift_sessions` are as deployed, `reencoded_sessions` (each, with and without correction of
    colours; 0 leaves them out) hand over through pixels; every session has its own portrait, and
    voices and seeds by turns.

    Raises ValueError, naming the field, where a number makes no sense.
    """

    parts: tuple[Part, ...] = PARTS
    seeds: int = DEFAULT_SEEDS
    num_steps: int = 4
    chunk_frames: int = CHUNK_LENGTHS[-1]
    round_trip_portraits: int = 30
    round_trip_frames: int = 30
    talks: int = 18
    endurance_chunks: int = 100
    drift_checkpoints: tuple[int, ...] = (1, 10, 100, 1000)
    drift_sessions: int = 6
    reencoded_sessions: int = 2
    recovery_sessions: int = 4
    recordings: int = 8
    recording_s: float = 16.0
    photograph_s: float = 4.0
    bootstraps: int = 1000

    def __post_init__(self) -> None:
        timesteps(self.num_steps)
        check_chunk_frames(self.chunk_frames)
        for name in (
            "seeds", "talks", "drift_sessions", "recovery_sessions", "round_trip_portraits",
            "endurance_chunks",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")


def parse_parts(text: str) -> tuple[Part, ...]:
    """Parts separated by commas, in the order in which they run.

    Raises ValueError naming what is no part.
    """
    named = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in named if name not in PARTS]
    if wrong or not named:
        raise ValueError(f"parts={', '.join(wrong)!r}: choose among {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in named)


FULL: Final = EvaluationPlan()
QUICK: Final = EvaluationPlan(
    seeds=2,
    round_trip_portraits=4,
    round_trip_frames=12,
    talks=3,
    endurance_chunks=12,
    drift_checkpoints=(1, 10),
    drift_sessions=2,
    reencoded_sessions=1,
    recovery_sessions=1,
    recordings=1,
    recording_s=6.0,
    photograph_s=2.5,
)
