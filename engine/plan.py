"""Chunk arithmetic in plain integers: frames, samples, overlap.

A chunk of F pixel frames begins with the last 5 frames of what was shown before (its motion
frames) and adds F - 5 new ones; it has T = 1 + (F - 1) / 4 latent frames (method section 1.1).
Video runs at 25 frames a second; audio at any whole rate, so that a frame's samples are counted
from its start time and no rounding ever accumulates.
"""

FPS = 25
CHUNK_LENGTHS = (9, 13, 17, 33)
MOTION_FRAMES = 5
MOTION_LATENTS = 2
LATENT_STRIDE = 4
ENGINE_RATE = 16_000
ENGINE_SAMPLES_PER_FRAME = ENGINE_RATE // FPS
MIN_RATE = 8_000
MAX_RATE = 48_000


class PlanError(ValueError):
    """A chunk length or sample rate that the engine does not serve."""


def check_chunk_frames(chunk_frames: int) -> int:
    """The chunk length itself.

    Raises:
        PlanError: it is none of `CHUNK_LENGTHS`.
    """
    if chunk_frames not in CHUNK_LENGTHS:
        raise PlanError(f"chunk_frames={chunk_frames}: must be one of {CHUNK_LENGTHS}")
    return chunk_frames


def check_rate(rate: int) -> int:
    """The sample rate itself, in Hz.

    Raises:
        PlanError: it is not a whole number in 8000..48000.
    """
    if isinstance(rate, bool) or not isinstance(rate, int) or not MIN_RATE <= rate <= MAX_RATE:
        raise PlanError(
            f"input_rate={rate!r}: must be a whole number of Hz from {MIN_RATE} to {MAX_RATE}; "
            "resample the audio first"
        )
    return rate


def latent_frames(chunk_frames: int) -> int:
    """Latent frames of a chunk: 3, 4, 5 or 9."""
    return 1 + (chunk_frames - 1) // LATENT_STRIDE


def new_frames(chunk_frames: int) -> int:
    """Frames that a chunk adds to the video: 4, 8, 12 or 28."""
    return chunk_frames - MOTION_FRAMES


def frames_of(samples: int, rate: int) -> int:
    """Frames that `samples` of audio give: ceil(samples * 25 / rate)."""
    return -(-samples * FPS // rate)


def frame_start(frame: int, rate: int) -> int:
    """Index of the first sample of frame `frame`; it ends where the next one starts."""
    return frame * rate // FPS


def largest_chunk(ready_frames: int, longest: int = CHUNK_LENGTHS[-1]) -> int | None:
    """The longest chunk, at most `longest`, whose new frames are all ready; None if none is."""
    fitting = [c for c in CHUNK_LENGTHS if c <= longest and new_frames(c) <= ready_frames]
    return max(fitting, default=None)


def covering_chunk(remaining_frames: int) -> int:
    """The shortest chunk whose new frames cover `remaining_frames`, else the longest there is."""
    return next((c for c in CHUNK_LENGTHS if new_frames(c) >= remaining_frames), CHUNK_LENGTHS[-1])
