"""JSON responses, and errors in the format of OpenAI's API."""

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from dimgpt.serving.engine_thread import BusyError

_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the JSON body of an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": " ".join(message.split()),
            "type": kind,
            "param": param,
            "code": _CODES.get(status),
        }
    }


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """Return JSON in ASCII, because UTF-8 cannot encode the lone surrogates of a client's text."""
    return Response(json.dumps(body), status, media_type="application/json")


def answer_error(_: Request, error: Exception) -> Response:
    """Return the response to a request that failed with this error."""
    status, message, param = 500, str(error), None
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        # The first element of the path is "body".
        param = ".".join(map(str, first["loc"][1:])) or None
        status, message = 400, f"{param or 'the body'}: {first['msg']}"
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    elif isinstance(error, BusyError):
        status = 429
    elif isinstance(error, ValueError):
        status = 400
    return json_response(error_body(status, message, param), status)
