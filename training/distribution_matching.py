"""Losses of the second stage: distribution matching and its critic (method sections 1.9.2, 1.9.3).

The student's clean latents x0 are noised to tau. A frozen teacher and a critic, which is trained on
the student's own samples, both predict them clean; the difference moves the student from where its
samples are too frequent to where the data is.

Legend: B samples, C channels, T latent frames, h w control grid.
"""

import torch
from torch import Tensor

from visavis.training.flow_matching import (
    add_noise,
    clean_from_velocity,
    impose_motion,
    per_sample,
    shift_time,
)
from visavis.training.rollout import Conditions, Network

SMALLEST_SCALE = 1e-2


def draw_levels(
    batch: int,
    generator: torch.Generator,
    *,
    shift: float,
    smallest: float,
    largest: float,
    raw_range: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Noise levels tau [B], even in raw time within `raw_range`, then shifted.

    The whole range whatever step the student left at is Self-Forcing's way; `step_range` is the
    other.
    """
    low, high = raw_range
    raw = low + (high - low) * torch.rand(batch, generator=generator, device=generator.device)
    return shift_time(raw, shift).clamp(smallest, largest)


def step_range(exit_step: int, num_steps: int) -> tuple[float, float]:
    """Raw times between the step that the student left at and the next one (section 1.9.2)."""
    return 1 - (exit_step + 1) / num_steps, 1 - exit_step / num_steps


def noised_sample(
    sample: Tensor, times_B: Tensor, supervised: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The sample at levels tau with clean motion slots, and the noise that was added."""
    noise = torch.randn(sample.shape, generator=generator, device=generator.device)
    return impose_motion(add_noise(sample, noise, times_B), sample, supervised), noise


@torch.no_grad()
def matching_gradient(
    sample: Tensor,
    times_B: Tensor,
    supervised: Tensor,
    conditions: Conditions,
    teacher: Network,
    critic: Network,
    generator: torch.Generator,
    *,
    audio_guidance: float,
    text_guidance: float = 1.0,
) -> Tensor:
    """Where the loss should fall: (x_fake - x_real) / mean |x0 - x_real|, zero in motion slots.

    x_real is guided in Ho-Salimans form, null + g_a (heard - null) + g_t (full - heard), where only
    audio is heard and a model without text has heard = full. With g = 1 it is the plain teacher,
    and with the critic equal to that the gradient is zero.
    """
    noisy, _ = noised_sample(sample, times_B, supervised, generator)

    def clean(network: Network, given: Conditions) -> Tensor:
        return clean_from_velocity(noisy, given.velocity(network, noisy, times_B).float(), times_B)

    fake, real = clean(critic, conditions), clean(teacher, conditions)
    wordless = conditions.wordless()
    if audio_guidance != 1.0 or (wordless is not None and text_guidance != 1.0):
        null = clean(teacher, conditions.silent())
        heard = real if wordless is None else clean(teacher, wordless)
        guided = null + audio_guidance * (heard - null)
        real = guided if wordless is None else guided + text_guidance * (real - heard)
    away = ((sample - real).abs() * supervised).sum(dim=(1, 2, 3, 4))
    cells = supervised.sum(dim=(1, 2, 3, 4)) * sample[0, :, 0].numel()
    scale = (away / cells).clamp_min(SMALLEST_SCALE)
    return torch.nan_to_num((fake - real) * supervised / per_sample(scale), 0.0, 0.0, 0.0)


def matching_loss(sample: Tensor, gradient: Tensor, supervised: Tensor) -> Tensor:
    """A loss whose derivative with respect to the sample is `gradient` over the element count."""
    target = (sample - gradient).detach()
    count = supervised.sum() * sample[0, :, 0].numel()
    return 0.5 * ((sample - target) * supervised).square().sum() / count


def alignment_loss(clean: Tensor, motion: Tensor) -> Tensor:
    """Pulls the student's own prediction in the motion slots to the motion latents (P2).

    Built as `matching_loss`: the gradient is the difference over its own mean size, so it pushes
    with one strength however near it is. A slot weighs what a generated slot weighs.
    """
    slots = motion.shape[2]
    own = clean[:, :, :slots]
    away = (own - motion).detach()
    scale = away.abs().mean(dim=(1, 2, 3, 4)).clamp_min(SMALLEST_SCALE)
    target = own.detach() - away / per_sample(scale)
    share = slots / (clean.shape[2] - slots)
    return 0.5 * share * (own - target).square().mean()


def critic_loss(
    sample: Tensor,
    times_B: Tensor,
    supervised: Tensor,
    conditions: Conditions,
    critic: Network,
    generator: torch.Generator,
    *,
    small_time: float = 0.3,
) -> Tensor:
    """Flow matching on the student's samples, full conditions (tempered as the teacher's loss)."""
    sample = sample.detach()
    noisy, noise = noised_sample(sample, times_B, supervised, generator)
    velocity = conditions.velocity(critic, noisy, times_B).float()
    tempered = (per_sample(times_B) / small_time).clamp(max=1.0)
    error = (velocity - (noise - sample)) * supervised * tempered
    return 0.5 * error.square().sum() / (supervised.sum() * sample[0, :, 0].numel())


def lip_regression(sample: Tensor, truth: Tensor, supervised: Tensor, lips_Bhw: Tensor) -> Tensor:
    """Mean squared distance to the recorded motion, over the lips alone.

    Lips are what the audio decides; head and lids may go their own way. `lips` weights the cells
    (0 elsewhere); the head's flow, channels 6 f and 6 f + 1, is left out.
    """
    frames = torch.unflatten(sample - truth, 1, (4, 6))[:, :, 2:]
    weight = lips_Bhw[:, None, None, None] * supervised[:, None]
    error: Tensor = (frames.square() * weight).sum() / (weight.sum() * 16).clamp_min(1e-6)
    return error
