"""A server that keeps its records in PostgreSQL is backed up and restored as any other, into either database."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Float, Integer, LargeBinary, MetaData, select
from sqlalchemy.engine import Connection

from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, SeededIds
from overair.basics.redacted import Redacted
from overair.basics.work import Notice
from overair.cli.backup import backup, restore
from overair.cli.ends import CommandEnded
from overair.server import tables
from overair.server.keyring.service import sealed_context
from overair.server.keyring.wrapping import open_secret_box
from overair.server.storage import migrations
from overair.server.storage.copying import NOT_COPIED
from overair.server.storage.schema import outbox
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite

ACCOUNT = AccountId("123456789012")
ROWS = 2
"""Of each table."""
metadata = MetaData()
for _table in tables.metadata.sorted_tables:
    if not _table.name.startswith("test_"):
        _table.to_metadata(metadata)


@pytest.fixture(autouse=True)
def no_tables_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests in this process have tables of their own among ours; a server has none of those."""
    monkeypatch.setattr(tables, "metadata", metadata)


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Callable[[str], str]]:
    """Makes an empty database of this name and says where it is."""
    psycopg = pytest.importorskip("psycopg")
    made: list[str] = []

    def make(name: str) -> str:
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'")
        made.append(name)
        return postgresql_url.replace("/overair?", f"/{name}?")

    yield make
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _value(name: str, kind: Any, number: int) -> Any:
    if name == "account":
        return f"12345678901{number + 1}"
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, Integer):
        return number
    if isinstance(kind, Float):
        return number / 8
    if isinstance(kind, LargeBinary):
        return b"\x00\xff%d" % number
    return f'"ü{number}'[: kind.length or 9]


def fill(work: SqlWork, sealed: bytes) -> None:
    """Something in every column of every table."""
    with work.engine.connect() as connection, connection.begin():
        for table in metadata.sorted_tables:
            for number in range(1, ROWS + 1):
                row = {column.name: _value(column.name, column.type, number) for column in table.columns}
                if table.name == "keyring_keys":
                    row |= {"key_id": f"k{number}", "sealed": sealed if number == 1 else b""}
                connection.execute(table.insert().values(row))


def rows(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table.name: sorted(tuple(row) for row in connection.execute(select(table)))
        for table in metadata.sorted_tables
        if table.name not in NOT_COPIED
    }


def rows_of(work: SqlWork) -> dict[str, list[tuple[Any, ...]]]:
    try:
        with work.engine.connect() as connection:
            return rows(connection)
    finally:
        work.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The state directory of a server with its records elsewhere."""
    data = tmp_path / "data"
    (data / "contents").mkdir(parents=True)
    (data / "overair.json").write_text(json.dumps({"format": 1, "account": ACCOUNT, "region": "us-east-1"}))
    return data


def test_every_row_is_restored_into_either_database(data: Path, tmp_path: Path, database: Callable[[str], str]) -> None:
    url = database("backed_up")
    box = open_secret_box(data / "wrapping.key", passphrase=None, ids=SeededIds(1))
    sealed = box.wrap(Redacted(b"a private key"), context=sealed_context(ACCOUNT, "k1"))  # type: ignore[arg-type]
    work = open_postgresql(url, clock=WallClock())
    migrations.upgrade(work.engine)
    fill(work, sealed)
    before = rows_of(work)
    file = tmp_path / "b.tar"
    backup([str(file)], with_wrapping_key=True, database=url, data=data, json=False)

    new = tmp_path / "in-a-file"
    restore(file, new, wrapping_key=None, key_passphrase_file=None, database=None, json=False)
    assert rows_of(open_sqlite(new / "records.sqlite3", clock=WallClock())) == before

    elsewhere = database("restored")
    restore(file, tmp_path / "in-postgresql", wrapping_key=None, key_passphrase_file=None, database=elsewhere, json=False)
    assert not list((tmp_path / "in-postgresql").glob("records*"))
    again = open_postgresql(elsewhere, clock=WallClock())
    # What the database counts by itself goes on after the rows that came.
    again.run_blocking(lambda tx: tx.publish(Notice(account=ACCOUNT, topic="t", payload=b"new")))
    with again.engine.connect() as connection:
        assert max(row[0] for row in connection.execute(select(outbox.c.id))) == ROWS + 1
        found = rows(connection)
    again.close()
    assert {name: held for name, held in found.items() if name != "outbox"} == {
        name: held for name, held in before.items() if name != "outbox"
    }

    with pytest.raises(CommandEnded, match="isn't empty: its table"):
        restore(file, tmp_path / "twice", wrapping_key=None, key_passphrase_file=None, database=elsewhere, json=False)
    assert not (tmp_path / "twice").exists()


def test_a_database_that_isnt_the_servers_is_refused(data: Path, tmp_path: Path, database: Callable[[str], str]) -> None:
    def refused(url: str | None) -> str:
        with pytest.raises(CommandEnded) as ended:
            backup([str(tmp_path / "b.tar")], with_wrapping_key=False, database=url, data=data, json=False)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        assert [path.name for path in data.iterdir()] == ["contents", "overair.json"] or not list(data.glob(".overair*"))
        return ended.value.message

    url = database("not_ours")
    assert "--database" in refused(None)
    assert "overair_schema" in refused(url)
    work = open_postgresql(url, clock=WallClock())
    migrations.upgrade(work.engine)
    assert f"no account {ACCOUNT}" in refused(url)
    with work.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("UPDATE overair_schema SET version_num = '0001'")
    work.close()
    assert "with the version of Overair that the server runs" in refused(url)
    assert "can't be reached" in refused("postgresql://127.0.0.1:1/none")


def test_a_restore_into_postgresql_that_fails_leaves_no_row(
    data: Path, tmp_path: Path, database: Callable[[str], str], sqlite_template: Callable[[], Path]
) -> None:
    box = open_secret_box(data / "wrapping.key", passphrase=None, ids=SeededIds(1))
    sealed = box.wrap(Redacted(b"a private key"), context=sealed_context(ACCOUNT, "k1"))  # type: ignore[arg-type]
    shutil.copyfile(sqlite_template(), data / "records.sqlite3")
    work = open_sqlite(data / "records.sqlite3", clock=WallClock())
    fill(work, sealed)
    with work.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(f"CREATE TABLE {migrations.VERSION_TABLE} (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO {migrations.VERSION_TABLE} VALUES ('{migrations.REVISIONS[-1]}')")
        # What SQLite keeps and PostgreSQL doesn't.
        connection.exec_driver_sql("UPDATE things SET name = 'a' || char(0) || 'b' WHERE name LIKE '%2'")
    work.close()
    file = tmp_path / "b.tar"
    backup([str(file)], with_wrapping_key=True, database=None, data=data, json=False)
    url = database("half")
    with pytest.raises(CommandEnded):
        restore(file, tmp_path / "new", wrapping_key=None, key_passphrase_file=None, database=url, json=False)
    assert not (tmp_path / "new").exists()
    assert not any(rows_of(open_postgresql(url, clock=WallClock())).values())
