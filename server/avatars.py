"""The avatars: a built-in gallery that is read only, and uploads kept in the data folder."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import Principal

# First character no dash or dot, so that an id is never an option, a hidden file or a parent.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_STORED = 1000
MAX_NAME_LENGTH = 80
# The framing finds the face again in what is stored; more pixels add nothing to a 256 px portrait.
MAX_SOURCE_SIDE = 1024
_META = "avatar.json"
_SOURCE = "source.jpg"
_PORTRAIT = "portrait.jpg"


class AvatarMeta(msgspec.Struct, kw_only=True):
    """What is known of an avatar; the file format of the data folder."""

    id: str
    name: str
    created_at: float = 0.0
    warnings: list[str] = []
    credit: str | None = None
    owner: str | None = None
    consent: bool | None = None


class _GalleryEntry(msgspec.Struct, kw_only=True):
    id: str
    name: str = ""
    file: str = ""
    licence: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class StoredAvatar:
    """An avatar with its files: `source` is what the engine frames, `portrait` what is shown."""

    meta: AvatarMeta
    source: Path
    portrait: Path
    builtin: bool


def check_avatar_id(avatar_id: str) -> str:
    """The id itself. Raises ProtocolError `invalid_avatar_id` for characters that no id has."""
    if not _ID.fullmatch(avatar_id):
        raise ProtocolError(
            ErrorCode.INVALID_AVATAR_ID,
            f"avatar_id={avatar_id[:64]!r}: 1..64 letters, digits, '-' and '_', "
            "beginning with a letter or digit",
            param="avatar_id",
        )
    return avatar_id


class AvatarStore:
    """Avatars on disk. Every method blocks on files: call it off the event loop.

    root: the folder of uploads, made when the first one comes. gallery: a folder with
    `index.json`, a list of {id, name, file, source, licence}; it may be missing.
    """

    def __init__(self, root: Path, gallery: Path) -> None:
        self._root = root
        self._gallery = gallery
        self._adding = threading.Lock()

    def list(self, caller: Principal | None = None) -> list[StoredAvatar]:
        """Built-in avatars in the gallery's order, then uploads, oldest first.

        Only those that `caller` may see; None sees all.
        """
        uploads = []
        if self._root.is_dir():
            uploads = [a for p in self._root.iterdir() if (a := self._upload(p.name)) is not None]
        uploads.sort(key=lambda avatar: avatar.meta.created_at)
        return [a for a in (*self._builtin().values(), *uploads) if _visible(a, caller)]

    def get(self, avatar_id: str, caller: Principal | None = None) -> StoredAvatar:
        """One avatar, if `caller` may see it; None sees all.

        Raises ProtocolError `invalid_avatar_id` or `avatar_not_found`.
        """
        check_avatar_id(avatar_id)
        found = self._builtin().get(avatar_id) or self._upload(avatar_id)
        if found is None or not _visible(found, caller):
            raise ProtocolError(
                ErrorCode.AVATAR_NOT_FOUND,
                f"there is no avatar {avatar_id!r}; GET /v1/avatars lists those that there are",
                param="avatar_id",
            )
        return found

    def add(
        self,
        name: str,
        source: NDArray[np.uint8],
        portrait: NDArray[np.uint8],
        warnings: tuple[str, ...],
        *,
        owner: str | None = None,
        share: int | None = None,
        consent: bool | None = None,
    ) -> StoredAvatar:
        """Keep an upload: `source` and `portrait` are uint8 RGB [H, W, 3].

        owner: the name of the key that uploaded it, None for nobody; it may have `share` of them.
        consent: whether the uploader said that the person shown has agreed, None for nothing said.
        Files are written anew, so that no metadata of the upload survives. Raises ProtocolError as
        `check_room`.
        """
        # Two that come at once must not both take the last place.
        with self._adding:
            self.check_room(owner, share)
            return self._add(name, source, portrait, warnings, owner=owner, consent=consent)

    def check_room(self, owner: str | None, share: int | None) -> None:
        """Whether `owner` may upload one more. Raises ProtocolError `capacity` when the folder is
        full, or `quota_exceeded` when that one's share of it is."""
        if not self._root.is_dir():
            return
        stored = [path.name for path in self._root.iterdir()]
        if len(stored) >= MAX_STORED:
            raise ProtocolError(
                ErrorCode.CAPACITY, f"{MAX_STORED} avatars are stored; delete some first"
            )
        if owner is None or share is None:
            return
        own = sum(1 for n in stored if (a := self._upload(n)) is not None and a.meta.owner == owner)
        if own >= share:
            raise ProtocolError(
                ErrorCode.QUOTA_EXCEEDED,
                f"{owner!r} has {own} avatars, {share} at most; delete some first, or raise its "
                "max_avatars",
            )

    def _add(
        self,
        name: str,
        source: NDArray[np.uint8],
        portrait: NDArray[np.uint8],
        warnings: tuple[str, ...],
        *,
        owner: str | None,
        consent: bool | None,
    ) -> StoredAvatar:
        self._root.mkdir(parents=True, exist_ok=True)
        avatar_id = f"avatar-{secrets.token_hex(8)}"
        meta = AvatarMeta(
            id=avatar_id,
            name=" ".join(name.split())[:MAX_NAME_LENGTH] or "My portrait",
            created_at=time.time(),
            warnings=list(warnings),
            owner=owner,
            consent=consent,
        )
        # Written beside its place and moved there whole, so that no half avatar is ever listed.
        part = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        try:
            (part / _SOURCE).write_bytes(_jpeg(source, MAX_SOURCE_SIDE))
            (part / _PORTRAIT).write_bytes(_jpeg(portrait, MAX_SOURCE_SIDE))
            (part / _META).write_bytes(msgspec.json.encode(meta))
            part.chmod(0o755)
            os.replace(part, self._root / avatar_id)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return self.get(avatar_id)

    def delete(self, avatar_id: str) -> None:
        """Raises ProtocolError `avatar_not_found`, or `avatar_read_only` for a built-in one."""
        if self.get(avatar_id).builtin:
            raise ProtocolError(
                ErrorCode.AVATAR_READ_ONLY,
                f"avatar {avatar_id!r} is built in; only uploaded avatars can be deleted",
            )
        shutil.rmtree(self._root / avatar_id)

    def _upload(self, avatar_id: str) -> StoredAvatar | None:
        if not _ID.fullmatch(avatar_id):
            return None
        folder = self._root / avatar_id
        try:
            meta = msgspec.json.decode((folder / _META).read_bytes(), type=AvatarMeta)
        except (OSError, msgspec.DecodeError):
            return None
        return StoredAvatar(meta, folder / _SOURCE, folder / _PORTRAIT, builtin=False)

    def _builtin(self) -> dict[str, StoredAvatar]:
        try:
            text = (self._gallery / "index.json").read_bytes()
        except OSError:
            return {}
        found = {}
        for entry in msgspec.json.decode(text, type=list[_GalleryEntry]):
            path = self._gallery / Path(entry.file or f"{entry.id}.jpg").name
            if _ID.fullmatch(entry.id) and path.is_file():
                credit = ", ".join(part for part in (entry.source, entry.licence) if part) or None
                meta = AvatarMeta(id=entry.id, name=entry.name or entry.id, credit=credit)
                found[entry.id] = StoredAvatar(meta, path, path, builtin=True)
        return found


def _visible(avatar: StoredAvatar, caller: Principal | None) -> bool:
    if caller is None:
        return True
    bound = caller.avatar_id
    return (avatar.builtin or caller.may_see(avatar.meta.owner)) and bound in (
        None,
        avatar.meta.id,
    )


def _jpeg(pixels: NDArray[np.uint8], max_side: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
