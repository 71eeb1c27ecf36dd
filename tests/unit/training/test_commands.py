"""Every trainer's command, run to its end on a tiny world: what it writes, and that a killed run
ends where an unbroken one does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cyclopts import App
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_world import same, write_portraits, write_speech

from visavis.engine.weights import DIT_FILE, SPEECH_FILE
from visavis.training import (
    distill,
    train_codec,
    train_speech_encoder,
    train_student,
    train_teacher,
)
from visavis.training.checkpoints import read_checkpoint
from visavis.training.export_dit import write_dit
from visavis.training.resumable_run import ResumableRun
from visavis.training.run_models import averaged_model

STEPS = 4
WATCHED = ["validation_sequences=2", "validation_chunks=1"]


@dataclass(frozen=True)
class Trainer:
    """A command, the class of its run, and what makes it small."""

    app: App
    run: type[ResumableRun[Any]]
    step: str
    overrides: tuple[str, ...]
    needs: tuple[str, ...]
    scalar: str
    picture: str | None


TRAINERS = {
    "speech-encoder": Trainer(
        train_speech_encoder.app,
        train_speech_encoder.SpeechEncoderRun,
        "advance",
        ("batch=2", "frames=[24, 40]"),
        ("speech",),
        "held-out clips/jaw_r",
        None,
    ),
    "codec": Trainer(
        train_codec.app,
        train_codec.CodecRun,
        "advance",
        ("portraits=1", "frames=2", "painter.width=8", "encoder.width=16"),
        ("bank",),
        "held_out/code_px",
        "held_out/sheet",
    ),
    "teacher": Trainer(
        train_teacher.app,
        train_teacher.TeacherRun,
        "advance",
        ("model=smoke", "batch=2", "bf16=false", *WATCHED),
        ("speech", "bank_file", "encoder"),
        "validation/opening_r",
        "validation/sheet",
    ),
    "student": Trainer(
        train_student.app,
        train_student.StudentRun,
        "advance",
        ("model=smoke", "batch=1", "streams=2", "max_chunks=2", *WATCHED),
        ("speech", "bank_file", "encoder", "teacher"),
        "validation/opening_r",
        "validation/sheet",
    ),
    "distill": Trainer(
        distill.app,
        distill.Distillation,
        "round",
        ("model=smoke", "batch=1", "max_chunks=2", "critic_updates=2", *WATCHED),
        ("speech", "bank_file", "encoder", "teacher"),
        "validation/opening_r",
        "validation/sheet",
    ),
}


def call(app: App, options: Mapping[str, object], overrides: tuple[str, ...] = ()) -> None:
    """Run a command as from the shell, errors raised."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    words += [word for override in overrides for word in ("--set", override)]
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    command(*bound.args, **bound.kwargs)


class World:
    """Portraits and speech, and one unbroken run of each trainer, made when it is asked for."""

    def __init__(self, root: Path) -> None:
        bank = write_portraits(root)
        self._root = root
        self._given = {"bank": bank, "bank_file": bank / "bank.npz", "speech": write_speech(root)}

    def path(self, need: str) -> Path:
        """Of an input, or of a trainer's run."""
        if need in self._given:
            return self._given[need]
        if need == "encoder":
            return self.path("speech-encoder") / "weights"
        folder = self._root / need
        if not folder.exists():
            train(need, self, folder)
        return folder


def train(name: str, world: World, out: Path, *overrides: str, **others: Path) -> None:
    """Run a trainer's command; `others` in place of the world's own inputs."""
    trainer = TRAINERS[name]
    inputs = {need.removesuffix("_file"): world.path(need) for need in trainer.needs}
    fixed = (f"steps={STEPS}", "minutes=inf", "log_every=1")
    call(trainer.app, {"out": out} | inputs | others, fixed + trainer.overrides + overrides)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only wait for a second thread; and the codec's command sets the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_run_ends_at_its_last_step_with_curves_and_pictures(name: str, world: World) -> None:
    folder, trainer = world.path(name), TRAINERS[name]
    assert read_checkpoint(folder / "checkpoint.pt")["step"] == STEPS
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/grad_norm")] == [1, 2, 3, 4]
    (figure,) = events.Scalars(trainer.scalar)
    assert figure.step == STEPS
    if trainer.picture is None:
        return
    (shown,) = events.Images(trainer.picture)
    sheet = np.asarray(Image.open(folder / f"sheet-{STEPS:06d}.png"))
    assert (shown.step, shown.height, shown.width) == (STEPS, *sheet.shape[:2])


