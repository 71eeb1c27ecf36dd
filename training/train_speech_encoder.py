"""The embedded model's speech encoder: log-mel frames -> the mouth's controls.

    python -m visavis.training.train_speech_encoder --out runs/speech_encoder

Its inner layers become the features that the transformer listens to; the controls themselves are
only the task that shapes them. Resumes from its folder's checkpoint.

Legend: B windows, N frames, K controls.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cyclopts import App
from torch import Tensor

from visavis.engine.audio.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from visavis.engine.audio.speech_front_end import load_speech_encoder
from visavis.engine.tensor_files import save_tensors
from visavis.engine.weights import SPEECH_CONFIG_FILE, SPEECH_FILE, WeightsError
from visavis.training.checkpoints import step_seed
from visavis.training.config_files import Overrides, recipe_or_exit
from visavis.training.dit_data import SpeechClips
from visavis.training.parallel import Workers
from visavis.training.progress import RunProgress, configure_logging, log
from visavis.training.recipes import check_length
from visavis.training.resumable_run import (
    AllowChanges,
    ResumableRun,
    cosine_fall,
    resume_or_exit,
    warmth,
)
from visavis.training.run_loop import run_steps
from visavis.training.speech.visemes import MOUTH_CONTROLS
from visavis.training.training_data import HELD_CLIPS

app = App(help=__doc__)

# The jaw is most of what one sees; the press is short and easily skipped.
CONTROL_WEIGHTS = (2.0, 1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEncoderRecipe:
    """How it is trained; times are wall-clock, a run ends at `minutes` or `steps`."""

    batch: int = 32
    # With minutes = inf a run is the same anywhere.
    steps: int = 1_000_000
    minutes: float = 12.0
    # Windows as long as a chunk and the past that is kept for it: ends are seen as in use.
    frames: tuple[int, ...] = (24, 40, 56, 72)
    rate: float = 1.5e-3
    final_rate: float = 1e-5
    warm_up_steps: int = 100
    decay_share: float = 0.6
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    # Change from frame to frame counts, too: closures are short.
    change_weight: float = 1.0
    # Bands that are silenced now and then: microphones differ.
    masked_bins: int = 10
    seed: int = 4
    log_every: int = 100
    save_minutes: float = 2.0

    def __post_init__(self) -> None:
        check_length(self.steps, self.minutes)
        if not self.frames or min(self.frames) < 1:
            raise ValueError(f"frames={self.frames} must name at least one length of window")


class SpeechEncoderRun(ResumableRun[SpeechEncoder]):
    """The encoder's run."""

    recipe: SpeechEncoderRecipe

    def __init__(self, recipe: SpeechEncoderRecipe, initial: SpeechEncoder | None = None) -> None:
        """`initial`: a trained encoder to begin with."""
        torch.manual_seed(recipe.seed)
        config = SpeechEncoderConfig(outputs=len(MOUTH_CONTROLS))
        model = SpeechEncoder(config if initial is None else initial.config)
        if initial is not None:
            model.load_state_dict(initial.state_dict())
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay
        )
        super().__init__(recipe, model, optimizer, Workers())

    def advance(self, clips: SpeechClips) -> dict[str, float]:
        """One optimiser step."""
        recipe = self.recipe
        rng = np.random.default_rng(step_seed(recipe.seed, self.step))
        mel, truth = _windows(clips, recipe, rng)
        rate = cosine_fall(self.done, recipe.rate, recipe.final_rate, recipe.decay_share)
        self.set_rate(rate * warmth(self.step, recipe.warm_up_steps))
        loss = mouth_loss(self.model(mel).mouth, truth, recipe.change_weight)
        norm = self.update(loss)
        return {"loss": float(loss.detach()), "grad_norm": norm}

    def averaged(self) -> SpeechEncoder:
        """A copy of the model with the averaged weights."""
        return self.average_into(SpeechEncoder(self.model.config))

    def save(self, folder: Path) -> None:
        """Write the checkpoint, and the averaged weights where the engine can load them."""
        super().save(folder)
        write_speech_encoder(self.averaged(), folder / "weights")


def mouth_loss(mouth_BNK: Tensor, truth_BNK: Tensor, change_weight: float) -> Tensor:
    """Weighted squared error of the controls and of their change from frame to frame (scalar)."""
    weights = mouth_BNK.new_tensor(CONTROL_WEIGHTS)
    error = (mouth_BNK - truth_BNK) * weights.sqrt()
    return error.square().mean() + change_weight * error.diff(dim=1).square().mean()


