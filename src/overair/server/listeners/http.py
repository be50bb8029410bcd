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

KEEP_ALIVE_TIMEOUT_S: Final = 75
FIRST_REQUEST_TIMEOUT_S: Final = 30.0
"""From the handshake to the first whole request line and headers; the library has no such timer."""

Application = Callable[..., Any]

logger = structlog.get_logger("overair.listeners")


class HttpService:
    """One ASGI application for any number of connections."""

    def __init__(self, application: Application) -> None:
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
        return _TimedHttp(config=self._config, server_state=self._state, app_state=state, _loop=asyncio.get_running_loop())

    async def drain(self, timeout_s: float) -> None:
        """Let requests in flight end, close idle connections; return when none is left or the time is up."""
        for connection in list(self._state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._state.tasks:
                    await asyncio.wait(list(self._state.tasks))
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


class _TimedHttp(HttpToolsProtocol):
    """The library's protocol with a bound on how long a new connection may say nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._first = self.loop.call_later(FIRST_REQUEST_TIMEOUT_S, self._say_something, transport)

    def on_headers_complete(self) -> None:
        self._first.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._first.cancel()
        super().connection_lost(exc)

    @staticmethod
    def _say_something(transport: asyncio.Transport) -> None:
        transport.close()


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
        state = {"peer_der": None, "alpn": None, "secure": False}
        self._server = await asyncio.get_running_loop().create_server(
            lambda: self._service.protocol(dict(state)), sock=self._listening
        )

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()
