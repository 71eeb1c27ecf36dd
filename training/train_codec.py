"""Trains the embedded motion codec: the mouth's painter and the motion encoder.

`python -m visavis.training.train_codec --bank runs/portraits --out runs/codec --minutes 40`

Both see photo puppets in random poses. The painter learns the mouth's inside against the
generator's; the encoder learns the exact motion codes, pass by pass. Losses of the cavity are
normalised by its own area: a box around the mouth is mostly skin and hides a mouth that never
opens.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from visavis.engine.codec.composition import Layers, Window, compose
from visavis.engine.codec.interior import paint_interior
from visavis.engine.codec.motion import MotionCodec
from visavis.engine.codec.motion_latents import CODE_SCALE
from visavis.engine.codec.motion_reference import PORTRAIT_REDUCTION
from visavis.engine.codec.networks import ENCODER_SIZE, EncoderConfig, PainterConfig
from visavis.training.checkpoints import load_checkpoint, save_checkpoint, step_seed
from visavis.training.codec_data import Puppet, PuppetShow, random_controls
from visavis.training.ema import Ema
from visavis.training.evaluation.statistics import mean_psnr
from visavis.training.progress import RunProgress, configure_logging

FOCUS_MAPS = (2, 7, 8)  # layout latents of mouth and eyes
CHECKPOINT_MINUTES = 3.0
SHEET_MINUTES = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRecipe:
    """How the codec is trained."""

    painter: PainterConfig = PainterConfig()
    encoder: EncoderConfig = EncoderConfig()
    portraits: int = 2  # a step
    frames: int = 6  # of each portrait
    learning_rate: float = 1.5e-3
    ema: float = 0.998
    seed: int = 0


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


def train(bank: Path, out: Path, minutes: float, recipe: CodecRecipe) -> MotionCodec:
    """Train for so many minutes in all, resuming where a checkpoint is; returns the EMA codec."""
    torch.manual_seed(recipe.seed)
    show, held = PuppetShow(bank, held=False), PuppetShow(bank, held=True)
    codec = MotionCodec(recipe.painter, recipe.encoder)
    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(codec.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    ema = Ema(codec, recipe.ema)
    step, spent = 0, 0.0
    path = out / "checkpoint.pt"
    if path.exists():
        state = load_checkpoint(path)
        codec.load_state_dict(state["codec"])
        optimiser.load_state_dict(state["optimiser"])
        ema.load_state_dict(state["ema"])
        step, spent = state["step"], state["spent"]
    averaged = MotionCodec(recipe.painter, recipe.encoder).eval()
    total = 60 * minutes
    saved = sheet = spent
    with RunProgress(out, total, start=spent, by_time=True, every=50) as progress:
        while progress.elapsed < total:
            done = progress.elapsed / total
            rate = recipe.learning_rate * min(1, (step + 1) / 100) * (1 - 0.97 * done**1.5)
            for group in optimiser.param_groups:
                group["lr"] = rate
            losses = _step(codec, show, optimiser, recipe, step)
            ema.update(codec)
            step += 1
            progress.step(step, recipe.portraits * recipe.frames, losses)
            now = progress.elapsed
            if now - saved > 60 * CHECKPOINT_MINUTES:
                saved = now
                _save(path, codec, optimiser, ema, step, now)
            if now - sheet > 60 * SHEET_MINUTES:
                sheet = now
                ema.copy_to(averaged)
                progress.report(step, "held_out", measure(averaged, held))
                write_sheet(averaged, held, out / f"sheet_{step:06d}.png")
                averaged.save(out / "weights")
        _save(path, codec, optimiser, ema, step, progress.elapsed)
        ema.copy_to(averaged)
        progress.report(step, "held_out", measure(averaged, held))
    write_sheet(averaged, held, out / "sheet_final.png")
    averaged.save(out / "weights")
    return averaged


def _step(
    codec: MotionCodec,
    show: PuppetShow,
    optimiser: torch.optim.Optimizer,
    recipe: CodecRecipe,
    step: int,
) -> dict[str, float]:
    rng = np.random.default_rng(step_seed(recipe.seed, step))
    optimiser.zero_grad(set_to_none=True)
    sums = np.zeros(3)
    for _ in range(recipe.portraits):
        puppet = show[int(rng.integers(len(show)))]
        controls = random_controls(rng, recipe.frames)
        codes = torch.from_numpy(puppet.basis.codes(controls))
        paint = painter_loss(codec, puppet, codes[: recipe.frames // 2])
        with torch.no_grad():
            frames = half_frames(puppet, codes, rng)
        motion, last = encoder_loss(codec, puppet, codes, frames)
        ((paint + motion) / recipe.portraits).backward()  # type: ignore[no-untyped-call]
        sums += [paint.item(), motion.item(), last.item()]
    torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
    optimiser.step()
    return dict(zip(("paint", "motion", "last_px"), sums / recipe.portraits, strict=True))


def _save(
    path: Path,
    codec: MotionCodec,
    optimiser: torch.optim.Optimizer,
    ema: Ema,
    step: int,
    spent: float,
) -> None:
    state: dict[str, Any] = {
        "codec": codec.state_dict(),
        "optimiser": optimiser.state_dict(),
        "ema": ema.state_dict(),
        "step": step,
        "spent": spent,
    }
    save_checkpoint(path, state)


def _poses(held: PuppetShow, portraits: int, frames: int) -> list[tuple[Puppet, Tensor, Tensor]]:
    """Fixed poses of held-out puppets: puppet, codes, true frames."""
    rng = np.random.default_rng(7)
    poses = []
    for i in range(portraits):
        puppet = held[i * len(held) // portraits]
        codes = torch.from_numpy(puppet.basis.codes(random_controls(rng, frames)))
        poses.append((puppet, codes, puppet.render(codes)))
    return poses


@torch.no_grad()
def measure(codec: MotionCodec, held: PuppetShow) -> dict[str, float]:
    """Quick round-trip figures on held-out portraits, dB and pixels."""
    outside, cavity, painted, error = [], [], [], []
    for puppet, codes, truth in _poses(held, 8, 6):
        reference = puppet.reference
        found = codec.encode(truth, reference)
        rebuilt = codec.render(found, reference)
        given = codec.render(codes, reference)
        layers = compose(
            reference.portrait.expand(len(codes), -1, -1, -1),
            reference.seams.expand(len(codes), -1, -1, -1),
            codes,
            reduction=PORTRAIT_REDUCTION,
        )
        face = F.interpolate(reference.layout[:, FOCUS_MAPS], size=truth.shape[2:]).amax(1, True)
        away = (face < 0.15).float()
        outside.append(mean_psnr(rebuilt, truth, away))
        cavity.append(mean_psnr(rebuilt, truth, layers.gap))
        painted.append(mean_psnr(given, truth, layers.gap))
        pixels = codes.new_tensor(CODE_SCALE)[:, None, None]
        error.append(float(((found - codes).abs() * pixels).mean()))
    names = ("outside_db", "cavity_db", "painted_db", "code_px")
    return {
        n: float(np.mean(v)) for n, v in zip(names, (outside, cavity, painted, error), strict=True)
    }


@torch.no_grad()
def write_sheet(codec: MotionCodec, held: PuppetShow, path: Path) -> None:
    """Contact sheet: rows of truth, decoded from true codes, decoded from the encoder's codes."""
    rows = []
    for puppet, codes, truth in _poses(held, 5, 6):
        given = codec.render(codes, puppet.reference)
        rebuilt = codec.render(codec.encode(truth, puppet.reference), puppet.reference)
        for frames in (truth, given, rebuilt):
            rows.append(np.concatenate([_picture(frame) for frame in frames], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate(rows)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def _picture(frame_3HW: Tensor) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = (frame_3HW.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return image[40:240, 30:226]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, default=Path("runs/portraits"))
    parser.add_argument("--out", type=Path, default=Path("runs/codec"))
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    configure_logging(arguments.out / "log.txt")
    train(arguments.bank, arguments.out, arguments.minutes, CodecRecipe(seed=arguments.seed))


if __name__ == "__main__":
    main()
