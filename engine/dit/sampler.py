"""The few-step sampler: predict the clean chunk, add fresh noise, repeat (method section 1.6).

It knows neither the model nor its conditions: only a velocity function.

Letters: B batch, C channels, T latent frames, m motion latents, h w latent size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHIFT = 5.0
MAX_STEPS = 100

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(latents [B, C, T, h, w], noise levels [B] in (0, 1]) -> velocity, shaped as the latents."""


class ChunkAbandoned(Exception):
    """`should_stop` was true at the border of a denoising step: the chunk has no result."""


class SamplerError(ValueError):
    """A schedule or a shape that the sampler cannot use."""


def timesteps(num_steps: int, shift: float = SHIFT) -> tuple[float, ...]:
    """Noise levels in (0, 1] from pure noise downwards, and a last 0: num_steps + 1 numbers.

    Equal steps u are shifted towards noise, s u / (1 + (s - 1) u) (method section 1.5). Four
    steps and shift 5 give 1, 0.9375, 0.8333, 0.625, two give 1, 0.8333.

    Raises:
        SamplerError: num_steps outside 1..100 or a shift that is not positive.
    """
    if not 1 <= num_steps <= MAX_STEPS:
        raise SamplerError(f"num_steps={num_steps}: must be in 1..{MAX_STEPS}; 2 and 4 are trained")
    if shift <= 0:
        raise SamplerError(f"shift={shift}: must be positive; the models were trained with {SHIFT}")
    raw = (1 - i / num_steps for i in range(num_steps + 1))
    # the same with u = 1 giving exactly 1
    return tuple(shift * u / (shift * u + (1 - u)) for u in raw)


class Denoising:
    """One chunk on its way from noise to clean latents; the caller brings the velocities.

    Between two steps it may be left, put aside for another chunk, or advanced together with others
    of its shape: all that it needs is in here.
    """

    def __init__(
        self,
        noise: Tensor,
        motion_latents: Tensor,
        generator: torch.Generator,
        levels: tuple[float, ...],
        *,
        temperature: float = 1.0,
    ) -> None:
        """`noise` float32 [..., C, T, h, w] is taken over; `levels` as `timesteps` gives them;
        `temperature` as in `RenoisingSampler.start`."""
        self.levels = levels
        self.step = 0
        self._generator = generator
        self._motion = motion_latents
        self._temperature = temperature
        self.latents = temperature * noise if temperature != 1 else noise
        self._impose_motion()

    @property
    def done(self) -> bool:
        """Whether the latents are clean."""
        return self.step == len(self.levels) - 1

    @property
    def level(self) -> float:
        """The noise level at which the next velocity is wanted."""
        return self.levels[self.step]

    def advance(self, velocity: Tensor) -> None:
        """Take one step with the velocity at `latents` and `level`."""
        level, next_level = self.levels[self.step], self.levels[self.step + 1]
        clean = self.latents - level * velocity
        noise = torch.randn(
            self.latents.shape, generator=self._generator, device=self.latents.device
        )
        self.latents = (1 - next_level) * clean + next_level * self._temperature * noise
        self._impose_motion()
        self.step += 1

    def _impose_motion(self) -> None:
        self.latents[..., : self._motion.shape[-3], :, :] = self._motion


class RenoisingSampler:
    """Denoises a chunk whose first latent slots are given (the motion latents).

    The random numbers are drawn as the original draws them: the initial noise, then one tensor
    per step; the last is multiplied by zero, yet drawn, so that a seed means the same chunk.
    """

    def __init__(self, *, shift: float = SHIFT, initial_dtype: torch.dtype = torch.float32) -> None:
        """`initial_dtype`: that of the first draw, bfloat16 in the original's deployment."""
        self.shift = shift
        self.initial_dtype = initial_dtype

    def sample(
        self,
        velocity: Velocity,
        shape: tuple[int, ...],
        motion_latents: Tensor,
        generator: torch.Generator,
        *,
        num_steps: int = 4,
        should_stop: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Clean latents of one chunk, float32, on the generator's device.

        Args:
            velocity: called once a step with latents [B, C, T, h, w] and levels [B].
            shape: (C, T, h, w), or with a batch (B, C, T, h, w); the result has this shape.
            motion_latents: [..., C, m, h, w] with m <= T, imposed before every call and at the end.
            should_stop: asked before every step.

        Raises:
            ChunkAbandoned: `should_stop` was true.
            SamplerError: the schedule or the motion latents do not fit.
        """
        run = self.start(shape, motion_latents, generator, num_steps=num_steps)
        while not run.done:
            if should_stop is not None and should_stop():
                raise ChunkAbandoned("the chunk was abandoned before it was complete")
            batched = run.latents if run.latents.ndim == 5 else run.latents[None]
            at = torch.full((batched.shape[0],), run.level, device=generator.device)
            run.advance(velocity(batched, at).float().view(shape))
        return run.latents

    def start(
        self,
        shape: tuple[int, ...],
        motion_latents: Tensor,
        generator: torch.Generator,
        *,
        num_steps: int = 4,
        temperature: float = 1.0,
    ) -> Denoising:
        """Draw the initial noise; arguments and errors as in `sample`, which is the whole run.

        `temperature` scales all noise: below 1 the samples keep closer to what is most likely. It
        is ours, and no part of the original's method.
        """
        levels = timesteps(num_steps, self.shift)
        self._check(shape, motion_latents)
        device = generator.device
        motion = motion_latents.to(device=device, dtype=torch.float32)
        noise = torch.randn(shape, generator=generator, device=device, dtype=self.initial_dtype)
        return Denoising(noise.float(), motion, generator, levels, temperature=temperature)

    @staticmethod
    def _check(shape: tuple[int, ...], motion: Tensor) -> None:
        if len(shape) not in (4, 5):
            raise SamplerError(f"shape={shape}: needs (C, T, h, w) or (B, C, T, h, w)")
        fits = (
            motion.ndim in (4, len(shape))
            and motion.shape[-4] == shape[-4]
            and motion.shape[-2:] == shape[-2:]
            and 0 < motion.shape[-3] <= shape[-3]
        )
        if not fits:
            raise SamplerError(
                f"motion_latents {tuple(motion.shape)} do not fit a chunk {shape}: same channels "
                "and size, between 1 and T latent frames"
            )
