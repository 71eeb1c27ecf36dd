"""A transformer block, and the head that follows the last.

Letters: B batch, N tokens, D model width, P people and the background, S tokens of a latent frame.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visavis.engine.dit.attention import (
    AttentionImpl,
    ContextKV,
    CrossAttention,
    FeedForward,
    SelfAttention,
    Share,
)
from visavis.engine.dit.audio_adapter import (
    AudioCrossAttention,
    AudioFold,
    AudioKV,
    person_positions,
)
from visavis.engine.dit.conditioning import Float32LayerNorm, Float32Linear
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import add_gated, add_gated_norm, layer_norm, wide
from visavis.engine.dit.layout import Segment


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

    def steer(self, time_B6D: Tensor) -> Tensor:
        """What modulates this block at a noise level, float32 [B, 6, D]: once per level."""
        return modulation_of(self.modulation, time_B6D)

    def whole(
        self,
        x_BND: Tensor,
        time_B6D: Tensor,
        rope: tuple[Tensor, Tensor],
        text_BLD: Tensor | None,
        image_BLD: Tensor | None,
        text_bias_BL: Tensor | None,
        audio_BTAC: Tensor,
    ) -> Tensor:
        """`forward` for one person, from conditions that this block has not yet made its own.

        All that the block's weights do, in one call: where weights are gathered for a block's turn
        and activations are computed again for its gradient, nothing of it is needed outside.
        """
        context = self.cross_attention.project(text_BLD, image_BLD, text_bias_BL)
        audio = self.audio_attention.project(audio_BTAC, 1)
        return self.forward(x_BND, self.steer(time_B6D), rope, context, audio, None)

    def forward(
        self,
        x_BND: Tensor,
        steering_B6D: Tensor,
        rope: tuple[Tensor, Tensor],
        context: ContextKV,
        audio: AudioKV | AudioFold,
        person_masks_PS: Tensor | None,
        *,
        skip_frames: int = 0,
        share: Share | None = None,
        segments: tuple[Segment, ...] | None = None,
    ) -> Tensor:
        """-> [B, N, D], less the tokens of the first `skip_frames` latent frames.

        Args:
            x_BND: the tokens of this process: all, unless `share` says which.
            steering_B6D: from `steer`.
            skip_frames: frames that are only seen by the others' self-attention. Not in a share.
            segments: whose audio each row hears; None: the rows are the audio's frames in order.
        """
        dtype = self.norm_cross.weight.dtype
        shift_attn, scale_attn, gate_attn, shift_ffn, scale_ffn, gate_ffn = steering_B6D.chunk(
            6, dim=1
        )
        skip = 0
        if skip_frames:
            skip = skip_frames * (x_BND.shape[1] // audio.frame_count)
            audio = audio.frames_from(skip_frames)

        h = layer_norm(x_BND, scale_attn, shift_attn, self.eps, dtype)
        h, routing = self.self_attention(h, rope, person_masks_PS, skip=skip, share=share)
        x_BND, h = self.norm_cross.after(x_BND[:, skip:], h, gate_attn)
        x_BND, h = self.norm_audio.after(x_BND, self.cross_attention(h, context), None)

        positions = None
        if routing is not None:
            extremes = None if share is None else share.exchange.extremes(routing, share.layout)
            positions = person_positions(routing, extremes)
        h = self.audio_attention(h, audio, positions, segments=segments)
        x_BND, h = add_gated_norm(x_BND, h, None, scale_ffn, shift_ffn, self.eps, dtype)
        return add_gated(x_BND, self.ffn(h), gate_ffn)


class Head(nn.Module):
    """Modulated norm and the projection to patches, in float32."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        rows, columns = config.patch_size[1:]
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))
        self.projection = Float32Linear(config.dim, rows * columns * config.latent_channels)

    def steer(self, time_BD: Tensor) -> Tensor:
        """What modulates the head at a noise level, float32 [B, 2, D]."""
        return modulation_of(self.modulation, time_BD.unsqueeze(1))

    def forward(self, x_BND: Tensor, steering_B2D: Tensor) -> Tensor:
        shift, scale = steering_B2D.chunk(2, dim=1)
        h = layer_norm(x_BND, scale, shift, self.eps, steering_B2D.dtype)
        out: Tensor = self.projection(h)
        return out


def modulation_of(learnt: Tensor, time: Tensor) -> Tensor:
    """Shift, 1 + scale (and gate) in the middle axis, once or twice, float32."""
    rows = learnt.shape[1]
    one = torch.zeros(rows, 1, device=learnt.device)
    one[1::3] = 1
    return wide(learnt) + time + one
