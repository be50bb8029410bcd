"""What differs between SQLite and PostgreSQL below the units of work."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from overair.basics.errors import InvalidRequest, OverairError, Unavailable

BUSY_TIMEOUT_MS: Final = 10_000
WRITER_TURN_TIMEOUT_S: Final = 15
"""How long the writer of one node waits for the others' before its callers are told to ask again."""
WRITER_IDLE_TIMEOUT_S: Final = 20
"""A node that stops in the middle of a transaction loses it after this time, and its turn."""
WRITERS_LOCK: Final = 0x6F766572
"""The advisory lock that writers of one database take in turn: "over" in ASCII."""
SQLITE_CACHE_KIB: Final = 16 * 1024
SQLITE_LOG_SIZE_BYTES: Final = 64 * 1024 * 1024


class StorageRefused(OverairError):
    """The records can't be opened. The message is the one line that an operator sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Where connections come from, and the words of their dialect."""

    writer: Engine
    reader: Engine
    begin_write: str
    begin_read: str
    integrity_error: type[Exception]
    in_transaction: Callable[[Any], bool]
    refusal: Callable[[BaseException], BaseException]
    """What a caller is told for a driver's error: ``Unavailable`` where the asker can't help it, ``InvalidRequest`` where a
    value from outside is one that no column takes, else the error itself."""
    scrub: Callable[[Sequence[str]], None]
    """See ``SqlWork.scrub``."""

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


def driver_of(connection: Connection) -> Any:
    """The driver's own connection. Transactions are begun and ended on it, not by SQLAlchemy, whose view is one endless
    transaction."""
    return connection.connection.driver_connection


# SQLite ---------------------------------------------------------------------------------------------------------------

# Result codes by which SQLite says that the disk, not the statement, is at fault.
_SQLITE_REASONS: Final = {
    sqlite3.SQLITE_FULL: "The disk that holds the records is full: nothing was written. Free some space and ask again.",
    sqlite3.SQLITE_IOERR: "The disk that holds the records fails: nothing was written. See the server's log.",
    sqlite3.SQLITE_READONLY: "The records can't be written: their folder or disk is read-only.",
    sqlite3.SQLITE_CANTOPEN: "The records can't be opened: too many open files, or their folder is gone.",
    sqlite3.SQLITE_BUSY: "Another process holds the records. Ask again.",
}


def open_sqlite_engines(path: Path | str) -> Engines:
    """Write-ahead log, ``synchronous=FULL``: a commit that was acknowledged outlives a loss of power.

    Raises:
        StorageRefused: the file can't be made or opened, or isn't a database.
    """
    path = Path(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageRefused(f"The records file {path} can't be opened: {error.strerror}.") from error
    url = f"sqlite:///{path}"
    arguments = {"check_same_thread": False, "isolation_level": None, "timeout": BUSY_TIMEOUT_MS / 1000}
    writer = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    reader = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)

    @event.listens_for(writer, "connect")
    def _writer_opened(driver: Any, _record: Any) -> None:
        driver.execute("PRAGMA journal_mode=WAL")
        driver.execute("PRAGMA synchronous=FULL")
        driver.execute("PRAGMA foreign_keys=ON")
        # A long read lets the log grow; afterwards it gives the room back.
        driver.execute(f"PRAGMA journal_size_limit={SQLITE_LOG_SIZE_BYTES}")
        driver.execute(f"PRAGMA cache_size=-{SQLITE_CACHE_KIB}")

    @event.listens_for(reader, "connect")
    def _reader_opened(driver: Any, _record: Any) -> None:
        driver.execute("PRAGMA query_only=ON")
        driver.execute(f"PRAGMA cache_size=-{SQLITE_CACHE_KIB // 4}")

    try:
        writer.connect().close()
    except DBAPIError as error:
        raise StorageRefused(f"The records file {path} isn't an Overair database: {error.orig}.") from error
    return Engines(
        writer=writer,
        reader=reader,
        begin_write="BEGIN IMMEDIATE",
        begin_read="BEGIN",
        integrity_error=sqlite3.IntegrityError,
        in_transaction=lambda driver: bool(driver.in_transaction),
        refusal=_sqlite_refusal,
        scrub=lambda _tables: _empty_sqlite_log(writer),
    )


