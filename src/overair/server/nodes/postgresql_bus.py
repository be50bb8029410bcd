"""The bus by PostgreSQL's LISTEN and NOTIFY: one connection of its own for each node, for hearing and for being alive.

NOTIFY belongs to the transaction that it is told in: it is heard after the commit, by all in the order of commits, and never if
the transaction fails. Telling therefore goes over the writer's connection, and costs no commit of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import structlog

from overair.basics.work import News
from overair.server.nodes.ports import Hear
from overair.server.storage.dialects import StorageRefused

CHANNEL: Final = "overair"
PAYLOAD_SIZE_BYTES_MAX: Final = 7_900
"""PostgreSQL takes less than 8,000."""
LOOKED_AFTER_S: Final = 0.3
"""How long the connection may say nothing before it is asked whether it still stands."""
TRIED_AGAIN_AFTER_S: Final = 0.2
DEAD_PEER_TIMEOUT_MS: Final = 900

logger = structlog.get_logger("overair.nodes")


class PostgresqlBus:
    """Opened by its making, which blocks; then ``listen``, once. Losing its connection says so, and begins again."""

    def __init__(self, url: str, *, name: str, lock_key: int) -> None:
        """
        Raises:
            StorageRefused: PostgreSQL can't be reached.
        """
        import psycopg

        self._psycopg = psycopg
        self._url = url
        self._name = name
        self._lock_key = lock_key
        self._sequence = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._connection = self._connect()
        except psycopg.Error as error:
            raise StorageRefused(f"PostgreSQL can't be reached: {' '.join(str(error).split())}") from error

    def announce(self, driver: Any, news: Sequence[News]) -> None:
        """See ``ports.Bus``. Called on the writer thread."""
        for payload in self._payloads(news):
            driver.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def listen(self, hear: Hear, missed: Callable[[], None]) -> None:
        """See ``ports.Bus``."""
        loop = asyncio.get_running_loop()

        def told(payloads: Sequence[str]) -> None:
            for payload in payloads:
                for teller, news in _read(payload):
                    hear(teller, news)

        def on_loop(action: Callable[..., None], *arguments: object) -> None:
            if not self._closing.is_set():
                loop.call_soon_threadsafe(action, *arguments)

        self._thread = threading.Thread(target=self._run, args=(on_loop, told, missed), name="overair-bus", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See ``ports.Bus``. The others see at once that this node is gone."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        self._connection.close()

    def _payloads(self, news: Sequence[News]) -> Iterator[str]:
        """As few as hold it all. A piece that no payload holds is told without its parts."""
        pieces: list[bytes] = []
        size_bytes = 0
        for each in dict.fromkeys(news):
            piece = msgspec.json.encode((each.kind, *each.parts))
            if len(piece) > PAYLOAD_SIZE_BYTES_MAX - 200:
                piece = msgspec.json.encode((each.kind,))
            if size_bytes + len(piece) > PAYLOAD_SIZE_BYTES_MAX - 200:
                yield self._payload(pieces)
                pieces, size_bytes = [], 0
            pieces.append(piece)
            size_bytes += len(piece) + 1
        yield self._payload(pieces)

    def _payload(self, pieces: Sequence[bytes]) -> str:
        # Two equal payloads of one transaction would be heard once; a number makes each its own.
        self._sequence += 1
        return f'["{self._name}",{self._sequence},[{b",".join(pieces).decode()}]]'

    # The thread -----------------------------------------------------------------------------------------------------------

    def _run(self, on_loop: Callable[..., None], told: Callable[[Sequence[str]], None], missed: Callable[[], None]) -> None:
        # Whatever was said before we listened, nobody here has heard.
        on_loop(missed)
        while not self._closing.is_set():
            try:
                self._hear(on_loop, told)
            except Exception as error:
                logger.warning("the bus was lost", error=" ".join(str(error).split()))
                self._connection.close()
                if self._again(on_loop, missed):
                    on_loop(missed)

    def _hear(self, on_loop: Callable[..., None], told: Callable[[Sequence[str]], None]) -> None:
        while not self._closing.is_set():
            payloads = [notify.payload for notify in self._connection.notifies(timeout=LOOKED_AFTER_S, stop_after=1)]
            if payloads:
                on_loop(told, payloads)
            else:
                self._connection.execute("SELECT 1")

    def _again(self, on_loop: Callable[..., None], missed: Callable[[], None]) -> bool:
        while not self._closing.is_set():
            on_loop(missed)
            try:
                self._connection = self._connect()
            except Exception as error:
                logger.debug("the bus is still away", error=str(error))
                self._closing.wait(TRIED_AGAIN_AFTER_S)
                continue
            logger.info("the bus is back")
            return True
        return False

    def _connect(self) -> Any:
        connection = self._psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=2,
            keepalives_idle=1,
            keepalives_interval=1,
            keepalives_count=2,
            tcp_user_timeout=DEAD_PEER_TIMEOUT_MS,
        )
        try:
            connection.execute(f"LISTEN {CHANNEL}")
            connection.execute("SELECT pg_advisory_lock(%s)", (self._lock_key,))
        except BaseException:
            connection.close()
            raise
        return connection


def _read(payload: str) -> list[tuple[str, News]]:
    try:
        teller, _, pieces = msgspec.json.decode(payload, type=tuple[str, int, list[tuple[str, ...]]])
    except (msgspec.DecodeError, UnicodeError):
        logger.warning("something on the bus isn't ours", size_bytes=len(payload))
        return []
    return [(teller, News(piece[0], tuple(piece[1:]))) for piece in pieces if piece]
