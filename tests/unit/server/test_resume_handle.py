"""Handles: only the service's own open a session, and a router can read the replica."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.resume_handle import HandleSigner


def signer(replica: str = "a", secret: str | None = "one") -> HandleSigner:
    return HandleSigner(secret=secret, replica=replica)


def refusal(of: HandleSigner, handle: str) -> ErrorCode:
    with pytest.raises(ProtocolError) as caught:
        of.session_id(handle)
    return caught.value.code


def test_a_handle_names_its_session() -> None:
    assert signer().session_id(signer().sign("sess_1")) == "sess_1"


def test_the_replica_can_be_read_without_the_secret() -> None:
    body = signer("pod-7").sign("sess_1").partition(".")[0]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims == {"s": "sess_1", "r": "pod-7"}


def test_another_replica_of_the_service_says_where_it_is_not() -> None:
    assert refusal(signer("b"), signer("a").sign("s")) is ErrorCode.RESUME_ELSEWHERE


@pytest.mark.parametrize("secret", ["two", None])
def test_another_service_refuses(secret: str | None) -> None:
    handle = signer().sign("s")
    assert refusal(signer(secret=secret), handle) is ErrorCode.INVALID_RESUME_HANDLE


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    assert refusal(signer(), text) is ErrorCode.INVALID_RESUME_HANDLE


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_handle_is_refused(position: int, change: int) -> None:
    handle = signer().sign("sess_0123456789")
    position %= len(handle)
    letter = chr(ord(handle[position]) ^ (change & 0x7F) or 65)
    changed = handle[:position] + letter + handle[position + 1 :]
    if changed == handle:
        return
    # The last letter of base64 has bits that mean nothing.
    if position not in (handle.index(".") - 1, len(handle) - 1):
        assert refusal(signer(), changed) is ErrorCode.INVALID_RESUME_HANDLE