@pytest.mark.parametrize("name", TRAINERS)
def test_a_killed_run_ends_bit_for_bit_where_an_unbroken_one_does(
    name: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = TRAINERS[name]
    step, taken = getattr(trainer.run, trainer.step), 0

    def dying(job: Any, data: Any) -> Any:
        nonlocal taken
        if taken == 2:
            raise KeyboardInterrupt
        taken += 1
        return step(job, data)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.run, trainer.step, dying)
        with pytest.raises(KeyboardInterrupt):
            train(name, world, tmp_path, "save_minutes=0")
    assert read_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2
    train(name, world, tmp_path)
    unbroken, resumed = (read_checkpoint(f / "checkpoint.pt") for f in (world.path(name), tmp_path))
    for apart in ("elapsed", "recipe", "torch_rng"):
        del unbroken[apart], resumed[apart]
    assert same(resumed, unbroken)


def test_a_roll_out_can_go_through_pixels(world: World, tmp_path: Path) -> None:
    """With the codec that the world's own run has written."""
    train(
        "distill",
        world,
        tmp_path,
        *("steps=1", "random_chunks=false", "critic_updates=1", "reencode=true"),
        codec=world.path("codec") / "weights",
    )
    checkpoint = read_checkpoint(tmp_path / "checkpoint.pt")
    assert (checkpoint["step"], checkpoint["recipe"]["reencode"]) == (1, True)


def test_runs_begin_with_exported_weights(world: World, tmp_path: Path) -> None:
    """Without a teacher; at no rate they end with them."""
    weights = tmp_path / "weights"
    write_dit(averaged_model(world.path("student")), weights)
    still = ("steps=1", "rate=1e-12", "final_rate=1e-12")
    nowhere = tmp_path / "nowhere"
    train("student", world, tmp_path / "student", *still, teacher=nowhere, initial=weights)
    encoder = world.path("encoder")
    train("speech-encoder", world, tmp_path / "encoder", *still, initial=encoder)
    for run, file in (("student", weights / DIT_FILE), ("encoder", encoder / SPEECH_FILE)):
        model = read_checkpoint(tmp_path / run / "checkpoint.pt")["model"]
        exported = load_file(file)
        assert set(model) == set(exported)
        for name, value in exported.items():
            torch.testing.assert_close(model[name], value.float(), atol=1e-8, rtol=0)
    for trainer in ("student", "speech-encoder"):
        with pytest.raises(SystemExit, match="initial=.*nowhere"):
            train(trainer, world, tmp_path / "new", initial=nowhere)


def test_a_finished_run_is_left_as_it_is(world: World) -> None:
    folder = world.path("teacher")
    before = (folder / "checkpoint.pt").stat().st_mtime_ns
    train("teacher", world, folder)
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == before


def test_what_cannot_be_trained_ends_the_command_with_the_remedy(
    world: World, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"seed=8 \(was 3\).*--allow-changes"):
        train("student", world, world.path("student"), "seed=8")
    with pytest.raises(SystemExit, match="model=small: .* is of another size; set its model"):
        train("student", world, tmp_path, "model=small")
    with pytest.raises(SystemExit, match="teacher=.*nowhere: no checkpoint.pt there"):
        train("student", world, tmp_path, teacher=tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="speech=.* has no shard"):
        train("student", world, tmp_path, speech=tmp_path)
    with pytest.raises(SystemExit, match="bank.npz: no such file"):
        train("student", world, tmp_path, bank=tmp_path / "bank.npz")
    with pytest.raises(SystemExit, match="no table .wieghts."):
        train("student", world, tmp_path, "wieghts.lids=1")
