"""The exchange as operators that a compiler takes as they are: a block stays one graph in a group.

Used while compiling alone; otherwise the same code runs without them. An operator is given the
exchange's name, since it can be given no object.

Letters: B batch, n rows of one process, H heads, K head size, P people and the background,
S tokens of one latent frame.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visavis.engine.dit.layout import TokenLayout

if TYPE_CHECKING:
    from visavis.engine.parallel.sequence import SequenceExchange

_exchanges: weakref.WeakValueDictionary[str, SequenceExchange] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def register(exchange: SequenceExchange, name: str | None = None) -> str:
    """Its name from now on; `name`: that of an exchange whose place it takes."""
    name = name or f"exchange {next(_numbers)}"
    _exchanges[name] = exchange
    return name


def place_of(layout: TokenLayout) -> list[int]:
    """A layout as an operator is given it."""
    return [layout.frames, layout.frame_tokens, layout.start, layout.length]


def _layout(place: Sequence[int]) -> TokenLayout:
    frames, frame_tokens, start, length = place
    return TokenLayout(frames=frames, frame_tokens=frame_tokens, start=start, length=length)


@torch.library.custom_op("visavis::exchange_attend", mutates_args=())
def exchange_attend(
    q_BnHK: Tensor, k_BnHK: Tensor, v_BnHK: Tensor, name: str, place: Sequence[int]
) -> Tensor:
    """`SequenceExchange.attend` for one person -> [B, n, H * K]."""
    out, _ = _exchanges[name].attend_here(q_BnHK, k_BnHK, v_BnHK, _layout(place), None)
    return out.contiguous()


@exchange_attend.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, name: str, place: Sequence[int]) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[1], q.shape[2] * q.shape[3])


@torch.library.custom_op("visavis::exchange_attend_people", mutates_args=())
def exchange_attend_people(
    q_BnHK: Tensor,
    k_BnHK: Tensor,
    v_BnHK: Tensor,
    masks_PS: Tensor,
    name: str,
    place: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """`SequenceExchange.attend` for two -> ([B, n, H * K], [B, P, n])."""
    exchange = _exchanges[name]
    out, routing = exchange.attend_here(q_BnHK, k_BnHK, v_BnHK, _layout(place), masks_PS)
    assert routing is not None
    return out.contiguous(), routing.contiguous()


@exchange_attend_people.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, masks: Tensor, name: str, place: Sequence[int]
) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)
    routing = q.new_empty(q.shape[0], masks.shape[0], q.shape[1], dtype=wide)
    return q.new_empty(q.shape[0], q.shape[1], q.shape[2] * q.shape[3]), routing


@torch.library.custom_op("visavis::exchange_extremes", mutates_args=())
def exchange_extremes(
    routing_BPn: Tensor, name: str, place: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """`SequenceExchange.extremes` -> [B, P, 1] each."""
    least, greatest = _exchanges[name].extremes_here(routing_BPn, _layout(place))
    return least.clone(), greatest.clone()


@exchange_extremes.register_fake
def _(routing: Tensor, name: str, place: Sequence[int]) -> tuple[Tensor, Tensor]:
    shape = (*routing.shape[:2], 1)
    return routing.new_empty(shape), routing.new_empty(shape)
