"""A signed HTTP client with as little in it as possible: what it measures should be the server."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from overair.wire.sigv4_claim import Scope, SignableRequest, format_timestamp
from overair.wire.sigv4_signing import SigningCredentials, sign_header

IN_FLIGHT = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, before it is signed."""

    service: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class RawClient:
    """Sixteen connections that each carry one request after another."""

    def __init__(self, url: str, *, region: str, key_id: str, secret: str, ca_file: str | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._region = region
        self._credentials = SigningCredentials(access_key_id=key_id, secret_access_key=secret)
        self._connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self) -> None:
        for _ in range(IN_FLIGHT):
            reader, writer = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None, limit=4 * 1024 * 1024
            )
            self._connections.append((reader, writer))

    async def close(self) -> None:
        for _, writer in self._connections:
            writer.close()
        self._connections.clear()

    def signed(self, call: Call) -> bytes:
        """The request as bytes."""
        timestamp = format_timestamp(datetime.now(UTC))
        payload = hashlib.sha256(call.body).hexdigest()
        headers: list[tuple[bytes, bytes]] = [(b"host", f"{self._host}:{self._port}".encode())]
        headers += [(name.encode(), value.encode()) for name, value in call.headers]
        if call.service == "s3":
            headers.append((b"x-amz-content-sha256", payload.encode()))
        request = SignableRequest(method=call.method, path=call.path.encode(), query=call.query.encode(), headers=headers)
        scope = Scope(date=timestamp[:8], region=self._region, service=call.service)
        headers += sign_header(
            request,
            self._credentials,
            scope=scope,
            timestamp=timestamp,
            payload=payload,
            normalise=call.service != "s3",
        )
        target = call.path + (f"?{call.query}" if call.query else "")
        lines = [f"{call.method} {target} HTTP/1.1\r\n".encode(), *(b"%s: %s\r\n" % pair for pair in headers)]
        return b"".join([*lines, b"content-length: %d\r\n\r\n" % len(call.body), call.body])

    async def run(self, calls: int, make: Callable[[int], Call], *, expect: int = 200) -> int:
        """Send ``calls`` requests over all connections; every answer must have the status that is expected."""
        numbers = iter(range(calls))

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for number in numbers:
                writer.write(self.signed(make(number)))
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head[9:12])
                length = _content_length(head)
                body = await reader.readexactly(length) if length is not None else await _chunks(reader)
                if status != expect:
                    raise RuntimeError(f"{status}: {body[:300]!r}")

        await asyncio.gather(*(one(*connection) for connection in self._connections))
        return calls


def _content_length(head: bytes) -> int | None:
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at < 0:
        return None if b"transfer-encoding: chunked" in lower else 0
    return int(lower[at + 15 : lower.index(b"\r\n", at)])


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)
