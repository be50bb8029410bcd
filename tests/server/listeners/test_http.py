"""HTTP behind TLS and in the plain: who speaks by ALPN, bounds on heads, draining, paths of the device port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from overair.server.listeners import http as http_listener
from overair.server.listeners.acceptor import PortRefused, open_socket
from overair.server.listeners.demultiplexer import speak_by_alpn, speak_http
from overair.server.listeners.device_http import DevicePaths, Path
from overair.server.listeners.http import HttpService, JoinedWrites, PlainHttpListener
from tests.support.listening import (
    Echo,
    EventLoopThread,
    client_context,
    context_of,
    loop_thread,
    new_identity,
    tls_listener,
)

SERVER = new_identity("server")
DEVICE = new_identity("device")


async def read_body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what the application was told."""
    state = scope["state"]
    told = {
        "method": scope["method"],
        "scheme": scope["scheme"],
        "has_certificate": state.get("peer_der") == DEVICE.certificate_der,
        "alpn": state.get("alpn"),
        "body_size": len(await read_body(receive)),
    }
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def thread() -> Iterator[EventLoopThread]:
    with loop_thread() as running:
        yield running


@pytest.fixture
def service(thread: EventLoopThread) -> Iterator[HttpService]:
    made = HttpService(tell)
    thread.call(made.start)
    yield made
    thread.run(made.drain(1.0))


@pytest.fixture
def plain_port(thread: EventLoopThread, service: HttpService) -> Iterator[int]:
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), service)
    thread.run(listener.start())
    yield listener.port
    thread.call(listener.stop_accepting)


@pytest.mark.parametrize("alpn", [("http/1.1",), ("x-amzn-http-ca",), ()])
def test_http_is_spoken_unless_alpn_says_mqtt(
    thread: EventLoopThread, service: HttpService, tmp_path: Any, alpn: tuple[str, ...]
) -> None:
    with tls_listener(thread, context_of(SERVER), speak_by_alpn(Echo, service)) as listener:
        context = client_context(alpn=alpn, files=DEVICE.write(tmp_path))
        with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as raw, context.wrap_socket(raw) as client:
            client.sendall(b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\ndate: " in head
    assert json.loads(body) == {
        "method": "POST",
        "scheme": "https",
        "has_certificate": True,
        "alpn": alpn[0] if alpn else None,
        "body_size": 5,
    }


def test_mqtt_is_spoken_where_alpn_says_so(thread: EventLoopThread, service: HttpService) -> None:
    with tls_listener(thread, context_of(SERVER), speak_by_alpn(Echo, service)) as listener:
        context = client_context(alpn=("x-amzn-mqtt-ca",))
        with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as raw, context.wrap_socket(raw) as client:
            client.sendall(b"\x10\x00")
            assert client.recv(2) == b"\x10\x00"


def test_a_head_without_end_is_refused(plain_port: int) -> None:
    with socket.create_connection(("127.0.0.1", plain_port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        answer = b""
        try:
            for _ in range(40):
                client.sendall(b"y" * 16384)
            answer = client.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed while we were still sending: refused all the same
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")


def test_a_whole_head_that_is_too_large_is_refused_in_one_piece(plain_port: int) -> None:
    with socket.create_connection(("127.0.0.1", plain_port), timeout=10) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nhost: a\r\n" + b"".join(b"x%d: %s\r\n" % (i, b"y" * 1000) for i in range(70)) + b"\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_takes_too_long_ends_the_connection(
    thread: EventLoopThread, plain_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "HEAD_TIMEOUT_S", 0.1)
    for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /se"):
        with socket.create_connection(("127.0.0.1", plain_port), timeout=10) as client:
            client.sendall(begun)
            assert b"".join(iter(lambda peer=client: peer.recv(65536), b"")).count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


def test_nonsense_gets_400(plain_port: int) -> None:
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", plain_port), timeout=10) as client:
            client.sendall(noise)
            answer = client.recv(100)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 3\r\ncontent-length: 5\r\n",
        b"content-length : 3\r\n",
        b"content-length: +3\r\n",
        b"content-length: 3, 3\r\n",
        b"x: a\r\n content-length: 3\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"x: a\n",
    ],
)
def test_a_request_whose_end_two_readers_could_see_differently_is_refused_with_all_that_follows(
    plain_port: int, head: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", plain_port), timeout=10) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nhost: a\r\n" + head + b"\r\n0\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := peer.recv(65536):
                answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_request_in_work_is_finished_while_draining(thread: EventLoopThread) -> None:
    entered, go_on = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        import asyncio

        entered.set()
        await asyncio.get_running_loop().run_in_executor(None, go_on.wait)
        await tell(scope, receive, send)

    service = HttpService(slow)
    thread.call(service.start)
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), service)
    thread.run(listener.start())
    answers: list[int] = []
    client = threading.Thread(
        target=lambda: answers.append(urllib3.request("GET", f"http://127.0.0.1:{listener.port}/", retries=False).status)
    )
    client.start()
    assert entered.wait(10)
    thread.call(listener.stop_accepting)
    threading.Timer(0.05, go_on.set).start()
    thread.run(service.drain(5.0))
    client.join(10)
    assert answers == [200]


