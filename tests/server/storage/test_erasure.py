"""What was erased is in no page and in no log, whatever was done to the table before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, LargeBinary, String, Table, delete, func, insert, select

from overair.basics.work import Tx
from overair.server.storage.erasure import erase
from overair.server.storage.schema import account_column, metadata
from overair.server.storage.work import SqlWork, sql

table = Table(
    "test_erasure",
    metadata,
    account_column(),
    Column("name", String(36), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)
ACCOUNT = "123456789012"


@pytest.fixture
def chance() -> random.Random:
    return random.Random(5)


def add(work: SqlWork, name: str, secret: bytes) -> None:
    work.run_blocking(lambda tx: sql(tx).execute(insert(table).values(account=ACCOUNT, name=name, secret=secret)))


def names(work: SqlWork) -> list[str]:
    return work.read_blocking(lambda tx: list(sql(tx).execute(select(table.c.name)).scalars()))


def erased(work: SqlWork, condition: Any) -> int:
    return work.run_blocking(lambda tx: erase(tx, table, condition))


def copies(tmp_path: Path, secret: bytes) -> int:
    return sum(path.read_bytes().count(secret) for path in tmp_path.rglob("*") if path.is_file())


def test_only_the_rows_that_are_meant_go_and_the_rest_stays_as_it_was(work: SqlWork) -> None:
    for number in range(5):
        add(work, f"n{number}", b"%d" % number)
    assert erased(work, table.c.name == "n9") == 0
    assert erased(work, table.c.name.in_(["n1", "n3"])) == 2
    left = work.read_blocking(lambda tx: sql(tx).execute(select(table).order_by(table.c.name)).all())
    assert [(row.name, row.secret) for row in left] == [("n0", b"0"), ("n2", b"2"), ("n4", b"4")]


def test_a_unit_that_fails_erases_nothing(work: SqlWork) -> None:
    add(work, "kept", b"1")

    def fail(tx: Tx) -> None:
        erase(tx, table, table.c.name == "kept")
        raise RuntimeError("later")

    with pytest.raises(RuntimeError):
        work.run_blocking(fail)
    assert names(work) == ["kept"]


async def test_copies_that_moved_rows_left_behind_go_too(work: SqlWork, tmp_path: Path, chance: random.Random) -> None:
    if work.engine.dialect.name != "sqlite":
        pytest.skip("the files are the database server's own")
    # Many systems build SQLite so that it overwrites what it deletes; others don't.
    work.run_blocking(lambda tx: sql(tx).exec_driver_sql("PRAGMA secure_delete=OFF"))
    secret = chance.randbytes(200)
    for number in range(4):
        add(work, f"early-{number}", chance.randbytes(200))
    add(work, "secret", secret)
    # Careless deletions make SQLite move the row from page to page, until more than one of it lies in the file.
    for number in range(500):
        add(work, f"n{number}", chance.randbytes(200))
        if number % 4 == 0:
            victim = chance.choice([name for name in names(work) if name != "secret"])
            work.run_blocking(lambda tx, victim=victim: sql(tx).execute(delete(table).where(table.c.name == victim)))
            await work.scrub(table)
            if copies(tmp_path, secret) > 1:
                break
    assert copies(tmp_path, secret) > 1
    before = len(names(work))
    assert erased(work, table.c.name == "secret") == 1
    await work.scrub(table)
    assert copies(tmp_path, secret) == 0
    assert len(names(work)) == before - 1


async def test_the_connection_deletes_as_before_afterwards(work: SqlWork) -> None:
    if work.engine.dialect.name != "sqlite":
        pytest.skip("a setting of SQLite's")

    def setting(tx: Tx) -> int:
        return int(sql(tx).exec_driver_sql("PRAGMA secure_delete").scalar_one())

    before = work.run_blocking(setting)
    add(work, "secret", b"1")
    erased(work, table.c.name == "secret")
    assert work.run_blocking(setting) == before
    assert work.read_blocking(lambda tx: sql(tx).execute(select(func.count()).select_from(table)).scalar_one()) == 0
