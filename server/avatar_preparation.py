"""Pictures into avatars that the engine can show: decoded, prepared on its thread, remembered."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from visavis.server.avatars import AvatarStore, StoredAvatar
from visavis.server.errors import ErrorCode, ProtocolError

if TYPE_CHECKING:
    from visavis.engine.avatar_engine import Avatar, AvatarEngine

T = TypeVar("T")
# Encoded bytes to uint8 RGB [H, W, 3].
ImageLoader = Callable[[bytes], Awaitable[NDArray[np.uint8]]]
OnProgress = Callable[[float], None]
MAX_PREPARED = 16
# An avatar may take so long before it is more urgent than frames that are due now.
PREPARE_WITHIN_S = 0.5
# Of an avatar's preparation, told once its picture was decoded.
DECODED_SHARE = 0.25


def unwatched(share: float) -> None:
    """Nobody wants to know how far it is."""


class PreparingEngine(Protocol):
    """What is needed of `ModelHost`."""

    @property
    def engine(self) -> AvatarEngine:
        """The engine. Raises ProtocolError `model_loading` before it is there."""
        ...

    async def on_engine(self, run: Callable[[], T], *, deadline_s: float) -> T:
        """Await `run` on the engine thread. Raises ProtocolError if the engine is lost in it."""
        ...


class AvatarPreparation:
    """Avatars of one server; every coroutine belongs to the event loop.

    The last few stored ones that were asked for are kept, prepared.
    """

    def __init__(
        self, host: PreparingEngine, store: AvatarStore, *, decode_image: ImageLoader
    ) -> None:
        self._host = host
        self._store = store
        self._decode_image = decode_image
        self._prepared: OrderedDict[str, Avatar] = OrderedDict()

    async def stored(self, avatar_id: str, on_progress: OnProgress = unwatched) -> Avatar:
        """The prepared avatar of a stored one; `on_progress` as for `image`.

        Raises ProtocolError when there is none.
        """
        stored = await asyncio.to_thread(self._store.get, avatar_id)
        cached = self._prepared.get(avatar_id)
        if cached is not None:
            self._prepared.move_to_end(avatar_id)
            return cached
        data = await asyncio.to_thread(stored.source.read_bytes)
        avatar = await self.image(data, on_progress)
        self._remember(avatar_id, avatar)
        return avatar

    async def image(self, data: bytes, on_progress: OnProgress = unwatched) -> Avatar:
        """Decode an encoded picture and find its face; `on_progress` is told what share of that
        is done, after each step of it.

        Raises ProtocolError `invalid_image`.
        """
        avatar, _ = await self._prepare(data, on_progress)
        return avatar

    async def _prepare(
        self, data: bytes, on_progress: OnProgress = unwatched
    ) -> tuple[Avatar, NDArray[np.uint8]]:
        engine, loop = self._host.engine, asyncio.get_running_loop()

        def on_step(share: float) -> None:
            told = DECODED_SHARE + (1 - DECODED_SHARE) * share
            loop.call_soon_threadsafe(on_progress, told)

        try:
            pixels = await self._decode_image(data)
            on_progress(DECODED_SHARE)
            deadline_s = time.monotonic() + PREPARE_WITHIN_S
            # In two parts, so that frames which are due are made in between.
            avatar = await self._host.on_engine(
                partial(engine.prepare_avatar, pixels, on_step=on_step, settle=False),
                deadline_s=deadline_s,
            )
            avatar = await self._host.on_engine(
                partial(engine.settle_avatar, avatar), deadline_s=deadline_s
            )
            on_progress(1.0)
        except ProtocolError:
            raise  # it is no fault of the picture that the engine takes nothing now
        except ValueError as error:
            raise ProtocolError(
                ErrorCode.INVALID_IMAGE, str(error), param="session.image"
            ) from error
        return avatar, pixels

    async def upload(
        self,
        name: str,
        data: bytes,
        *,
        owner: str | None = None,
        share: int | None = None,
        consent: bool | None = None,
    ) -> StoredAvatar:
        """Store a picture as an avatar. Raises ProtocolError `invalid_image`, or as
        AvatarStore.add."""
        await asyncio.to_thread(self._store.check_room, owner, share)
        avatar, pixels = await self._prepare(data)
        stored = await asyncio.to_thread(
            self._store.add,
            name,
            pixels,
            avatar.portrait.image,
            tuple(avatar.warnings),
            owner=owner,
            share=share,
            consent=consent,
        )
        self._remember(stored.meta.id, avatar)
        return stored

    async def delete(self, avatar_id: str) -> None:
        """Delete an upload; sessions that show it go on. Raises ProtocolError."""
        await asyncio.to_thread(self._store.delete, avatar_id)
        self._prepared.pop(avatar_id, None)

    def _remember(self, avatar_id: str, avatar: Avatar) -> None:
        self._prepared[avatar_id] = avatar
        while len(self._prepared) > MAX_PREPARED:
            self._prepared.popitem(last=False)

    async def digest(self, avatar_id: str) -> str:
        """Of a stored avatar's picture, so that it is the same elsewhere. Raises ProtocolError."""

        def of_picture() -> str:
            return hashlib.sha256(self._store.get(avatar_id).source.read_bytes()).hexdigest()

        return await asyncio.to_thread(of_picture)


def decode_image_field(text: str, max_bytes: int) -> bytes:
    """The bytes of a base64 picture, with or without a `data:` prefix.

    Raises ProtocolError `invalid_image`. Addresses are never fetched.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(
            ErrorCode.INVALID_IMAGE,
            "image is not valid base64; send the bytes of a JPEG, PNG or WebP file as base64",
            param="session.image",
        ) from error
    if len(data) > max_bytes:
        raise ProtocolError(
            ErrorCode.INVALID_IMAGE,
            f"image has {len(data):,} bytes, more than {max_bytes:,}; upload a smaller one",
            param="session.image",
        )
    return data
