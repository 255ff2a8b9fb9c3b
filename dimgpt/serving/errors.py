"""Errors in the form of OpenAI's API."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from dimgpt.serving.engine_thread import BusyError

_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that reports an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": " ".join(message.split()),
            "type": kind,
            "param": param,
            "code": _CODES.get(status),
        }
    }


def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Return the answer to a request that failed."""
    status, message, param = 500, str(error), None
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        # The path begins with "body", and goes on into the alternatives of a type.
        param = ".".join(map(str, first["loc"][1:])) or None
        status, message = 400, f"{param or 'the body'}: {first['msg']}"
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    elif isinstance(error, BusyError):
        status = 429
    elif isinstance(error, ValueError):
        status = 400
    return JSONResponse(error_body(status, message, param), status_code=status)