def _windows(
    clips: SpeechClips, recipe: SpeechEncoderRecipe, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Log-mel [B, N, 4, 64] and true controls [B, N, K]; a window may cross into the next clip."""
    frames = int(rng.choice(recipe.frames))
    first = int(clips.offsets[HELD_CLIPS])
    starts = rng.integers(first, len(clips.controls) - frames, recipe.batch)
    recordings = rng.integers(len(clips.features), size=recipe.batch)
    mel = np.stack(
        [clips.features[r, s : s + frames] for r, s in zip(recordings, starts, strict=True)]
    ).astype(np.float32)
    truth = np.stack([clips.controls[s : s + frames, : len(MOUTH_CONTROLS)] for s in starts])
    low = rng.integers(mel.shape[-1], size=recipe.batch)
    for row, begin in zip(mel, low, strict=True):
        if rng.random() < 0.5:
            row[..., begin : begin + int(rng.integers(recipe.masked_bins + 1))] = 0.0
    return torch.from_numpy(mel), torch.from_numpy(truth)


@torch.no_grad()
def correlations(model: SpeechEncoder, clips: SpeechClips) -> dict[str, float]:
    """Mean Pearson r of every control over the clips kept back, heard whole."""
    rows: dict[str, list[float]] = {name: [] for name in MOUTH_CONTROLS}
    for number in range(HELD_CLIPS):
        begin, end = clips.offsets[number], clips.offsets[number + 1]
        mel = torch.from_numpy(clips.features[0, begin:end].astype(np.float32))
        guess = model(mel[None]).mouth[0].numpy()
        for column, name in enumerate(MOUTH_CONTROLS):
            truth = clips.controls[begin:end, column]
            if truth.std() > 0.03:
                rows[name].append(float(np.corrcoef(guess[:, column], truth)[0, 1]))
    return {f"{name}_r": float(np.mean(values)) for name, values in rows.items() if values}


def write_speech_encoder(model: SpeechEncoder, folder: Path) -> None:
    """Write `speech.safetensors` in bfloat16 and its sizes in `speech.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_tensors(state, folder / SPEECH_FILE)
    config = json.dumps(asdict(model.config), indent=2) + "\n"
    (folder / SPEECH_CONFIG_FILE).write_text(config, encoding="utf-8")


def _encoder_or_exit(weights: Path) -> SpeechEncoder:
    try:
        return load_speech_encoder(weights)
    except WeightsError as error:
        raise SystemExit(f"initial={weights}: {error}") from None


def train(job: SpeechEncoderRun, clips: SpeechClips, folder: Path) -> None:
    """Steps until the recipe's time or step count is reached."""
    recipe = job.recipe

    def watch(progress: RunProgress) -> None:
        progress.report(job.step, "held-out clips", correlations(job.averaged(), clips))

    run_steps(
        job,
        lambda: job.advance(clips),
        folder,
        samples=recipe.batch,
        watch=watch,
        watch_minutes=recipe.save_minutes,
    )


@app.default
def main(
    *,
    out: Path = Path("runs/speech_encoder"),
    speech: Path = Path("runs/speech"),
    initial: Path | None = None,
    config: str = "speech-encoder",
    overrides: Overrides = (),
    minutes: float | None = None,
    allow_changes: AllowChanges = False,
) -> None:
    """Train the speech encoder.

    Args:
        out: folder of the run; goes on from its checkpoint, if there is one.
        speech: folder of speech shards.
        initial: folder of an encoder's weights to begin with, as those of a release.
        config: recipe, a TOML file or the name of one in `training/configs`.
        overrides: field=value in place of the file's, as often as needed.
        minutes: wall-clock length of the whole run, resumed parts included.
        allow_changes: go on from a checkpoint that another recipe made.
    """
    recipe = recipe_or_exit(SpeechEncoderRecipe, config, overrides)
    if minutes is not None:
        recipe = replace(recipe, minutes=minutes)
    configure_logging(out / "log.txt")
    job = SpeechEncoderRun(recipe, None if initial is None else _encoder_or_exit(initial))
    resumed = resume_or_exit(job, out, allow_changes=allow_changes)
    log.info("%s at step %d", "resumed" if resumed else "starting", job.step)
    train(job, SpeechClips.load(speech), out)


if __name__ == "__main__":
    app()
