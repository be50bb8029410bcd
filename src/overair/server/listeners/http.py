"""HTTP on an accepted connection: uvicorn's protocol, built for each connection by us (docs/adr/0003)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from overair.server.listeners.websocket import UpgradeRequest, WebSocketProtocol, WebSocketService

KEEP_ALIVE_TIMEOUT_S: Final = 75
HEAD_TIMEOUT_S: Final = 30.0
"""From the handshake, or from the first byte of a later request, to the end of its headers; the library has no such timer."""
LEAVING_TIMEOUT_S: Final = 0.5
"""At the stop, for requests whose client was cut off to end by themselves."""
HEAD_SIZE_BYTES_MAX: Final = 64 * 1024
"""Request line and headers together; the library has no such bound. At most one more read of the socket is held beyond it."""
HELD_SIZE_BYTES_MAX: Final = 4096
"""A write up to this size waits for the next one of the same turn of the loop: an answer's head leaves with its body."""
RECORD_SIZE_BYTES: Final = 16 * 1024
"""Of TLS: what fits is copied together, what doesn't isn't copied."""
HEAD_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Application = Callable[..., Any]

logger = structlog.get_logger("overair.listeners")


class HttpService:
    """One ASGI application for any number of connections, and perhaps one path that is a WebSocket."""

    def __init__(
        self,
        application: Application,
        websocket: WebSocketService | None = None,
        *,
        head_too_large: bytes = HEAD_TOO_LARGE,
    ) -> None:
        """``head_too_large``: the whole answer to a request with a head beyond the bound; the connection ends after it."""
        self._websocket = websocket
        self._head_too_large = head_too_large
        self._config = Config(
            application,
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
        )
        self._config.load()
        self._state = ServerState()
        self._dates: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep the Date header. On the event loop."""
        self._dates = asyncio.create_task(self._keep_date())

    def protocol(self, state: dict[str, Any]) -> _TimedHttp:
        """A protocol for one connection; ``state`` becomes the ASGI scope's ``state``."""
        protocol = _TimedHttp(config=self._config, server_state=self._state, app_state=state, _loop=asyncio.get_running_loop())
        protocol.websocket = self._websocket
        protocol.head_too_large = self._head_too_large
        return protocol

    async def drain(self, timeout_s: float) -> None:
        """Let requests in flight end, close idle connections; return when none is left or the time is up."""
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._state.tasks:
                    await asyncio.wait(list(self._state.tasks))
                    await asyncio.sleep(0)  # a task leaves the set in a turn of its own
        # A client that keeps its request open has gone, as the request sees it: it ends as for any client that leaves.
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=LEAVING_TIMEOUT_S)
        for task in list(self._state.tasks):
            task.cancel()
        if self._dates is not None:
            self._dates.cancel()
            await asyncio.gather(self._dates, return_exceptions=True)

    async def _keep_date(self) -> None:
        from email.utils import formatdate

        while True:
            self._state.default_headers = [(b"date", formatdate(usegmt=True).encode("ascii"))]
            await asyncio.sleep(1)


class JoinedWrites(asyncio.Transport):
    """A transport whose small writes leave together with what follows at once.

    The library writes an answer's head, then its body: two records, two calls to the system and two packets where one of each
    does. What nothing follows leaves at the end of the turn.
    """

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        # The base class keeps a dictionary that nobody reads.
        self._transport = transport
        self._held = b""

    @property
    def below(self) -> asyncio.Transport:
        """For another protocol, which joins its writes itself."""
        return self._transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held:
            held, self._held = self._held, b""
            if len(held) + len(data) <= RECORD_SIZE_BYTES:
                self._transport.write(held + data)
            else:
                self._transport.writelines((held, data))
        elif len(data) > HELD_SIZE_BYTES_MAX:
            self._transport.write(data)
        elif data:
            self._held = bytes(data)
            asyncio.get_running_loop().call_soon(self._let_go)

    def _let_go(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        self._let_go()
        self._transport.close()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


class _TimedHttp(HttpToolsProtocol):
    """The library's protocol with bounds on a request's head: how large it is, and how long it takes."""

    websocket: WebSocketService | None = None
    head_too_large: bytes = HEAD_TOO_LARGE
    _head_timer: asyncio.TimerHandle | None = None
    _head_is_whole = True
    _head_size_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport))
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_is_whole:
            return
        self._head_size_bytes += len(data)
        if self._head_size_bytes > HEAD_SIZE_BYTES_MAX:
            self._refuse_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._head_is_whole = False
        self._head_size_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_is_whole = True
        self._stop_head_timer()
        if len(self.url) + sum([len(name) + len(value) for name, value in self.headers]) > HEAD_SIZE_BYTES_MAX:
            self._refuse_head()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:  # a head that was refused has none
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.cycle is not None:
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        service = self.websocket
        if service is None or self._get_upgrade() != b"websocket" or self.parser.get_method() != b"GET":
            return False
        # Not while an earlier request of the same connection is still being answered.
        is_free = self.cycle is None or self.cycle.response_complete
        return is_free and self.url.partition(b"?")[0] == service.path

    def handle_websocket_upgrade(self) -> None:
        assert self.websocket is not None
        assert isinstance(self.transport, JoinedWrites)
        self.connections.discard(self)
        raw_path, _, query_string = self.url.partition(b"?")
        request = UpgradeRequest(
            raw_path=raw_path,
            query_string=query_string,
            headers=tuple(self.headers),
            source_ip=self.client[0] if self.client else "",
            secure=bool(self.app_state.get("secure")),
        )
        below = self.transport.below
        below.set_protocol(WebSocketProtocol(below, self.websocket, request))

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.head_too_large)
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class PlainHttpListener:
    """The operator port without TLS: for test suites, on loopback alone."""

    def __init__(self, listening: socket.socket, service: HttpService) -> None:
        self._listening = listening
        self._service = service
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    async def start(self) -> None:
        state = {"peer_der": None, "peer_chain_der": (), "alpn": None, "server_name": "", "secure": False}
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._service.protocol(dict(state)), sock=self._listening
        )

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
