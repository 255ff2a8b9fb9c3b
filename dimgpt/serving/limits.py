"""Limits of a server: the Host names it answers to, and the size of a request."""

import ipaddress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4_000_000


def is_loopback(host: str) -> bool:
    """Return whether a server at this host can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str) -> list[str]:
    """Return the Host headers that a server at this host accepts.

    A loopback server accepts only its own names: a foreign page could point its domain at the
    loopback address (https://en.wikipedia.org/wiki/DNS_rebinding).
    """
    # "[" is all that remains of an IPv6 address: the middleware cuts a header at the first colon.
    return ["localhost", "127.0.0.1", "[", host] if is_loopback(host) else ["*"]


class BodyLimit:
    """Refuses bodies of more than `MAX_BODY_BYTES` as soon as that many bytes have arrived."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        num_bytes = 0

        async def limited() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, f"the request has more than {MAX_BODY_BYTES:,} bytes")
            return message

        await self._app(scope, limited, send)
