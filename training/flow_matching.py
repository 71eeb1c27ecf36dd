"""Flow matching with the linear path, and the losses of the first stage.

Convention (docs: noise level t in 0..1, 1 is pure noise):

    x_t = (1 - t) x_0 + t eps          v = d x_t / dt = eps - x_0
    x0_hat = x_t - t v_hat             v-error = -(x0-error) / t

Legend: B samples, C channels, T latent frames, h w control grid.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visavis.engine.codec.motion_latents import TEMPORAL_STRIDE

DEFAULT_SHIFT = 5.0


def shift_time(u: Tensor, shift: float = DEFAULT_SHIFT) -> Tensor:
    """Timestep shift s u / (1 + (s - 1) u): raw times in 0..1 crowd towards noise."""
    return shift * u / (1 + (shift - 1) * u)


def draw_times(
    batch: int,
    generator: torch.Generator,
    *,
    shift: float = DEFAULT_SHIFT,
    uniform_share: float = 0.2,
    smallest: float = 0.02,
) -> Tensor:
    """Noise levels [B]: shifted for most samples, uniform for the rest, so that both ends are seen.

    Stratified over the batch: the mean loss varies less from step to step.
    """
    device = generator.device
    ranks = torch.randperm(batch, generator=generator, device=device)
    u = (ranks + torch.rand(batch, generator=generator, device=device)) / batch
    plain = torch.rand(batch, generator=generator, device=device) < uniform_share
    return torch.where(plain, u, shift_time(u, shift)).clamp(smallest, 1.0)


def per_sample(values_B: Tensor) -> Tensor:
    """[B] as [B, 1, 1, 1, 1]."""
    return values_B.view(-1, 1, 1, 1, 1)


def add_noise(clean_BCThw: Tensor, noise_BCThw: Tensor, times_B: Tensor) -> Tensor:
    """x_t on the straight path between data and noise."""
    t = per_sample(times_B)
    return (1 - t) * clean_BCThw + t * noise_BCThw


def clean_from_velocity(noisy_BCThw: Tensor, velocity_BCThw: Tensor, times_B: Tensor) -> Tensor:
    """x0_hat = x_t - t v_hat."""
    return noisy_BCThw - per_sample(times_B) * velocity_BCThw


def supervised_slots(motion_slots_B: Tensor, length: int) -> Tensor:
    """1 where a latent frame is generated, 0 where it is handed-over motion: [B, 1, T, 1, 1]."""
    slots = torch.arange(length, device=motion_slots_B.device)
    return (slots >= motion_slots_B[:, None]).float()[:, None, :, None, None]


def impose_motion(latents_BCThw: Tensor, motion_BCThw: Tensor, supervised_B1T11: Tensor) -> Tensor:
    """Latents with the motion slots taken from `motion` (same shape)."""
    return torch.lerp(motion_BCThw, latents_BCThw, supervised_B1T11)


@dataclass(frozen=True, slots=True)
class FlowLosses:
    """Scalars: weighted velocity error, its change from frame to frame, what is minimised."""

    velocity: Tensor
    temporal: Tensor
    total: Tensor


def flow_matching_loss(
    velocity_BCThw: Tensor,
    target_BCThw: Tensor,
    times_B: Tensor,
    supervised_B1T11: Tensor,
    focus_Bhw: Tensor,
    *,
    temporal_weight: float = 0.25,
    stacked_frames: int = TEMPORAL_STRIDE,
    small_time: float = 0.3,
) -> FlowLosses:
    """Mean squared velocity error over the generated slots, and over first differences in time.

    `focus` weights the cells (mean about one); the opening of the mouth lives in a dozen of 256.
    Below `small_time` the error is tempered by (t / small_time)^2: it equals the x0 error over t^2,
    and few-step sampling never goes there.

    The differences are taken between pixel frames, `stacked_frames` of which lie in a latent
    frame's channels (channel = C / stacked f + c), the last handed-over frame included, where the
    error is zero: a jump at a chunk's border is paid for.
    """
    tempered = (per_sample(times_B) / small_time).clamp(max=1.0)
    error = (velocity_BCThw - target_BCThw) * tempered * supervised_B1T11
    weighted = error * focus_Bhw.sqrt()[:, None, None]
    cells = weighted.shape[1] * weighted.shape[3] * weighted.shape[4]
    velocity = weighted.square().sum() / (supervised_B1T11.sum() * cells)
    frames = torch.unflatten(weighted, 1, (stacked_frames, -1)).permute(0, 3, 1, 2, 4, 5)
    steps = frames.flatten(1, 2).diff(dim=1)
    temporal = steps.square().sum() / (supervised_B1T11.sum() * cells)
    return FlowLosses(velocity, temporal, velocity + temporal_weight * temporal)


@torch.no_grad()
def x0_error(noisy: Tensor, velocity: Tensor, clean: Tensor, times_B: Tensor) -> Tensor:
    """Mean squared error of the implied clean latents, [B]; for reports."""
    return (clean_from_velocity(noisy, velocity, times_B) - clean).square().flatten(1).mean(dim=1)
