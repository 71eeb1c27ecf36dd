"""The VAE of a group that one process leads: it calls, all compute their tiles.

Letters: B batch, C channels, T latent frames, h w latent size, F frames, H W frame size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch.distributed as dist
from torch import Tensor

from visavis.engine.codec.wan_stream import Border
from visavis.engine.codec.wan_vae import SPATIAL_STRIDE, WanVAE
from visavis.engine.parallel.commands import CommandChannel
from visavis.engine.parallel.following import Handler
from visavis.engine.parallel.halo_vae import HaloDecoding, HaloVAE
from visavis.engine.parallel.leading import Followers, Handle


class LeadingVAE(HaloVAE):
    """`HaloVAE` of the process that leads: the followers (`FollowingVAE`) make the same calls.

    A decode goes on latent by latent, as its frames are asked for: one that is given up leaves
    nobody waiting.
    """

    def __init__(self, vae: HaloVAE, channel: CommandChannel) -> None:
        """`vae`: this process's tile; taken over."""
        self.__dict__.update(vae.__dict__)
        self.followers = Followers(channel)

    def rejoin(self, group: dist.ProcessGroup | None) -> None:
        """Go on in another group, with other followers, after the old one was lost."""
        self.tile.group = group
        if self.recorded:
            self.record()  # the old recordings hold messages to processes that are gone

    def encode(self, video_BCFHW: Tensor, border: Border | None = None) -> Tensor:
        """As `HaloVAE.encode`; alone while there are no followers, so that sessions can leave."""
        self._check(video_BCFHW, SPATIAL_STRIDE)
        if self.followers.lost:
            return WanVAE(self.network).encode(video_BCFHW)
        with self.followers.together("vae-encode", tuple(video_BCFHW.shape)):
            self.followers.tell("vae-encode", video_BCFHW)
            return super().encode(video_BCFHW, border)

    def begin(self, batch: int = 1, border: Border | None = None) -> HaloDecoding:
        """As `HaloVAE.begin`."""
        handle = self.followers.handle()
        with self.followers.together("vae-begin"):
            self.followers.tell("vae-begin", handle.number, batch)
        return LeadingDecoding(super().begin(batch, border), self.followers, handle)


class LeadingDecoding(HaloDecoding):
    """A decoding that the followers carry on with this process."""

    def __init__(self, own: HaloDecoding, followers: Followers, handle: Handle) -> None:
        super().__init__(own, own._halo)
        self._followers, self._handle = followers, handle

    def fork(self) -> HaloDecoding:
        """As `WanDecoding.fork`."""
        handle, number = self._followers.handle(), self._followers.number(self._handle)
        with self._followers.together("vae-fork"):
            self._followers.tell("vae-fork", handle.number, number)
        return LeadingDecoding(super().fork(), self._followers, handle)

    def push(self, latents_BCTHW: Tensor) -> Iterator[Tensor]:
        """As `WanDecoding.push`."""
        for latent in latents_BCTHW.split(1, dim=2):  # type: ignore[no-untyped-call]
            number = self._followers.number(self._handle)
            with self._followers.together("vae-push", tuple(latent.shape)):
                self._followers.tell("vae-push", number, latent)
                # Whole, since nobody may wait between two frames of one piece of work.
                frames = list(super().push(latent))
            yield from frames

    def push_beside(self, latents_BCTHW: Tensor) -> list[Tensor]:
        """As `WanDecoding.push_beside`, which every process does on its own GPU."""
        number = self._followers.number(self._handle)
        with self._followers.together("vae-beside", tuple(latents_BCTHW.shape)):
            self._followers.tell("vae-beside", number, latents_BCTHW)
            return super().push_beside(latents_BCTHW)


class FollowingVAE:
    """The follower's side; `handlers` are commands for its `Follower`."""

    def __init__(self, vae: HaloVAE) -> None:
        self._vae = vae
        self._decodings: dict[int, HaloDecoding] = {}

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Commands by name."""
        return {
            "vae-encode": self._encode,
            "vae-begin": self._begin,
            "vae-fork": self._fork,
            "vae-push": self._push,
            "vae-beside": self._push_beside,
        }

    def _free(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self._decodings.pop(number, None)

    def _encode(self, freed: tuple[int, ...], video_BCFHW: Tensor) -> None:
        self._free(freed)
        self._vae.encode(video_BCFHW)

    def _begin(self, freed: tuple[int, ...], number: int, batch: int) -> None:
        self._free(freed)
        self._decodings[number] = self._vae.begin(batch)

    def _fork(self, freed: tuple[int, ...], number: int, of: int) -> None:
        self._free(freed)
        self._decodings[number] = self._decodings[of].fork()

    def _push(self, freed: tuple[int, ...], number: int, latent_BCTHW: Tensor) -> None:
        self._free(freed)
        for _ in self._decodings[number].push(latent_BCTHW):
            pass

    def _push_beside(self, freed: tuple[int, ...], number: int, latents_BCTHW: Tensor) -> None:
        self._free(freed)
        self._decodings[number].push_beside(latents_BCTHW)
