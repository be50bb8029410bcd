"""A WebSocket on an accepted HTTP connection, as an ordinary transport for whoever speaks above it.

The request is judged first, by somebody above; until he has, nothing is read from the peer and nothing of it is believed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog

from overair.wire.websocket import (
    BrokenFrame,
    Close,
    CloseCode,
    Data,
    FrameDecoder,
    HandshakeRefused,
    answer_handshake,
    close_payload,
    encode_close,
    encode_data,
    encode_pong,
)

logger = structlog.get_logger("overair.listeners")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """A GET that asks for a WebSocket, before anything about it is believed."""

    raw_path: bytes
    query_string: bytes
    headers: Sequence[tuple[bytes, bytes]]
    """Names in lower case."""
    source_ip: str
    secure: bool


class UpgradeRefused(Exception):
    """The request gets this status and message in place of a WebSocket."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


Judge = Callable[[UpgradeRequest], Awaitable[Mapping[str, Any]]]
"""What the application above may ask its transport for (``get_extra_info``). Raises ``UpgradeRefused``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSocketService:
    """One path that is a WebSocket."""

    path: bytes
    subprotocol: str
    judge: Judge
    application: Callable[[], asyncio.Protocol]


class WebSocketTransport(asyncio.Transport):
    """What the application above writes to: each write is one binary message."""

    __slots__ = ("_below", "_extra", "_is_closing")

    def __init__(self, below: asyncio.Transport, extra: Mapping[str, Any]) -> None:
        # The base class keeps a dictionary that nobody reads.
        self._below = below
        self._extra = extra
        self._is_closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra[name] if name in self._extra else self._below.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closing and data:
            self._below.write(encode_data(bytes(data)))

    def end(self, payload: bytes) -> None:
        """Say the end, and close once it has gone out."""
        if not self._is_closing:
            self._is_closing = True
            self._below.write(encode_close(payload))
            self._below.close()

    def close(self) -> None:
        self.end(close_payload(CloseCode.NORMAL))

    def abort(self) -> None:
        self._is_closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._is_closing or self._below.is_closing()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)


class WebSocketProtocol(asyncio.Protocol):
    """Takes a connection over from the HTTP protocol that has read the request."""

    def __init__(self, below: asyncio.Transport, service: WebSocketService, request: UpgradeRequest) -> None:
        self._below = below
        self._service = service
        self._decoder = FrameDecoder()
        self._transport: WebSocketTransport | None = None
        self._application: asyncio.Protocol | None = None
        self._is_slow = False
        # A peer speaks only once it was answered; what it says before waits in the socket.
        below.pause_reading()
        self._task = asyncio.get_running_loop().create_task(self._begin(request))

    async def _begin(self, request: UpgradeRequest) -> None:
        try:
            answer = answer_handshake(request.headers, protocol=self._service.subprotocol)
            extra = await self._service.judge(request)
        except HandshakeRefused as refusal:
            self._refuse(HTTPStatus.BAD_REQUEST, str(refusal))
            return
        except UpgradeRefused as refusal:
            self._refuse(refusal.status, str(refusal))
            return
        except Exception:
            logger.exception("a WebSocket's request could not be judged")
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The request could not be judged now. Send it again.")
            return
        if self._below.is_closing():
            return
        lines = [b"HTTP/1.1 101 Switching Protocols", *(name + b": " + value for name, value in answer), b"", b""]
        self._below.write(b"\r\n".join(lines))
        self._transport = WebSocketTransport(self._below, extra)
        self._application = self._service.application()
        self._application.connection_made(self._transport)
        self._below.resume_reading()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        body = json.dumps({"message": message}).encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        if not self._below.is_closing():
            self._below.write(head.encode("ascii") + body)
            self._below.close()

    # The transport below ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        transport, application = self._transport, self._application
        if transport is None or application is None:
            return
        try:
            for event in self._decoder.receive(data):
                if isinstance(event, Data):
                    application.data_received(event.payload)
                elif isinstance(event, Close):
                    transport.end(event.payload)
                elif not self._is_slow:
                    # Of a peer that pings and doesn't read, the last pong is enough (section 5.5.3).
                    self._below.write(encode_pong(event.payload))
                if transport.is_closing():
                    return
        except BrokenFrame as broken:
            logger.debug("broken WebSocket frame", error=str(broken))
            transport.end(close_payload(broken.code))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._is_slow = True
        if self._application is not None:
            self._application.pause_writing()

    def resume_writing(self) -> None:
        self._is_slow = False
        if self._application is not None:
            self._application.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        application, self._application, self._transport = self._application, None, None
        if application is not None:
            application.connection_lost(exc)
