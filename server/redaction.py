"""Keeps secrets out of the log, whoever writes it. No I/O."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

HIDDEN = "[secret]"
# Keys, client tokens (JWTs begin with base64 of '{"'), and whatever a header carries: libraries
# write whole handshakes at their debug level.
_SECRETS = (
    re.compile(r"(?<=avatar\.auth\.)[^\s,;'\"\]]+"),
    re.compile(r"(?<=Bearer )[^\s,;'\"\]]+", re.IGNORECASE),
    re.compile(r"(?<=Authorization: )[^\r\n'\"]+", re.IGNORECASE),
    re.compile(r"\bvv_[A-Za-z0-9_-]{16,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"),
)
_NAMES = re.compile(r"(^|_)(token|secret|password|authorization|api_?key|image|audio)s?$", re.I)


def scrub(text: str) -> str:
    """The text without what looks like a key or token."""
    for pattern in _SECRETS:
        text = pattern.sub(HIDDEN, text)
    return text


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: secrets out of every value, and values of telling names out whole."""
    for name, value in event.items():
        if value is not None and _NAMES.search(name):
            event[name] = HIDDEN
        else:
            event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes):
        return scrub(value.decode("utf-8", "replace"))
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, BaseException):
        return value
    return scrub(str(value))
