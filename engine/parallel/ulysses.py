"""All-to-all between tokens and heads (DeepSpeed-Ulysses, arXiv 2309.14509).

Letters: B batch, n rows of one process, U processes of the group, H heads, h = H / U, K head size.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def tokens_to_heads(parts_BnHK: tuple[Tensor, ...], group: dist.ProcessGroup) -> Tensor:
    """Own tokens of all heads -> the group's tokens of own heads: [parts, B, U * n, h, K].

    All parts (q, k and v) travel in one collective.
    """
    count = dist.get_world_size(group)
    if count == 1:
        return torch.stack(parts_BnHK)
    batch, rows, heads, size = parts_BnHK[0].shape
    share = heads // count
    sent = parts_BnHK[0].new_empty(count, len(parts_BnHK), batch, rows, share, size)
    for i, part in enumerate(parts_BnHK):
        sent[:, i].copy_(part.view(batch, rows, count, share, size).permute(2, 0, 1, 3, 4))
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    by_part = received.permute(1, 2, 0, 3, 4, 5)
    return by_part.reshape(len(parts_BnHK), batch, count * rows, share, size)


def heads_to_tokens(x_BNhK: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The group's tokens of own heads -> own tokens of all heads, joined: [B, n, H * K]."""
    count = dist.get_world_size(group)
    if count == 1:
        return x_BNhK.flatten(2)
    batch, rows, share, size = x_BNhK.shape
    sent = x_BNhK.view(batch, count, rows // count, share, size).transpose(0, 1).contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    return received.permute(1, 2, 0, 3, 4).reshape(batch, rows // count, -1)
