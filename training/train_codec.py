"""Trains the embedded motion codec: the mouth's painter and the motion encoder.

    python -m visavis.training.train_codec --bank runs/portraits --out runs/codec

Both see photo puppets in random poses. The painter learns the mouth's inside against the
generator's; the encoder learns the exact motion codes, pass by pass. Losses of the cavity are
normalised by its own area: a box around the mouth is mostly skin and hides a mouth that never
opens. Resumes from its folder's checkpoint.
"""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.codec.composition import Layers, Window, compose
from visavis.engine.codec.interior import paint_interior
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION
from visavis.engine.codec.networks import ENCODER_SIZE, EncoderConfig, PainterConfig
from visavis.training.checkpoints import step_seed
from visavis.training.codec_data import Puppet, PuppetShow, random_controls
from visavis.training.codec_figures import FOCUS_MAPS, draw_round_trips, measure
from visavis.training.config_files import Overrides, recipe_or_exit
from visavis.training.parallel import Workers
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import check_length
from visavis.training.resumable_run import AllowChanges, ResumableRun, resume_or_exit, warmth
from visavis.training.run_loop import run_steps

app = App(help=__doc__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRecipe:
    """How the codec is trained; times are wall-clock, a run ends at `minutes` or `steps`.

    The sizes of its networks are the file's tables [painter] and [encoder].
    """

    portraits: int = 2  # a step
    frames: int = 6  # of each portrait
    # With minutes = inf a run is the same anywhere.
    steps: int = 1_000_000
    minutes: float = 40.0
    # Falls to `final_share` of itself as 1 - (1 - final_share) done ** fall_power.
    rate: float = 1.5e-3
    final_share: float = 0.03
    fall_power: float = 1.5
    warm_up_steps: int = 100
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0
    log_every: int = 50
    save_minutes: float = 3.0
    validate_minutes: float = 8.0

    def __post_init__(self) -> None:
        check_length(self.steps, self.minutes)
        if self.portraits < 1:
            raise ValueError(f"portraits={self.portraits}: a step sees at least one")
        if self.frames < 2:
            raise ValueError(f"frames={self.frames}: the painter sees half of them; take 2 or more")


class CodecRun(ResumableRun[MotionCodec]):
    """The codec's run."""

    recipe: CodecRecipe

    def __init__(
        self,
        recipe: CodecRecipe,
        painter: PainterConfig | None = None,
        encoder: EncoderConfig | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.sizes = (painter or PainterConfig(), encoder or EncoderConfig())
        model = MotionCodec(*self.sizes)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        super().__init__(recipe, model, optimizer, Workers())

    def advance(self, show: PuppetShow) -> dict[str, float]:
        """One optimiser step."""
        recipe = self.recipe
        fallen = 1 - (1 - recipe.final_share) * self.done**recipe.fall_power
        self.set_rate(recipe.rate * fallen * warmth(self.step, recipe.warm_up_steps))
        rng = np.random.default_rng(step_seed(recipe.seed, self.step))
        sums = np.zeros(3)
        for _ in range(recipe.portraits):
            puppet = show[int(rng.integers(len(show)))]
            codes = torch.from_numpy(puppet.basis.codes(random_controls(rng, recipe.frames)))
            paint = painter_loss(self.model, puppet, codes[: recipe.frames // 2])
            with torch.no_grad():
                frames = half_frames(puppet, codes, rng)
            motion, last = encoder_loss(self.model, puppet, codes, frames)
            ((paint + motion) / recipe.portraits).backward()  # type: ignore[no-untyped-call]
            sums += [paint.item(), motion.item(), last.item()]
        norm = self.update()
        means = dict(zip(("paint", "motion", "last_px"), sums / recipe.portraits, strict=True))
        return {**means, "grad_norm": norm}

    def averaged(self) -> MotionCodec:
        """A copy of the codec with the averaged weights."""
        return self.average_into(MotionCodec(*self.sizes))

    def told(self) -> dict[str, Any]:
        """The recipe, and the networks' sizes as its tables."""
        painter, encoder = self.sizes
        return {**super().told(), "painter": asdict(painter), "encoder": asdict(encoder)}

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and the averaged weights where the engine can load them."""
        super().save(folder)
        self.averaged().save(folder / "weights")


def painter_loss(codec: MotionCodec, puppet: Puppet, codes: Tensor) -> Tensor:
    """L1 in the cavity, by its own area, and of the whole mouth window."""
    count = len(codes)
    reference = puppet.reference
    layers = compose(
        reference.portrait.expand(count, -1, -1, -1),
        reference.seams.expand(count, -1, -1, -1),
        codes,
        reference.window,
        reduction=PORTRAIT_REDUCTION,
    )
    truth = layers.blend(paint_interior(puppet.look, reference.portrait, layers)).clamp(0, 1)
    interior, residual = codec.paint(layers, reference)
    painted = layers.blend(interior) + residual
    error = (painted - truth).abs().mean(dim=1, keepdim=True)
    squared = (painted - truth).square().mean(dim=1, keepdim=True)
    cavity = (layers.gap * (error + 2 * squared)).sum() / (layers.gap.sum() + 50)
    return cavity + 2 * error.mean()


def encoder_loss(
    codec: MotionCodec, puppet: Puppet, codes: Tensor, frames: Tensor
) -> tuple[Tensor, Tensor]:
    """L1 of the codes after every pass, in pixels, mouth and eyes weighted; and the last pass's."""
    focus = puppet.reference.layout[:, list(FOCUS_MAPS)].amax(dim=1, keepdim=True)
    weight = (1 + 5 * focus) / (1 + 5 * focus).mean()
    pixels = codes.new_tensor(CODE_SCALE)[:, None, None]
    passes = codec.encode_passes(frames, puppet.reference)
    errors = [((passed - codes).abs() * pixels * weight).mean() for passed in passes]
    return torch.stack(errors).sum(), errors[-1].detach()


def half_frames(puppet: Puppet, codes: Tensor, rng: np.random.Generator) -> Tensor:
    """Ground-truth frames at half size [N, 3, 128, 128], as a codec or camera would soil them."""
    count = len(codes)
    reference = puppet.reference
    layers: Layers = compose(
        reference.reduced.expand(count, -1, -1, -1),
        reference.seams.expand(count, -1, -1, -1),
        codes,
        Window(x=0.5, y=0.5, width=ENCODER_SIZE, height=ENCODER_SIZE, step=2.0),
        reduction=2,
    )
    frames = layers.blend(paint_interior(puppet.look, reference.portrait, layers))
    noise = torch.from_numpy(rng.standard_normal(frames.shape, np.float32))
    return (frames + 0.01 * float(rng.random()) * noise).clamp(0, 1)


def train(job: CodecRun, bank: Path, folder: Path) -> None:
    """Steps until the recipe's time or step count is reached."""
    recipe = job.recipe
    show, held = PuppetShow(bank, held=False), PuppetShow(bank, held=True)

    def watch(progress: RunProgress) -> None:
        averaged = job.averaged()
        progress.report(job.step, "held_out", measure(averaged, held))
        sheet = draw_round_trips(averaged, held, folder / f"sheet-{job.step:06d}.png")
        progress.picture(job.step, "held_out/sheet", sheet)

    run_steps(
        job,
        lambda: job.advance(show),
        folder,
        samples=recipe.portraits * recipe.frames,
        watch=watch,
        watch_minutes=recipe.validate_minutes,
    )


@app.default
def main(
    *,
    bank: Path = Path("runs/portraits"),
    out: Path = Path("runs/codec"),
    config: str = "codec",
    overrides: Overrides = (),
    minutes: float | None = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the codec.

    Args:
        bank: folder of the portrait bank.
        out: folder of the run; goes on from its checkpoint, if there is one.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        minutes: wall-clock length of the whole run, resumed parts included.
        allow_changes: go on from a checkpoint that another recipe made.
    """
    recipe = recipe_or_exit(CodecRecipe, config, overrides, tables=["painter", "encoder"])
    painter = recipe_or_exit(PainterConfig, config, overrides, table="painter")
    encoder = recipe_or_exit(EncoderConfig, config, overrides, table="encoder")
    if minutes is not None:
        recipe = replace(recipe, minutes=minutes)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    configure_logging(out / "log.txt")
    job = CodecRun(recipe, painter, encoder)
    resumed = resume_or_exit(job, out, allow_changes=allow_changes)
    log.info("%s at step %d", "resumed" if resumed else "starting", job.step)
    train(job, bank, out)


if __name__ == "__main__":
    app()
