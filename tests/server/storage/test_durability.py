"""Acknowledged means durable: a process killed between units loses none that was acknowledged, and keeps no half of one."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from overair.basics.clock import WallClock
from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId
from overair.basics.work import Notice, Tx
from overair.server.storage.dialects import StorageRefused
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite, sql

CHILD = Path(__file__).parents[2] / "support" / "storage_child.py"


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_kill_9_between_units_loses_nothing_acknowledged(tmp_path: Path, kills: int) -> None:
    for kill in range(kills):
        path = tmp_path / f"{kill}.sqlite3"
        child = subprocess.Popen([sys.executable, CHILD, path], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(50 + 37 * kill)]
        child.kill()
        # What the pipe still holds was acknowledged too; a line that was cut was not.
        acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        database = sqlite3.connect(path)
        kept = {number for (number,) in database.execute("SELECT number FROM test_numbers")}
        announced = {int(topic) for (topic,) in database.execute("SELECT topic FROM outbox")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
        assert kept >= set(acknowledged)
        assert announced == kept


def test_the_file_is_private_and_syncs_each_commit(tmp_path: Path) -> None:
    work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    assert (tmp_path / "records.sqlite3").stat().st_mode & 0o777 == 0o600

    def pragmas(tx: Tx) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(sql(tx).exec_driver_sql(f"PRAGMA {name}").scalar() for name in names)

    assert work.run_blocking(pragmas) == ("wal", 2, 1)
    work.close()


def test_a_full_disk_refuses_writes_and_harms_nothing(tmp_path: Path) -> None:
    work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    metadata.create_all(work.engine)
    account = AccountId("123456789012")

    def announce(tx: Tx, size_bytes: int = 100) -> None:
        tx.publish(Notice(account=account, topic="t", payload=b"x" * size_bytes))

    work.run_blocking(announce)
    pages = work.run_blocking(lambda tx: sql(tx).exec_driver_sql("PRAGMA page_count").scalar())
    # A limit on the file's pages gives the same error as a disk without room.
    work.run_blocking(lambda tx: sql(tx).exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar())
    for _ in range(3):
        with pytest.raises(Unavailable, match="disk that holds the records is full"):
            work.run_blocking(lambda tx: announce(tx, 1_000_000))
    count = "SELECT count(*) FROM outbox"
    assert work.read_blocking(lambda tx: sql(tx).exec_driver_sql(count).scalar()) == 1
    work.run_blocking(lambda tx: sql(tx).exec_driver_sql("PRAGMA max_page_count=1000000").scalar())
    work.run_blocking(lambda tx: announce(tx, 1_000_000))
    assert work.read_blocking(lambda tx: sql(tx).exec_driver_sql(count).scalar()) == 2
    work.close()


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite3"
    path.write_bytes(b"this is a letter to my aunt\n" * 100)
    with pytest.raises(StorageRefused, match="isn't an Overair database") as refused:
        open_sqlite(path, clock=WallClock())
    assert "\n" not in refused.value.message
    with pytest.raises(StorageRefused, match="can't be opened"):
        open_sqlite(tmp_path / "absent" / "records.sqlite3", clock=WallClock())


@pytest.mark.parametrize(
    "url", ["nonsense", "postgresql://127.0.0.1:1/absent", "sqlite:///x", "postgresql://u:s3cret@host:port/x"]
)
def test_a_database_that_cannot_be_reached_is_refused(url: str) -> None:
    with pytest.raises(StorageRefused) as refused:
        open_postgresql(url, clock=WallClock())
    assert "\n" not in refused.value.message
    assert "s3cret" not in refused.value.message


def test_a_database_that_sorts_by_language_is_refused(postgresql_url: str) -> None:
    import psycopg

    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS by_language")
        try:
            connection.execute("CREATE DATABASE by_language TEMPLATE template0 LC_COLLATE 'en_US.utf8' LC_CTYPE 'en_US.utf8'")
        except psycopg.Error:
            pytest.skip("not run: this machine has no language's collation")
    with pytest.raises(StorageRefused, match="code-point order"):
        open_postgresql(postgresql_url.replace("/overair?", "/by_language?"), clock=WallClock())


async def test_a_lost_connection_refuses_one_group_and_the_next_is_served(postgresql_url: str) -> None:
    work = open_postgresql(postgresql_url, clock=WallClock())
    own = await work.run(_backend)
    await _terminate(work, own)
    with pytest.raises(Unavailable, match="can't be reached"):
        await work.run(_backend)
    assert await work.run(_backend) != own
    reader = await work.read(_backend)
    await work.run(lambda tx: sql(tx).exec_driver_sql(f"SELECT pg_terminate_backend({reader}, 5000)").scalar())
    for _ in range(10):
        try:
            assert await work.read(_backend) != reader
        except Unavailable:
            continue
    work.close()


def _backend(tx: Tx) -> object:
    return sql(tx).exec_driver_sql("SELECT pg_backend_pid()").scalar()


async def _terminate(work: SqlWork, backend: object) -> None:
    await work.read(lambda tx: sql(tx).exec_driver_sql(f"SELECT pg_terminate_backend({backend}, 5000)").scalar())


def test_an_error_of_the_database_tells_no_values(tmp_path: Path) -> None:
    work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    with pytest.raises(Exception, match="no such table") as failed:
        work.run_blocking(lambda tx: sql(tx).execute(text("INSERT INTO absent VALUES (:v)"), {"v": "s3cret"}))
    assert "s3cret" not in str(failed.value)
    work.close()
