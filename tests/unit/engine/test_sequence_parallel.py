"""A chunk shared by gloo processes equals the same chunk in one process."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dit_exactness import small_inputs, small_model
from gloo_group import run_group
from host_waits import NoReads
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from visavis.engine.dit.attention import AttentionImpl, attend
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.layout import TokenLayout
from visavis.engine.parallel import ring
from visavis.engine.parallel.lse import attend_with_lse
from visavis.engine.parallel.plan import ParallelError, SequencePlan
from visavis.engine.parallel.ring import merge
from visavis.engine.parallel.sequence import parallelize

# heads that divide by 2, 3 and 4; 12 * 4 audio keys, so that folding saves at 64 tokens a frame
CONFIG = replace(DIT_PRESETS["test"], dim=96, num_heads=12, text_len=12)
LIMIT = 1e-5

# (latent frames, latent size, other arguments of small_inputs)
CHUNKS: list[tuple[int, tuple[int, int], dict[str, Any]]] = [
    (3, (16, 16), {}),  # folded audio
    (3, (6, 10), {"batch": 2}),  # 45 tokens, direct audio
    (5, (6, 2), {}),  # 15 tokens, frames of 3
    (1, (2, 2), {}),  # one token: the other processes hold padding alone
    (3, (6, 10), {"people": 2}),
    (1, (10, 6), {"people": 2, "batch": 2}),  # first frame over all processes
]


def differences(rank: int, plan: SequencePlan, impl: str) -> list[float]:
    model = small_model(CONFIG, torch.float32, attention_impl=impl)
    worst = []
    with torch.inference_mode():
        for frames, size, options in CHUNKS:
            inputs = small_inputs(CONFIG, torch.float32, frames=frames, size=size, **options)
            model.exchange = None
            alone = model(**inputs)
            parallelize(model, plan)
            prepared = (
                inputs["latents_BCTHW"],
                model.prepare_time(inputs["timesteps_B"]),
                inputs["cond_latents_BCTHW"],
                model.prepare_audio(
                    inputs["audio_BFWLC"], people=options.get("people", 1), latent_size=size
                ),
                model.prepare_context(inputs["text"], inputs["image"]),
            )
            with NoReads():  # no exchange needs values on the host
                together = model.velocity(*prepared, target_masks=inputs.get("target_masks"))
            worst.append((together - alone).abs().max().item() / alone.abs().max().item())
    return worst


@pytest.mark.parametrize(
    ("ulysses", "ring", "impl"),
    [
        (2, 1, "sdpa"),
        (1, 2, "plain"),
        (3, 1, "plain"),
        (1, 3, "sdpa"),
        (4, 1, "sdpa"),
        (2, 2, "sdpa"),
        (2, 2, "plain"),
        (1, 4, "sdpa"),
    ],
)
def test_group_equals_one_process(ulysses: int, ring: int, impl: str) -> None:
    plan = SequencePlan(ulysses_degree=ulysses, ring_degree=ring)
    for rank, worst in enumerate(run_group(plan.world, differences, plan, impl)):
        assert max(worst) <= LIMIT, (rank, worst)


def compiled(rank: int, plan: SequencePlan) -> dict[str, Any]:
    """A block's graphs, and compiled blocks against plain ones: for one person and for two."""
    model = small_model(CONFIG, torch.float32)
    parallelize(model, plan)
    found: dict[str, Any] = {"graphs": [], "errors": [], "compiled": 0}

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        found["compiled"] += 1
        return graph.forward

    with torch.inference_mode():
        for people in (1, 2):
            inputs = small_inputs(CONFIG, torch.float32, size=(6, 10), people=people)
            calls: list[Any] = []
            hook = model.blocks[0].register_forward_pre_hook(
                lambda _, args, kwargs, calls=calls: calls.append((args, kwargs)),
                with_kwargs=True,
            )
            expected = model(**inputs)
            hook.remove()
            args, kwargs = calls[0]
            explained = torch._dynamo.explain(model.blocks[0])(*args, **kwargs)
            found["graphs"].append((explained.graph_count, explained.graph_break_count))
            torch._dynamo.reset()
            for block in model.blocks:
                block.compile(fullgraph=True, dynamic=False, backend=backend)
            found["errors"].append((model(**inputs) - expected).abs().max().item())
            # Another group, as after a restart: what was compiled goes on.
            parallelize(model, plan)
            found["errors"].append((model(**inputs) - expected).abs().max().item())
            for block in model.blocks:
                block._compiled_call_impl = None
            torch._dynamo.reset()
    return found


@pytest.mark.parametrize(("ulysses", "ring"), [(2, 1), (1, 2)])
def test_a_block_of_a_group_is_one_graph(ulysses: int, ring: int) -> None:
    plan = SequencePlan(ulysses_degree=ulysses, ring_degree=ring)
    for found in run_group(plan.world, compiled, plan):
        assert found["graphs"] == [(1, 0), (1, 0)]
        assert found["compiled"] == 2  # one code for all blocks, and for the group after a restart
        assert max(found["errors"]) < 1e-5


