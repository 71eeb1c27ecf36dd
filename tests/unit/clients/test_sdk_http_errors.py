"""When a refused HTTP request may be repeated: the body says it exactly, the header in seconds."""

from __future__ import annotations

import json

import pytest

from visavis_client.rest import error_of_reply


@pytest.mark.parametrize(
    ("told", "header", "expected"),
    [
        ({"retry_after_s": 0.4}, "1", 0.4),
        ({"retry_after_s": None}, "7", 7.0),
        ({}, "7", 7.0),
        ({"retry_after_s": None}, None, None),
        ({}, "Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_the_body_counts_before_the_header(
    told: dict[str, float | None], header: str | None, expected: float | None
) -> None:
    error = {"type": "capacity_error", "code": "capacity", "message": "full", "retryable": True}
    body = json.dumps({"error": error | told}).encode()
    assert error_of_reply(429, body, "Too Many Requests", header).retry_after_s == expected


def test_a_proxys_answer_has_the_header_alone() -> None:
    error = error_of_reply(503, b"<html>", "Service Unavailable", "3")
    assert (error.code, error.retryable, error.retry_after_s) == ("http_503", True, 3.0)
