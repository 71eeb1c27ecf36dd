"""Session bundles, encrypted and authenticated, with a time after which they are worthless.

AES-256-GCM; the key comes from the replicas' common secret by HKDF. What is bound to the seal: the
format, the session's id and the time of expiry, so that a bundle can be neither exchanged for that
of another session nor kept alive. No I/O.
"""

from __future__ import annotations

import secrets
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_MAGIC = b"visavis-bundle-1"
_EXPIRY = struct.Struct(">Q")
_NONCE_BYTES = 12
# Clocks of replicas may differ by so much.
LEEWAY_S = 5.0
_PURPOSE = b"visavis session hand-over"


class SealError(ValueError):
    """Bytes that this service did not seal, for this session, or too long ago."""


class Sealer:
    """Seals with a key of its own, made from `secret`."""

    def __init__(self, secret: str, *, ttl_s: float, max_bytes: int) -> None:
        """Bundles are good for `ttl_s` and have at most `max_bytes`."""
        key = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive(secret.encode())
        self._cipher = AESGCM(key)
        self._ttl_s = ttl_s
        self.max_bytes = max_bytes

    def seal(self, session_id: str, bundle: bytes, *, now_s: float) -> bytes:
        """Encrypt. now_s: seconds since 1970, as on all replicas.

        Raises SealError for a bundle that is too large.
        """
        if len(bundle) > self.max_bytes:
            raise SealError(
                f"the bundle has {len(bundle):,} bytes, {self.max_bytes:,} at most; raise "
                "VISAVIS_HANDOVER_MAX_BYTES"
            )
        head = _MAGIC + _EXPIRY.pack(int((now_s + self._ttl_s) * 1000))
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + self._cipher.encrypt(nonce, bundle, head + session_id.encode())

    def open(self, session_id: str, sealed: bytes, *, now_s: float) -> bytes:
        """The bundle. Raises SealError, which says no more than it must."""
        start = len(_MAGIC) + _EXPIRY.size
        head, nonce = sealed[:start], sealed[start : start + _NONCE_BYTES]
        if len(sealed) < start + _NONCE_BYTES or not head.startswith(_MAGIC):
            raise SealError("not a sealed session")
        (expiry_ms,) = _EXPIRY.unpack(head[len(_MAGIC) :])
        if (now_s - LEEWAY_S) * 1000 > expiry_ms:
            raise SealError("the sealed session is too old")
        body = sealed[start + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, head + session_id.encode())
        except InvalidTag:
            raise SealError("the seal is broken, or of another secret or session") from None