def test_a_request_that_never_becomes_whole_ends_as_if_its_client_had_left(thread: EventLoopThread) -> None:
    seen: list[str] = []
    waiting = threading.Event()

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        waiting.set()
        while (message := await receive()).get("more_body"):
            seen.append(message["type"])
        seen.append(message["type"])

    service = HttpService(whole)
    thread.call(service.start)
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), service)
    thread.run(listener.start())
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        assert waiting.wait(10)
        thread.call(listener.stop_accepting)
        thread.run(service.drain(0.05))
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert seen[-1] == "http.disconnect"


def test_a_taken_port_is_told_in_one_line() -> None:
    with open_socket("127.0.0.1", 0) as held, pytest.raises(PortRefused, match=r"can't be opened.*another port"):
        open_socket("127.0.0.1", held.getsockname()[1])


@pytest.mark.parametrize(
    ("prefix", "method", "path", "fits"),
    [
        ("/devices", "POST", "/devices", True),
        ("/devices", "POST", "/devices/a", True),
        ("/devices", "POST", "/devices-of-others/a", False),
        ("/repo/", "GET", "/repo/root.json", True),
        ("/repo/", "GET", "/repository/root.json", False),
        ("/repo/", "GET", "/repo", False),
        ("/repo/", "PATCH", "/repo/x", True),
        ("/repo/", "GET", "/repo/link", False),
    ],
)
def test_a_prefix_ends_with_a_segment_and_may_leave_requests_to_others(prefix: str, method: str, path: str, fits: bool) -> None:
    way = Path(prefix=prefix, application=tell, unless=lambda scope: bool(scope["path"].endswith("/link")))
    assert way.fits({"path": path, "method": method}) is fits


def test_paths_of_the_device_port(thread: EventLoopThread, tmp_path: Any) -> None:
    paths = DevicePaths(
        [
            Path(methods=frozenset({"POST"}), prefix="/topics/", application=tell),
            Path(methods=frozenset({"GET", "HEAD"}), prefix="/", application=tell, needs_certificate=False),
        ]
    )
    service = HttpService(paths)
    thread.call(service.start)
    with tls_listener(thread, context_of(SERVER), speak_by_alpn(Echo, service)) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        plain = urllib3.PoolManager(ssl_context=client_context(), assert_hostname=False)
        known = urllib3.PoolManager(ssl_context=client_context(files=DEVICE.write(tmp_path)), assert_hostname=False)
        assert plain.request("POST", url + "/topics/a", retries=False).status == 403
        assert known.request("POST", url + "/topics/a", retries=False).status == 200
        assert plain.request("GET", url + "/bucket/key", retries=False).status == 200
        missing = known.request("PUT", url + "/bucket/key", retries=False)
        assert (missing.status, "nothing for PUT" in missing.json()["message"]) == (404, True)
    thread.run(service.drain(1.0))


class Written(asyncio.Transport):
    """Notes what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[object] = []

    def write(self, data: Any) -> None:
        self.asked.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.asked.append([bytes(piece) for piece in list_of_data])

    def close(self) -> None:
        self.asked.append("close")

    def abort(self) -> None:
        self.asked.append("abort")


async def test_a_small_write_leaves_with_the_next_or_at_the_end_of_the_turn() -> None:
    below = Written()
    joined = JoinedWrites(below)
    joined.write(b"head ")
    assert below.asked == []
    joined.write(b"body")
    joined.write(b"")
    assert below.asked == [b"head body"]
    large = b"x" * 20_000
    joined.write(b"head ")
    joined.write(large)
    assert below.asked[1:] == [[b"head ", large]], "what is large isn't copied"
    joined.write(large)
    assert below.asked[2:] == [large]
    joined.write(b"alone")
    await asyncio.sleep(0)
    assert below.asked[3:] == [b"alone"]
    joined.write(b"goodbye")
    joined.close()
    assert below.asked[4:] == [b"goodbye", "close"]
    joined.write(b"lost")
    joined.abort()
    await asyncio.sleep(0)
    assert below.asked[6:] == ["abort"]


def test_an_answer_of_many_pieces_arrives_whole_behind_tls(thread: EventLoopThread) -> None:
    pieces = [b"a" * 10, b"b" * 5_000, b"", b"c" * 300_000, b"d"]

    async def in_pieces(scope: Any, receive: Any, send: Any) -> None:
        size = sum(map(len, pieces))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})

    made = HttpService(in_pieces)
    thread.call(made.start)
    head = b"GET /1 HTTP/1.1\r\nhost: a\r\n"
    with (
        tls_listener(thread, context_of(SERVER), speak_http(made)) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=10) as raw,
        client_context().wrap_socket(raw) as client,
    ):
        client.sendall(head + b"\r\n" + head + b"connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    thread.run(made.drain(1.0))
    _, *bodies = answer.split(b"HTTP/1.1 200 OK\r\n")
    assert [body.partition(b"\r\n\r\n")[2] for body in bodies] == [b"".join(pieces)] * 2
