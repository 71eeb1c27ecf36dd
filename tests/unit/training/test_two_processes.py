"""Two gloo processes train what one does, with whole models and with models in pieces."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import two_processes
from torch import Tensor

from visavis.training.parallel import Workers
from visavis.training.sharding import ShardedWorkers, sharded_average

TOLERANCE = 1e-5
KINDS = ("replicated", "sharded")
STAGES = [*two_processes.MAKERS, "large teacher", "large student"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All trainers in this process, whole models."""
    return dict(two_processes.all_stages(Workers(), tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what two processes did."""
    folder = tmp_path_factory.mktemp(request.param)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = [two_processes.__file__, request.param, str(folder)]
    command = [*launcher, "--nproc-per-node", "2", *script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def results(pair: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(pair / "results.pt", weights_only=True)
    return loaded


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_report_and_learn_what_one_does(
    alone: dict[str, Any], pair: Path, stage: str
) -> None:
    expected, got = alone[stage], results(pair)[stage]
    for one, two in zip(expected["reports"], got["reports"], strict=True):
        assert two == pytest.approx(one, rel=TOLERANCE, abs=TOLERANCE)
    for kind in ("parameters", "averages"):
        for name, tensor in expected[kind].items():
            torch.testing.assert_close(
                got[kind][name], tensor, atol=TOLERANCE, rtol=0, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("stage", STAGES)
def test_parameters_have_moved_by_more_than_the_tolerance(
    alone: dict[str, Any], stage: str
) -> None:
    make = two_processes.tiny_clips.tiny_model if "large" in stage else two_processes.random_model
    start = {name: parameter.detach() for name, parameter in make().named_parameters()}
    moved = {n: float((p - start[n]).abs().max()) for n, p in alone[stage]["parameters"].items()}
    # The audio of the first latent frame reaches nothing that counts in a model of one block.
    assert sum(m > 10 * TOLERANCE for m in moved.values()) > len(moved) / 2, moved


def test_processes_that_draw_differently_are_stopped(pair: Path) -> None:
    assert "one recipe" in results(pair)["desync"]


@pytest.mark.parametrize("stage", list(two_processes.MAKERS))
def test_a_checkpoint_of_two_processes_goes_on_in_one(pair: Path, stage: str) -> None:
    """For pieces: on another number of ranks than wrote them."""
    make = two_processes.MAKERS[stage]
    with two_processes.workers_of(pair.name.rstrip("0123456789")) as workers:
        run = make(workers)
        assert run.resume(pair / stage)
        assert run.step == 1
        got = two_processes.outcome(run, two_processes.steps(run, 1))
    expected = results(pair)[stage]
    assert got["reports"][0] == pytest.approx(expected["reports"][1], rel=TOLERANCE, abs=TOLERANCE)  # type: ignore[index]
    close(got["parameters"], expected["parameters"])  # type: ignore[arg-type]
    close(got["averages"], expected["averages"])  # type: ignore[arg-type]


def close(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", list(two_processes.MAKERS))
def test_a_stopped_run_ends_bit_for_bit_where_an_unbroken_one_does(
    kind: str, stage: str, tmp_path: Path
) -> None:
    make = two_processes.MAKERS[stage]
    with two_processes.workers_of(kind) as workers:
        unbroken = make(workers)
        expected = two_processes.outcome(unbroken, two_processes.steps(unbroken, 4))
        first = make(workers)
        reports = two_processes.steps(first, 2)
        first.save(tmp_path)
        second = make(workers)
        assert second.resume(tmp_path)
        got = two_processes.outcome(second, reports + two_processes.steps(second, 2))
    assert got["reports"] == expected["reports"]
    for part in ("parameters", "averages"):
        for name, tensor in expected[part].items():  # type: ignore[attr-defined]
            assert torch.equal(got[part][name], tensor), name  # type: ignore[index]


def test_a_save_that_dies_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    with two_processes.workers_of("sharded") as workers:
        run = two_processes.teacher_run(workers)
        run.save(tmp_path)
        # as if a second save had been killed between its two renames
        (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
        (tmp_path / "checkpoint.new").mkdir()
        again = two_processes.teacher_run(workers)
        assert again.resume(tmp_path)
        assert not ShardedWorkers().has_checkpoint(tmp_path / "elsewhere")
        again = sharded_average(tmp_path)
        assert again.config == run.model.config
        averages = dict(again.named_parameters())
        for name, tensor in two_processes.outcome(run, [])["averages"].items():  # type: ignore[attr-defined]
            assert torch.equal(averages[name], tensor)
