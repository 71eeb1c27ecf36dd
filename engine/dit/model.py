"""FlashTalk's transformer: Wan 2.1 image-to-video blocks with an audio attention in each.

It knows chunks, not sessions: latents and conditions in, velocity out.

Letters: B batch, C channels, T latent frames, h w latent size, F pixel frames, W audio window,
L layers or length, N tokens = T * S, D model width, P people and the background.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.attention import (
    AttentionImpl,
    ContextKV,
    CrossAttention,
    FeedForward,
    SelfAttention,
)
from visavis.engine.dit.audio_adapter import (
    AudioAdapter,
    AudioCrossAttention,
    AudioKV,
    AudioWindowError,
    person_positions,
)
from visavis.engine.dit.conditioning import (
    Float32LayerNorm,
    Float32Linear,
    ImageEmbedding,
    TextEmbedding,
    TimeConstants,
    TimeEmbedding,
    modulate,
)
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.initialize import initialize
from visavis.engine.dit.rope import MAX_POSITIONS, RotaryGrid


class ContextCache(NamedTuple):
    """Keys and values of text and image for every layer: constant for a session."""

    layers: tuple[ContextKV, ...]


class AudioCache(NamedTuple):
    """Keys and values of the audio for every layer: constant for a chunk."""

    layers: tuple[AudioKV, ...]
    people: int


class Block(nn.Module):
    """Modulated self-attention, text and image, audio (ungated), modulated feed-forward."""

    def __init__(self, config: DiTConfig, impl: AttentionImpl) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 6, config.dim))
        self.self_attention = SelfAttention(config, impl)
        self.norm_cross = Float32LayerNorm(config.dim, eps=config.eps)
        self.cross_attention = CrossAttention(config, impl)
        self.norm_audio = Float32LayerNorm(config.dim, eps=config.eps)
        self.audio_attention = AudioCrossAttention(config, impl)
        self.ffn = FeedForward(config.dim, config.ffn_dim)

    def forward(
        self,
        x_BND: Tensor,
        time_B6D: Tensor,
        rope: tuple[Tensor, Tensor],
        context: ContextKV,
        audio: AudioKV,
        person_masks: Tensor | None,
    ) -> Tensor:
        weight_dtype = self.norm_cross.weight.dtype
        steering = self.modulation.float() + time_B6D
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = steering.chunk(6, dim=1)

        h = modulate(x_BND, shift_attn, scale_attn, self.eps).to(weight_dtype)
        h, routing = self.self_attention(h, rope, person_masks)
        x_BND = (x_BND + h * gate_attn).to(x_BND.dtype)

        x_BND = x_BND + self.cross_attention(self.norm_cross(x_BND), context).to(x_BND.dtype)

        positions = None if routing is None else person_positions(routing)
        heard = self.audio_attention(self.norm_audio(x_BND), audio, positions)
        x_BND = x_BND + heard.to(x_BND.dtype)

        h = modulate(x_BND, shift_ffn, scale_ffn, self.eps).to(weight_dtype)
        out: Tensor = (x_BND + self.ffn(h) * gate_ffn).to(x_BND.dtype)
        return out


class Head(nn.Module):
    """Modulated norm and the projection to patches, in float32."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        rows, columns = config.patch_size[1:]
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.projection = Float32Linear(config.dim, rows * columns * config.latent_channels)

    def forward(self, x_BND: Tensor, time_BD: Tensor) -> Tensor:
        shift, scale = (self.modulation.float() + time_BD.unsqueeze(1)).chunk(2, dim=1)
        out: Tensor = self.projection(modulate(x_BND, shift, scale, self.eps))
        return out


