"""One accept loop for a port: handshakes bounded in number and in rate."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from OpenSSL import SSL

from overair.basics.errors import OverairError
from overair.server.listeners.tls import TlsProtocol, TlsTransport

HANDSHAKES_AT_ONCE_MAX: Final = 256
HANDSHAKES_PER_S_MAX: Final = 2000
HANDSHAKE_PATIENCE_S: Final = 2.0
"""While every place is taken, a handshake that has lasted so long makes room: whoever says nothing keeps nobody else out."""
BACKLOG: Final = 1024
_NO_ROOM_PAUSE_S: Final = 0.1

logger = structlog.get_logger("overair.listeners")

Accept = Callable[[TlsTransport], asyncio.Protocol]


class PortRefused(OverairError):
    """A port can't be listened on. The message is the one line that an operator sees."""


def open_socket(address: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        PortRefused: taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise PortRefused(
            f"Port {port} on {address} can't be opened: {error.strerror}. "
            "Stop what holds it, or name another port (0: a free one)."
        ) from error
    return listening


def port_of(listening: socket.socket) -> int:
    """The port that a socket really has."""
    return int(listening.getsockname()[1])


class TlsListener:
    """Accepts on one socket and puts TLS on each connection.

    ``context`` is read for each connection: setting it changes the certificate for those that come after.
    """

    def __init__(self, listening: socket.socket, context: SSL.Context, accept: Accept) -> None:
        self.context = context
        self._listening = listening
        self._accept = accept
        self._slots = asyncio.Semaphore(HANDSHAKES_AT_ONCE_MAX)
        self._connections: set[TlsProtocol] = set()
        self._shaking: dict[int, tuple[float, TlsProtocol]] = {}  # in the order of their beginning
        self._number = 0
        self._task: asyncio.Task[None] | None = None
        self._taking_over: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return port_of(self._listening)

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept. On the event loop."""
        self._task = asyncio.create_task(self._accept_all(), name=f"accept on {self.port}")

    async def stop_accepting(self) -> None:
        """Close the port; connections go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._listening.close()

    async def close(self) -> None:
        """Drop every connection that is still there."""
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*self._taking_over, return_exceptions=True)

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        interval_s = 1 / HANDSHAKES_PER_S_MAX
        allowed_at = loop.time()
        while True:
            await self._take_slot()
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except asyncio.CancelledError:
                self._slots.release()
                raise
            except OSError as error:
                # Out of descriptors or memory: those who are here go on, and the next try comes when some have left.
                self._slots.release()
                logger.warning("accepting failed", port=self.port, error=str(error))
                await asyncio.sleep(_NO_ROOM_PAUSE_S)
                continue
            now = loop.time()
            # A burst of what a second allows is let through; a storm waits in the backlog.
            allowed_at = max(allowed_at, now - 1) + interval_s
            task = loop.create_task(self._take_over(accepted))
            self._taking_over.add(task)
            task.add_done_callback(self._taking_over.discard)
            if allowed_at > now:
                await asyncio.sleep(allowed_at - now)

    async def _take_slot(self) -> None:
        loop = asyncio.get_running_loop()
        while self._slots.locked() and self._shaking:
            number, (begun_s, oldest) = next(iter(self._shaking.items()))
            try:
                async with asyncio.timeout_at(begun_s + HANDSHAKE_PATIENCE_S):
                    await self._slots.acquire()
                    return
            except TimeoutError:
                # Also where it has just ended: then there is nothing to abort, and a place is free.
                if self._shaking.pop(number, None) is not None:
                    logger.debug("a slow handshake made room", port=self.port, lasted_s=loop.time() - begun_s)
                    oldest.abort()
        await self._slots.acquire()

    def _shaken(self, number: int) -> None:
        self._shaking.pop(number, None)
        self._slots.release()

    async def _take_over(self, accepted: socket.socket) -> None:
        self._number += 1
        number = self._number
        protocol = TlsProtocol(
            self.context, self._accept, shaken=partial(self._shaken, number), ended=self._connections.discard
        )
        self._shaking[number] = (asyncio.get_running_loop().time(), protocol)
        self._connections.add(protocol)
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
        except OSError as error:
            # The peer was gone before we looked.
            logger.debug("a peer left at once", error=str(error))
            accepted.close()
            if protocol in self._connections:
                self._connections.discard(protocol)
                self._shaken(number)
