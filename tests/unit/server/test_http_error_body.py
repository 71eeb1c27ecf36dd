"""The body of a refused request says when to come back, as an error on the socket does."""

from __future__ import annotations

import json

import jsonschema
import pytest

from visavis.server.errors import ErrorCode, ProtocolError
from visavis.server.http_errors import REFUSALS, protocol_error_response


@pytest.mark.parametrize(
    ("retry_after_s", "header"), [(2.4, "2"), (0.2, "1"), (86_000.0, "86000"), (None, None)]
)
def test_when_to_retry_is_said_in_the_body(retry_after_s: float | None, header: str | None) -> None:
    refusal = ProtocolError(ErrorCode.CAPACITY, "all places are taken", retry_after_s=retry_after_s)
    response = protocol_error_response(refusal)
    body = json.loads(bytes(response.body))
    assert body["error"]["retry_after_s"] == retry_after_s
    assert response.headers.get("Retry-After") == header
    schema = REFUSALS["default"]["content"]["application/json"]["schema"]
    jsonschema.validate(body, schema)
    del body["error"]["retry_after_s"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, schema)
