"""Client secrets: short-lived JWTs for browsers, so that no API key leaves the operator's server.

HS256 over an allow-list of one algorithm. Several signing secrets may be set: the first signs, all
verify, so that they can be rotated; replicas share them.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from visavis.server.api_keys import KeyRing
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import ANONYMOUS, Principal

ISSUER = "visavis"
AUDIENCE = "visavis/realtime"
ALGORITHM = "HS256"
MAX_TOKEN_LENGTH = 4096
MIN_SECRET_LENGTH = 32
# Clocks of replicas may differ by so much.
LEEWAY_S = 5


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A new token; `expires_at` in seconds since 1970 is until when it opens sessions."""

    value: str
    expires_at: int
    principal: Principal


class _Claims(msgspec.Struct, kw_only=True):
    iss: str
    aud: str
    sub: str
    jti: str
    iat: int
    exp: int
    max_s: float
    avatar: str | None = None
    origin: str | None = None


class ClientTokens:
    """Issues and verifies client secrets. `signing`: secrets of at least 32 characters; without
    any, a random one serves, and tokens die with the process."""

    def __init__(
        self, keys: KeyRing, signing: tuple[str, ...] = (), *, now: Callable[[], float] = time.time
    ) -> None:
        for secret in signing:
            if len(secret) < MIN_SECRET_LENGTH:
                raise ValueError(
                    f"token_secrets: a secret has {len(secret)} characters, at least "
                    f"{MIN_SECRET_LENGTH} are needed; `openssl rand -hex 32` makes one"
                )
        self._keys = keys
        self._now = now
        self._signing = [_signing_key(s) for s in signing or (secrets.token_hex(32),)]

    def issue(
        self,
        principal: Principal,
        *,
        max_session_s: float,
        ttl_s: int,
        avatar_id: str | None = None,
        origin: str | None = None,
    ) -> ClientSecret:
        """A token that opens sessions for `ttl_s` seconds, each of `max_session_s` at most."""
        now = int(self._now())
        claims = _Claims(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=principal.name,
            jti=secrets.token_hex(8),
            iat=now,
            exp=now + ttl_s,
            max_s=max_session_s,
            avatar=avatar_id,
            origin=origin,
        )
        value = jwt.encode(
            {"alg": ALGORITHM, "typ": "JWT"}, msgspec.to_builtins(claims), self._signing[0]
        )
        return ClientSecret(value, claims.exp, self._principal(claims, expired=False))

    def verify(self, token: str) -> Principal:
        """Whose token it is. Raises ProtocolError `invalid_token` or `token_expired`.

        A token that may not open sessions any more still resumes those that it opened, for as long
        as they may last; its principal says `expired`.
        """
        claims = self._claims(token)
        now = self._now()
        if claims.iss != ISSUER or claims.aud != AUDIENCE or claims.iat > now + LEEWAY_S:
            raise invalid_token()
        if now >= claims.exp + claims.max_s + LEEWAY_S:
            raise ProtocolError(
                ErrorCode.TOKEN_EXPIRED,
                "the client token has expired; get a new one from POST /v1/realtime/client_secrets",
            )
        return self._principal(claims, expired=now >= claims.exp + LEEWAY_S)

    def _claims(self, token: str) -> _Claims:
        if len(token) > MAX_TOKEN_LENGTH:
            raise invalid_token()
        for key in self._signing:
            try:
                decoded = jwt.decode(token, key, algorithms=[ALGORITHM])
                return msgspec.convert(decoded.claims, _Claims)
            except (JoseError, ValueError, TypeError):
                continue
        # Which part was wrong is nobody's business who has no key; and no message quotes the token.
        raise invalid_token()

    def _principal(self, claims: _Claims, *, expired: bool) -> Principal:
        if claims.sub == ANONYMOUS.name and not len(self._keys):
            issuer: Principal | None = ANONYMOUS
        else:
            issuer = self._keys.named(claims.sub)
        if issuer is None:
            raise invalid_token()
        return replace(
            issuer,
            kind="token",
            scopes=frozenset({"realtime"}),
            avatar_id=claims.avatar,
            origin=claims.origin,
            max_session_s=claims.max_s,
            token_id=claims.jti,
            expired=expired,
        )


def _signing_key(secret: str) -> OctKey:
    digest = hashlib.sha256(b"visavis client secrets\0" + secret.encode()).digest()
    return OctKey.import_key(digest)


def invalid_token() -> ProtocolError:
    """What is said of a key or token that this server does not know."""
    return ProtocolError(
        ErrorCode.INVALID_TOKEN,
        "the key or token is not one of this server; check it, or get a new one",
    )
