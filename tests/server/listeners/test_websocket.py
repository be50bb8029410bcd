"""A WebSocket on a connection that HTTP has accepted: who gets one, what goes over it, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Any

import pytest

from overair.server.listeners.acceptor import open_socket
from overair.server.listeners.http import HttpService, PlainHttpListener
from overair.server.listeners.websocket import UpgradeRefused, UpgradeRequest, WebSocketService
from overair.wire.websocket import CloseCode, close_payload, encode_close, encode_data, encode_pong
from tests.wire.test_websocket import masked, ping

PATIENCE_S = 10
REQUEST = (
    b"GET /mqtt?who=me HTTP/1.1\r\nhost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


class EchoAbove(asyncio.Protocol):
    """Says back what it hears; the one that was made last is remembered."""

    last: EchoAbove

    def __init__(self) -> None:
        EchoAbove.last = self
        self.lost = asyncio.Event()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Judging:
    """Lets in whoever asks with ``who=me``, once it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[UpgradeRequest] = []

    async def judge(self, request: UpgradeRequest) -> Mapping[str, Any]:
        self.asked.append(request)
        await self.gate.wait()
        if request.query_string != b"who=me":
            raise UpgradeRefused(HTTPStatus.FORBIDDEN, "not you")
        return {"proof": "mine"}


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.fixture
def judging() -> Judging:
    return Judging()


@pytest.fixture
async def port(judging: Judging) -> AsyncIterator[int]:
    websocket = WebSocketService(path=b"/mqtt", subprotocol="mqtt", judge=judging.judge, application=EchoAbove)
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), HttpService(hello, websocket))
    await listener.start()
    yield listener.port
    listener.stop_accepting()


class Peer:
    """A raw client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def at(cls, port: int) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def exactly(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert await self.reader.readexactly(len(data)) == data

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


async def upgraded(port: int) -> Peer:
    peer = await Peer.at(port)
    peer.writer.write(REQUEST)
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    return peer


async def test_what_goes_over_a_websocket_goes_through_and_pings_are_answered(port: int, judging: Judging) -> None:
    peer = await upgraded(port)
    assert judging.asked[0].raw_path == b"/mqtt"
    assert EchoAbove.last.transport.get_extra_info("proof") == "mine"
    assert EchoAbove.last.transport.get_extra_info("peername")[0] == "127.0.0.1"
    large = bytes(range(256)) * 300
    peer.writer.write(masked(encode_data(b"one")) + ping(b"?") + masked(encode_data(b"two")))
    await peer.exactly(encode_data(b"one") + encode_pong(b"?") + encode_data(b"two"))
    peer.writer.write(masked(encode_data(large)))
    received = b""
    while len(received) < len(large):
        header = await peer.reader.readexactly(2)
        width = {126: 2, 127: 8}.get(header[1], 0)
        size = int.from_bytes(await peer.reader.readexactly(width), "big") if width else header[1]
        received += await peer.reader.readexactly(size)
    assert received == large
    peer.writer.write(masked(encode_close(close_payload(CloseCode.NORMAL))))
    assert await peer.rest() == encode_close(close_payload(CloseCode.NORMAL))
    await asyncio.wait_for(EchoAbove.last.lost.wait(), PATIENCE_S)


async def test_the_application_above_ends_it_with_a_close(port: int) -> None:
    peer = await upgraded(port)
    EchoAbove.last.transport.write(b"bye")
    EchoAbove.last.transport.close()
    EchoAbove.last.transport.write(b"nobody hears this")
    assert await peer.rest() == encode_data(b"bye") + encode_close(close_payload(CloseCode.NORMAL))


async def test_a_peer_that_breaks_the_protocol_is_told_so(port: int) -> None:
    for frame, code in ((encode_data(b"not masked"), 1002), (masked(b"\x81\x02hi"), 1003)):
        peer = await upgraded(port)
        peer.writer.write(frame)
        assert await peer.rest() == encode_close(code.to_bytes(2, "big"))


async def test_nothing_is_read_before_the_request_was_judged(port: int, judging: Judging) -> None:
    judging.gate.clear()
    peer = await Peer.at(port)
    peer.writer.write(REQUEST)
    await peer.writer.drain()
    while not judging.asked:
        await asyncio.sleep(0)
    # Too early, but in order: it waits in the socket.
    peer.writer.write(masked(encode_data(b"early")))
    judging.gate.set()
    assert (await peer.head()).startswith(b"HTTP/1.1 101 ")
    await peer.exactly(encode_data(b"early"))
    peer.writer.close()
    await asyncio.wait_for(EchoAbove.last.lost.wait(), PATIENCE_S)


@pytest.mark.parametrize(
    ("request_", "status", "asked"),
    [
        (REQUEST.replace(b"who=me", b"who=you"), b"403", 1),
        (REQUEST.replace(b"Protocol: mqtt", b"Protocol: chat"), b"400", 0),
        (REQUEST.replace(b"Version: 13", b"Version: 7"), b"400", 0),
        (REQUEST.replace(b"/mqtt", b"/other"), b"200", 0),
        (REQUEST.replace(b"GET", b"POST"), b"200", 0),
        (REQUEST.replace(b"Upgrade: WebSocket", b"Upgrade: h2c"), b"200", 0),
    ],
)
async def test_what_is_no_websocket_of_ours_gets_none(
    port: int, judging: Judging, request_: bytes, status: bytes, asked: int
) -> None:
    peer = await Peer.at(port)
    peer.writer.write(request_)
    assert (await peer.head()).split()[1] == status
    assert len(judging.asked) == asked


async def test_a_judge_that_fails_lets_nobody_in(judging: Judging) -> None:
    async def judge(_: UpgradeRequest) -> Mapping[str, Any]:
        raise RuntimeError("a mistake of ours")

    websocket = WebSocketService(path=b"/mqtt", subprotocol="mqtt", judge=judge, application=EchoAbove)
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), HttpService(hello, websocket))
    await listener.start()
    peer = await Peer.at(listener.port)
    peer.writer.write(REQUEST)
    assert (await peer.head()).startswith(b"HTTP/1.1 503 ")
    listener.stop_accepting()
