"""The processes' exchange as the transformer sees it: Ulysses within groups, a ring between them.

Letters: B batch, n rows of one process, N rows of its Ulysses group, H heads, K head size,
P people and the background, S tokens of one latent frame.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from visavis.engine.dit.attention import AttentionImpl, attend, person_attention
from visavis.engine.dit.layout import TokenLayout
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.parallel.exchange_ops import (
    exchange_attend,
    exchange_attend_people,
    exchange_extremes,
    place_of,
    register,
)
from visavis.engine.parallel.groups import SequenceGroups
from visavis.engine.parallel.plan import SequencePlan
from visavis.engine.parallel.ring import Ring
from visavis.engine.parallel.ulysses import heads_to_tokens, tokens_to_heads


class SequenceExchange:
    """One process's side of the group; an `AttentionExchange` of the transformer.

    Per block: one all-to-all for q, k and v and one for the output where Ulysses has more than one
    process, ring_degree - 1 passes of keys and values where the ring has. Per step: one all-gather.
    """

    def __init__(
        self, groups: SequenceGroups, impl: AttentionImpl, *, name: str | None = None
    ) -> None:
        """`name`: of the exchange that it replaces, so that what was compiled with that stays."""
        self.groups, self.impl = groups, impl
        self.name = register(self, name)
        self.rank, self.world = groups.rank, groups.plan.world
        self._ring = Ring(
            group=groups.ring,
            index=groups.ring_index,
            size=groups.plan.ring_degree,
            next_rank=groups.ring_next,
            previous_rank=groups.ring_previous,
        )

    def attend(
        self,
        q_BNHK: Tensor,
        k_BNHK: Tensor,
        v_BNHK: Tensor,
        layout: TokenLayout,
        person_masks_PS: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention over all processes' tokens -> ([B, n, H * K], [B, P, n] or None)."""
        if not torch.compiler.is_compiling():
            return self.attend_here(q_BNHK, k_BNHK, v_BNHK, layout, person_masks_PS)
        place = place_of(layout)
        if person_masks_PS is None:
            return exchange_attend(q_BNHK, k_BNHK, v_BNHK, self.name, place), None
        out, routing = exchange_attend_people(
            q_BNHK, k_BNHK, v_BNHK, person_masks_PS, self.name, place
        )
        return out, routing

    def extremes(self, routing_BPN: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Least and greatest of all tokens, [B, P, 1] each; padding does not count."""
        if not torch.compiler.is_compiling():
            return self.extremes_here(routing_BPN, layout)
        least, greatest = exchange_extremes(routing_BPN, self.name, place_of(layout))
        return least, greatest

    def attend_here(
        self,
        q_BNHK: Tensor,
        k_BNHK: Tensor,
        v_BNHK: Tensor,
        layout: TokenLayout,
        person_masks_PS: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """`attend`, outside of compiled code."""
        qkv = tokens_to_heads((q_BNHK, k_BNHK, v_BNHK), self.groups.ulysses)
        lengths = self._run_lengths(layout)
        own = lengths[self.groups.ring_index]
        routing = None
        if person_masks_PS is not None:
            routing = self._person_attention(qkv[0], qkv[1], person_masks_PS, layout)
        if len(lengths) == 1:
            out = attend(qkv[0], qkv[1, :, :own], qkv[2, :, :own], self.impl)
            out = out.view(qkv[0].shape)
        else:
            out = self._ring.attend(qkv[0], qkv[1:, :, :own].contiguous(), lengths, self.impl)
        return heads_to_tokens(out, self.groups.ulysses), routing

    def extremes_here(self, routing_BPN: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """`extremes`, outside of compiled code."""
        valid = layout.valid
        if valid:
            rows = routing_BPN[:, :, :valid]
            bounds = torch.stack([-rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)])
        else:
            bounds = routing_BPN.new_full((2, *routing_BPN.shape[:2], 1), -torch.inf)
        dist.all_reduce(bounds, dist.ReduceOp.MAX, group=self.groups.everyone)
        return -bounds[0], bounds[1]

    def gather(self, x_BNC: Tensor, layout: TokenLayout) -> Tensor:
        """Every process's rows in order, without padding: [B, tokens, C]."""
        rows = x_BNC.contiguous()
        parts = [torch.empty_like(rows) for _ in range(self.world)]
        dist.all_gather(parts, rows, group=self.groups.everyone)
        return torch.cat(parts, dim=1)[:, : layout.tokens]

    def _run_lengths(self, layout: TokenLayout) -> tuple[int, ...]:
        """Tokens, without padding, of each Ulysses group."""
        run = layout.length * self.groups.plan.ulysses_degree
        ring = self.groups.plan.ring_degree
        return tuple(max(0, min(run, layout.tokens - i * run)) for i in range(ring))

    def _person_attention(
        self, q_BNhK: Tensor, k_BNhK: Tensor, masks_PS: Tensor, layout: TokenLayout
    ) -> Tensor:
        """`person_attention` of own tokens: over own heads, then the mean over the group's."""
        first = k_BNhK[:, : masks_PS.shape[1]]
        if self.groups.plan.ring_degree > 1:
            # the first frame lies in the first run, or goes on into the next
            pieces = [torch.empty_like(first).contiguous() for _ in range(self._ring.size)]
            dist.all_gather(pieces, first.contiguous(), group=self.groups.ring)
            first = torch.cat(pieces, dim=1)[:, : masks_PS.shape[1]]
        routing = person_attention(q_BNhK, first, masks_PS)
        dist.all_reduce(routing, group=self.groups.ulysses)
        start = self.groups.ulysses_index * layout.length
        return routing[..., start : start + layout.length] / self.groups.plan.ulysses_degree


def parallelize(model: FlashTalkDiT, plan: SequencePlan) -> FlashTalkDiT:
    """Let the model compute this process's part; every process of the default group calls this.

    Raises:
        ParallelError: no group, another number of processes, or heads that do not divide.
    """
    plan.check(plan.world, model.config.num_heads)
    groups = SequenceGroups.create(plan)
    before = model.exchange
    name = before.name if isinstance(before, SequenceExchange) else None
    model.exchange = None
    if plan.world > 1:
        model.exchange = SequenceExchange(groups, model.attention_impl, name=name)
    return model
