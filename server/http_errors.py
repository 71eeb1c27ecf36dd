"""Every HTTP error in one shape, and the limits on request bodies."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visavis.server.errors import ErrorCode, ErrorType, ProtocolError

# Bodies that are no upload.
MAX_JSON_BYTES = 64 << 10
# Room for a form's other fields and the boundaries.
FORM_OVERHEAD_BYTES = 64 << 10
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    409: "conflict",
    413: str(ErrorCode.MESSAGE_TOO_LARGE),
    426: "upgrade_required",
}


_ERROR = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "enum": [str(kind) for kind in ErrorType]},
        "code": {"type": "string"},
        "message": {"type": "string", "minLength": 1},
        "param": {"type": ["string", "null"]},
        "retryable": {"type": "boolean"},
        "retry_after_s": {"type": ["number", "null"], "minimum": 0},
    },
    "required": ["type", "code", "message", "param", "retryable", "retry_after_s"],
    "additionalProperties": False,
}
# For the OpenAPI document: what any route may answer besides what it says itself.
REFUSALS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A refusal: why, and what to do about it",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"error": _ERROR},
                    "required": ["error"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


def error_body(
    kind: str,
    code: str,
    message: str,
    *,
    param: str | None = None,
    retryable: bool = False,
    retry_after_s: float | None = None,
) -> dict[str, object]:
    """The body of every refusal."""
    return {
        "error": {
            "type": kind,
            "code": code,
            "message": message,
            "param": param,
            "retryable": retryable,
            "retry_after_s": retry_after_s,
        }
    }


def protocol_error_response(error: ProtocolError) -> JSONResponse:
    """A refusal with its status and, where there is one, Retry-After."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.spec.http == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = error_body(
        error.spec.type,
        error.code,
        error.message,
        param=error.param,
        retryable=error.spec.retryable,
        retry_after_s=error.retry_after_s,
    )
    return JSONResponse(body, status_code=error.spec.http, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Give every refusal of `app` the same shape."""

    async def protocol_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ProtocolError)
        return protocol_error_response(error)

    async def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = error.status_code
        kind = ErrorType.NOT_FOUND if status == HTTPStatus.NOT_FOUND else ErrorType.INVALID_REQUEST
        body = error_body(kind, _CODES.get(status, "invalid_request"), str(error.detail))
        return JSONResponse(body, status_code=status, headers=error.headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        # The value is left out: it may be a secret in the wrong place.
        param = ".".join(str(part) for part in first["loc"][1:]) or None
        message = f"{param or 'the request'}: {first['msg']}"
        body = error_body(ErrorType.INVALID_REQUEST, "invalid_request", message, param=param)
        return JSONResponse(body, status_code=422)

    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        body = error_body(
            ErrorType.SERVER,
            ErrorCode.INTERNAL_ERROR,
            "the server failed; its log says why",
            retryable=True,
        )
        return JSONResponse(body, status_code=500)

    app.add_exception_handler(ProtocolError, protocol_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


class BodyLimit:
    """ASGI middleware: no more bytes of a body are taken than its path allows.

    limits: path -> bytes, for POST; MAX_JSON_BYTES for every other path. What a client claims
    beyond the limit is refused unread, what it sends beyond it is refused on the way.
    """

    def __init__(self, app: ASGIApp, limits: dict[str, int]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], MAX_JSON_BYTES)
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if claimed.isdigit() and int(claimed) > limit:
            response = JSONResponse(
                error_body(
                    ErrorType.INVALID_REQUEST, ErrorCode.MESSAGE_TOO_LARGE, _too_large(limit)
                ),
                status_code=413,
                headers={"Connection": "close"},
            )
            await response(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, _too_large(limit))
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> str:
    return f"the request has more than {limit:,} bytes; make it smaller and try again"
