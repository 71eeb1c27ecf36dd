"""The loop of a process that follows: it makes the calls that the leader makes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from visavis.engine.dit.caches import AudioCache, ContextCache
from visavis.engine.dit.conditioning import TimeConstants
from visavis.engine.dit.model import FlashTalkDiT
from visavis.engine.parallel.commands import STOP, CommandChannel

logger = logging.getLogger(__name__)

Handler = Callable[..., None]


class Follower:
    """Keeps what the leader's handles stand for, and computes its part of every step.

    `handlers` are further commands by name, for other work that the processes share.
    """

    def __init__(
        self,
        model: FlashTalkDiT,
        channel: CommandChannel,
        handlers: Mapping[str, Handler] | None = None,
    ) -> None:
        self._model, self._channel = model, channel
        self._contexts: dict[int, ContextCache] = {}
        self._audios: dict[int, AudioCache] = {}
        self._handlers: dict[str, Handler] = {
            "context": self._context,
            "audio": self._audio,
            "velocity": self._velocity,
            **(handlers or {}),
        }

    @property
    def kept(self) -> int:
        """Contexts and chunks' audios that are kept for the leader."""
        return len(self._contexts) + len(self._audios)

    @torch.inference_mode()
    def run(self) -> None:
        """Follow until the leader stops. An error ends the process: the group cannot go on."""
        while True:
            command = self._channel.receive()
            if command.name == STOP:
                logger.info("the leader has stopped")
                return
            self._handlers[command.name](*command.arguments)

    def _free(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self._contexts.pop(number, None)
            self._audios.pop(number, None)

    def _context(
        self, freed: tuple[int, ...], number: int, text: Tensor | None, image: Tensor | None
    ) -> None:
        self._free(freed)
        self._contexts[number] = self._model.prepare_context(text, image)

    def _audio(
        self,
        freed: tuple[int, ...],
        number: int,
        audio_BFWLC: Tensor,
        people: int,
        latent_size: tuple[int, int] | None,
    ) -> None:
        self._free(freed)
        self._audios[number] = self._model.prepare_audio(
            audio_BFWLC, people=people, latent_size=latent_size
        )

    def _velocity(
        self,
        freed: tuple[int, ...],
        latents_BCTHW: Tensor,
        time: Any,
        cond_latents_BCTHW: Tensor,
        audios: tuple[int, ...],
        contexts: tuple[int, ...],
        target_masks: Tensor | None,
        given_slots: int,
    ) -> None:
        self._free(freed)
        self._model.velocity(
            latents_BCTHW,
            TimeConstants(*time),
            cond_latents_BCTHW,
            AudioCache.stack([self._audios[number] for number in audios]),
            ContextCache.stack([self._contexts[number] for number in contexts]),
            target_masks=target_masks,
            given_slots=given_slots,
        )
