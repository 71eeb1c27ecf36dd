"""Checkpoints, averages and the exported weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.weights import load_weights, read_dit_config
from visavis.training.checkpoints import load_checkpoint, save_checkpoint, step_seed
from visavis.training.ema import Ema
from visavis.training.export_dit import write_dit
from visavis.training.parallel import Workers
from visavis.training.recipes import MODELS, TeacherRecipe, smoke_teacher
from visavis.training.resumable_run import ChangedRecipeError, changed_fields, resume_or_exit
from visavis.training.train_teacher import TeacherRun, learning_rate


def test_checkpoint_round_trip_keeps_the_random_state(tmp_path: Path) -> None:
    torch.manual_seed(3)
    save_checkpoint(tmp_path / "c.pt", {"step": 7, "model": {"w": torch.ones(2)}})
    expected = torch.rand(3)
    state = load_checkpoint(tmp_path / "c.pt")
    assert state["step"] == 7
    assert torch.equal(torch.rand(3), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises((AttributeError, TypeError)):
        save_checkpoint(path, {"step": lambda: None})
    assert load_checkpoint(path)["step"] == 1


def test_seeds_differ_by_step_rank_and_stream() -> None:
    seeds = {step_seed(1, s, r, k) for s in range(5) for r in range(2) for k in range(3)}
    assert len(seeds) == 30
    assert step_seed(1, 2, 0, 1) == step_seed(1, 2, 0, 1)


def test_average_follows_a_constant_and_restores() -> None:
    model = nn.Linear(2, 1)
    ema = Ema(model, decay=0.9)
    with torch.no_grad():
        model.weight.fill_(5.0)
    for _ in range(200):
        ema.update(model)
    other = Ema(nn.Linear(2, 1))
    other.load_state_dict(ema.state_dict())
    target = nn.Linear(2, 1)
    other.copy_to(target)
    torch.testing.assert_close(target.weight, torch.full((1, 2), 5.0), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="do not fit"):
        Ema(nn.Linear(2, 1, bias=False)).load_state_dict(ema.state_dict())


def test_resumed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run = TeacherRun(smoke_teacher(), tmp_path, Workers())
    run.step, run.elapsed = 12, 34.5
    torch.nn.init.ones_(run.model.head.projection.weight)
    run.save(tmp_path)
    again = TeacherRun(smoke_teacher(), tmp_path, Workers())
    assert again.resume(tmp_path)
    assert (again.step, again.elapsed) == (12, 34.5)
    for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_does_not_go_on_with_another_recipe_unseen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = TeacherRun(smoke_teacher(), tmp_path, Workers())
    run.step = 3
    run.save(tmp_path)
    changed = replace(smoke_teacher(), seed=9, rate=0.5, steps=8)
    again = TeacherRun(changed, tmp_path, Workers())
    with pytest.raises(ChangedRecipeError, match=r"rate=0.5 \(was 0.001\), seed=9 \(was 1\);"):
        again.resume(tmp_path)
    assert again.step == 0
    with pytest.raises(SystemExit, match="--allow-changes"):
        resume_or_exit(again, tmp_path, allow_changes=False)
    assert resume_or_exit(again, tmp_path, allow_changes=True)
    assert again.step == 3
    assert "seed=9 (was 1), steps=8 (was 4)" in caplog.text


def test_a_run_may_be_lengthened_and_watched_more_closely(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TeacherRun(smoke_teacher(), tmp_path, Workers()).save(tmp_path)
    longer = replace(smoke_teacher(), steps=8, log_every=1)
    assert TeacherRun(longer, tmp_path, Workers()).resume(tmp_path)
    assert "log_every=1 (was 2), steps=8 (was 4)" in caplog.text


def test_changes_in_tables_count_and_fields_of_newer_recipes_do_not() -> None:
    before = {"rate": 1.0, "betas": [0.9, 0.99], "weights": {"lips": [1.0, 2.0], "gap": 3.0}}
    now = {"rate": 1.0, "betas": (0.9, 0.99), "weights": {"lips": (1.0, 3.0), "gap": 3.0}, "new": 1}
    assert changed_fields(before, now) == {"weights.lips": ([1.0, 2.0], [1.0, 3.0])}


def test_learning_rate_warms_up_holds_and_falls() -> None:
    recipe = TeacherRecipe(minutes=100, warm_up_steps=10, decay_share=0.4)
    assert learning_rate(recipe, 0, 0) == pytest.approx(recipe.rate / 10)
    assert learning_rate(recipe, 50, 30 * 60) == pytest.approx(recipe.rate)
    assert learning_rate(recipe, 50, 80 * 60) < 0.6 * recipe.rate
    assert learning_rate(recipe, 50, 100 * 60) == pytest.approx(recipe.final_rate)


def test_exported_weights_load_in_the_engine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model": "embedded"}))
    model = FlashTalkDiT(MODELS["smoke"])
    path = write_dit(model, tmp_path)
    config = read_dit_config(tmp_path)
    assert config == model.config
    assert json.loads((tmp_path / "config.json").read_text())["model"] == "embedded"
    assert {t.dtype for t in load_file(path).values()} == {torch.bfloat16}
    load_weights(FlashTalkDiT(config), path)