def _empty_sqlite_log(writer: Engine) -> None:
    """Move the whole log into the database and cut it to nothing."""
    with writer.connect() as connection:
        busy, _, _ = driver_of(connection).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise Unavailable(
            f"A read that lasts over {BUSY_TIMEOUT_MS // 1000} s keeps the database's log, which may still hold what was "
            "deleted. Nothing else is missing: ask again.",
            subject="storage",
        )


def _sqlite_refusal(error: BaseException) -> BaseException:
    cause = _driver_error(error)
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if isinstance(cause, sqlite3.OperationalError) and code in _SQLITE_REASONS:
        return Unavailable(_SQLITE_REASONS[code], subject="storage")
    return _value_refused() if isinstance(cause, _NO_COLUMN_TAKES) else error


# PostgreSQL -----------------------------------------------------------------------------------------------------------


def open_postgresql_engines(url: str) -> Engines:
    """Connections through psycopg 3.

    Raises:
        StorageRefused: the URL can't be read, the driver isn't installed, the server can't be reached, or the database sorts
            text by a language's rules instead of by code point (lists would come in another order than their pages).
    """
    try:
        import psycopg
    except ImportError as error:
        raise StorageRefused("Records in PostgreSQL need its driver: install overair[server,postgres].") from error
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as error:
        raise StorageRefused("The database URL can't be read. It reads postgresql://USER:PASSWORD@HOST:PORT/NAME.") from error
    arguments = {"autocommit": True, "connect_timeout": 10}
    engine = create_engine(parsed, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    turns = f"-c lock_timeout={WRITER_TURN_TIMEOUT_S}s -c idle_in_transaction_session_timeout={WRITER_IDLE_TIMEOUT_S}s"
    writer = create_engine(parsed, poolclass=NullPool, connect_args={**arguments, "options": turns}, hide_parameters=True)
    try:
        with engine.connect() as connection:
            collation = str(
                driver_of(connection)
                .execute("SELECT datcollate FROM pg_database WHERE datname = current_database()")
                .fetchone()[0]
            )
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise StorageRefused(f"PostgreSQL can't be reached: {reason}") from error
    if collation.split(".")[0] not in ("C", "POSIX"):
        raise StorageRefused(
            f"The database sorts text by {collation}; Overair needs code-point order. "
            "Make it with: CREATE DATABASE … TEMPLATE template0 LC_COLLATE 'C' ENCODING 'UTF8'."
        )

    def refusal(error: BaseException) -> BaseException:
        cause = _driver_error(error)
        if isinstance(cause, psycopg.errors.DiskFull):
            return Unavailable(
                "The disk that holds the records is full: nothing was written. Free some space and ask again.",
                subject="storage",
            )
        if isinstance(cause, (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)):
            return Unavailable("Another node wrote the same records at the same time. Ask again.", subject="storage")
        if isinstance(cause, psycopg.errors.LockNotAvailable):
            return Unavailable(
                f"Another node has kept the records to itself for {WRITER_TURN_TIMEOUT_S} s. Ask again.", subject="storage"
            )
        if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
            return Unavailable("The database that holds the records can't be reached. Ask again.", subject="storage")
        return _value_refused() if isinstance(cause, (psycopg.DataError, *_NO_COLUMN_TAKES)) else error

    def write_anew(tables: Sequence[str]) -> None:
        with engine.connect() as connection:
            for table in tables:
                driver_of(connection).execute(f'VACUUM (FULL) "{table}"')

    return Engines(
        writer=writer,
        reader=engine,
        # One writer at a time, whichever node it is of (ADR 0017): what one thread's order promised holds for several too.
        begin_write=f"BEGIN; SELECT pg_advisory_xact_lock({WRITERS_LOCK})",
        begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        integrity_error=psycopg.IntegrityError,
        in_transaction=lambda driver: bool(driver.info.transaction_status != psycopg.pq.TransactionStatus.IDLE),
        refusal=refusal,
        scrub=write_anew,
    )


# What drivers raise for a lone surrogate and for an integer of more than 64 bits.
_NO_COLUMN_TAKES: Final = (UnicodeEncodeError, OverflowError)


def _value_refused() -> InvalidRequest:
    """The last line behind the doors' own checks: a name with a NUL must not look like our failure."""
    return InvalidRequest(
        "The request holds a value that can't be kept: text with a character NUL or half a surrogate pair, or a number beyond "
        "64 bits.",
        subject="argument",
    )


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's, or inside the loss of a group that it caused."""
    while True:
        inner = error.orig if isinstance(error, DBAPIError) else error.__cause__
        if not isinstance(inner, BaseException):
            return error
        error = inner
