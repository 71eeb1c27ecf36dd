"""What the kernels' bench counts is what the masks of its calls let through."""

from __future__ import annotations

import pytest
import torch

from visavis.kernels import bench
from visavis.kernels.bench import OPTION_SHAPES, SHAPES, TINY, TINY_OPTIONS, Shape

CPU = torch.device("cpu")
UNEVEN = Shape(queries=10, keys=27, heads=2, head_dim=32, block=4, padding=6)


@pytest.mark.parametrize("shape", [*TINY, *TINY_OPTIONS, UNEVEN], ids=lambda shape: shape.words)
def test_flops_are_of_the_scores_that_count(shape: Shape) -> None:
    call = bench.make_call(shape, CPU, torch.float16)
    seen = call.limits().expand(1, shape.queries)
    assert shape.scores == int(seen.sum())
    assert shape.flops == 4 * shape.scores * shape.heads * shape.head_dim
    assert call.return_lse == shape.lse
    assert (call.lengths is not None, call.block) == (shape.padding > 0, shape.block)


def test_every_option_and_both_head_sizes_are_timed_at_full_size() -> None:
    long = [shape for shape in (*SHAPES, *OPTION_SHAPES) if shape.queries == 12096]
    assert {shape.head_dim for shape in long} == {64, 128}
    for option in ("bias", "padding", "block", "lse"):
        assert any(getattr(shape, option) for shape in long), option
    words = [shape.words for shape in (*SHAPES, *OPTION_SHAPES)]
    assert len(set(words)) == len(words)


def test_a_dry_run_times_each_shape(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["--dry-run", "--only", "attention"])
    out = capsys.readouterr().out
    for shape in (*TINY, *TINY_OPTIONS):
        assert any(f" plain       {shape.words} " in line for line in out.splitlines())
