"""From windows of audio features to tokens, and the attention of each latent frame to its own.

Letters: B batch, P people, F pixel frames, W window, L feature layers, C feature channels,
T latent frames, A audio tokens of a latent frame, H heads, K head size, N = T * S visual tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.attention import AttentionImpl, attend
from visavis.engine.dit.conditioning import Float32LayerNorm
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import wide_softmax
from visavis.engine.dit.layout import Segment
from visavis.engine.dit.rope import line_tables
from visavis.kernels.norm_rope.reference import plain_rotate

# Positions on one axis that tell two people apart (MultiTalk, arXiv 2505.22647 section 3.3):
# a token of person 1 lies in the first range, of person 2 in the second, of neither at the middle.
PERSON_RANGES = ((0.0, 4.0), (20.0, 24.0))
BACKGROUND_POSITION = 12.0


class AudioWindowError(ValueError):
    """Audio windows whose shape does not fit the latents or the model."""


def regroup_windows(audio_BFWLC: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Give each latent frame the features it may hear (method section 1.3, step 3).

    The first latent frame keeps its window of W. A later one covers `stride` pixel frames:
    offsets up to 0 of the first, the centre of those between, offsets from 0 of the last.

    Returns:
        first [B, 1, W, L, C] and later [B, T - 1, W + stride - 1, L, C].

    Raises:
        AudioWindowError: F is not 1 + stride * n.
    """
    frames, window = audio_BFWLC.shape[1], audio_BFWLC.shape[2]
    if (frames - 1) % stride:
        raise AudioWindowError(
            f"audio has {frames} frames: needs 1 + {stride} n, one window per pixel frame"
        )
    centre = window // 2
    groups = audio_BFWLC[:, 1:].reshape(
        audio_BFWLC.shape[0], (frames - 1) // stride, stride, *audio_BFWLC.shape[2:]
    )
    later = torch.cat(
        [
            groups[:, :, 0, : centre + 1],
            groups[:, :, 1:-1, centre],
            groups[:, :, -1, centre:],
        ],
        dim=2,
    )
    return audio_BFWLC[:, :1], later


class AudioAdapter(nn.Module):
    """Two first layers (for 5 and for 8 features), a shared second, then tokens and a norm."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        features = config.audio_layers * config.audio_channels
        self.stride = config.temporal_stride
        self.tokens, self.token_dim = config.audio_tokens, config.audio_dim
        self.first = nn.Linear(config.audio_window * features, config.audio_hidden)
        self.later = nn.Linear(config.later_window * features, config.audio_hidden)
        self.hidden = nn.Linear(config.audio_hidden, config.audio_hidden)
        self.project = nn.Linear(config.audio_hidden, config.audio_tokens * config.audio_dim)
        self.norm = Float32LayerNorm(config.audio_dim, eps=1e-5)

    def forward(self, audio_BFWLC: Tensor) -> Tensor:
        """[B, F, W, L, C] -> [B, T, audio_tokens, audio_dim], T = 1 + (F - 1) / stride."""
        first, later = regroup_windows(audio_BFWLC.to(self.first.weight.dtype), self.stride)
        hidden = torch.cat(
            [F.relu(self.first(first.flatten(2))), F.relu(self.later(later.flatten(2)))], dim=1
        )
        tokens = self.project(F.relu(self.hidden(hidden)))
        out: Tensor = self.norm(tokens.unflatten(-1, (self.tokens, self.token_dim)))
        return out


class AudioKV(NamedTuple):
    """One layer's keys and values of the audio, [B, T, A, H, K]; two people: A is doubled."""

    k: Tensor
    v: Tensor

    @property
    def frame_count(self) -> int:
        return self.k.shape[1]

    def frames_from(self, first: int) -> AudioKV:
        """Without the first latent frames."""
        return AudioKV(self.k[:, first:], self.v[:, first:])


class AudioFold(NamedTuple):
    """One layer's keys and values with the projections around them multiplied in.

    `score` [B, T, H * A, D] and `score_bias` [B, T, H * A] turn a token straight into its
    scores, `value` [B, T, H * A, D] the weights straight into the output: exact in real
    arithmetic, since nothing stands between the query's projection and its product with a key.
    """

    score: Tensor
    score_bias: Tensor
    value: Tensor

    @property
    def frame_count(self) -> int:
        return self.score.shape[1]

    def frames_from(self, first: int) -> AudioFold:
        """Without the first latent frames."""
        return AudioFold(*(part[:, first:] for part in self))


# Below this the folded matrices, read once per frame and step, cost more than they save.
FEWEST_FOLD_TOKENS = 64


def fold_saves(config: DiTConfig, frame_tokens: int, steps: int = 2) -> bool:
    """Whether folding costs fewer FLOPs over a chunk of `steps` steps.

    Per latent frame of S tokens: 4 S D (D + A) a step for the projections and the attention,
    against 4 S D H A a step and 4 A D² once.
    """
    direct = steps * frame_tokens * (config.dim + config.audio_tokens)
    width = config.num_heads * config.audio_tokens
    folded = steps * frame_tokens * width + config.audio_tokens * config.dim
    return frame_tokens >= FEWEST_FOLD_TOKENS and folded < direct


