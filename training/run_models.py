"""Transformers out of training runs, and copies of them."""

from pathlib import Path

import torch

from visavis.engine.codec.motion_latents import GRID
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.weights import load_dit
from visavis.training.causal import make_causal
from visavis.training.checkpoints import load_checkpoint
from visavis.training.ema import Ema
from visavis.training.recipes import MODELS
from visavis.training.resumable_run import CHECKPOINT


def copy_model(model: FlashTalkDiT, *, causal: bool = False) -> FlashTalkDiT:
    """The same weights in a model of its own; `causal` bends its attention inside a chunk."""
    copy = FlashTalkDiT(model.config, attention_impl="plain")
    copy.load_state_dict(model.state_dict())
    return make_causal(copy, (GRID, GRID)) if causal else copy


def teacher_or_exit(run: Path, model: str) -> FlashTalkDiT:
    """`averaged_model` for a command: of the recipe's model, or the program ends saying why not."""
    try:
        teacher = averaged_model(run)
    except FileNotFoundError:
        raise SystemExit(f"teacher={run}: no {CHECKPOINT} there; train the teacher first") from None
    if teacher.config != MODELS[model]:
        raise SystemExit(f"model={model}: {run} is of another size; set its model")
    return teacher


def exported_or_exit(weights: Path, model: str) -> FlashTalkDiT:
    """The transformer of a weights folder, for a command: of the recipe's model, or the program
    ends saying why not."""
    try:
        exported = load_dit(MODELS[model], weights, torch.device("cpu"), torch.float32)
    except ValueError as error:
        raise SystemExit(f"initial={weights}: {error}") from None
    if exported.config != MODELS[model]:
        raise SystemExit(f"model={model}: {weights} is of another size; set its model")
    return exported


def averaged_model(run: Path) -> FlashTalkDiT:
    """The averaged weights of a teacher's or a student's run.

    Raises FileNotFoundError if the run has no checkpoint yet.
    """
    state = load_checkpoint(run / CHECKPOINT)
    model = FlashTalkDiT(MODELS[state["recipe"]["model"]], attention_impl="plain")
    ema = Ema(model)
    ema.load_state_dict(state["ema"])
    ema.copy_to(model)
    return make_causal(model, (GRID, GRID)) if state["recipe"].get("causal") else model
