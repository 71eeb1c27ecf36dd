"""Counts on meta tensors: the formulas, and the goals at the released model's size."""

from dataclasses import replace

import pytest
import torch
from dit_counting import OtherBytes, PeakBytes, meta_model, meta_step, run_step
from torch.utils.flop_counter import FlopCounterMode

from visavis.engine.dit.caches import AudioCache
from visavis.engine.dit.config import DIT_PRESETS, DiTConfig
from visavis.engine.dit.costs import (
    ChunkShape,
    activation_bytes,
    audio_bytes,
    context_bytes,
    original_step_flops,
    other_bytes,
    parameters,
    process_cost,
)
from visavis.kernels import dit_ops

RELEASED = DIT_PRESETS["flashtalk-14b"]
CHUNK = ChunkShape(latent_size=(96, 56), text_tokens=33)  # 12,096 tokens, a prompt of 32 - 30 words
PROMPT_TOKENS = 30  # in bfloat16 three keys stand for the padding
ORIGINAL_STEP = 471.2e12  # counted on the original's modules
ORIGINAL_STEP_BYTES = 1074e9  # the original's eager operators on meta tensors, but products


def counted(config: DiTConfig, shape: ChunkShape, prompt: int) -> tuple[int, int]:
    """(FLOPs of a step, FLOPs of preparing a chunk's audio)."""
    model = meta_model(config)
    inputs = meta_step(model, shape.frames, shape.latent_size, prompt)
    with torch.no_grad(), FlopCounterMode(display=False) as once:
        audio = model.prepare_audio(inputs[3], latent_size=shape.latent_size)
    with torch.no_grad(), FlopCounterMode(display=False) as step:
        run_step(model, inputs, audio, shape.motion_slots)
    return step.get_total_flops(), once.get_total_flops()


def test_original_formula_gives_the_original_count() -> None:
    assert original_step_flops(RELEASED, CHUNK) == pytest.approx(ORIGINAL_STEP, rel=5e-4)


@pytest.fixture(scope="module")
def released_counts() -> tuple[int, int]:
    return counted(RELEASED, CHUNK, PROMPT_TOKENS)


def test_flops_of_a_chunk_are_at_most_090_of_the_original(
    released_counts: tuple[int, int],
) -> None:
    step, once = released_counts
    ratio = (CHUNK.steps * step + once) / (CHUNK.steps * original_step_flops(RELEASED, CHUNK))
    assert ratio <= 0.90


def test_formula_equals_the_counter_at_full_size(released_counts: tuple[int, int]) -> None:
    cost = process_cost(RELEASED, CHUNK)
    step, once = released_counts
    assert cost.products + cost.attention == pytest.approx(step, rel=1e-6)
    assert cost.once_products == pytest.approx(once, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "slots"),
    [("embedded", (16, 16), 2), ("test", (16, 16), 1), ("test", (6, 4), 0)],
)
def test_formula_equals_the_counter(name: str, size: tuple[int, int], slots: int) -> None:
    config = DIT_PRESETS[name]
    prompt = 5 if config.has_text else 0
    shape = ChunkShape(latent_size=size, text_tokens=8, motion_slots=slots)
    cost = process_cost(config, shape)
    # 3 padded positions of the test model's 8 are as many merged keys in bfloat16
    step, once = counted(replace(config), shape, prompt)
    assert cost.products + cost.attention == pytest.approx(step, rel=1e-3)
    assert cost.once_products == pytest.approx(once, rel=1e-3)


@pytest.mark.parametrize(("ulysses", "ring"), [(8, 1), (4, 2), (1, 8)])
def test_flops_per_process_of_eight_are_at_most_087_of_the_original(
    ulysses: int, ring: int
) -> None:
    shape = replace(CHUNK, ulysses=ulysses, ring=ring)
    worst = max(process_cost(RELEASED, shape, rank=r).flops(shape.steps) for r in range(8))
    assert worst <= 0.87 * shape.steps * original_step_flops(RELEASED, shape)


