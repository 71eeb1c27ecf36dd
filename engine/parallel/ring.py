"""Attention over keys that travel from process to process (ring attention, arXiv 2310.01889).

Letters: B batch, N queries, L keys of one run, h own heads, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from visavis.engine.dit.attention import AttentionImpl
from visavis.engine.dit.fused import wide
from visavis.engine.parallel.lse import attend_with_lse


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """One process's place in a ring; `next_rank` and `previous_rank` are global ranks."""

    group: dist.ProcessGroup
    index: int
    size: int
    next_rank: int
    previous_rank: int

    def attend(
        self, q_BNhK: Tensor, kv_2BLhK: Tensor, run_lengths: tuple[int, ...], impl: AttentionImpl
    ) -> Tensor:
        """softmax(q kᵀ / √K) v over the keys of all processes -> [B, N, h, K].

        `kv` are this process's keys and values; the run of process i has `run_lengths[i]`, none is
        sent or attended to where that is 0. While one run is attended to, the next is on its way.
        """
        merged: tuple[Tensor, Tensor] | None = None
        for turn in range(self.size):
            origin = (self.index - turn) % self.size
            incoming: Tensor | None = None
            requests: list[dist.Work] = []
            if turn < self.size - 1:
                incoming, requests = self._pass_on(kv_2BLhK, origin, run_lengths)
            if run_lengths[origin]:
                part = attend_with_lse(q_BNhK, kv_2BLhK[0], kv_2BLhK[1], impl)
                merged = merge(merged, part)
            for request in requests:
                request.wait()
            if incoming is not None:
                kv_2BLhK = incoming
        assert merged is not None  # a chunk has at least one token
        return merged[0].to(q_BNhK.dtype)

    def _pass_on(
        self, kv: Tensor, origin: int, run_lengths: tuple[int, ...]
    ) -> tuple[Tensor, list[dist.Work]]:
        """Start sending the run of `origin` on, and receiving the one before it."""
        length = run_lengths[(origin - 1) % self.size]
        incoming = kv.new_empty(2, kv.shape[1], length, *kv.shape[3:])
        transfers = []
        if run_lengths[origin]:
            transfers.append(dist.P2POp(dist.isend, kv, self.next_rank, self.group))
        if length:
            transfers.append(dist.P2POp(dist.irecv, incoming, self.previous_rank, self.group))
        return incoming, dist.batch_isend_irecv(transfers) if transfers else []


def merge(
    so_far: tuple[Tensor, Tensor] | None, part: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Join attention over two sets of keys, each (output [B, N, h, K], log-sum-exp [B, h, N]).

    Online softmax (arXiv 1805.02867) by whole runs; float32 or wider.
    """
    out, lse = wide(part[0]), part[1]
    if so_far is None:
        return out, lse
    old_out, old_lse = so_far
    share = torch.sigmoid(lse - old_lse).transpose(1, 2).unsqueeze(-1)
    return torch.lerp(old_out, out, share), torch.logaddexp(old_lse, lse)
