"""What a server accepts at all: which names of itself, and how much at a time."""

import ipaddress

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 4_000_000


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a server that listens at this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def allowed_hosts(host: str) -> list[str]:
    """Return the names in a Host header that a server at this host answers to.

    On a loopback address only its own: a page from elsewhere could point a name of its own at it
    (https://en.wikipedia.org/wiki/DNS_rebinding).
    """
    # "[" begins an address of IPv6: the middleware cuts a header at its first colon.
    return ["localhost", "127.0.0.1", "[", host] if is_loopback(host) else ["*"]


class BodyLimit:
    """Refuse bodies of more than `MAX_BODY_BYTES` before they are read to their end."""

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
