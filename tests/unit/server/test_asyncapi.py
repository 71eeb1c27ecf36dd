"""The AsyncAPI document is one: judged by the specification's own schema of AsyncAPI 3.0."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match

from visavis.server.schema.asyncapi import asyncapi_document

# As published in the npm package @asyncapi/specs; see NOTICE.
SCHEMA = Path(__file__).parents[2] / "protocol" / "asyncapi-3.0.0.schema.json.gz"

Json = dict[str, Any]


@cache
def validator() -> Draft7Validator:
    schema = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@cache
def served() -> str:
    """What /v1/asyncapi.json sends."""
    return json.dumps(asyncapi_document("1.2.3"))


def document() -> Json:
    found: Json = json.loads(served())
    return found


def wrong(found: Json) -> str | None:
    error = best_match(validator().iter_errors(found))
    return None if error is None else f"{error.json_path}: {error.message}"


def test_the_document_is_valid() -> None:
    assert wrong(document()) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("info"),
        lambda d: d.update(asyncapi="2.6.0"),
        lambda d: d["operations"]["send"].update(action="publish"),
        lambda d: d["operations"]["send"].update(security={"bearer": []}),
        lambda d: d["channels"]["avatar"].update(addresses="/v1"),
        lambda d: d["servers"]["visavis"].pop("host"),
        lambda d: d["components"]["securitySchemes"]["bearer"].pop("scheme"),
        lambda d: d["components"]["messages"]["MEDIA"].update(summary=3),
    ],
)
def test_the_schema_would_notice(spoil: Callable[[Json], object]) -> None:
    spoilt = copy.deepcopy(document())
    spoil(spoilt)
    assert wrong(spoilt) is not None


def test_every_message_schema_is_a_json_schema() -> None:
    for name, schema in document()["components"]["schemas"].items():
        Draft7Validator.check_schema(schema)
        assert schema["type"], name


def test_the_key_is_asked_for_where_one_connects_and_in_both_directions() -> None:
    found = document()
    bearer = "#/components/securitySchemes/bearer"
    guarded = [found["servers"]["visavis"], *found["operations"].values()]
    assert len(guarded) == 3
    assert all(part["security"] == [{"$ref": bearer}] for part in guarded)
    scheme = found["components"]["securitySchemes"]["bearer"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
