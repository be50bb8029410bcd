"""The device port's HTTP paths: which room answers, and whether a certificate is demanded before it is asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Application = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

_JSON: Final = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One way in."""

    prefix: str
    """With its slash: whatever lies below. Without one: this very path too (``/devices``, never ``/devices-of-others``)."""
    application: Application
    methods: frozenset[str] | None = None
    """None: whatever the method, the application answers."""
    needs_certificate: bool = True
    unless: Callable[[dict[str, Any]], bool] | None = None
    """Requests for which this holds are somebody else's, although their path fits."""

    def fits(self, scope: dict[str, Any]) -> bool:
        """Whether this way is the request's."""
        path: str = scope["path"]
        if not path.startswith(self.prefix):
            return False
        if self.prefix[-1] != "/" and path[len(self.prefix) : len(self.prefix) + 1] not in ("", "/"):
            return False
        return (self.methods is None or scope["method"] in self.methods) and (self.unless is None or not self.unless(scope))


class DevicePaths:
    """An ASGI application: the first path that fits answers; the order given is the order tried."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            return
        method = scope["method"]
        for each in self._paths:
            if each.fits(scope):
                if each.needs_certificate and scope["state"].get("peer_der") is None:
                    await _answer(send, method, 403, "This path needs a registered device certificate in the TLS handshake.")
                    return
                await each.application(scope, receive, send)
                return
        await _answer(send, method, 404, f"There is nothing for {method} at this path on the device port.")


async def _answer(send: Callable[[Any], Awaitable[None]], method: str, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    # The request's body wasn't read, and may be large: the connection ends with the answer.
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
