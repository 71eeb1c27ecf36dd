"""Signed resume handles: `{session, replica}`, so that a router can find the replica. No I/O."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass

from visavis.server.errors import ErrorCode, ProtocolError

MAX_HANDLE_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """What a handle names: a session, and the replica that it lived on when this was signed."""

    session_id: str
    replica: str


class HandleSigner:
    """Makes and checks handles.

    secret: shared by the replicas of one service; None for a random one, which serves one process.
    replica: the name of this process, readable in the handle by whoever routes connections.
    """

    def __init__(self, *, secret: str | None, replica: str) -> None:
        self.replica = replica
        self._key = secret.encode() if secret else secrets.token_bytes(32)

    def sign(self, session_id: str) -> str:
        """The handle of a session of this replica."""
        body = _encode(json.dumps({"s": session_id, "r": self.replica}).encode())
        return f"{body}.{_encode(self._mac(body))}"

    def claims(self, handle: str) -> Claims:
        """What a handle says. Raises ProtocolError `invalid_resume_handle` for one that this
        service has not signed."""
        body, _, mac = handle.partition(".")
        try:
            signed = len(handle) <= MAX_HANDLE_LENGTH and hmac.compare_digest(
                _decode(mac), self._mac(body)
            )
            claims = json.loads(_decode(body)) if signed else None
        except (ValueError, UnicodeError, binascii.Error):
            claims = None
        if not isinstance(claims, dict):
            raise ProtocolError(
                ErrorCode.INVALID_RESUME_HANDLE,
                "the handle was not made by this service; use resume.handle of session.created",
                param="handle",
            )
        return Claims(str(claims.get("s")), str(claims.get("r")))

    def session_id(self, handle: str) -> str:
        """The session that a handle names.

        Raises ProtocolError as `claims`, and `resume_elsewhere` for one of another replica.
        """
        claims = self.claims(handle)
        if claims.replica != self.replica:
            raise ProtocolError(
                ErrorCode.RESUME_ELSEWHERE,
                "the session lives on another replica; connect again",
                param="handle",
                retry_after_s=0.5,
            )
        return claims.session_id

    def _mac(self, body: str) -> bytes:
        return hmac.new(self._key, body.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
