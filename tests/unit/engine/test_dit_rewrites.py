"""Each rewrite of the transformer equals the arithmetic that it replaces, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from dit_exactness import SMALL, small_inputs, small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.engine.dit.attention import attend
from visavis.engine.dit.audio_adapter import AudioFold, AudioKV, fold_saves
from visavis.engine.dit.block import Block
from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import padding_weights
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.layout import Segment
from visavis.engine.dit.model import FlashTalkDiT

EXACT = {"atol": 1e-11, "rtol": 1e-11}


@pytest.fixture(scope="module")
def model() -> FlashTalkDiT:
    return small_model()


@torch.inference_mode()
@pytest.mark.parametrize("folded", [False, True])
def test_what_is_kept_of_the_conditions_serves_every_step_of_a_chunk(
    model: FlashTalkDiT, folded: bool
) -> None:
    """Text, image, audio and noise levels made once equal those made anew for each step."""
    inputs = small_inputs()
    windows, size = inputs["audio_BFWLC"], (16, 16) if folded else None

    def context() -> ContextCache:
        return model.prepare_context(inputs["text"], inputs["image"])

    kept = context(), model.prepare_audio(windows, latent_size=size)
    levels = [torch.tensor([level]) for level in (1.0, 0.75, 0.5, 0.25)]
    times = [model.prepare_time(level) for level in levels]
    for _ in range(2):  # chunks: an avatar's context outlives them
        latents = anew = inputs["latents_BCTHW"]
        for level, time in zip(levels, times, strict=True):
            cond = inputs["cond_latents_BCTHW"]
            latents = latents - 0.25 * model.velocity(latents, time, cond, kept[1], kept[0])
            fresh = model.prepare_time(level), model.prepare_audio(windows, latent_size=size)
            anew = anew - 0.25 * model.velocity(anew, fresh[0], cond, fresh[1], context())
            torch.testing.assert_close(latents, anew, **EXACT)


@torch.inference_mode()
@pytest.mark.parametrize("tokens", [1, 11, 12])
def test_merged_padding_equals_text_padded_with_zeros(model: FlashTalkDiT, tokens: int) -> None:
    inputs = small_inputs(text_tokens=tokens)
    merged = model(**inputs)
    inputs["text"] = F.pad(inputs["text"], (0, 0, 0, SMALL.text_len - tokens))
    torch.testing.assert_close(merged, model(**inputs), **EXACT)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 511), half=st.booleans())
def test_padding_weights_add_up_to_the_padding(count: int, half: bool) -> None:
    dtype = torch.bfloat16 if half else torch.float64
    weights = padding_weights(count, dtype)
    exact = torch.tensor(weights, dtype=torch.float64)
    assert torch.equal(exact.to(dtype).double(), exact)
    assert sum(map(math.exp, weights)) == pytest.approx(count, rel=1e-4 if half else 1e-12)


@torch.inference_mode()
@pytest.mark.parametrize("batch", [1, 2])
def test_absorbed_audio_attention_equals_the_direct_one(model: FlashTalkDiT, batch: int) -> None:
    inputs = small_inputs(batch=batch)
    direct = model.prepare_audio(inputs["audio_BFWLC"])
    folded = model.prepare_audio(inputs["audio_BFWLC"], latent_size=(16, 16))
    assert isinstance(direct.layers[0], AudioKV)
    assert isinstance(folded.layers[0], AudioFold)
    prepared = (
        inputs["latents_BCTHW"],
        model.prepare_time(inputs["timesteps_B"]),
        inputs["cond_latents_BCTHW"],
    )
    context = model.prepare_context(inputs["text"], inputs["image"])
    torch.testing.assert_close(
        model.velocity(*prepared, folded, context),
        model.velocity(*prepared, direct, context),
        **EXACT,
    )


@torch.inference_mode()
@pytest.mark.parametrize("folded", [True, False])
def test_audio_of_uneven_segments_equals_that_of_whole_frames(
    model: FlashTalkDiT, folded: bool
) -> None:
    block = model.blocks[0]
    assert isinstance(block, Block)
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(2, 12, SMALL.dim, dtype=torch.float64, generator=draw)
    tokens = torch.randn(2, 3, 4, SMALL.audio_dim, dtype=torch.float64, generator=draw)
    audio: AudioKV | AudioFold = block.audio_attention.project(tokens, 1)
    if folded:
        audio = block.audio_attention.fold(block.audio_attention.project(tokens, 1))
    whole = block.audio_attention(x, audio)
    segments = (Segment(0, 0, 1), Segment(1, 1, 5), Segment(2, 5, 7))
    torch.testing.assert_close(
        block.audio_attention(x[:, 3:10], audio, segments=segments), whole[:, 3:10], **EXACT
    )


@torch.inference_mode()
@pytest.mark.parametrize("slots", [1, 2])
def test_motion_queries_skipped_in_the_last_block_change_no_other_frame(
    model: FlashTalkDiT, slots: int
) -> None:
    inputs = small_inputs()
    whole = model(**inputs)
    skipped = model.velocity(
        inputs["latents_BCTHW"],
        model.prepare_time(inputs["timesteps_B"]),
        inputs["cond_latents_BCTHW"],
        model.prepare_audio(inputs["audio_BFWLC"], latent_size=(16, 16)),
        model.prepare_context(inputs["text"], inputs["image"]),
        given_slots=slots,
    )
    torch.testing.assert_close(skipped[:, :, slots:], whole[:, :, slots:], **EXACT)
    assert not skipped[:, :, :slots].any()


@torch.inference_mode()
def test_batch_of_sessions_equals_each_alone(model: FlashTalkDiT) -> None:
    """Prompts of several lengths, one of them without padding, in one stacked cache."""
    alone = [small_inputs(text_tokens=n) for n in (3, 12, 7)]
    for i, inputs in enumerate(alone):
        inputs["latents_BCTHW"] = inputs["latents_BCTHW"] + i
        inputs["audio_BFWLC"] = inputs["audio_BFWLC"] - i
    contexts = [model.prepare_context(i["text"], i["image"]) for i in alone]
    audios = [model.prepare_audio(i["audio_BFWLC"], latent_size=(16, 16)) for i in alone]
    together = model.velocity(
        torch.cat([i["latents_BCTHW"] for i in alone]),
        model.prepare_time(torch.cat([i["timesteps_B"] for i in alone])),
        torch.cat([i["cond_latents_BCTHW"] for i in alone]),
        AudioCache.stack(audios),
        ContextCache.stack(contexts),
    )
    expected = torch.cat([model(**inputs) for inputs in alone])
    torch.testing.assert_close(together, expected, **EXACT)


def test_chunks_of_two_lengths_are_not_stacked(model: FlashTalkDiT) -> None:
    caches = [model.prepare_audio(small_inputs(frames=t)["audio_BFWLC"]) for t in (3, 5)]
    with pytest.raises(ValueError, match="one length"):
        AudioCache.stack(caches)


def test_audio_is_folded_only_where_that_saves_work() -> None:
    released, embedded = DIT_PRESETS["flashtalk-14b"], DIT_PRESETS["embedded"]
    assert fold_saves(released, 48 * 28)
    assert not fold_saves(embedded, 16)
    # as many audio keys as channels: nothing to save, however many tokens there are
    wide = small_model().config
    assert fold_saves(wide, 64)
    assert not fold_saves(DIT_PRESETS["test"], 63)


def test_folding_does_not_stand_in_the_way_of_training() -> None:
    model = small_model(dtype=torch.float32, attention_impl="plain").requires_grad_(True)
    model(**small_inputs(dtype=torch.float32)).square().mean().backward()
    for block in model.blocks:
        assert isinstance(block, Block)
        assert block.audio_attention.q.weight.grad is not None


@torch.inference_mode()
def test_absorption_in_bfloat16_is_as_near_to_the_truth_as_the_direct_way() -> None:
    exact = small_model()
    rough = small_model(dtype=torch.bfloat16)
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(1, 192, SMALL.dim, generator=draw, dtype=torch.float64)
    tokens = torch.randn(1, 3, 4, SMALL.audio_dim, generator=draw, dtype=torch.float64)
    layers = [m.blocks[0].audio_attention for m in (exact, rough)]  # type: ignore[union-attr]
    truth = layers[0](x, layers[0].project(tokens, 1))
    kv = layers[1].project(tokens.bfloat16(), 1)

    def error(audio: AudioKV | AudioFold) -> float:
        heard = layers[1](x.bfloat16(), audio)
        return float((heard.double() - truth).norm() / truth.norm())

    assert error(layers[1].fold(kv)) < 1.2 * error(kv)


def test_bias_on_scores_is_the_same_in_both_attentions() -> None:
    draw = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, n, 2, 8, generator=draw).double() for n in (5, 3, 3))
    bias = torch.tensor([[0.0, 1.5, float("-inf")], [0.0, -2.0, 3.0]]).double()
    plain, fused = (attend(q, k, v, impl, bias) for impl in ("plain", "sdpa"))  # type: ignore[arg-type]
    torch.testing.assert_close(plain, fused, **EXACT)
    alone = attend(q[:1], k[:1, :2], v[:1, :2], "plain", bias[:1, :2])
    torch.testing.assert_close(plain[:1], alone, **EXACT)
