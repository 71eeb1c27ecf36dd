"""No secret in the log, in whatever field, format or traceback it is written."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from visavis.server.logging import configure_logging
from visavis.server.redaction import scrub

KEY = "vv_canary0123456789abcdef"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhcHAifQ.c2lnbmF0dXJlLWNhbmFyeQ"


@pytest.fixture
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_way_of_logging_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch, log_format: Literal["json", "console"]
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(log_format, "debug")
    log = structlog.get_logger("visavis.test")
    structlog.contextvars.bind_contextvars(session_id="sess_1")
    log.info("headers", headers={"authorization": f"Bearer {KEY}", "list": [JWT]})
    handshake = f"> Sec-WebSocket-Protocol: avatar.v1, avatar.auth.{JWT}"
    log.info(handshake)
    log.info("named", token="whatever", api_keys=[KEY], detail=KEY.encode())
    logging.getLogger("library").warning("> Authorization: Bearer %s", KEY)
    logging.getLogger("websockets.server").debug("< avatar.auth.%s", KEY)
    try:
        secret = KEY
        raise ValueError(f"refused {secret}")
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed")
    text = stream.getvalue()
    assert "canary" not in text
    assert "c2lnbmF0dXJl" not in text
    assert "whatever" not in text
    assert text.count("sess_1") >= 6
    assert "Traceback" in text


@given(st.text(max_size=30), st.text(max_size=30))
def test_what_surrounds_a_secret_does_not_save_it(before: str, after: str) -> None:
    assert KEY not in scrub(f"{before} Bearer {KEY} {after}")
    assert JWT not in scrub(f"{before},avatar.auth.{JWT},{after}")


@pytest.mark.parametrize("text", ["session opened", "avatar.v1", "12 frames in 0.3 s", "sess_0a1b"])
def test_ordinary_text_stays(text: str) -> None:
    assert scrub(text) == text
