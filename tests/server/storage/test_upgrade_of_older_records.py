"""A database that older code made, with rows in every table, is brought to the present shape and loses none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, MetaData, Table, select
from sqlalchemy.engine import Connection

from overair.basics.clock import WallClock
from overair.basics.ids import AccountId, JobId, ThingName
from overair.server import tables
from overair.server.broker.store import BrokerStore
from overair.server.jobs.execution_store import SqlExecutionStore
from overair.server.jobs.model import ExecutionStatus, JobStatus
from overair.server.jobs.store import SqlJobStore
from overair.server.storage import migrations
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite

OLDER = "0002"
ACCOUNT = AccountId("123456789012")

# What the code of that revision wrote for a job of one thing that is in progress, and for a persistent session.
LITERAL: dict[str, dict[str, Any]] = {
    "jobs": {
        "account": ACCOUNT,
        "id": "j",
        "sequence": 1,
        "region": "us-east-1",
        "status": "IN_PROGRESS",
        "phase": "SETTLED",
        "next_step_at": 0,
        "target_selection": "SNAPSHOT",
        "settings": "{}",
        "destination_package_versions": "[]",
        "count_in_progress": 1,
        **{f"count_{name}": 0 for name in ("queued", "succeeded", "failed", "timed_out", "rejected", "removed", "canceled")},
        "force_canceled": False,
        "created_at": 1,
        "last_updated_at": 1,
    },
    "job_executions": {
        "account": ACCOUNT,
        "thing": "dev-1",
        "job": "j",
        "number": 1,
        "job_sequence": 1,
        "latest": True,
        "status": "IN_PROGRESS",
        "status_details": '{"progress":"1/2"}',
        "version": 2,
        "retry_attempt": 0,
        "force_canceled": False,
        "queued_at": 1,
        "started_at": 2,
        "last_updated_at": 2,
    },
    "mqtt_sessions": {"account": ACCOUNT, "client_id": "dev-1", "expires": 5},
    "mqtt_subscriptions": {"account": ACCOUNT, "client_id": "dev-1", "topic_filter": "a/#", "qos": 1},
    "mqtt_queue": {"account": ACCOUNT, "client_id": "dev-1", "position": 1, "topic": "a/b", "payload": b"owed"},
}


@pytest.fixture(params=["sqlite", "postgresql"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlWork]:
    """A database at the revision before."""
    if request.param == "sqlite":
        work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    else:
        psycopg = pytest.importorskip("psycopg")
        url: str = request.getfixturevalue("postgresql_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS older WITH (FORCE)")
            connection.execute("CREATE DATABASE older TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'")
        work = open_postgresql(url.replace("/overair?", "/older?"), clock=WallClock())
    from alembic import command

    with work.engine.connect() as connection, connection.begin():
        command.upgrade(migrations.configuration(connection), OLDER)
    yield work
    work.close()


def reflected(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != migrations.VERSION_TABLE]


def row_of(table: Table) -> dict[str, Any]:
    """Something in every column."""
    if table.name in LITERAL:
        return LITERAL[table.name]
    return {column.name: _value(column.type) for column in table.columns}


def _value(kind: Any) -> Any:
    if isinstance(kind, Boolean):
        return True
    if isinstance(kind, (BigInteger, Integer)):
        return 7
    if isinstance(kind, LargeBinary):
        return b"seven"
    return "{}"


def contents(connection: Connection, names: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of these tables, in these columns."""
    found = {}
    for table in reflected(connection):
        if table.name in names:
            rows = connection.execute(select(*(table.c[name] for name in names[table.name]))).all()
            found[table.name] = [tuple(row) for row in rows]
    return found


def test_rows_in_every_table_outlive_the_upgrade(older: SqlWork) -> None:
    with older.engine.connect() as connection, connection.begin():
        names = {}
        for table in reflected(connection):
            connection.execute(table.insert().values(row_of(table)))
            names[table.name] = [column.name for column in table.columns]
        before = contents(connection, names)
    assert all(len(rows) == 1 for rows in before.values())
    assert {"things", "jobs", "streams", "director_ecus", "mqtt_sessions"} <= set(before)

    migrations.upgrade(older.engine)
    with older.engine.connect() as connection:
        assert contents(connection, names) == before
        assert {table.name for table in reflected(connection)} >= set(tables.metadata.tables.keys() & names.keys())


def test_what_the_older_code_wrote_is_read_by_this_one(older: SqlWork) -> None:
    with older.engine.connect() as connection, connection.begin():
        for table in reflected(connection):
            if table.name in LITERAL:
                connection.execute(table.insert().values(LITERAL[table.name]))
    migrations.upgrade(older.engine)
    job = older.read_blocking(lambda tx: SqlJobStore().find(tx, ACCOUNT, JobId("j")))
    assert job is not None
    assert (job.status, job.counts[ExecutionStatus.IN_PROGRESS]) == (JobStatus.IN_PROGRESS, 1)
    execution = older.read_blocking(lambda tx: SqlExecutionStore().find(tx, ACCOUNT, ThingName("dev-1"), JobId("j")))
    assert execution is not None
    assert (execution.status, execution.version, execution.status_details) == (
        ExecutionStatus.IN_PROGRESS,
        2,
        {"progress": "1/2"},
    )
    [(account, session)] = older.read_blocking(BrokerStore().sessions)
    assert account == ACCOUNT
    assert (session.client_id, session.subscriptions, session.queued_count) == ("dev-1", (("a/#", 1),), 1)
