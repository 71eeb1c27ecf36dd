"""Who is calling: what a key or a client token allows. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from visavis.server.errors import ErrorCode, ProtocolError

Scope = Literal["realtime", "avatars", "videos", "admin"]
ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
# What a key may do unless its entry says otherwise.
DEFAULT_SCOPES: frozenset[Scope] = ALL_SCOPES - {"admin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller; never holds a secret, so that it may be logged.

    name: the API key's, which is also the owner of what is uploaded. max_sessions: sockets at a
    time. minutes_per_day: of live sessions in a UTC day. requests_per_minute: over HTTP.
    max_avatars, max_queued_videos: its share of uploads that are kept, and of renderings that wait.
    None is no limit. avatar_id, origin, max_session_s: what a
    client token is bound to, None for no bound. token_id: a client token's `jti`. expired: the
    token is too old to open a session and may only resume one.
    """

    name: str
    kind: Literal["anonymous", "key", "token"]
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    max_sessions: int | None = None
    minutes_per_day: float | None = None
    requests_per_minute: float | None = None
    max_avatars: int | None = None
    max_queued_videos: int | None = None
    avatar_id: str | None = None
    origin: str | None = None
    max_session_s: float | None = None
    token_id: str | None = None
    expired: bool = False

    def require(self, scope: Scope) -> None:
        """Raises ProtocolError `not_permitted` when the caller may not do that."""
        if scope not in self.scopes:
            raise ProtocolError(
                ErrorCode.NOT_PERMITTED,
                f"{self.name!r} may not use {scope!r}; its scopes are "
                f"{', '.join(sorted(self.scopes)) or 'none'}",
            )

    def check_open(self, avatar_id: str | None) -> None:
        """Whether a new session may show that avatar (None: a picture of the caller's own, which
        is for those who may upload avatars).

        Raises ProtocolError `token_expired` or `not_permitted`.
        """
        if self.expired:
            raise ProtocolError(
                ErrorCode.TOKEN_EXPIRED,
                "the client token has expired and only resumes its own session; get a new one "
                "from POST /v1/realtime/client_secrets",
            )
        self.check_avatar(avatar_id)
        if avatar_id is None:
            self.require("avatars")

    def check_avatar(self, avatar_id: str | None) -> None:
        """Whether a session, new or not, may show that avatar. Raises ProtocolError
        `not_permitted`."""
        if self.avatar_id is not None and avatar_id != self.avatar_id:
            raise ProtocolError(
                ErrorCode.NOT_PERMITTED,
                f"the client token is bound to avatar {self.avatar_id!r}; ask for that one",
                param="session.avatar_id",
            )

    def may_see(self, owner: str | None) -> bool:
        """Whether an upload of `owner` (None: nobody's) exists for this caller."""
        return owner is None or owner == self.name or "admin" in self.scopes


# With authentication off everybody is the operator.
ANONYMOUS = Principal(name="anonymous", kind="anonymous", scopes=ALL_SCOPES)