class AudioCrossAttention(nn.Module):
    """Visual tokens of latent frame i attend to the audio tokens of frame i alone."""

    def __init__(self, config: DiTConfig, impl: AttentionImpl) -> None:
        super().__init__()
        self.heads, self.impl = config.num_heads, impl
        self.q = nn.Linear(config.dim, config.dim)
        self.kv = nn.Linear(config.audio_dim, 2 * config.dim)
        self.o = nn.Linear(config.dim, config.dim)

    def project(self, tokens_BTAC: Tensor, people: int) -> AudioKV:
        """Keys and values, the same in every denoising step: once per chunk.

        With two people the keys carry their person's position, so only the queries are left
        to be placed by `person_positions`.
        """
        k, v = self.kv(tokens_BTAC).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        if people == 2:
            half = tokens_BTAC.shape[2] // 2
            centres = [sum(bounds) / 2 for bounds in PERSON_RANGES]
            positions = torch.tensor(centres, device=k.device).repeat_interleave(half)
            k = plain_rotate(k, *line_tables(positions, k.shape[-1]))
        return AudioKV(k, v)

    def fold(self, audio: AudioKV) -> AudioFold:
        """Multiply the projections into keys and values; one person only."""
        batch, frames, tokens, heads, size = audio.k.shape
        k, v = (x.permute(3, 0, 1, 2, 4).reshape(heads, -1, size) for x in audio)
        into = self.q.weight.view(heads, size, -1)
        out_of = self.o.weight.view(-1, heads, size).permute(1, 2, 0)
        k = k * size**-0.5
        score, value = torch.bmm(k, into), torch.bmm(v, out_of)
        bias = torch.bmm(k, self.q.bias.view(heads, size, 1)).squeeze(-1)

        def by_frame(x: Tensor) -> Tensor:
            apart = x.reshape(heads, batch, frames, tokens, *x.shape[2:])
            return apart.movedim(0, 2).flatten(2, 3).contiguous()

        return AudioFold(by_frame(score), by_frame(bias), by_frame(value))

    def forward(
        self,
        x_BND: Tensor,
        audio: AudioKV | AudioFold,
        positions_BN: Tensor | None = None,
        *,
        segments: tuple[Segment, ...] | None = None,
    ) -> Tensor:
        """`segments` say which rows belong to which of the audio's frames; None: equal parts."""
        if isinstance(audio, AudioFold):
            return self._absorbed(x_BND, audio, segments)
        q = self.q(x_BND).unflatten(-1, (self.heads, -1))
        if positions_BN is not None:
            q = plain_rotate(q, *line_tables(positions_BN, q.shape[-1]))
        if segments is None:
            per_frame = q.unflatten(1, (audio.k.shape[1], -1)).flatten(0, 1)
            out = attend(per_frame, audio.k.flatten(0, 1), audio.v.flatten(0, 1), self.impl)
            return self._out(out.reshape(x_BND.shape))
        parts = [
            attend(q[:, start:stop], audio.k[:, frame], audio.v[:, frame], self.impl)
            for frame, start, stop in segments
        ]
        return self._out(torch.cat(parts, dim=1))

    def _out(self, x: Tensor) -> Tensor:
        heard: Tensor = self.o(x)
        return heard

    def _absorbed(
        self, x_BND: Tensor, audio: AudioFold, segments: tuple[Segment, ...] | None
    ) -> Tensor:
        heads = self.heads

        def hear(x: Tensor, score: Tensor, score_bias: Tensor, value: Tensor) -> Tensor:
            scores = torch.baddbmm(score_bias.unsqueeze(1), x, score.transpose(1, 2))
            per_head = scores.view(*scores.shape[:-1], heads, -1)
            weights = wide_softmax(per_head).to(value.dtype)
            return torch.baddbmm(self.o.bias, weights.flatten(2), value)

        if segments is None:
            batch, frames, _, width = audio.score.shape
            x = x_BND.reshape(batch * frames, -1, width)
            heard = hear(x, *(part.flatten(0, 1) for part in audio))
            return heard.reshape(x_BND.shape)
        parts = [
            hear(x_BND[:, start:stop], *(part[:, frame] for part in audio))
            for frame, start, stop in segments
        ]
        return torch.cat(parts, dim=1)


def person_positions(routing_B3N: Tensor, extremes: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Place each token on the person axis by the region it attends to most -> float32 [B, N].

    Within a person's range a token lies the further up, the more it attends to that person.
    `extremes` are the least and greatest of all tokens, [B, 3, 1]; None: these are all there are.
    """
    if extremes is None:
        extremes = routing_B3N.amin(-1, keepdim=True), routing_B3N.amax(-1, keepdim=True)
    scaled = []
    for person, (low, high) in enumerate(PERSON_RANGES):
        weight = routing_B3N[:, person]
        least, most = (bound[:, person] for bound in extremes)
        scaled.append((weight - least) / (most - least + 1e-8) * (high - low) + low)
    scaled.append(torch.full_like(scaled[0], BACKGROUND_POSITION))
    chosen = routing_B3N.argmax(1, keepdim=True)
    return torch.stack(scaled, dim=1).gather(1, chosen).squeeze(1)
