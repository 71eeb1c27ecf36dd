"""FlashTalk's transformer: Wan 2.1 image-to-video blocks with an audio attention in each.

It knows chunks, not sessions: latents and conditions in, velocity out.

Letters: B batch, C channels, T latent frames, h w latent size, F pixel frames, W audio window,
L layers or length, N tokens = T * S, D model width, P people and the background.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.engine.dit.attention import AttentionExchange, AttentionImpl, Share
from visavis.engine.dit.audio_adapter import (
    AudioAdapter,
    AudioFold,
    AudioKV,
    AudioWindowError,
    fold_saves,
)
from visavis.engine.dit.block import Block as Block
from visavis.engine.dit.block import Head
from visavis.engine.dit.caches import AudioCache as AudioCache
from visavis.engine.dit.caches import ContextCache as ContextCache
from visavis.engine.dit.conditioning import (
    ImageEmbedding,
    TextEmbedding,
    TimeConstants,
    TimeEmbedding,
)
from visavis.engine.dit.config import DiTConfig
from visavis.engine.dit.fused import wide
from visavis.engine.dit.initialize import initialize
from visavis.engine.dit.layout import Segment, TokenLayout
from visavis.engine.dit.patches import patches, token_grid, token_masks, unpatch
from visavis.engine.dit.rope import RotaryGrid
from visavis.engine.dit.step_graph import Step, StepInputs

LateForward = Callable[
    ["FlashTalkDiT", Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor
]
"""(model, and the arguments of `forward` for one person in its order) -> velocity."""


class FlashTalkDiT(nn.Module):
    """The audio-conditioned transformer of SoulX-FlashTalk (arXiv 2512.23379).

    Weights start for training from scratch: the blocks' modulation and the head at zero, so that
    the first output is zero velocity. The residual stream has the dtype of the latents given.

    With an `exchange` (set by `engine.parallel`) the model computes its process's part of the
    tokens, and every process gets the whole result; without gradients only.

    With `late` set (by training, see `engine.dit.late`) that computes `forward`.
    """

    def __init__(self, config: DiTConfig, *, attention_impl: AttentionImpl = "sdpa") -> None:
        super().__init__()
        self.config = config
        self.attention_impl = attention_impl
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
        self.exchange: AttentionExchange | None = None
        self.late: LateForward | None = None
        self.recorded_step: Step | None = None
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
        if self.late is not None and target_masks is None:
            return self.late(
                self, latents_BCTHW, timesteps_B, cond_latents_BCTHW, audio_BFWLC, text, image
            )
        return self.velocity(
            latents_BCTHW,
            self.prepare_time(timesteps_B),
            cond_latents_BCTHW,
            self.prepare_audio(
                audio_BFWLC,
                people=1 if target_masks is None else 2,
                latent_size=(latents_BCTHW.shape[3], latents_BCTHW.shape[4]),
            ),
            self.prepare_context(text, image),
            target_masks=target_masks,
        )

    def prepare_time(self, timesteps_B: Tensor) -> TimeConstants:
        """Embed noise levels in [0, 1]: a schedule of four steps needs four of these, ever."""
        embedding, projection = self.time_embedding(timesteps_B)
        blocks = torch.stack([block.steer(projection) for block in self._blocks()], dim=1)
        return TimeConstants(wide(timesteps_B), blocks, self.head.steer(embedding))

    def prepare_context(self, text: Tensor | None, image: Tensor | None) -> ContextCache:
        """Keys and values of text [B, L, text_dim] and image [B, image_tokens, image_dim].

        Raises:
            ValueError: a condition is missing, or given to a model without that branch.
        """
        self.check_context(text, image)
        embedded_text = self.text_embedding(text) if self.text_embedding is not None else None
        embedded_image = self.image_embedding(image) if self.image_embedding is not None else None
        bias = None
        if self.text_embedding is not None and text is not None:
            bias = self.text_embedding.bias(text)
        return ContextCache(
            tuple(
                block.cross_attention.project(embedded_text, embedded_image, bias)
                for block in self._blocks()
            )
        )

    def check_context(self, text: Tensor | None, image: Tensor | None) -> None:
        """See that the model gets the conditions that it has branches for, and no others.

        Raises:
            ValueError: it does not.
        """
        for name, given, branch in (
            ("text", text, self.text_embedding),
            ("image", image, self.image_embedding),
        ):
            if (given is None) != (branch is None):
                state = "needs" if given is None else "has no branch for"
                raise ValueError(f"{name}: this model {state} it; see DiTConfig.{name}_dim")

    def prepare_audio(
        self,
        audio_BFWLC: Tensor,
        *,
        people: int = 1,
        latent_size: tuple[int, int] | None = None,
    ) -> AudioCache:
        """Keys and values of a chunk's audio; two people as in `forward`.

        With the `latent_size` (h, w) of the chunk they are folded into the projections around
        them where that saves work (`fold_saves`; not under autograd, not for two people), and in
        a group only the process's own latent frames are kept.

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
        frames, first = tokens.shape[1], 0
        folds = False
        if latent_size is not None:
            frame_tokens = self.config.frame_tokens(latent_size)
            first, end = self._layout(frames, max(1, frame_tokens)).frame_range
            tokens = tokens[:, first:end]
            folds = people == 1 and fold_saves(self.config, frame_tokens)
        folds = folds and not torch.is_grad_enabled()
        heard: list[AudioKV] = []
        folded: list[AudioFold] = []
        for block in self._blocks():  # one visit each: offloaded weights come and go
            audio = block.audio_attention.project(tokens, people)
            if folds:
                folded.append(block.audio_attention.fold(audio))
            else:
                heard.append(audio)
        return AudioCache(tuple(folded) if folds else tuple(heard), people, frames, first)

    def velocity(
        self,
        latents_BCTHW: Tensor,
        time: TimeConstants,
        cond_latents_BCTHW: Tensor,
        audio: AudioCache,
        context: ContextCache,
        *,
        target_masks: Tensor | None = None,
        given_slots: int = 0,
    ) -> Tensor:
        """`forward` from prepared conditions: what one denoising step has to compute.

        `given_slots`: so many first latent frames are motion latents, whose velocity the sampler
        overwrites; it is 0 in the result, and one process alone skips its work in the last block.
        """
        self.check(latents_BCTHW, cond_latents_BCTHW, audio, target_masks, given_slots)
        inputs = StepInputs(
            latents_BCTHW, time, cond_latents_BCTHW, audio, context, target_masks, given_slots
        )
        return self.step(inputs) if self.recorded_step is None else self.recorded_step(inputs)

    def step(self, inputs: StepInputs) -> Tensor:
        """`velocity` without its checks and its recordings."""
        latents_BCTHW, time, cond_latents_BCTHW, audio, context, target_masks, given_slots = inputs
        _, down, across = self.config.patch_size
        frames, height, width = latents_BCTHW.shape[2:]
        rows, columns = height // down, width // across
        layout = self._layout(frames, rows * columns)
        share = None if self.exchange is None else Share(layout, self.exchange)
        segments = None
        if share is not None:
            segments = tuple(
                Segment(part.frame - audio.first_frame, part.start, part.stop)
                for part in layout.segments()
            )
        skip = given_slots if share is None else 0

        x_BND = self.embed(latents_BCTHW, cond_latents_BCTHW, layout)
        masks = None if target_masks is None else token_masks(target_masks, rows, columns)
        rope = self._rope(frames, rows, columns, layout)
        blocks = self._blocks()
        for i, block in enumerate(blocks):
            x_BND = block(
                x_BND,
                time.blocks[:, i],
                rope,
                context.layers[i],
                audio.layers[i],
                masks,
                skip_frames=skip if i == len(blocks) - 1 else 0,
                share=share,
                segments=segments,
            )
        out_BNP = self.head(x_BND, time.head)
        if share is not None:
            out_BNP = share.exchange.gather(out_BNP, layout)
        out = self.velocity_from(out_BNP, latents_BCTHW[:, :, skip:], time.level)
        if given_slots:
            out = out if skip else out[:, :, given_slots:]
            out = F.pad(out, (0, 0, 0, 0, given_slots, 0))
        return out

    def velocity_from(self, out_BNP: Tensor, latents_BCTHW: Tensor, level_B: Tensor) -> Tensor:
        """What the head's rows mean for these latents: the velocity, in the latents' dtype."""
        frames, height, width = latents_BCTHW.shape[2:]
        _, down, across = self.config.patch_size
        out = unpatch(self.config, out_BNP, frames, height // down, width // across)
        if self.config.prediction == "clean":
            out = (wide(latents_BCTHW) - out) / level_B.view(-1, 1, 1, 1, 1)
        return out.to(latents_BCTHW.dtype)

    def check(
        self,
        latents_BCTHW: Tensor,
        cond_latents_BCTHW: Tensor,
        audio: AudioCache,
        target_masks: Tensor | None = None,
        given_slots: int = 0,
    ) -> tuple[int, int, int]:
        """See that the arguments of `velocity` fit -> token grid (frames, rows, columns).

        Raises:
            ValueError: they do not; the message says which, and what would.
        """
        grid = token_grid(self.config, latents_BCTHW, cond_latents_BCTHW, audio.frames)
        if (target_masks is not None) != (audio.people == 2):
            raise ValueError(
                f"target_masks with people={audio.people}: two people need masks, one has none"
            )
        if not 0 <= given_slots < grid[0]:
            raise ValueError(
                f"given_slots={given_slots}: must be below the {grid[0]} latent frames"
            )
        return grid

    def _layout(self, frames: int, frame_tokens: int) -> TokenLayout:
        if self.exchange is None:
            return TokenLayout.whole(frames, frame_tokens)
        rank, world = self.exchange.rank, self.exchange.world
        return TokenLayout.shard(frames, frame_tokens, rank=rank, world=world)

    def embed(self, latents: Tensor, cond: Tensor, layout: TokenLayout) -> Tensor:
        """The layout's tokens -> [B, rows, D] in the dtype of the latents."""
        first, end = layout.frame_range
        joined = torch.cat(
            [latents[:, :, first:end], cond[:, :, first:end].to(latents.dtype)], dim=1
        ).to(self.patch_embedding.weight.dtype)
        if self.exchange is None:
            tokens = self.patch_embedding(joined).flatten(2).transpose(1, 2)
        else:
            own = layout.cut(patches(self.config, joined), first * layout.frame_tokens)
            weight = self.patch_embedding.weight.flatten(1)
            tokens = F.linear(own, weight, self.patch_embedding.bias)
        # every addition to the residual stream keeps its strides
        x_BND: Tensor = tokens.to(latents.dtype).contiguous()
        return x_BND

    def _rope(
        self, frames: int, rows: int, columns: int, layout: TokenLayout
    ) -> tuple[Tensor, Tensor]:
        cos, sin = self.rope(frames, rows, columns)
        if self.exchange is None:
            return cos, sin
        return layout.cut(cos[None], 0)[0], layout.cut(sin[None], 0)[0]

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]
