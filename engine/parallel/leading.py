"""The transformer of the process that serves: every call is made by the followers as well.

What a follower needs for later calls (a session's context, a chunk's audio) it keeps under a
number; a `Handle` in the leader's own copy stands for that number, and gives it free.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager

from torch import Tensor, nn

from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.parallel.commands import CommandChannel
from visavis.engine.parallel.loss import GroupLostError, Loss
from visavis.engine.parallel.plan import ParallelError


class Handle:
    """Followers keep something under this number as long as this object lives.

    `generation`: which followers do; others know it only after `Followers.recall`.
    """

    def __init__(self, number: int, generation: int, freed: Callable[[int], None]) -> None:
        self.number = number
        self.generation = generation
        weakref.finalize(self, freed, number).atexit = False


class Followers:
    """The leader's side of what its followers keep: numbers for it, and commands about it."""

    def __init__(self, channel: CommandChannel) -> None:
        self._channel = channel
        self._numbers = itertools.count()
        self._freed: list[int] = []
        self._lasting: weakref.WeakKeyDictionary[Handle, tuple[str, tuple[object, ...]]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def lost(self) -> bool:
        """Whether there are no followers now."""
        return self._channel.lost

    def handle(self) -> Handle:
        """A number under which the followers keep something."""
        return Handle(next(self._numbers), self._channel.generation, self._freed.append)

    def together(self, name: str, *kind: Hashable) -> AbstractContextManager[None]:
        """`CommandChannel.together`."""
        return self._channel.together(name, *kind)

    def number(self, handle: Handle) -> int:
        """Raises GroupLostError for what went with earlier followers."""
        if handle.generation != self._channel.generation:
            raise GroupLostError(Loss("died", None, "it was begun before the group restarted"))
        return handle.number

    def keep(self, handle: Handle, name: str, *arguments: object) -> None:
        """Send a command that stands for `handle`, now and to all later followers."""
        self.tell(name, handle.number, *arguments)
        self._lasting[handle] = (name, arguments)

    def recall(self) -> None:
        """Tell new followers what is to be kept for longer than a chunk."""
        self._freed.clear()
        for handle, (name, arguments) in list(self._lasting.items()):
            handle.generation = self._channel.generation
            self.tell(name, handle.number, *arguments)

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
        self.followers = Followers(channel)

    def prepare_context(self, text: Tensor | None, image: Tensor | None) -> ContextCache:
        """As in `FlashTalkDiT`; the followers prepare and keep it, too."""
        cache = super().prepare_context(text, image)
        handle = self.followers.handle()
        with self.followers.together("context"):
            self.followers.keep(handle, "context", text, image)
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
        handle = self.followers.handle()
        with self.followers.together("audio", tuple(audio_BFWLC.shape)):
            self.followers.tell("audio", handle.number, audio_BFWLC, people, latent_size)
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
            GroupLostError: the followers are gone, or have been replaced since the chunk began.
        """
        self.check(latents_BCTHW, cond_latents_BCTHW, audio, target_masks, given_slots)
        audios = self._numbers(audio.handles, "audio")
        contexts = self._numbers(context.handles, "context")
        with self.followers.together("velocity", tuple(latents_BCTHW.shape), given_slots):
            self.followers.tell(
                "velocity",
                latents_BCTHW,
                tuple(time),
                cond_latents_BCTHW,
                audios,
                contexts,
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

    def _numbers(self, handles: Iterable[object], what: str) -> tuple[int, ...]:
        numbers = tuple(
            self.followers.number(handle) for handle in handles if isinstance(handle, Handle)
        )
        if not numbers:
            raise ParallelError(
                f"{what} was not prepared by this transformer, so its followers do not have it; "
                f"use prepare_{what}"
            )
        return numbers
