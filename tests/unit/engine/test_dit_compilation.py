"""Blocks compile without a break, and recorded steps repeat with new arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dit_counting import meta_model, meta_step, run_step
from dit_exactness import SMALL, small_inputs, small_model
from graph_stand_ins import repeat, tape
from torch import Tensor

from visavis.engine.dit.block import Block
from visavis.engine.dit.compilation import CACHE_VARIABLE, compile_blocks, keep_compiled_code
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.dit.step_graph import Capture, StepGraphs

pytestmark = pytest.mark.usefixtures("fresh_compiler")


def block_call(model: FlashTalkDiT, *, folded: bool) -> Callable[[], Tensor]:
    inputs = small_inputs(dtype=torch.float32)
    size = (16, 16) if folded else None
    audio = model.prepare_audio(inputs["audio_BFWLC"], latent_size=size)
    context = model.prepare_context(inputs["text"], inputs["image"])
    time = model.prepare_time(inputs["timesteps_B"])
    x = torch.randn(1, 192, SMALL.dim)
    block = model.blocks[0]
    assert isinstance(block, Block)
    rope = model.rope(3, 8, 8)
    return lambda: block(
        x, time.blocks[:, 0], rope, context.layers[0], audio.layers[0], None, skip_frames=1
    )


@torch.inference_mode()
@pytest.mark.parametrize("folded", [True, False])
def test_a_block_is_one_graph(folded: bool) -> None:
    call = block_call(small_model(dtype=torch.float32), folded=folded)
    explained = torch._dynamo.explain(call)()
    assert explained.graph_break_count == 0
    assert explained.graph_count == 1


@torch.no_grad()
def test_a_block_of_the_released_model_is_one_graph_as_on_a_gpu() -> None:
    """On meta tensors, which take a GPU's way: its kernels are operators to the compiler. The last
    block skips motion queries and is another graph."""
    model = meta_model(replace(DIT_PRESETS["flashtalk-14b"], num_layers=2))
    inputs = meta_step(model, 9, (96, 56), 30)
    audio = model.prepare_audio(inputs[3], latent_size=(96, 56))
    calls: list[tuple[Any, Any, Any]] = []
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda *call: calls.append(call),  # type: ignore[arg-type]
            with_kwargs=True,
        )
    run_step(model, inputs, audio, 2)
    for block, args, kwargs in list(calls):
        explained = torch._dynamo.explain(block)(*args, **kwargs)
        assert (explained.graph_count, explained.graph_break_count) == (1, 0)
        (operators,) = explained.ops_per_graph
        names = {str(operator) for operator in operators}
        assert {"visavis.attention", "visavis.layer_norm", "visavis.add_gated_norm"} <= names


@torch.inference_mode()
def test_compiled_blocks_equal_plain_ones_and_share_their_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = small_model(dtype=torch.float32), small_inputs(dtype=torch.float32)
    plain = model(**inputs)
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compiled(self, backend=backend, **how)
    )
    compile_blocks(model)
    torch.testing.assert_close(model(**inputs), plain)
    assert len(graphs) == 1  # two blocks


@torch._dynamo.config.patch(recompile_limit=2)
@torch.inference_mode()
def test_every_shape_of_a_server_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk lengths times batches are more than torch's limit, above which it raises."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compiled(self, backend="eager", **how)
    )
    model, plain = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    compile_blocks(model)
    inputs = small_inputs(dtype=torch.float32)
    for batch in range(1, 5):
        several = {name: torch.cat([x[:1]] * batch) for name, x in inputs.items()}
        torch.testing.assert_close(model(**several), plain(**several))


@torch.inference_mode()
def test_compiled_code_is_kept_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "")  # put back after the test
    keep_compiled_code()
    assert os.environ[CACHE_VARIABLE] == str(tmp_path / "visavis" / "compiled")
    assert (tmp_path / "visavis" / "compiled").is_dir()
    monkeypatch.setenv(CACHE_VARIABLE, "/elsewhere")
    keep_compiled_code()
    assert os.environ[CACHE_VARIABLE] == "/elsewhere"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv(CACHE_VARIABLE, "")
    keep_compiled_code()
    assert not os.environ[CACHE_VARIABLE]
    assert "compiled code is not kept" in caplog.text


# One product: the compiler needs no C++ for it, and keeps it as it keeps everything. It is imported
# first, and then has a folder of its own in mind.
COMPILES = """
import json
import torch
from torch._dynamo.utils import counters
from visavis.engine.dit.compilation import keep_compiled_code

keep_compiled_code()
with torch.inference_mode():
    torch.compile(lambda x: x @ x)(torch.ones(8, 8))
found = counters["inductor"]
print(json.dumps([found["fxgraph_cache_miss"], found["fxgraph_cache_hit"]]))
"""


def test_a_second_start_finds_what_the_first_compiled(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != CACHE_VARIABLE}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    made_and_found = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", COMPILES],
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert result.returncode == 0, result.stderr[-2000:]
        made_and_found.append(json.loads(result.stdout.splitlines()[-1]))
    assert made_and_found == [[1, 0], [0, 1]]


@torch.inference_mode()
@pytest.mark.parametrize("capture", [repeat, tape])
def test_recorded_steps_equal_plain_ones_for_new_arguments(capture: Capture) -> None:
    model = small_model(dtype=torch.float32)
    recorded = small_model(dtype=torch.float32)
    copies: list[object] = []

    def step(inputs: object) -> Tensor:
        copies.append(inputs)
        return recorded.step(inputs)  # type: ignore[arg-type]

    recorded.recorded_step = StepGraphs(step, capture)
    for seed in range(3):
        inputs = small_inputs(dtype=torch.float32)
        inputs = {k: v + seed if v.is_floating_point() else v for k, v in inputs.items()}
        inputs["timesteps_B"] = torch.tensor([0.9 - seed / 4])
        torch.testing.assert_close(recorded(**inputs), model(**inputs))
    assert all(given is copies[0] for given in copies)  # recorded once, always the same tensors


@torch.inference_mode()
def test_a_result_outlives_the_next_step_and_latents_may_be_written_to() -> None:
    recorded = small_model(dtype=torch.float32)
    plain = small_model(dtype=torch.float32)
    recorded.recorded_step = StepGraphs(recorded.step, tape)
    inputs = small_inputs(dtype=torch.float32)
    first = recorded(**inputs)
    kept = first.clone()
    inputs["latents_BCTHW"].mul_(2)
    second = recorded(**inputs)
    torch.testing.assert_close(second, plain(**inputs))
    assert torch.equal(first, kept)


@torch.inference_mode()
def test_every_shape_has_its_recording() -> None:
    recorded, plain = small_model(dtype=torch.float32), small_model(dtype=torch.float32)
    recorded.recorded_step = StepGraphs(recorded.step, tape)
    for frames in (3, 5, 3):
        inputs = small_inputs(dtype=torch.float32, frames=frames)
        torch.testing.assert_close(recorded(**inputs), plain(**inputs))
