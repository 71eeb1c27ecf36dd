"""API keys: read from a file or the environment, kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visavis.server.principal import ALL_SCOPES, DEFAULT_SCOPES, Principal, Scope

MIN_KEY_LENGTH = 16
MAX_KEY_LENGTH = 512
PREFIX = "vv_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {
    "key",
    "sha256",
    "scopes",
    "max_sessions",
    "minutes_per_day",
    "requests_per_minute",
    "max_avatars",
    "max_queued_videos",
}
# Unless an entry says otherwise: no key may take what all share for itself.
REQUESTS_PER_MINUTE = 600.0
MAX_AVATARS = 200
MAX_QUEUED_VIDEOS = 4


class ApiKeyError(ValueError):
    """An entry that cannot be used; the message names it and the remedy, never the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. SHA-256 without salt suffices: keys are random, not words."""

    name: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    max_sessions: int | None = None
    minutes_per_day: float | None = None
    requests_per_minute: float = REQUESTS_PER_MINUTE
    max_avatars: int = MAX_AVATARS
    max_queued_videos: int = MAX_QUEUED_VIDEOS

    @property
    def principal(self) -> Principal:
        """The caller who shows this key."""
        return Principal(
            name=self.name,
            kind="key",
            scopes=self.scopes,
            max_sessions=self.max_sessions,
            minutes_per_day=self.minutes_per_day,
            requests_per_minute=self.requests_per_minute,
            max_avatars=self.max_avatars,
            max_queued_videos=self.max_queued_videos,
        )


class KeyRing:
    """All keys of a server; the keys themselves are forgotten once hashed."""

    def __init__(self, keys: tuple[ApiKey, ...] = ()) -> None:
        self._keys = {key.name: key for key in keys}
        if len(self._keys) != len(keys):
            raise ApiKeyError("two API keys have the same name; names are unique")

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> Principal | None:
        """Whose key it is; the time taken does not depend on which, or on how much is right."""
        digest = digest_of(key)
        found: ApiKey | None = None
        for candidate in self._keys.values():
            if hmac.compare_digest(candidate.digest, digest):
                found = candidate
        return found.principal if found is not None else None

    def named(self, name: str) -> Principal | None:
        """The caller with that key's name; None once the key is withdrawn."""
        key = self._keys.get(name)
        return key.principal if key is not None else None


def digest_of(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def new_key() -> str:
    """A key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """`name:key` pairs with commas or whitespace between. Raises ApiKeyError."""
    keys = []
    for place, item in enumerate(re.split(r"[,\s]+", text.strip()) if text.strip() else [], 1):
        name, colon, key = item.partition(":")
        if not colon:
            raise ApiKeyError(f"API key number {place} has no name; write name:key")
        keys.append(_key(name, {"key": key}))
    return tuple(keys)


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The `[keys.NAME]` tables of a TOML file. Raises ApiKeyError.

    Each has `sha256` (64 hexadecimal digits) or `key`, and, where wanted, `scopes`,
    `max_sessions`, `minutes_per_day`, `requests_per_minute`, `max_avatars`, `max_queued_videos`.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ApiKeyError(f"the API key file {path} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The parser's message may quote the line, and with it a key.
        raise ApiKeyError(
            f'the API key file {path} is not valid TOML; write [keys.NAME] and sha256 = "..."'
        ) from None
    entries = tables.get("keys")
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise ApiKeyError(f"the API key file {path} has no [keys.NAME] table")
    return tuple(_key(name, entry) for name, entry in entries.items())


def entry_of(name: str, digest: bytes, scopes: list[str] | None = None) -> str:
    """The entry of a key in the key file. Raises ApiKeyError."""
    entry: dict[str, Any] = {"sha256": digest.hex()}
    if scopes is not None:
        entry["scopes"] = scopes
    _key(name, entry)
    lines = [f'[keys."{name}"]', f'sha256 = "{digest.hex()}"']
    if scopes is not None:
        quoted = ", ".join(f'"{scope}"' for scope in scopes)
        lines.append(f"scopes = [{quoted}]")
    return "\n".join(lines) + "\n"


def _key(name: str, entry: dict[str, Any]) -> ApiKey:
    if not _NAME.fullmatch(name):
        raise ApiKeyError("the name of an API key is 1..64 letters, digits, '.', '_' and '-'")
    unknown = set(entry) - _FIELDS
    if unknown:
        raise ApiKeyError(
            f"API key {name!r}: {', '.join(sorted(unknown))} is not known; "
            f"the fields are {', '.join(sorted(_FIELDS))}"
        )
    return ApiKey(
        name=name,
        digest=_digest(name, entry),
        scopes=_scopes(name, entry.get("scopes")),
        max_sessions=_number(name, entry, "max_sessions", int),
        minutes_per_day=_number(name, entry, "minutes_per_day", (int, float)),
        requests_per_minute=_number(
            name, entry, "requests_per_minute", (int, float), REQUESTS_PER_MINUTE
        ),
        max_avatars=_number(name, entry, "max_avatars", int, MAX_AVATARS),
        max_queued_videos=_number(name, entry, "max_queued_videos", int, MAX_QUEUED_VIDEOS),
    )


def _digest(name: str, entry: dict[str, Any]) -> bytes:
    key, sha256 = entry.get("key"), entry.get("sha256")
    if (key is None) == (sha256 is None):
        raise ApiKeyError(f"API key {name!r} needs either key or sha256")
    if sha256 is not None:
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ApiKeyError(f"API key {name!r}: sha256 must have 64 hexadecimal digits")
        return bytes.fromhex(sha256)
    if not isinstance(key, str) or not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        raise ApiKeyError(
            f"API key {name!r} must have {MIN_KEY_LENGTH}..{MAX_KEY_LENGTH} characters; "
            "`visavis keys new` makes one"
        )
    return digest_of(key)


def _scopes(name: str, value: object) -> frozenset[Scope]:
    if value is None:
        return DEFAULT_SCOPES
    if not isinstance(value, list) or not set(value) <= ALL_SCOPES:
        raise ApiKeyError(
            f"API key {name!r}: scopes is a list out of {', '.join(sorted(ALL_SCOPES))}"
        )
    return frozenset(value)


def _number(
    name: str, entry: dict[str, Any], field: str, kind: Any, default: float | None = None
) -> Any:
    value = entry.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, kind) or value <= 0:
        raise ApiKeyError(f"API key {name!r}: {field} must be a number above 0")
    return value
