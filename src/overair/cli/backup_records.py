"""A backup's records: always one SQLite file, whichever database the server keeps them in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overair.basics.errors import OverairError
from overair.cli.ends import CommandEnded, ExitCode
from overair.server.storage.migrations import REVISIONS, VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from overair.server.storage.dialects import Engines


def copy_of_sqlite(records: Path, to: Path) -> None:
    """One consistent moment of a database that is written to: all pages are read in one transaction."""
    with (
        closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as source,
        closing(sqlite3.connect(to)) as copy,
    ):
        to.chmod(0o600)
        source.backup(copy, pages=-1)


def schema_of(records: Path) -> str:
    """The revision of a records file."""
    with closing(sqlite3.connect(f"{records.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        (version,) = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608 (a constant)
        return str(version)


def copy_of_postgresql(url: str, to: Path, *, account: str) -> None:
    """One consistent moment of a database that is written to, as a SQLite file: one transaction reads it all.

    Raises:
        CommandEnded: it can't be reached; it isn't this server's; this version doesn't know its shape.
    """
    from overair.server.storage.copying import copy_rows
    from overair.server.storage.dialects import open_postgresql_engines, open_sqlite_engines
    from overair.server.storage.migrations import upgrade
    from overair.server.tables import metadata

    with _refusals(), _opened(lambda: open_postgresql_engines(url)) as source, source.reader.connect() as reading:
        _run(reading, source.begin_read)
        _check(reading, account)
        with _opened(lambda: open_sqlite_engines(to)) as target:
            upgrade(target.writer)
            with target.writer.connect() as writing:
                _run(writing, target.begin_write)
                copy_rows(reading, writing, metadata.sorted_tables)
                _run(writing, "COMMIT")
                # One file, without a log beside it.
                _run(writing, "PRAGMA wal_checkpoint(TRUNCATE)")
                _run(writing, "PRAGMA journal_mode=DELETE")
        _run(reading, "COMMIT")


@contextmanager
def into_postgresql(records: Path, url: str) -> Iterator[int]:
    """Fill an empty database with a backup's records, brought to the present shape first. Whoever uses this does within it
    what else has to hold; the rows are there once it ends well, and else not. The value is their number.

    Raises:
        CommandEnded: it can't be reached, isn't empty, or refuses a value.
    """
    from overair.server.storage.copying import copy_rows
    from overair.server.storage.dialects import open_postgresql_engines, open_sqlite_engines
    from overair.server.storage.migrations import upgrade
    from overair.server.tables import metadata

    with (
        _refusals(),
        _opened(lambda: open_sqlite_engines(records)) as source,
        _opened(lambda: open_postgresql_engines(url)) as target,
    ):
        upgrade(source.writer)
        upgrade(target.writer)
        # The reader's connections have no limit on how long a transaction may last; nothing makes them read only.
        with source.reader.connect() as reading, target.reader.connect() as writing:
            _run(writing, target.begin_write)
            try:
                yield copy_rows(reading, writing, metadata.sorted_tables)
            except BaseException as error:
                raise target.refusal(error) from error
            _run(writing, "COMMIT")


def _check(connection: Connection, account: str) -> None:
    """The database must be the one that the state directory's server keeps its records in."""
    present = _one(connection, f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 (a constant)
    if present != REVISIONS[-1]:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"The database's records are of revision {present}, this Overair's of {REVISIONS[-1]}. Back up with the version of "
            "Overair that the server runs.",
        )
    if _one(connection, f"SELECT account FROM access_accounts WHERE account = '{int(account):012}'") is None:  # noqa: S608 (digits)
        raise CommandEnded(ExitCode.REFUSED, f"The database holds no account {account}: it isn't this server's.")


def _one(connection: Connection, query: str) -> str | None:
    row = connection.exec_driver_sql(query).first()
    return None if row is None else str(row[0])


def _run(connection: Connection, statement: str) -> None:
    from overair.server.storage.dialects import driver_of

    driver_of(connection).execute(statement)


@contextmanager
def _opened(open_engines: Callable[[], Engines]) -> Iterator[Engines]:
    engines = open_engines()
    try:
        yield engines
    finally:
        engines.dispose()


@contextmanager
def _refusals() -> Iterator[None]:
    """What storage refuses, in an operator's one line."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except OverairError as error:
        raise CommandEnded(ExitCode.REFUSED, error.message) from error
    except DBAPIError as error:
        raise CommandEnded(ExitCode.REFUSED, f"The records can't be copied: {' '.join(str(error.orig).split())}.") from error
