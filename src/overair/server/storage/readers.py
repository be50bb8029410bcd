"""Reader threads: each takes what waits, a few queries at a time, and answers them from one snapshot.

Handing a query to a thread and its answer back costs more than the query. Whoever was asked before a transaction began may be
answered from it, so what queued up meanwhile shares its begin, its end and the way back to the event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy.engine import Connection

from overair.basics.errors import OverairError
from overair.basics.work import Tx
from overair.server.storage.dialects import Engines, driver_of
from overair.server.storage.groups import groups
from overair.server.storage.transaction import SqlTx

GROUP_QUERIES_MAX: Final = 8
"""Few, since an answer waits for its whole group."""

logger = structlog.get_logger("overair.storage")


@dataclass(slots=True, eq=False)
class Asked:
    """A query that waits for its turn."""

    query: Callable[[Tx], Any]
    future: asyncio.Future[Any] | concurrent.futures.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Readers:
    """``count`` threads, each with a connection of its own, made at its first query and again after it was lost."""

    def __init__(self, engines: Engines, *, count: int) -> None:
        self._engines = engines
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"overair-reader-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, asked: Asked) -> None:
        """Put a query into the line; its future hears of the end. Not after ``close``."""
        self._queue.put(asked)

    def close(self) -> None:
        """Answer what was asked, then end the threads and their connections. Blocks."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        connection: Connection | None = None
        for group in groups(self._queue, size_max=GROUP_QUERIES_MAX):
            connection = self._answer(group, connection)
            _tell(group)
        if connection is not None:
            discard(connection)

    def _answer(self, group: Sequence[Asked], connection: Connection | None) -> Connection | None:
        """Give each of a group its result or error. Returns a connection that is fit for the next group, or None."""
        begun = False
        for asked in group:
            if asked.future.cancelled():
                continue
            try:
                if connection is None:
                    connection = self._engines.reader.connect()
                if not begun:
                    driver_of(connection).execute(self._engines.begin_read)
                    begun = True
            except Exception as error:
                asked.error = self._engines.refusal(error)
                if connection is not None:
                    discard(connection)
                connection, begun = None, False
                continue
            try:
                asked.result = _run(asked.query, connection)
            except BaseException as error:
                asked.error = error if isinstance(error, OverairError) else self._refusal(error)
                # The next one of the group gets a transaction that nothing has failed in.
                connection, begun = _end(connection), False
        return _end(connection) if begun and connection is not None else connection

    def _refusal(self, error: BaseException) -> BaseException:
        if not isinstance(error, Exception):
            return error
        refusal = self._engines.refusal(error)
        if refusal is not error:
            refusal.__cause__ = error
        return refusal


def _run(query: Callable[[Tx], Any], connection: Connection) -> Any:
    result = query(SqlTx(connection, driver_of(connection), writable=False))
    if inspect.iscoroutine(result):
        result.close()
        raise RuntimeError("A query is a plain function: nothing awaits inside a transaction.")
    return result


def _end(connection: Connection) -> Connection | None:
    """End the transaction; None where the connection was lost meanwhile."""
    try:
        driver_of(connection).execute("ROLLBACK")
    except Exception:
        logger.warning("a reader's connection was lost", exc_info=True)
        discard(connection)
        return None
    return connection


def discard(connection: Connection) -> None:
    """Close a connection, whatever state it is in."""
    try:
        connection.invalidate()
        connection.close()
    except Exception:
        logger.warning("a broken connection didn't close cleanly", exc_info=True)


def _tell(group: Sequence[Asked]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Asked]] = {}
    for asked in group:
        if isinstance(asked.future, concurrent.futures.Future):
            resolve(asked.future, asked.result, asked.error)
        else:
            by_loop.setdefault(asked.future.get_loop(), []).append(asked)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, waiting)
        except RuntimeError:
            # The loop was closed while its queries were in flight: nobody is left to be told.
            logger.debug("queries were answered for a loop that has ended", queries=len(waiting))


def _resolve_all(group: Sequence[Asked]) -> None:
    for asked in group:
        resolve(asked.future, asked.result, asked.error)


def resolve(future: asyncio.Future[Any] | concurrent.futures.Future[Any], result: object, error: BaseException | None) -> None:
    """Tell whoever waits, unless they have given up."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
        return
    # A StopIteration can't be carried by a future.
    future.set_exception(RuntimeError("A unit of work let a StopIteration out.") if isinstance(error, StopIteration) else error)
