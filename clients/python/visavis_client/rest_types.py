"""What the HTTP requests answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AvatarInfo:
    """An avatar on the server; `warnings` are sentences about the picture."""

    id: str
    name: str
    builtin: bool
    warnings: tuple[str, ...]
    image_url: str
    credit: str | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> AvatarInfo:
        """Read the server's answer."""
        return cls(
            id=body["id"],
            name=body.get("name", ""),
            builtin=bool(body.get("builtin")),
            warnings=tuple(body.get("warnings") or ()),
            image_url=body.get("image_url", ""),
            credit=body.get("credit"),
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sessions at a time and those that wait; `eta_s` is when the next place is free, if known.

    `state` is loading, ready, failed or draining.
    """

    active: int
    max: int
    state: str
    queue: int = 0
    eta_s: float | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Capacity:
        """Read the server's answer."""
        queue = body.get("queue")
        return cls(
            active=body["active"],
            max=body["max"],
            state=body.get("state", "ready"),
            queue=queue if isinstance(queue, int) else 0,
            eta_s=body.get("eta_s"),
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that is loaded; `raw` has what else the server says of it."""

    id: str
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A short-lived token for a browser; `expires_at` is in seconds since 1970."""

    value: str = field(repr=False)
    expires_at: float
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A live session, for administrators; `raw` has what else the server says of it."""

    id: str
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A rendering; `status` is queued, in_progress, completed or failed, `progress` 0 to 100."""

    id: str
    status: str
    progress: float = 0.0
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in ("completed", "failed", "cancelled")
