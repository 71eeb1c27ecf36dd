"""The blocks against arithmetic written out in float64, and against diffusers' Wan blocks."""

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import (
    WanRotaryPosEmbed,
    WanTransformerBlock,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from parity_fixtures import randomized
from torch import Tensor

from visavis.engine.dit.audio_adapter import AudioWindowError, regroup_windows
from visavis.engine.dit.config import DIT_PRESETS
from visavis.engine.dit.model import Block, FlashTalkDiT

CONFIG = DIT_PRESETS["test"]
GRID = (3, 2, 4)
TOKENS = math.prod(GRID)


def model_inputs(batch: int = 1, frames: int = 3, side: int = 4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    return {
        "latents_BCTHW": noise(batch, CONFIG.latent_channels, frames, side, side),
        "timesteps_B": torch.linspace(0.3, 0.9, batch),
        "cond_latents_BCTHW": noise(batch, CONFIG.cond_channels, frames, side, side),
        "audio_BFWLC": noise(batch, CONFIG.num_frames(frames), 5, 4, 64),
        "text": noise(batch, 5, CONFIG.text_dim),
        "image": noise(batch, CONFIG.image_tokens, CONFIG.image_dim),
    }


@pytest.fixture(scope="module")
def model() -> FlashTalkDiT:
    torch.manual_seed(0)
    return randomized(FlashTalkDiT(CONFIG)).eval().requires_grad_(False)


def turn(v: Tensor) -> Tensor:
    heads, size = CONFIG.num_heads, CONFIG.head_dim
    side = 2 * (size // 6)
    widths = (size - 2 * side, side, side)
    out = torch.empty_like(v)
    for n in range(TOKENS):
        place = (n // (GRID[1] * GRID[2]), n // GRID[2] % GRID[1], n % GRID[2])
        for h in range(heads):
            at = h * size
            for width, position in zip(widths, place, strict=True):
                for i in range(width // 2):
                    angle = position * 10000.0 ** (-2 * i / width)
                    pair = complex(v[n, at + 2 * i].item(), v[n, at + 2 * i + 1].item())
                    pair *= complex(math.cos(angle), math.sin(angle))
                    out[n, at + 2 * i], out[n, at + 2 * i + 1] = pair.real, pair.imag
                at += width
    return out


def reference_block(
    w: dict[str, Tensor], x: Tensor, time: Tensor, text: Tensor, image: Tensor, audio: Tensor
) -> Tensor:
    """One block, one sample, token by token where it matters; all float64."""
    heads, size = CONFIG.num_heads, CONFIG.head_dim

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ w[name + ".weight"].T + w[name + ".bias"]

    def rms(name: str, v: Tensor) -> Tensor:
        return v / (v.square().mean(-1, keepdim=True) + CONFIG.eps).sqrt() * w[name + ".weight"]

    def norm(v: Tensor) -> Tensor:
        centred = v - v.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + CONFIG.eps).sqrt()

    def affine(name: str, v: Tensor) -> Tensor:
        return norm(v) * w[name + ".weight"] + w[name + ".bias"]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            weights = (q[:, part] @ k[:, part].T / size**0.5).softmax(-1)
            out[:, part] = weights @ v[:, part]
        return out

    shift1, scale1, gate1, shift2, scale2, gate2 = w["modulation"][0] + time
    h = norm(x) * (1 + scale1) + shift1
    p = "self_attention."
    q, k = (turn(rms(f"{p}norm_{c}", linear(p + c, h))) for c in "qk")
    x = x + linear(p + "o", attend(q, k, linear(p + "v", h))) * gate1

    p = "cross_attention."
    q = rms(p + "norm_q", linear(p + "q", affine("norm_cross", x)))
    seen = attend(q, rms(p + "norm_k", linear(p + "k", text)), linear(p + "v", text))
    keys = rms(p + "norm_k_image", linear(p + "k_image", image))
    x = x + linear(p + "o", seen + attend(q, keys, linear(p + "v_image", image)))

    p, spatial = "audio_attention.", GRID[1] * GRID[2]
    q = linear(p + "q", affine("norm_audio", x))
    heard = torch.empty_like(x)
    for t in range(GRID[0]):
        part = slice(t * spatial, (t + 1) * spatial)
        kv = linear(p + "kv", audio[t])
        heard[part] = attend(q[part], kv[:, : CONFIG.dim], kv[:, CONFIG.dim :])
    x = x + linear(p + "o", heard)

    h = norm(x) * (1 + scale2) + shift2
    return x + linear("ffn.down", F.gelu(linear("ffn.up", h), approximate="tanh")) * gate2


@pytest.mark.parametrize("impl", ["sdpa", "plain"])
def test_block_equals_float64_arithmetic(impl: str) -> None:
    torch.manual_seed(3)
    model = randomized(FlashTalkDiT(CONFIG, attention_impl=impl))  # type: ignore[arg-type]
    block = model.blocks[0].requires_grad_(False)
    assert isinstance(block, Block)
    x, time = torch.randn(1, TOKENS, CONFIG.dim), torch.randn(1, 6, CONFIG.dim)
    text, image = torch.randn(1, 8, CONFIG.dim), torch.randn(1, 16, CONFIG.dim)
    audio = torch.randn(1, GRID[0], CONFIG.audio_tokens, CONFIG.audio_dim)
    out = block(
        x,
        block.steer(time),
        model.rope(*GRID),
        block.cross_attention.project(text, image),
        block.audio_attention.project(audio, 1),
        None,
    )
    weights = {name: value.double() for name, value in block.state_dict().items()}
    wide = (v[0].double() for v in (x, time, text, image, audio))
    expected = reference_block(weights, *wide)
    torch.testing.assert_close(out[0].double(), expected, atol=2e-5, rtol=2e-5)


def test_block_equals_diffusers_wan_block_without_audio() -> None:
    torch.manual_seed(4)
    model = randomized(FlashTalkDiT(CONFIG))
    block = model.blocks[0].requires_grad_(False)
    assert isinstance(block, Block)
    block.audio_attention.o.weight.zero_()
    block.audio_attention.o.bias.zero_()
    theirs = WanTransformerBlock(
        CONFIG.dim,
        CONFIG.ffn_dim,
        CONFIG.num_heads,
        cross_attn_norm=True,
        eps=CONFIG.eps,
        added_kv_proj_dim=CONFIG.dim,
    )
    theirs.load_state_dict(to_diffusers(block.state_dict()))
    rope = WanRotaryPosEmbed(CONFIG.head_dim, CONFIG.patch_size, 1024)
    # diffusers takes the image's tokens for those before the last 512
    text, image = torch.randn(1, 512, CONFIG.dim), torch.randn(1, 16, CONFIG.dim)
    x, time = torch.randn(1, TOKENS, CONFIG.dim), torch.randn(1, 6, CONFIG.dim)
    latents = torch.zeros(1, 1, GRID[0], 2 * GRID[1], 2 * GRID[2])
    expected = theirs(x, torch.cat([image, text], dim=1), time, rope(latents))
    audio = torch.zeros(1, GRID[0], CONFIG.audio_tokens, CONFIG.audio_dim)
    out = block(
        x,
        block.steer(time),
        model.rope(*GRID),
        block.cross_attention.project(text, image),
        block.audio_attention.project(audio, 1),
        None,
    )
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=2e-5)


def to_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = {"modulation": "scale_shift_table"}
    for ours, theirs in (("self_attention", "attn1"), ("cross_attention", "attn2")):
        parts = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
        parts |= {"norm_q": "norm_q", "norm_k": "norm_k", "norm_k_image": "norm_added_k"}
        parts |= {"k_image": "add_k_proj", "v_image": "add_v_proj"}
        names |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in parts.items()}
    names |= {"norm_cross": "norm2", "ffn.up": "ffn.net.0.proj", "ffn.down": "ffn.net.2"}
    out = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if name in names:
            out[names[name]] = value
        elif module in names:
            out[f"{names[module]}.{leaf}"] = value
    return out


def test_prepared_conditions_equal_the_whole_forward(model: FlashTalkDiT) -> None:
    inputs = model_inputs(batch=2)
    whole = model(**inputs)
    prepared = model.velocity(
        inputs["latents_BCTHW"],
        model.prepare_time(inputs["timesteps_B"]),
        inputs["cond_latents_BCTHW"],
        model.prepare_audio(inputs["audio_BFWLC"]),
        model.prepare_context(inputs["text"], inputs["image"]),
    )
    assert torch.equal(whole, prepared)


def test_samples_of_a_batch_do_not_see_each_other(model: FlashTalkDiT) -> None:
    inputs = model_inputs(batch=2)
    alone = model(**{name: value[1:] for name, value in inputs.items()})
    torch.testing.assert_close(model(**inputs)[1:], alone, atol=1e-5, rtol=1e-5)


def test_two_people_in_a_batch_equal_two_people_alone(model: FlashTalkDiT) -> None:
    inputs = model_inputs(batch=2)
    inputs["audio_BFWLC"] = torch.randn(4, *inputs["audio_BFWLC"].shape[1:])
    masks = torch.zeros(3, 32, 32)
    masks[0, :16, :16], masks[1, :16, 16:], masks[2, 16:] = 1, 1, 1
    both = model(**inputs, target_masks=masks)
    for i in range(2):
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        one["audio_BFWLC"] = inputs["audio_BFWLC"][2 * i : 2 * i + 2]
        alone = model(**one, target_masks=masks)
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("missing", ["text", "image"])
def test_missing_condition_is_named(model: FlashTalkDiT, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        model(**{**model_inputs(), missing: None})


def test_audio_of_another_length_is_refused(model: FlashTalkDiT) -> None:
    inputs = model_inputs()
    inputs["audio_BFWLC"] = inputs["audio_BFWLC"][:, :5]
    with pytest.raises(AudioWindowError, match="9 windows"):
        model(**inputs)


def test_fresh_model_predicts_zero_and_every_parameter_learns() -> None:
    torch.manual_seed(0)
    model = FlashTalkDiT(CONFIG)
    assert model(**model_inputs()).abs().max() == 0
    model = randomized(model)
    model(**model_inputs()).square().mean().backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_rotary_tables_stay_float32_in_a_bfloat16_model() -> None:
    model = FlashTalkDiT(CONFIG)
    before = model.rope.cos.clone()
    model.to(torch.bfloat16)
    assert torch.equal(model.rope.cos, before)


def test_bfloat16_autocast_stays_close(model: FlashTalkDiT) -> None:
    inputs = model_inputs()
    exact = model(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(**inputs)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean() < 1e-3 * exact.square().mean()


@settings(max_examples=25, deadline=None)
@given(groups=st.integers(0, 4), stride=st.integers(2, 5), half=st.integers(1, 3))
def test_regrouped_windows_pick_the_features_around_a_latent_frame(
    groups: int, stride: int, half: int
) -> None:
    frames, window = 1 + groups * stride, 2 * half + 1
    numbers = torch.arange(frames * window, dtype=torch.float32).view(1, frames, window, 1, 1)
    first, later = regroup_windows(numbers, stride)
    assert first.flatten().tolist() == list(range(window))
    assert later.shape[:3] == (1, groups, window + stride - 1)
    for g in range(groups):
        start = 1 + g * stride
        expected = [start * window + i for i in range(half + 1)]
        expected += [(start + i) * window + half for i in range(1, stride - 1)]
        expected += [(start + stride - 1) * window + half + i for i in range(half + 1)]
        assert later[0, g].flatten().tolist() == expected
