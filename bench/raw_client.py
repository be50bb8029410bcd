"""A signed HTTP client with as little in it as possible: what it measures should be the server.

Requests are signed before the clock starts; sixteen connections each carry one after another, and open anew where a server
closes after each answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import cast
from urllib.parse import urlsplit

from overair.wire.sigv4_claim import Scope, SignableRequest, format_timestamp
from overair.wire.sigv4_signing import SigningCredentials, sign_header

IN_FLIGHT = 16
RUN_TIMEOUT_S = 120
HEAD_SIZE_BYTES_MAX = 64 * 1024
_REOPENINGS_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, before it is signed."""

    service: str
    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    expect: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One request as it goes out, and what its answer must be."""

    head: bytes
    body: bytes
    expect: int


class RawClient:
    """``prepare`` signs, ``run`` sends."""

    def __init__(self, url: str, *, region: str, key_id: str, secret: str, ca_file: str | None, retries_max: int = 0) -> None:
        """``retries_max``: answers with a 5xx that are asked again over the client's life, and counted; for peers."""
        self.retries = 0
        self._retries_max = retries_max
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._region = region
        self._credentials = SigningCredentials(access_key_id=key_id, secret_access_key=secret)
        self._connections: list[_Connection] = []
        self._ready: list[Signed] = []
        self._numbers = 0

    async def open(self) -> None:
        self._connections = [_Connection(self._connect, self._may_retry) for _ in range(IN_FLIGHT)]
        await asyncio.gather(*(each.open() for each in self._connections))

    def _may_retry(self) -> bool:
        self.retries += 1
        return self.retries <= self._retries_max

    async def _connect(self, connection: _Connection) -> None:
        await asyncio.get_running_loop().create_connection(
            lambda: connection, self._host, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None
        )

    def close(self) -> None:
        for each in self._connections:
            each.close()
        self._connections.clear()

    def numbers_from(self, first: int) -> None:
        """Number calls from here on."""
        self._numbers = first

    def sign(self, call: Call) -> Signed:
        """Sign one call now."""
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
        head = b"".join([*lines, b"content-length: %d\r\n\r\n" % len(call.body)])
        return Signed(head=head, body=call.body, expect=call.expect)

    async def prepare(self, count: int, make: Callable[[int], Call]) -> None:
        """Sign the next ``count`` calls; ``make`` gets numbers that never come twice."""
        self._ready = [self.sign(make(self._numbers + number)) for number in range(count)]
        self._numbers += count

    async def run(self) -> int:
        """Send what is prepared over all connections; every answer must have the status that is expected.

        Raises:
            ConnectionError: another answer, or none.
        """
        requests = iter(self._ready)
        async with asyncio.timeout(RUN_TIMEOUT_S):
            await asyncio.gather(*(each.send_all(requests) for each in self._connections))
        return len(self._ready)


class _Connection(asyncio.Protocol):
    """One request after another; the next goes out when the whole answer is in."""

    def __init__(self, connect: Callable[[_Connection], object], may_retry: Callable[[], bool]) -> None:
        self._connect = connect
        self._may_retry = may_retry
        self._is_repeated = False
        self._transport: asyncio.Transport | None = None
        self._requests: Iterator[Signed] = iter(())
        self._current: Signed | None = None
        self._done: asyncio.Future[None] | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._reopenings = 0
        self._buffer = b""
        self._remaining: int | None = None
        """Of the body, once the head is in; -1: chunked, -2: until the end of the connection."""
        self._closes = False
        self._closed = False

    async def open(self) -> None:
        await self._connect(self)  # type: ignore[misc]

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def send_all(self, requests: Iterator[Signed]) -> asyncio.Future[None]:
        self._requests = requests
        self._done = asyncio.get_running_loop().create_future()
        self._next()
        return self._done

    def _next(self) -> None:
        self._current = next(self._requests, None)
        if self._current is None:
            assert self._done is not None
            if not self._done.done():
                self._done.set_result(None)
        elif self._transport is not None:
            self._write(self._current)
        else:
            self._reopen()

    def _reopen(self) -> None:
        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                self._fail(f"can't be opened again: {task.exception()}")

        self._reopening = asyncio.ensure_future(self.open())
        self._reopening.add_done_callback(done)

    def _write(self, request: Signed) -> None:
        assert self._transport is not None
        self._buffer, self._remaining, self._closes = b"", None, False
        self._transport.write(request.head)
        if request.body:
            self._transport.write(request.body)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._reopening = None
        if self._current is not None:
            self._write(self._current)

    def data_received(self, data: bytes) -> None:
        if self._remaining is None:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > HEAD_SIZE_BYTES_MAX:
                    self._fail("a head without an end")
                return
            if self._buffer.startswith(b"HTTP/1.1 100"):
                self._buffer, data = b"", self._buffer[end + 4 :]
                if data:
                    self.data_received(data)
                return
            head, data = self._buffer[:end], self._buffer[end + 4 :]
            status = int(head[9:12])
            self._is_repeated = status >= 500 and self._may_retry()
            if not self._is_repeated and status != (self._current.expect if self._current else 200):
                self._fail(f"{head[:300]!r} {data[:300]!r}")
                return
            lower = head.lower()
            self._remaining = _body_size_bytes(lower)
            self._closes = b"\nconnection: close" in lower or lower.startswith(b"http/1.0")
            self._buffer = b""
        if self._remaining >= 0:
            self._remaining -= len(data)
        elif self._remaining == -1:
            self._buffer = (self._buffer + data)[-7:]
        if self._remaining == 0 or (self._remaining == -1 and self._buffer.endswith(b"0\r\n\r\n")):
            self._answered()

    def _answered(self) -> None:
        self._reopenings = 0
        if self._closes and self._transport is not None:
            transport, self._transport = self._transport, None
            transport.abort()
        if self._is_repeated and self._current is not None:
            self._requests = chain([self._current], self._requests)
        self._current = None
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed or self._closes:
            return
        self._transport = None
        if self._remaining == -2:
            self._answered()
        elif self._current is not None:
            # Closed between two requests, as servers may: the one that had no answer goes out again.
            self._reopenings += 1
            if self._remaining is not None or self._reopenings > _REOPENINGS_MAX:
                self._fail(f"closed before the answer ({exc})")
                return
            self._reopen()

    def _fail(self, why: str) -> None:
        self.close()
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(why))


def _body_size_bytes(lower_head: bytes) -> int:
    at = lower_head.find(b"\ncontent-length:")
    if at >= 0:
        return int(lower_head[at + 16 :].partition(b"\r\n")[0])
    if b"transfer-encoding: chunked" in lower_head:
        return -1
    return -2