@pytest.mark.parametrize("world", [2, 3, 4, 5, 7, 8])
def test_processes_share_the_work(world: int) -> None:
    alone = process_cost(RELEASED, CHUNK).flops(CHUNK.steps)
    shape = replace(CHUNK, ring=world)
    for rank in range(world):
        share = process_cost(RELEASED, shape, rank=rank).flops(CHUNK.steps)
        assert share <= 1.02 * alone / world


def test_bytes_beside_products_are_about_a_fifth_of_the_original() -> None:
    """One kernel for each operator of `fused`, as on a GPU with our kernels; all else as it is."""
    model = meta_model(RELEASED)
    inputs = meta_step(model, CHUNK.frames, CHUNK.latent_size, PROMPT_TOKENS)
    with torch.no_grad(), OtherBytes() as once:
        audio = model.prepare_audio(inputs[3], latent_size=CHUNK.latent_size)
    with torch.no_grad(), OtherBytes() as step:
        run_step(model, inputs, audio, CHUNK.motion_slots)
    moved = step.bytes.total() + once.bytes.total() / CHUNK.steps
    assert other_bytes(RELEASED, CHUNK) == pytest.approx(step.bytes.total(), rel=0.03)
    assert moved <= 0.21 * ORIGINAL_STEP_BYTES, step.bytes.most_common(8)
    # the original starts 3240 of them a step
    assert step.kernels.total() <= 0.16 * 3240, step.kernels.most_common(8)


@torch.no_grad()
def test_a_block_reaches_each_kernel_of_its_own() -> None:
    """By their names on meta tensors, which take a GPU's way: no kernel is there for nothing."""
    config = replace(DIT_PRESETS["flashtalk-14b"], dim=64, ffn_dim=64, num_heads=2, num_layers=2)
    model = meta_model(config)
    inputs = meta_step(model, 3, (8, 8), 5)
    audio = model.prepare_audio(inputs[3], latent_size=(8, 8))
    with OtherBytes() as step:
        run_step(model, inputs, audio, 1)
    for name in dit_ops.__all__:
        if not name.startswith("attention"):
            assert step.kernels[name] > 0, name
    # three of a block's four additions are followed by a norm, and one comes before all of them
    assert (step.kernels["add_gated_norm"], step.kernels["add_gated"]) == (6, 2)
    assert step.kernels["layer_norm"] == 2 + 1
    # the last block has fewer queries than keys
    assert (step.kernels["rms_norm_rotate_both"], step.kernels["rms_norm_rotate"]) == (1, 2)


@pytest.mark.parametrize("name", list(DIT_PRESETS))
def test_parameters_are_counted_from_the_sizes(name: str) -> None:
    model = meta_model(DIT_PRESETS[name])
    assert parameters(DIT_PRESETS[name]) == sum(p.numel() for p in model.parameters())


def test_memory_of_the_caches_is_that_of_their_tensors() -> None:
    model = meta_model(RELEASED)
    *_, windows, context = meta_step(model, 9, CHUNK.latent_size, PROMPT_TOKENS)
    with torch.no_grad():
        audio = model.prepare_audio(windows, latent_size=CHUNK.latent_size)

    def held(layers: tuple[object, ...]) -> int:
        found = [x for layer in layers for x in layer if isinstance(x, torch.Tensor)]  # type: ignore[attr-defined]
        return sum(x.numel() * x.element_size() for x in found)

    assert isinstance(audio, AudioCache)
    assert held(audio.layers) == audio_bytes(RELEASED, CHUNK)
    biases = sum(kv.text_bias.numel() * 2 for kv in context.layers if kv.text_bias is not None)
    assert held(context.layers) - biases == context_bytes(RELEASED, CHUNK.text_tokens)


def test_activations_of_a_step_are_those_of_the_formula() -> None:
    model = meta_model(replace(RELEASED, num_layers=2))  # the layers follow one another
    inputs = meta_step(model, CHUNK.frames, CHUNK.latent_size, PROMPT_TOKENS)
    with torch.no_grad():
        audio = model.prepare_audio(inputs[3], latent_size=CHUNK.latent_size)
        with PeakBytes() as held:
            run_step(model, inputs, audio, 0)
    assert activation_bytes(RELEASED, CHUNK) == pytest.approx(held.peak, rel=0.1)