class FlashTalkDiT(nn.Module):
    """The audio-conditioned transformer of SoulX-FlashTalk (arXiv 2512.23379).

    Weights start for training from scratch: the blocks' modulation and the head at zero, so that
    the first output is zero velocity. The residual stream has the dtype of the latents given.
    """

    def __init__(self, config: DiTConfig, *, attention_impl: AttentionImpl = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv3d(
            config.in_channels, config.dim, config.patch_size, stride=config.patch_size
        )
        self.time_embedding = TimeEmbedding(config)
        self.text_embedding = TextEmbedding(config) if config.has_text else None
        self.image_embedding = ImageEmbedding(config) if config.has_image else None
        self.audio_adapter = AudioAdapter(config)
        self.rope = RotaryGrid(config.head_dim)
        self.blocks = nn.ModuleList(Block(config, attention_impl) for _ in range(config.num_layers))
        self.head = Head(config)
        initialize(self)

    def forward(
        self,
        latents_BCTHW: Tensor,
        timesteps_B: Tensor,
        cond_latents_BCTHW: Tensor,
        audio_BFWLC: Tensor,
        *,
        text: Tensor | None = None,
        image: Tensor | None = None,
        target_masks: Tensor | None = None,
    ) -> Tensor:
        """Velocity d x_t / d t = noise - data of a chunk (method section 1.4).

        Args:
            latents_BCTHW: noisy latents, the first slots being clean motion latents.
            timesteps_B: noise level t in [0, 1], 1 pure noise; one per sample.
            cond_latents_BCTHW: mask (4 channels) ‖ reference latents.
            audio_BFWLC: windows of audio features, F = 1 + 4 (T - 1). Two people: [2 B, ...],
                the two voices of a sample next to each other.
            text: [B, L, text_dim]; image: [B, image_tokens, image_dim].
            target_masks: two people only: [3, any height, any width], positive inside person 1,
                person 2 and the background of the first frame.

        Returns:
            [B, C, T, h, w] in the dtype of `latents_BCTHW`.

        Raises:
            ValueError: shapes that do not fit each other or the model's configuration.
        """
        return self.velocity(
            latents_BCTHW,
            self.prepare_time(timesteps_B),
            cond_latents_BCTHW,
            self.prepare_audio(audio_BFWLC, people=1 if target_masks is None else 2),
            self.prepare_context(text, image),
            target_masks=target_masks,
        )

    def prepare_time(self, timesteps_B: Tensor) -> TimeConstants:
        """Embed noise levels in [0, 1]: a schedule of four steps needs four of these, ever."""
        constants: TimeConstants = self.time_embedding(timesteps_B)
        return constants

    def prepare_context(self, text: Tensor | None, image: Tensor | None) -> ContextCache:
        """Keys and values of text [B, L, text_dim] and image [B, image_tokens, image_dim].

        Raises:
            ValueError: a condition is missing, or given to a model without that branch.
        """
        for name, given, branch in (
            ("text", text, self.text_embedding),
            ("image", image, self.image_embedding),
        ):
            if (given is None) != (branch is None):
                state = "needs" if given is None else "has no branch for"
                raise ValueError(f"{name}: this model {state} it; see DiTConfig.{name}_dim")
        embedded_text = self.text_embedding(text) if self.text_embedding is not None else None
        embedded_image = self.image_embedding(image) if self.image_embedding is not None else None
        return ContextCache(
            tuple(
                block.cross_attention.project(embedded_text, embedded_image)
                for block in self._blocks()
            )
        )

    def prepare_audio(self, audio_BFWLC: Tensor, *, people: int = 1) -> AudioCache:
        """Keys and values of a chunk's audio; two people as in `forward`.

        Raises:
            AudioWindowError: a shape other than [people * B, 1 + 4 n, window, layers, channels].
        """
        expected = (
            self.config.audio_window,
            self.config.audio_layers,
            self.config.audio_channels,
        )
        if audio_BFWLC.ndim != 5 or tuple(audio_BFWLC.shape[2:]) != expected:
            raise AudioWindowError(
                f"audio has shape {tuple(audio_BFWLC.shape)}, the model needs [B, F, "
                f"{', '.join(map(str, expected))}] (window, layers, channels)"
            )
        if people not in (1, 2) or audio_BFWLC.shape[0] % people:
            raise AudioWindowError(
                f"people={people} with {audio_BFWLC.shape[0]} voices: one or two people, "
                "one voice each"
            )
        tokens = self.audio_adapter(audio_BFWLC)
        if people == 2:
            tokens = tokens.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3)
        layers = tuple(block.audio_attention.project(tokens, people) for block in self._blocks())
        return AudioCache(layers, people)

    def velocity(
        self,
        latents_BCTHW: Tensor,
        time: TimeConstants,
        cond_latents_BCTHW: Tensor,
        audio: AudioCache,
        context: ContextCache,
        *,
        target_masks: Tensor | None = None,
    ) -> Tensor:
        """`forward` from prepared conditions: what one denoising step has to compute."""
        frames, rows, columns = self._grid(latents_BCTHW, cond_latents_BCTHW, audio)
        if (target_masks is not None) != (audio.people == 2):
            raise ValueError(
                f"target_masks with people={audio.people}: two people need masks, one has none"
            )
        joined = torch.cat([latents_BCTHW, cond_latents_BCTHW.to(latents_BCTHW.dtype)], dim=1)
        patches = self.patch_embedding(joined.to(self.patch_embedding.weight.dtype))
        x_BND = patches.flatten(2).transpose(1, 2).to(latents_BCTHW.dtype)

        masks = None if target_masks is None else token_masks(target_masks, rows, columns)
        rope = self.rope(frames, rows, columns)
        steering = time.projection.reshape(time.projection.shape[0], 6, -1)
        for block, context_kv, audio_kv in zip(
            self._blocks(), context.layers, audio.layers, strict=True
        ):
            x_BND = block(x_BND, steering, rope, context_kv, audio_kv, masks)
        out = self._unpatch(self.head(x_BND, time.embedding), frames, rows, columns)
        if self.config.prediction == "clean":
            out = (latents_BCTHW.float() - out) / time.level.view(-1, 1, 1, 1, 1)
        return out.to(latents_BCTHW.dtype)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def _grid(self, latents: Tensor, cond: Tensor, audio: AudioCache) -> tuple[int, int, int]:
        config = self.config
        channels, frames, height, width = latents.shape[1:]
        if channels != config.latent_channels or cond.shape[1] != config.cond_channels:
            raise ValueError(
                f"latents have {channels} channels and cond_latents {cond.shape[1]}; the model "
                f"needs latent_channels={config.latent_channels}, "
                f"cond_channels={config.cond_channels}"
            )
        if cond.shape[2:] != latents.shape[2:]:
            raise ValueError(
                f"cond_latents cover {tuple(cond.shape[2:])} but latents "
                f"{tuple(latents.shape[2:])} (frames, rows, columns); encode them for this chunk"
            )
        heard = audio.layers[0].k.shape[1]
        if heard != frames:
            raise AudioWindowError(
                f"audio covers {heard} latent frames but the latents have {frames}; give "
                f"{config.num_frames(frames)} windows"
            )
        down, across = config.patch_size[1:]
        if height % down or width % across:
            raise ValueError(
                f"latent size {height}x{width} is no multiple of the patch {down}x{across}"
            )
        grid = (frames, height // down, width // across)
        if max(grid) > MAX_POSITIONS:
            raise ValueError(f"token grid {grid} exceeds {MAX_POSITIONS} positions on an axis")
        return grid

    def _unpatch(self, x_BNP: Tensor, frames: int, rows: int, columns: int) -> Tensor:
        down, across = self.config.patch_size[1:]
        grid = x_BNP.reshape(x_BNP.shape[0], frames, rows, columns, down, across, -1)
        # B T R W p q C -> B C T (R p) (W q)
        return grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def token_masks(target_masks: Tensor, rows: int, columns: int) -> Tensor:
    """Regions in pixels -> float32 [3, rows * columns], by the nearest pixel.

    Raises:
        ValueError: not three masks.
    """
    if target_masks.ndim != 3 or target_masks.shape[0] != 3:
        raise ValueError(
            f"target_masks has shape {tuple(target_masks.shape)}; needs [3, height, width]: "
            "person 1, person 2, background"
        )
    nearest = F.interpolate(target_masks[None].float(), size=(rows, columns), mode="nearest")
    return (nearest[0] > 0).float().flatten(1)