@settings(max_examples=200, deadline=None)
@given(
    frames=st.integers(1, 6),
    frame_tokens=st.integers(1, 9),
    world=st.integers(1, 9),
)
def test_shards_hold_every_token_once_and_know_its_frame(
    frames: int, frame_tokens: int, world: int
) -> None:
    tokens = frames * frame_tokens
    seen: list[int] = []
    for rank in range(world):
        layout = TokenLayout.shard(frames, frame_tokens, rank=rank, world=world)
        own = list(range(layout.start, layout.start + layout.valid))
        seen += own
        covered: list[int] = []
        first, end = layout.frame_range
        assert 0 <= first < end <= frames
        for frame, start, stop in layout.segments():
            assert first <= frame < end
            covered += range(start, stop)
            for row in range(start, min(stop, layout.valid)):
                assert own[row] // frame_tokens == frame
        assert covered == list(range(layout.length))
    assert seen == list(range(tokens))


@settings(max_examples=50, deadline=None)
@given(splits=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_merged_runs_equal_attention_over_all_keys(splits: list[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    # scores of a few hundred, where a softmax without its maximum would overflow
    q = 60 * torch.randn(1, 3, 2, 8, generator=draw, dtype=torch.float64)
    k, v = torch.randn(2, 1, sum(splits), 2, 8, generator=draw, dtype=torch.float64)
    parts: tuple[Tensor, Tensor] | None = None
    for keys, values in zip(k.split(splits, dim=1), v.split(splits, dim=1), strict=True):
        parts = merge(parts, attend_with_lse(q, keys, values, "plain"))
    assert parts is not None
    torch.testing.assert_close(parts[0].flatten(2), attend(q, k, v, "sdpa"))


def test_a_run_is_on_its_way_while_the_one_before_is_attended_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    diary: list[str] = []

    class Transfer:
        def wait(self) -> None:
            diary.append("arrived")

    def begin(operations: list[tuple[str, int]]) -> list[Transfer]:
        diary.append(" and ".join(f"{kind} {peer}" for kind, peer in operations))
        return [Transfer()]

    def attend_to(q: Tensor, k: Tensor, v: Tensor, impl: AttentionImpl) -> tuple[Tensor, Tensor]:
        diary.append("attend")
        return attend_with_lse(q, k, v, impl)

    stand_in = SimpleNamespace(
        P2POp=lambda kind, tensor, peer, group: (kind, peer),
        isend="send to",
        irecv="receive from",
        batch_isend_irecv=begin,
    )
    monkeypatch.setattr(ring, "dist", stand_in)
    monkeypatch.setattr(ring, "attend_with_lse", attend_to)
    group: Any = None
    place = ring.Ring(group=group, index=1, size=3, next_rank=2, previous_rank=0)
    q, kv = torch.randn(1, 2, 1, 4), torch.randn(2, 1, 2, 1, 4)
    place.attend(q, kv, (2, 2, 2), "plain")
    turn = ["send to 2 and receive from 0", "attend", "arrived"]
    assert diary == [*turn, *turn, "attend"]


@pytest.mark.parametrize("impl", ["plain", "sdpa"])
def test_log_sum_exp_is_that_of_the_scores(impl: AttentionImpl) -> None:
    q, k, v = torch.randn(3, 2, 5, 2, 8)
    out, lse = attend_with_lse(q, k, v, impl)
    scores = torch.einsum("bnhk,blhk->bhnl", q, k) * 8**-0.5
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    torch.testing.assert_close(out.flatten(2), attend(q, k, v, impl))


@pytest.mark.parametrize(
    ("world", "heads", "given", "expected"),
    [
        (8, 40, {}, (8, 1)),
        (3, 40, {}, (1, 3)),
        (6, 40, {}, (2, 3)),
        (8, 40, {"ring_degree": 2}, (4, 2)),
        (8, 40, {"ulysses_degree": 2}, (2, 4)),
        (1, 40, {}, (1, 1)),
    ],
)
def test_plan_takes_heads_before_tokens(
    world: int, heads: int, given: dict[str, int], expected: tuple[int, int]
) -> None:
    plan = SequencePlan.choose(world, heads, **given)
    assert (plan.ulysses_degree, plan.ring_degree) == expected


def test_heads_that_do_not_divide_are_refused_with_the_way_out() -> None:
    with pytest.raises(ParallelError, match=r"40 heads .* use 1 and ring_degree=3"):
        SequencePlan.choose(3, 40, ulysses_degree=3)
    with pytest.raises(ParallelError, match="is 4, but there are 3 processes"):
        SequencePlan.choose(3, 40, ulysses_degree=2, ring_degree=2)
    with pytest.raises(ParallelError, match="ring_degree=0: must be at least 1"):
        SequencePlan(ring_degree=0)


def test_without_a_group_the_way_to_one_is_told() -> None:
    model = small_model(CONFIG, torch.float32)
    with pytest.raises(ParallelError, match="torchrun"):
        parallelize(model, SequencePlan(ulysses_degree=2))
