"""API keys: what is accepted, what is refused, and that no message ever shows a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.api_keys import (
    ApiKeyError,
    KeyRing,
    digest_of,
    entry_of,
    new_key,
    parse_keys,
    read_keys,
)
from visavis.server.errors import ErrorCode, ProtocolError

KEY = "vv_this-is-the-canary-key-000"


def test_a_key_is_found_by_its_text_and_kept_as_a_digest_only() -> None:
    ring = KeyRing(parse_keys(f"backend:{KEY}, other:{'x' * 16}"))
    principal = ring.find(KEY)
    assert principal is not None
    assert principal.name == "backend"
    assert "admin" not in principal.scopes
    assert ring.find(KEY + "x") is None
    assert ring.find("") is None
    assert KEY not in repr(vars(ring))
    assert digest_of(KEY).hex() not in repr(vars(ring))


def test_a_file_sets_scopes_and_quotas(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(
        f'[keys.app]\nsha256 = "{digest_of(KEY).hex()}"\nmax_sessions = 2\nminutes_per_day = 1.5\n'
        f'[keys.ops]\nkey = "{"y" * 20}"\nscopes = ["admin"]\n'
    )
    ring = KeyRing(read_keys(file))
    app, ops = ring.find(KEY), ring.find("y" * 20)
    assert app is not None
    assert (app.max_sessions, app.minutes_per_day) == (2, 1.5)
    assert ops is not None
    with pytest.raises(ProtocolError) as refused:
        ops.require("realtime")
    assert refused.value.code is ErrorCode.NOT_PERMITTED


def test_a_made_key_has_an_entry_that_reads_back(tmp_path: Path) -> None:
    key = new_key()
    file = tmp_path / "keys.toml"
    file.write_text(entry_of("a.b", digest_of(key), ["realtime"]))
    principal = KeyRing(read_keys(file)).find(key)
    assert principal is not None
    assert (principal.name, principal.scopes) == ("a.b", frozenset({"realtime"}))


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f":{KEY}",
        "name:short",
        f"bad name:{KEY}",
        f"a:{KEY},a:{KEY}",
        f"a:{KEY * 40}",
        f"../x:{KEY}",
    ],
)
def test_what_is_refused_is_not_quoted(text: str) -> None:
    with pytest.raises(ApiKeyError) as refused:
        KeyRing(parse_keys(text))
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f'key = "{KEY}"',
        f'[keys.a]\nkey = "{KEY}',
        f'[keys.a]\nkey = "{KEY}"\nsha256 = "{"0" * 64}"',
        '[keys.a]\nsha256 = "0"',
        f'[keys.a]\nkey = "{KEY}"\nscopes = ["all"]',
        f'[keys.a]\nkey = "{KEY}"\nmax_sessions = 0',
        f'[keys.a]\nkey = "{KEY}"\nmax_sesions = 1',
        "[keys.a]",
    ],
)
def test_a_wrong_file_is_explained_without_its_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ApiKeyError) as refused:
        read_keys(file)
    assert KEY not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ApiKeyError, match=r"none\.toml"):
        read_keys(tmp_path / "none.toml")


@given(st.text(max_size=200))
def test_no_text_but_the_key_opens(text: str) -> None:
    ring = KeyRing(parse_keys(f"a:{KEY}"))
    assert (ring.find(text) is not None) == (text == KEY)
