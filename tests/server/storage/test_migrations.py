"""Migrations make what the tables say, on both databases, and refuse what they don't know."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Engine

from overair.basics.clock import WallClock
from overair.server import tables
from overair.server.storage import migrations
from overair.server.storage.dialects import StorageRefused
from overair.server.storage.work import SqlWork, open_postgresql, open_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlWork]:
    """A database without a single table."""
    if request.param == "sqlite":
        work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    else:
        psycopg = pytest.importorskip("psycopg")
        url: str = request.getfixturevalue("postgresql_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS migrated WITH (FORCE)")
            connection.execute("CREATE DATABASE migrated TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'")
        work = open_postgresql(url.replace("/overair?", "/migrated?"), clock=WallClock())
    yield work
    work.close()


def only_ours(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or (name is not None and not name.startswith("test_"))


def test_a_migrated_database_is_what_the_tables_say(empty: SqlWork) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrations.upgrade(empty.engine)
    options = {"compare_type": True, "version_table": migrations.VERSION_TABLE, "include_name": only_ours}
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        differences = [
            difference
            for difference in compare_metadata(context, tables.metadata)
            # Tables that tests made for themselves.
            if not (difference[0] == "add_table" and difference[1].name.startswith("test_"))
        ]
    assert differences == [], "run: .venv/bin/python tools/new_migration.py MESSAGE"


def test_ids_of_notices_are_never_given_twice(empty: SqlWork) -> None:
    migrations.upgrade(empty.engine)
    add = "INSERT INTO outbox (account, topic, payload, qos, created) VALUES ('1', 't', '', 0, 0)"

    with empty.engine.connect() as connection:
        connection.execute(text(add))
        first = connection.execute(text("SELECT max(id) FROM outbox")).scalar_one()
        connection.execute(text("DELETE FROM outbox"))
        connection.execute(text(add))
        assert connection.execute(text("SELECT max(id) FROM outbox")).scalar_one() > first


def test_a_database_of_the_present_shape_is_left_alone(empty: SqlWork) -> None:
    migrations.upgrade(empty.engine)
    migrations.upgrade(empty.engine)


def test_a_restart_never_imports_alembic(tmp_path: Path) -> None:
    work = open_sqlite(tmp_path / "records.sqlite3", clock=WallClock())
    migrations.upgrade(work.engine)
    work.close()
    script = f"""
import sys
from pathlib import Path
from overair.basics.clock import WallClock
from overair.server.storage.migrations import upgrade
from overair.server.storage.work import open_sqlite
work = open_sqlite(Path({str(tmp_path / "records.sqlite3")!r}), clock=WallClock())
upgrade(work.engine)
work.close()
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def execute(engine: Engine, statement: str) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement))


def test_a_newer_database_is_refused_and_left_as_it_is(empty: SqlWork) -> None:
    migrations.upgrade(empty.engine)
    execute(empty.engine, f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(StorageRefused, match="newer Overair") as refused:
        migrations.upgrade(empty.engine)
    assert "\n" not in refused.value.message


def test_a_database_of_someone_else_is_refused(empty: SqlWork) -> None:
    execute(empty.engine, "CREATE TABLE letters (id INTEGER)")
    with pytest.raises(StorageRefused, match="aren't Overair's"):
        migrations.upgrade(empty.engine)


def test_a_step_that_fails_leaves_the_database_as_it_was(empty: SqlWork, monkeypatch: pytest.MonkeyPatch) -> None:
    run = migrations._run

    def fails(connection: object) -> None:
        run(connection)  # type: ignore[arg-type]
        raise RuntimeError("power cut")

    monkeypatch.setattr(migrations, "_run", fails)
    with pytest.raises(RuntimeError):
        migrations.upgrade(empty.engine)
    monkeypatch.undo()
    # Nothing half made is in the way.
    migrations.upgrade(empty.engine)


def test_every_step_in_the_folder_is_known_and_they_form_one_line() -> None:
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(migrations.configuration())
    in_order = [revision.revision for revision in script.walk_revisions()][::-1]
    assert tuple(in_order) == migrations.REVISIONS
    assert script.get_heads() == [migrations.REVISIONS[-1]]
