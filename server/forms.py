"""Multipart forms with limits: one file, a few short fields, nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

MAX_FIELDS = 16
MAX_FIELD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Form:
    """A form's one file and its texts."""

    file: UploadFile
    fields: dict[str, str]

    def flag(self, name: str) -> bool | None:
        """A field that is true or false, None when it is not there. Raises HTTPException 422."""
        value = self.fields.get(name)
        if value is None:
            return None
        if value.lower() not in ("true", "false", "1", "0"):
            raise HTTPException(422, f"{name}: write true or false")
        return value.lower() in ("true", "1")

    def integer(self, name: str, default: int, largest: int) -> int:
        """A field that is a whole number from 0. Raises HTTPException 422."""
        value = self.fields.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= largest):
            raise HTTPException(422, f"{name}: write a whole number from 0 to {largest}")
        return int(value)


@asynccontextmanager
async def read_form(request: Request, file_field: str) -> AsyncIterator[Form]:
    """The form of a request. Raises HTTPException 400 or 422 for any other shape."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(422, f"send multipart/form-data with the file in {file_field!r}")
    async with request.form(
        max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
    ) as form:
        names = [name for name, _ in form.multi_items()]
        if len(set(names)) != len(names):
            raise HTTPException(422, "a field came twice; send each once")
        file = form.get(file_field)
        if not isinstance(file, UploadFile):
            raise HTTPException(422, f"{file_field}: a file is required")
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        yield Form(file, fields)


def form_schema(file_field: str, **fields: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of such a form."""
    properties = {file_field: {"type": "string", "format": "binary"}, **fields}
    required = [file_field, *(n for n, schema in fields.items() if schema.pop("required", False))]
    schema = {"type": "object", "properties": properties, "required": required}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }
