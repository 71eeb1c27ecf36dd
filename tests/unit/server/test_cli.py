"""The program: help without torch, settings from flags and environment, errors in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from visavis.cli import build_app
from visavis.engine.weight_memory import WeightMemory
from visavis.server.cli import make_config


@pytest.mark.parametrize("command", [[], ["serve"], ["render"], ["bench"], ["eval"], ["train"]])
def test_help_is_there_and_needs_no_torch(command: list[str]) -> None:
    code = (
        "import sys; from visavis.cli import build_app\n"
        f"try: build_app()({[*command, '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Usage: visavis" in ended.stdout


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_PORT", "7001")
    monkeypatch.setenv("VISAVIS_MAX_INFLIGHT_MS", "900")
    assert make_config(port=None).port == 7001
    config = make_config(port=7002)
    assert (config.port, config.max_inflight_ms) == (7002, 900)


def test_a_wrong_setting_is_named_with_its_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VISAVIS_IDLE_LEAD_MS", "9000")
    with pytest.raises(SystemExit) as ended:
        make_config()
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "idle_lead_ms='9000'" in message
    assert "VISAVIS_IDLE_LEAD_MS" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"offload": 4}, "offload=4 with device=cpu: the weights are in host memory already"),
        ({"offload": 4, "quantize": "int8", "device": "cuda"}, "offload=4 with quantize=int8"),
        ({"quantize": "int3"}, "VISAVIS_QUANTIZE"),
        ({"vae_dtype": "float8"}, "VISAVIS_VAE_DTYPE"),
    ],
)
def test_weights_that_cannot_be_held_so_are_refused_at_once(
    flags: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        make_config(**flags)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_how_weights_are_held_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_VAE_DTYPE", "float32")
    assert make_config(quantize=None).memory == WeightMemory(vae_dtype="float32")
    assert make_config(vae_dtype="bfloat16").memory.vae_dtype == "bfloat16"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_app()(["--version"])
    assert capsys.readouterr().out.strip()[0].isdigit()
