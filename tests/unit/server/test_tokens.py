"""Client tokens: bound, short-lived, rotated, and worthless in any other form."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.api_keys import KeyRing, parse_keys
from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.principal import ANONYMOUS, Principal
from visavis.server.tokens import LEEWAY_S, ClientTokens

KEYS = KeyRing(parse_keys("app:0123456789abcdef"))
SECRET = "s" * 32


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def app() -> Principal:
    found = KEYS.named("app")
    assert found is not None
    return found


def code_of(tokens: ClientTokens, token: str) -> ErrorCode:
    with pytest.raises(ProtocolError) as refused:
        tokens.verify(token)
    assert token[:20] not in refused.value.message or not token
    return refused.value.code


def test_a_token_carries_its_bounds() -> None:
    tokens = ClientTokens(KEYS, (SECRET,))
    secret = tokens.issue(
        app(), max_session_s=90, ttl_s=60, avatar_id="clara", origin="https://a.example"
    )
    principal = tokens.verify(secret.value)
    assert (principal.name, principal.kind) == ("app", "token")
    assert principal.scopes == {"realtime"}
    assert principal.avatar_id == "clara"
    assert principal.origin == "https://a.example"
    assert principal.max_session_s == 90
    principal.check_open("clara")
    for other in ("anna", None):
        with pytest.raises(ProtocolError) as refused:
            principal.check_open(other)
        assert refused.value.code is ErrorCode.NOT_PERMITTED


def test_an_old_token_only_resumes_and_then_nothing() -> None:
    clock = Clock()
    tokens = ClientTokens(KEYS, (SECRET,), now=clock)
    value = tokens.issue(app(), max_session_s=100, ttl_s=60).value
    clock.now_s += 59
    assert not tokens.verify(value).expired
    clock.now_s += 10
    late = tokens.verify(value)
    assert late.expired
    with pytest.raises(ProtocolError) as refused:
        late.check_open(None)
    assert refused.value.code is ErrorCode.TOKEN_EXPIRED
    clock.now_s += 100
    assert code_of(tokens, value) is ErrorCode.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("jump_s", "code"),
    [
        (-LEEWAY_S + 1, None),
        (-LEEWAY_S - 1, ErrorCode.INVALID_TOKEN),
        (-86_400, ErrorCode.INVALID_TOKEN),
        (60 + LEEWAY_S - 1, None),
        (86_400, ErrorCode.TOKEN_EXPIRED),
    ],
)
def test_clocks_of_replicas_may_differ_by_a_little(jump_s: float, code: ErrorCode | None) -> None:
    """The same for a clock that jumps: a token of the future is as suspect as an old one."""
    clock = Clock()
    tokens = ClientTokens(KEYS, (SECRET,), now=clock)
    value = tokens.issue(app(), max_session_s=100, ttl_s=60).value
    clock.now_s += jump_s
    if code is None:
        assert not tokens.verify(value).expired
    else:
        assert code_of(tokens, value) is code
    clock.now_s -= jump_s
    assert not tokens.verify(value).expired


def test_secrets_rotate_and_keys_are_withdrawn() -> None:
    old, new = "o" * 32, "n" * 32
    value = ClientTokens(KEYS, (old,)).issue(app(), max_session_s=1, ttl_s=60).value
    assert ClientTokens(KEYS, (new, old)).verify(value).name == "app"
    assert code_of(ClientTokens(KEYS, (new,)), value) is ErrorCode.INVALID_TOKEN
    assert code_of(ClientTokens(KeyRing(), (old,)), value) is ErrorCode.INVALID_TOKEN


def test_replicas_that_share_no_secret_share_no_token() -> None:
    value = ClientTokens(KEYS).issue(app(), max_session_s=1, ttl_s=60).value
    assert code_of(ClientTokens(KEYS), value) is ErrorCode.INVALID_TOKEN


def test_anonymous_tokens_die_when_keys_are_introduced() -> None:
    value = ClientTokens(KeyRing(), (SECRET,)).issue(ANONYMOUS, max_session_s=1, ttl_s=60).value
    assert ClientTokens(KeyRing(), (SECRET,)).verify(value).scopes == {"realtime"}
    assert code_of(ClientTokens(KEYS, (SECRET,)), value) is ErrorCode.INVALID_TOKEN


def part(data: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["none", "HS384", "RS256", "hs256"])
def test_other_algorithms_are_refused(algorithm: str) -> None:
    tokens = ClientTokens(KEYS, (SECRET,))
    _, claims, signature = tokens.issue(app(), max_session_s=1, ttl_s=60).value.split(".")
    for forged in ("", signature):
        token = f"{part({'alg': algorithm, 'typ': 'JWT'})}.{claims}.{forged}"
        assert code_of(tokens, token) is ErrorCode.INVALID_TOKEN


def test_changed_claims_are_refused() -> None:
    tokens = ClientTokens(KEYS, (SECRET,))
    head, claims, signature = tokens.issue(app(), max_session_s=1, ttl_s=60).value.split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "=="))
    changed["max_s"] = 1e9
    assert code_of(tokens, f"{head}.{part(changed)}.{signature}") is ErrorCode.INVALID_TOKEN


@given(st.text(max_size=300) | st.binary(max_size=100).map(lambda b: b.hex() + ".x.y"))
def test_no_garbage_passes_or_breaks_it(text: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        ClientTokens(KEYS, (SECRET,)).verify(text)
    assert refused.value.code is ErrorCode.INVALID_TOKEN


def test_a_weak_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        ClientTokens(KEYS, ("weak",))
