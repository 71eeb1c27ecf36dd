"""`make gpu-check` without a GPU: it says so, and its judgement is right."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import gpu_check  # noqa: E402
import gpu_check_blocks  # noqa: E402
import gpu_check_chunk  # noqa: E402
import gpu_check_kernels  # noqa: E402
import gpu_check_projection  # noqa: E402
import gpu_check_rates  # noqa: E402
import gpu_check_sections  # noqa: E402
import gpu_check_sizes  # noqa: E402
import gpu_check_vae  # noqa: E402
from gpu_check_report import Report  # noqa: E402
from gpu_check_sections import Budget, Context, Section  # noqa: E402

from visavis.engine.cards import read_rates  # noqa: E402
from visavis.engine.dit.layout import TokenLayout  # noqa: E402
from visavis.kernels import bench, tune  # noqa: E402
from visavis.kernels.attention.configs import TileConfig  # noqa: E402
from visavis.kernels.timing import Timing  # noqa: E402
from visavis.plan_cli import plan  # noqa: E402

CPU = torch.device("cpu")


def timed(implementation: str, seconds: float) -> Timing:
    return Timing(
        name="attention",
        implementation=implementation,
        shape="one",
        median_s=seconds,
        p90_s=seconds,
        runs=1,
        flops=3e12,
        bytes=6e9,
    )


def test_without_a_gpu_nothing_is_measured_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main(["--out", str(tmp_path / "found")]) == 2
    for program in (bench.main, tune.main):
        with pytest.raises(SystemExit) as stopped:
            program([])
        assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("no CUDA device here") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_prints_every_table_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, last = gpu_check_blocks.MODES
    monkeypatch.setattr(gpu_check_blocks, "MODES", (first, last))
    sections = ["correctness", "attention", "blocks", "projection", "options", "rows"]
    out = tmp_path / "found"
    status = gpu_check.main(["--dry-run", "--only", *sections, "--out", str(out)])
    text = capsys.readouterr().out
    assert status == 0
    assert not out.exists()
    assert "no figure below means anything" in text
    assert f"--only {' '.join(sections)}" in text  # the command that made it
    for title in ("correctness", "Attention: speed", "with options: speed", "products: speed"):
        assert f"{title}\n" in text
    assert "| attention sdpa, bfloat16, head size 64, bias |" in text
    assert "| device | CPU" in text
    for way in ("plain", "compiled, recorded"):
        for world in (1, 2):
            assert f"| as trained | {way} | {world} |" in text
    assert "Nothing to add up: the VAE's times were not measured" in text


def context(seconds: float = 3600.0, folder: Path | None = None, **figures: float) -> Context:
    return Context(device=CPU, dry_run=True, budget=Budget(seconds), figures=figures, folder=folder)


def section(name: str, share: float = 1.0) -> Section:
    return Section(name, "group", "gpu_check_stand_in", name, share)


class StandIns:
    """A module of sections, as `run_section` imports it."""

    @staticmethod
    def good(report: Report, given: Context) -> None:
        report.section("Good", "It measures.")
        report.figure("found", 1.0 + given.figures.get("found", 0.0))

    @staticmethod
    def bad(report: Report, given: Context) -> None:
        report.section("Bad", "It begins.")
        report.row("measured before")
        raise RuntimeError("CUDA error: an illegal memory access\nmore words")


def test_one_section_that_fails_loses_nothing_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "gpu_check_stand_in", StandIns)  # type: ignore[arg-type]
    report, written = Report(), []

    def run(part: Section, given: Context, seconds: float) -> Report:
        if (tmp_path / "report.md").exists():
            written.append((tmp_path / "report.md").read_text())
        found = Report()
        gpu_check_sections.run_section(part, found, given)
        return found

    gpu_check.run_all(
        [section("good"), section("bad"), section("good")],
        report,
        seconds=60,
        device=CPU,
        folder=tmp_path,
        link_gbytes=1.0,
        run=run,
    )
    assert report.failures == ["section bad: RuntimeError: CUDA error: an illegal memory access"]
    assert report.figures == {"found": 2.0}  # the third heard of the first
    # after each section what is known is on disk
    assert [("measured before" in text, text.count("## Good")) for text in written] == [
        (False, 1),
        (True, 1),
    ]
    assert (tmp_path / "report.md").read_text() == report.text()


def test_the_most_valuable_come_first_and_what_is_not_reached_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spans = []

    def run(part: Section, given: Context, seconds: float) -> Report:
        spans.append(seconds)
        now[0] += 80 if len(spans) == 2 else 5
        return Report()

    now = [0.0]
    monkeypatch.setattr(gpu_check, "Budget", lambda seconds: Budget(seconds, lambda: now[0]))
    report = Report()
    gpu_check.run_all(
        [section("a", 3), section("b", 1), section("c", 1), section("d", 1)],
        report,
        seconds=85.5,
        device=CPU,
        folder=None,
        link_gbytes=1.0,
        run=run,
    )
    # the first leaves most of its half to the others; the second takes all that there is
    assert spans == pytest.approx([42.75, 80.5 / 3])
    assert "Not begun, the time was up: c, d. Give more with --minutes." in report.text()
    names = [part.name for part in gpu_check_sections.SECTIONS]
    assert names[:2] == ["correctness", "attention"]
    assert names.index("projection") > max(names.index(n) for n in ("blocks", "vae", "rates"))


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("os.abort()", "section good ended with exit code -6"),
        ("time.sleep(600)", "section good was ended after"),
        ("pass", ""),
    ],
)
def test_a_process_that_dies_or_hangs_leaves_what_it_had_measured(
    ending: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check_sections, "GRACE_S", 1.0)
    program = (
        "import json, os, sys, time; from pathlib import Path\n"
        "folder = Path(sys.argv[sys.argv.index('--folder') + 1])\n"
        "assert json.loads((folder / 'figures.json').read_text()) == {'known': 2.0}\n"
        "kept = {'lines': ['a row'], 'figures': {'new': 3.0}, 'failures': []}\n"
        "(folder / (sys.argv[1] + '.json')).write_text(json.dumps(kept))\n"
        f"print('last words', flush=True)\n{ending}\n"
    )
    given = context(folder=tmp_path, known=2.0)
    report = gpu_check_sections.run_child(
        section("good"), given, 1.0, [sys.executable, "-c", program]
    )
    assert (report.lines[0], report.figures) == ("a row", {"new": 3.0})
    if not words:
        assert report.failures == []
        return
    assert words in report.failures[0]
    assert report.lines[-2] == "last words"


def test_a_section_in_its_own_process_needs_torch_and_triton_alone(tmp_path: Path) -> None:
    """As on a machine with a CUDA build of PyTorch where this project was never installed."""
    stubborn = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in " + repr(NOT_THERE) + ":\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.path.insert(0, {str(SCRIPTS)!r})\n"
        "import gpu_check, gpu_check_projection\n"  # it imports blocks, VAE and rates
        "raise SystemExit(gpu_check.main(['--dry-run', '--only', 'rows']))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", stubborn], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "| rms_norm_rope | plain |" in found.stdout


NOT_THERE = (
    *("structlog", "rich", "msgspec", "pydantic", "pydantic_settings", "cyclopts", "soxr", "cv2"),
    *("ai_edge_litert", "transformers", "PIL", "fastapi", "torchao", "simplejpeg", "av"),
)


def test_measured_rates_are_what_the_planner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    with torch.inference_mode():
        gpu_check_rates.rates(report, context(folder=tmp_path))
    assert report.failures == []
    path = tmp_path / "rates.json"
    rates = read_rates(path)
    for name in ("products", "attention", "convolutions", "memory"):
        assert getattr(rates, name) == report.figures[f"rate: {name}"] > 0
    assert rates.products_8bit is None  # a CPU has none
    assert "link assumed to be 330 GB/s" in rates.source
    assert "measured by scripts/gpu_check.py" in rates.source
    plan(vram=80, rates=path)
    assert rates.source.split(",")[0] in capsys.readouterr().out


def test_a_rate_that_is_missing_is_named_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(given: Context) -> float:
        raise RuntimeError("no engine for this shape")

    for name in ("_attention", "_convolutions"):
        monkeypatch.setattr(gpu_check_rates, name, fail)
    report = Report()
    with torch.inference_mode():
        gpu_check_rates.rates(report, context(folder=tmp_path))
    assert report.failures == ["rates.json was not written: a rate is missing"]
    assert "- attention: no engine for this shape" in report.lines
    assert list(tmp_path.iterdir()) == []


def test_the_projection_adds_up_the_quickest_parts() -> None:
    given: dict[str, float] = {}
    times = {("plain", 1): 2.0, ("compiled", 1): 1.0, ("plain", 2): 0.5, ("compiled", 2): 0.75}
    for (how, world), block_s in times.items():
        for name, seconds in (("block_s", block_s), ("around_s", 0.25), ("prepare_s", 0.125)):
            given[f"{name}: as trained, {how}, {world}"] = seconds
    for how, decode_s in (("plain", 9.0), ("compiled", 5.0)):
        given |= {f"decode_s: {how}": decode_s, f"prefix_s: {how}": 1.0, f"encode_s: {how}": 0.5}
    best = gpu_check_projection.best_modes(given)
    assert [(world, mode.name) for world, mode in best] == [(1, "compiled"), (2, "plain")]
    assert gpu_check_projection.vae_seconds(given) == 4.5
    tiny = gpu_check_sizes.TINY
    sizes = replace(tiny, dit=replace(tiny.dit, num_layers=10))
    # four steps of ten blocks and what surrounds them, and ten blocks' part of the audio
    seconds = gpu_check_projection.dit_seconds(given, sizes, best[0][1], 1)
    assert seconds == 4 * (10 * 1.0 + 0.25) + 10 * 0.125
    assert gpu_check_projection.link_seconds(sizes, 1, 330) == 0
    assert gpu_check_projection.link_seconds(sizes, 2, 330) > 0
    report = Report()
    gpu_check_projection.projection(report, context(**given))
    rows = [line for line in report.lines if line.startswith(("| 1 |", "| 2 |"))]
    assert len(rows) == 2


def test_the_vae_is_timed_plain_and_recorded_and_compared() -> None:
    report = Report()
    with torch.inference_mode():
        gpu_check_vae.vae(report, context())
    for how in ("plain", "recorded"):
        for name in ("decode_s", "prefix_s", "encode_s"):
            assert report.figures[f"{name}: {how}"] > 0
    assert (
        "- Recorded frames differ from the others by 0.0e+00 at most, in [-1, 1]." in report.lines
    )
    assert report.failures == []
    assert gpu_check_projection.vae_seconds(report.figures) is not None


def test_every_way_to_run_the_pipeline_shows_the_same_pictures() -> None:
    report = Report()
    with torch.inference_mode():
        gpu_check_chunk.chunk(report, context())
    assert report.failures == []
    for way in gpu_check_chunk.WAYS:
        (row,) = (line for line in report.lines if line.startswith(f"| {way.name} |"))
        assert row.endswith(("| 0 | 0.000 |", "| 1 | 0.000 |")), row
    assert any(line.startswith("- A step of 4 blocks: ") for line in report.lines)


def test_pictures_of_another_memory_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise in one latent of the recorded VAE's replays, as a race would leave it."""
    kept = gpu_check_chunk.repeated

    def wrong(call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        replay, result = kept(call)
        return lambda: (replay(), result.add_(0.1 * torch.randn_like(result)))[0], result

    monkeypatch.setattr(gpu_check_chunk, "repeated", wrong)
    monkeypatch.setattr(gpu_check_chunk, "WAYS", gpu_check_chunk.WAYS[2:3])
    report = Report()
    with torch.inference_mode():
        gpu_check_chunk.chunk(report, context())
    (failure,) = report.failures
    assert failure.startswith("recorded, motion latents beforehand: pictures differ by")


@pytest.mark.parametrize("distance", [0.3, float("nan")])
def test_recorded_frames_that_differ_are_a_failure(distance: float) -> None:
    report = Report()
    gpu_check_vae.judge_recorded(report, distance)
    assert report.failures == [f"the recorded VAE's frames differ by {distance:.1e}"]


@pytest.mark.parametrize(
    ("timings", "failures"),
    [
        ([timed("triton", 1.05), timed("cudnn", 1.0), timed("flash", 2.0)], 0),
        ([timed("triton", 1.25), timed("cudnn", 1.0), timed("flash", 2.0)], 1),
        # fp8 is not what others are compared with
        ([timed("triton", 1.0), timed("triton-fp8", 0.1), timed("flash", 1.0)], 0),
        ([timed("triton", 1.0)], 0),
        ([timed("flash", 1.0)], 1),
    ],
)
def test_attention_is_judged_by_the_fastest_other_backend(
    timings: list[Timing], failures: int
) -> None:
    report = Report()
    gpu_check_kernels.judge_attention(report, timings, required=True)
    assert len(report.failures) == failures


def test_nan_and_misplaced_infinities_are_wrong() -> None:
    wanted = torch.tensor([1.0, 2.0, float("-inf")])
    error = gpu_check_kernels.Error("x", gpu_check_kernels.relative(wanted.clone(), wanted), 1e-6)
    assert error.right
    for found in ([float("nan"), 2.0, float("-inf")], [1.0, 2.0, 3.0]):
        distance = gpu_check_kernels.relative(torch.tensor(found), wanted)
        assert not gpu_check_kernels.Error("x", distance, 1e-6).right


def test_one_process_attends_to_every_token_with_its_share_of_the_heads() -> None:
    layout = TokenLayout.shard(3, 5, rank=0, world=2)
    exchange = gpu_check_blocks.OneRank(2)
    q, k, v = (torch.randn(1, layout.length, 4, 8) for _ in range(3))
    out, routing = exchange.attend(q, k, v, layout, None)
    assert out.shape == (1, 8, 32)
    assert routing is None
    assert exchange.gather(torch.zeros(1, layout.length, 2), layout).shape == (1, 15, 2)


def test_figures_follow_from_the_median() -> None:
    found = timed("triton", 0.5)
    assert (found.tflops, found.gbytes) == (6.0, 12.0)


def test_the_tuner_takes_the_quickest_that_runs() -> None:
    configs = list(tune.candidates(90, 128))
    assert {c.descriptors for c in configs} == {True, False}
    assert not any(c.descriptors for c in tune.candidates(89, 128))
    assert any(c.specialize for c in tune.candidates(100, 128))

    def seconds(config: TileConfig) -> float:
        if config.n == 32:
            raise RuntimeError("out of resource: shared memory")
        return config.n / config.m + config.num_stages

    said: list[str] = []
    chosen = tune.best(configs, seconds, said.append)
    assert (chosen.m, chosen.n, chosen.num_stages) == (128, 64, 2)
    assert any("out of resource" in line for line in said)
    with pytest.raises(RuntimeError, match="none of 1 configurations"):
        tune.best([next(c for c in configs if c.n == 32)], seconds, said.append)
