"""What a training run is told: frozen recipes, and the models that they train.

Recipes to run are files (`training/configs`, read by `config_files`); the functions here make small
ones, for runs that are compared and for tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from visavis.engine.dit.config import DIT_PRESETS, DiTConfig

# Models that can be trained: the released one (`training.train_large`), the embedded one, and
# smaller ones of its kind: for many runs that are compared (`training.ablation`), and to see that
# a command runs.
MODELS: Final[dict[str, DiTConfig]] = {
    "flashtalk-14b": DIT_PRESETS["flashtalk-14b"],
    "embedded": DIT_PRESETS["embedded"],
    "small": replace(
        DIT_PRESETS["embedded"],
        dim=96,
        ffn_dim=192,
        num_layers=3,
        num_heads=3,
        freq_dim=64,
        audio_hidden=64,
        audio_dim=64,
        audio_tokens=4,
    ),
    "smoke": replace(
        DIT_PRESETS["embedded"],
        dim=32,
        ffn_dim=64,
        num_layers=1,
        num_heads=1,
        freq_dim=32,
        audio_hidden=16,
        audio_dim=16,
        audio_tokens=2,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherRecipe:
    """Stage 1, flow matching. Times are wall-clock; a run ends at `minutes` or `steps`."""

    model: str = "embedded"
    batch: int = 16
    # Micro-batches of that size in a step, shared among the processes; 0: one for each. A run of
    # so many is the same on any number of processes that divides it.
    streams: int = 0
    steps: int = 1_000_000
    minutes: float = 60.0
    # Learning rate: linear warm-up, then constant, then cosine to `final_rate` over the last part
    # of the run (by time): a run that is cut short has lost little.
    rate: float = 1e-3
    final_rate: float = 2e-5
    warm_up_steps: int = 100
    decay_share: float = 0.35
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    # Windows.
    frame_counts: tuple[int, ...] = (33, 17, 9)
    frame_shares: tuple[float, ...] = (0.7, 0.2, 0.1)
    first_chunk_share: float = 0.15
    # Noise levels.
    shift: float = 5.0
    uniform_share: float = 0.2
    # Losses.
    focus_weight: float = 6.0
    temporal_weight: float = 0.25
    # Robustness: audio dropped (makes guidance possible), noise on the handed-over latents (the
    # sampler's own history is never exact).
    drop_audio: float = 0.08
    drop_text: float = 0.0
    history_noise: float = 0.06
    # Housekeeping.
    seed: int = 1
    compile: bool = False
    bf16: bool = True
    log_every: int = 50
    save_minutes: float = 3.0
    validate_minutes: float = 5.0
    sheet_minutes: float = 10.0
    validation_sequences: int = 12
    validation_chunks: int = 3

    def __post_init__(self) -> None:
        check_model(self.model)
        check_length(self.steps, self.minutes)
        check_windows(self.frame_counts, self.frame_shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRecipe:
    """Stage 2, self-correcting distillation: distribution matching on own history.

    The switches are those of the ablation table (method section 3.2).
    """

    model: str = "embedded"
    batch: int = 16
    # Micro-batches of that size in a step, shared among the processes; 0: one for each. A run of
    # so many is the same on any number of processes that divides it.
    streams: int = 0
    steps: int = 1_000_000
    minutes: float = 25.0
    num_steps: int = 4
    # Roll-out: 1..max_chunks chunks, drawn anew for every round, or always max_chunks.
    chunk_frames: int = 33
    max_chunks: int = 3
    random_chunks: bool = True
    # Hand over through pixels, as the paper does: decoded, then encoded again. Off, because the
    # embedded model is deployed without, and it costs about what the chunk does. The 14B always
    # does, whatever stands here.
    reencode: bool = False
    # The student's attention inside a chunk looks at earlier latent frames only.
    causal: bool = False
    sampler: Literal["renoise", "euler"] = "renoise"
    # Weight, per motion slot, of pulling the student's own prediction there to the motion latents.
    motion_alignment: float = 0.0
    # Noise levels of teacher and critic: the whole range, or the step's own (section 1.9.2).
    noise_range: Literal["full", "exit"] = "full"
    critic_updates: int = 5
    rate: float = 5e-5
    critic_rate: float = 1e-4
    betas: tuple[float, float] = (0.0, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    shift: float = 5.0
    # Teacher's guidance in Ho-Salimans form: 1 = none. A model without text reads nothing.
    audio_guidance: float = 1.5
    text_guidance: float = 1.0
    smallest_time: float = 0.02
    largest_time: float = 0.98
    # Weight of the regression to the recorded motion: audio and motion are paired here, and a pure
    # distribution loss lets lips go slack over time (dynamic collapse).
    regression_weight: float = 0.5
    # Chance that a rollout starts from recorded history instead of the portrait.
    recorded_start: float = 0.3
    focus_weight: float = 6.0
    seed: int = 2
    bf16: bool = True
    log_every: int = 10
    save_minutes: float = 3.0
    validate_minutes: float = 5.0
    validation_sequences: int = 12
    validation_chunks: int = 3

    def __post_init__(self) -> None:
        check_model(self.model)
        check_length(self.steps, self.minutes)
        if self.chunk_frames % 4 != 1 or self.chunk_frames < 9:
            raise ValueError(f"chunk_frames={self.chunk_frames} must be 4 n + 1 and at least 9")
        if self.max_chunks < 1:
            raise ValueError(f"max_chunks={self.max_chunks}: a roll-out has at least one chunk")


def check_model(model: str) -> None:
    """Raises ValueError unless there is such a model."""
    if model not in MODELS:
        raise ValueError(f"model={model!r} must be one of {', '.join(sorted(MODELS))}")


def check_length(steps: int, minutes: float) -> None:
    """Raises ValueError unless a run of so many steps and minutes has an end."""
    if steps < 1:
        raise ValueError(f"steps={steps}: a run has at least one step")
    if not minutes > 0:
        raise ValueError(f"minutes={minutes} must be more than 0; inf ends the run by its steps")


def check_shares(name: str, shares: Sequence[float]) -> None:
    """Raises ValueError unless the shares are a distribution."""
    if any(share < 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"{name}={tuple(shares)} must be shares that add up to 1")


def check_windows(frame_counts: Sequence[int], frame_shares: Sequence[float]) -> None:
    """Raises ValueError unless every length of window can be a chunk and has its share."""
    if len(frame_counts) != len(frame_shares):
        raise ValueError(
            f"frame_counts={frame_counts} and frame_shares={frame_shares} must have equal length"
        )
    check_shares("frame_shares", frame_shares)
    if any(count % 4 != 1 or count < 9 for count in frame_counts):
        raise ValueError(f"frame_counts={frame_counts} must all be 4 n + 1 and at least 9")


def small_teacher(steps: int = 5000) -> TeacherRecipe:
    """The ablation's teacher: 17-frame chunks, motion latents without any noise (section 1.8)."""
    return replace(
        TeacherRecipe(),
        model="small",
        steps=steps,
        minutes=1000.0,
        frame_counts=(17,),
        frame_shares=(1.0,),
        history_noise=0.0,
        ema_decay=0.995,
        bf16=False,
        log_every=100,
        save_minutes=1.0,
    )


def small_student() -> StudentRecipe:
    """The ablation's base: random k up to 5, re-noising, bidirectional, nothing but matching."""
    return replace(
        StudentRecipe(),
        model="small",
        batch=8,
        chunk_frames=17,
        max_chunks=5,
        rate=1e-4,
        critic_rate=2e-4,
        audio_guidance=1.0,
        regression_weight=0.0,
        ema_decay=0.98,
        bf16=False,
    )


def smoke_teacher() -> TeacherRecipe:
    """A few steps of a tiny model: does the command run?"""
    return replace(
        TeacherRecipe(),
        model="smoke",
        batch=2,
        steps=4,
        compile=False,
        log_every=2,
        validation_sequences=2,
        validation_chunks=1,
    )


def smoke_student() -> StudentRecipe:
    """A few steps of a tiny model."""
    return replace(
        StudentRecipe(),
        model="smoke",
        batch=2,
        steps=2,
        critic_updates=2,
        max_chunks=2,
        log_every=1,
        validation_sequences=2,
        validation_chunks=1,
    )
