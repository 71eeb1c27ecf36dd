"""The transformer of the process that serves: every call is made by the followers as well.

What a follower needs for later calls (a session's context, a chunk's audio) it keeps under a
number; a `Handle` in the leader's own copy stands for that number, and gives it free.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.parallel.commands import CommandChannel
from visavis.engine.parallel.plan import ParallelError


class Handle:
    """Followers keep something under this number as long as this object lives."""

    def __init__(self, number: int, freed: Callable[[int], None]) -> None:
        self.number = number
        weakref.finalize(self, freed, number).atexit = False


class Followers:
    """The leader's side of what its followers keep: numbers for it, and commands about it."""

    def __init__(self, channel: CommandChannel) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._freed: list[int] = []

    def handle(self) -> Handle:
        """A number under which the followers keep something."""
        return Handle(next(self._numbers), self._freed.append)

    def tell(self, name: str, *arguments: object) -> None:
        """Send a command, and which numbers are no longer needed."""
        freed = tuple(self._freed)
        del self._freed[: len(freed)]
        self._channel.send(name, freed, *arguments)


class LeadingTransformer(FlashTalkDiT):
    """A loaded transformer that takes its followers along; without gradients only.

    Arguments are checked before a follower hears of them, so that an error leaves all in step.
    """

    def __init__(self, model: FlashTalkDiT, channel: CommandChannel) -> None:
        """`model`, with its exchange set, is taken over: both share their weights."""
        nn.Module.__init__(self)
        self.__dict__.update(model.__dict__)
        self._followers = Followers(channel)

    def prepare_context(self, text: Tensor | None, image: Tensor | None) -> ContextCache:
        """As in `FlashTalkDiT`; the followers prepare and keep it, too."""
        cache = super().prepare_context(text, image)
        handle = self._followers.handle()
        self._followers.tell("context", handle.number, text, image)
        return cache._replace(handles=(handle,))

    def prepare_audio(
        self,
        audio_BFWLC: Tensor,
        *,
        people: int = 1,
        latent_size: tuple[int, int] | None = None,
    ) -> AudioCache:
        """As in `FlashTalkDiT`; each process keeps its own frames' part."""
        cache = super().prepare_audio(audio_BFWLC, people=people, latent_size=latent_size)
        handle = self._followers.handle()
        self._followers.tell("audio", handle.number, audio_BFWLC, people, latent_size)
        return cache._replace(handles=(handle,))

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
        """As in `FlashTalkDiT`, shared by all processes.

        Raises:
            ParallelError: a cache that this transformer did not prepare.
        """
        self.check(latents_BCTHW, cond_latents_BCTHW, audio, target_masks, given_slots)
        self._followers.tell(
            "velocity",
            latents_BCTHW,
            tuple(time),
            cond_latents_BCTHW,
            _numbers(audio.handles, "audio"),
            _numbers(context.handles, "context"),
            target_masks,
            given_slots,
        )
        return super().velocity(
            latents_BCTHW,
            time,
            cond_latents_BCTHW,
            audio,
            context,
            target_masks=target_masks,
            given_slots=given_slots,
        )


def _numbers(handles: Iterable[object], what: str) -> tuple[int, ...]:
    numbers = tuple(handle.number for handle in handles if isinstance(handle, Handle))
    if not numbers:
        raise ParallelError(
            f"{what} was not prepared by this transformer, so its followers do not have it; "
            f"use prepare_{what}"
        )
    return numbers
