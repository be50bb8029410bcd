"""One loopback port for all tests of this process, with the door of the test that runs behind it: a server and its clients
take longer to make than most tests run."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

PATIENCE_S = 10.0


class SharedPort:
    """Serves in a thread of its own until the process ends."""

    def __init__(self) -> None:
        self._application: Any = None
        self._changed = threading.Condition()
        self._in_flight_count = 0
        # The protocol is named: asyncio turns off the delay of small packets only where it is.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(self._serve, interface="asgi3", log_level="error", lifespan="off", access_log=False)
        server = uvicorn.Server(config)
        threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True).start()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        application = self._application
        assert application is not None, "A request came after its test's end."
        self._count(1)
        try:
            await application(scope, receive, send)
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._changed:
            self._in_flight_count += step
            self._changed.notify_all()

    @contextmanager
    def leads_to(self, application: Any) -> Iterator[str]:
        """The port's URL; at the end every request that came has been answered."""
        assert self._application is None, "One door at a time."
        self._application = application
        try:
            yield self.url
        finally:
            self._application = None
            with self._changed:
                self._changed.wait_for(lambda: self._in_flight_count == 0, PATIENCE_S)


@functools.cache
def shared_port() -> SharedPort:
    return SharedPort()
