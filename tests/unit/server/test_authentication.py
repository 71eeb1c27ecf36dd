"""Who calls, told from headers alone; and which pages may."""

from __future__ import annotations

from dataclasses import replace

import pytest
from starlette.requests import HTTPConnection

from visavis.server.api_keys import KeyRing, parse_keys
from visavis.server.authentication import Authentication, normal_origin
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import ANONYMOUS
from visavis.server.tokens import ClientTokens

KEY = "vv_0123456789abcdef"
KEYS = KeyRing(parse_keys(f"app:{KEY}"))


def connection(*, subprotocols: tuple[str, ...] = (), **headers: str) -> HTTPConnection:
    raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
    return HTTPConnection({"type": "websocket", "headers": raw, "subprotocols": subprotocols})


def authentication(keys: KeyRing = KEYS, *origins: str) -> Authentication:
    return Authentication(keys, ClientTokens(keys), origins)


def code_of(auth: Authentication, caller: HTTPConnection) -> ErrorCode:
    with pytest.raises(ProtocolError) as refused:
        auth.socket(caller)
    assert KEY not in refused.value.message
    return refused.value.code


def test_a_key_comes_in_the_header_or_the_subprotocol() -> None:
    auth = authentication()
    for caller in (
        connection(authorization=f"Bearer {KEY}"),
        connection(authorization=f"bearer  {KEY} "),
        connection(subprotocols=("avatar.v1", f"avatar.auth.{KEY}")),
    ):
        assert auth.socket(caller).name == "app"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, ErrorCode.MISSING_TOKEN),
        ({"authorization": f"Basic {KEY}"}, ErrorCode.MISSING_TOKEN),
        ({"authorization": "Bearer "}, ErrorCode.MISSING_TOKEN),
        ({"authorization": f"Bearer {KEY}x"}, ErrorCode.INVALID_TOKEN),
        ({"authorization": "Bearer a.b.c"}, ErrorCode.INVALID_TOKEN),
        ({"authorization": "Bearer " + "x" * 9000}, ErrorCode.INVALID_TOKEN),
    ],
)
def test_others_are_refused(headers: dict[str, str], code: ErrorCode) -> None:
    assert code_of(authentication(), connection(**headers)) is code


def test_without_keys_everybody_is_the_operator_but_wrong_tokens_stay_wrong() -> None:
    auth = authentication(KeyRing())
    assert auth.socket(connection()) is ANONYMOUS
    assert code_of(auth, connection(authorization="Bearer nonsense")) is ErrorCode.INVALID_TOKEN


def test_a_token_bound_to_an_origin_works_there_alone() -> None:
    auth = authentication(KEYS, "https://a.example", "https://b.example")
    app = KEYS.named("app")
    assert app is not None
    token = auth.tokens.issue(app, max_session_s=1, ttl_s=60, origin="https://a.example").value
    offered = ("avatar.v1", f"avatar.auth.{token}")
    at_home = connection(subprotocols=offered, origin="https://a.example:443")
    assert auth.socket(at_home).kind == "token"
    for elsewhere in (
        connection(subprotocols=offered, origin="https://b.example"),
        connection(subprotocols=offered),
    ):
        assert code_of(auth, elsewhere) is ErrorCode.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "fine"),
    [
        ("http://localhost:8000", "localhost:8000", (), True),
        ("https://avatar.example", "avatar.example", (), True),
        ("http://localhost:3000", "localhost:8000", (), False),
        ("https://evil.example", "avatar.example", (), False),
        ("https://avatar.example.evil.example", "avatar.example", (), False),
        ("https://page.example", "avatar.example", ("https://page.example",), True),
        ("HTTPS://PAGE.example:443", "avatar.example", ("https://page.example/",), True),
        ("http://page.example", "avatar.example", ("https://page.example",), False),
        ("null", "avatar.example", (), False),
        ("null", "null", (), False),
        ("", "", (), False),
        ("file://", "", (), False),
        ("https://evil.example", "avatar.example", ("*",), True),
    ],
)
def test_pages_of_other_origins(
    origin: str, host: str, allowed: tuple[str, ...], fine: bool
) -> None:
    auth = authentication(KEYS, *allowed)
    caller = connection(origin=origin, host=host, authorization=f"Bearer {KEY}")
    if fine:
        assert auth.socket(caller).name == "app"
    else:
        assert code_of(auth, caller) is ErrorCode.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "fine"),
    [
        ("localhost:8000", None, (), True),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", (), True),
        ("[::1]:8000", None, (), True),
        ("LOCALHOST.:8000", None, (), True),
        # A page that let its own name point to this machine.
        ("evil.example:8000", "http://evil.example:8000", (), False),
        ("evil.example:8000", None, (), False),
        ("localhost.evil.example", "http://localhost.evil.example", (), False),
        ("192.168.1.5:8000", "http://192.168.1.5:8000", (), False),
        ("", None, (), False),
        ("a b", None, (), False),
        ("avatar.example", "https://avatar.example", ("https://avatar.example",), True),
        ("evil.example", "http://evil.example", ("*",), True),
    ],
)
def test_a_server_of_this_machine_alone_answers_to_its_own_names(
    host: str, origin: str | None, allowed: tuple[str, ...], fine: bool
) -> None:
    auth = replace(authentication(KeyRing(), *allowed), local_names_only=True)
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    if fine:
        assert auth.socket(connection(**headers)) is ANONYMOUS
        return
    with pytest.raises(ProtocolError, match="VISAVIS_ALLOWED_ORIGINS") as refused:
        auth.socket(connection(**headers))
    assert refused.value.code is ErrorCode.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize(
    "text",
    ["https://a/path", "https://u@a", "ftp://a", "https://", "https://a:x", "//a", "https://[1"],
)
def test_what_is_no_origin(text: str) -> None:
    assert normal_origin(text) is None
