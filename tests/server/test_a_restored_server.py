"""A server that was restored knows it: it says so, leaves a gap in what it numbers, and its audit tells what is missing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, select

from overair.basics.clock import SettableClock, WallClock
from overair.basics.ids import AccountId
from overair.cli.audit import verify
from overair.cli.backup import backup, restore
from overair.cli.ends import CommandEnded
from overair.server.composition.restored import take_note
from overair.server.first_start import Made
from overair.server.state_directory import StateDirectory, StateDirectoryRefused
from overair.server.storage import migrations
from tests.support.whole_server import WholeServer

OLDER = "0003"
"""The revision that the release before had."""


def back_up(data: Path, file: Path) -> Path:
    backup([str(file)], with_wrapping_key=True, database=None, data=data, json=False)
    return file


def bring_back(file: Path, data: Path) -> Path:
    restore(file, data, wrapping_key=None, key_passphrase_file=None, database=None, json=False)
    return data


def describe(server: WholeServer) -> list[str]:
    reply = server.call("overair", "GET", "/overair/server", {})
    assert reply.status == 200, reply.body
    warnings: list[str] = reply.json["warnings"]
    return warnings


def make_thing(server: WholeServer, name: str) -> None:
    assert server.call("iot", "POST", f"/things/{name}", {}).status == 200


def as_the_release_before_left_it(records: Path) -> None:
    """The same rows in tables of the older shape."""
    new = records.with_suffix(".new")
    records.rename(new)
    source, target = create_engine(f"sqlite:///{new}"), create_engine(f"sqlite:///{records}")
    with target.connect() as connection, connection.begin():
        from alembic import command

        command.upgrade(migrations.configuration(connection), OLDER)
    shapes = [MetaData(), MetaData()]
    with source.connect() as reading, target.connect() as writing, writing.begin():
        for shape, connection in zip(shapes, (reading, writing), strict=True):
            shape.reflect(connection)
        for table in shapes[1].sorted_tables:
            present = shapes[0].tables[table.name]
            names = [column.name for column in table.columns if column.name in present.c]
            rows = [dict(row) for row in reading.execute(select(*(present.c[name] for name in names))).mappings()]
            if rows and table.name != migrations.VERSION_TABLE:
                writing.execute(table.insert(), rows)
    source.dispose()
    target.dispose()
    new.unlink()


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """A backup, the head that was signed when it was made, and what came of it later: the folder of all that."""
    folder = tmp_path_factory.mktemp("lost")
    server = WholeServer(folder / "data", SettableClock(WallClock().now()))
    try:
        make_thing(server, "kept")
        (folder / "head-at-backup").write_text(server.call("overair", "POST", "/overair/audit-head", {}).json["head"])
        back_up(folder / "data", folder / "b.tar")
        for number in range(3):
            make_thing(server, f"lost-{number}")
        (folder / "head-later").write_text(server.call("overair", "POST", "/overair/audit-head", {}).json["head"])
        made = server.made
        assert made is not None
    finally:
        server.close()
    return folder, made


def verified(head: Path, data: Path) -> str:
    try:
        verify(head=head, records=data / "records.sqlite3", data=data, json=True)
    except CommandEnded as ended:
        return ended.message
    return "holds"


def test_a_backup_of_an_older_version_is_restored_and_brought_to_the_present_shape(
    lost: tuple[Path, Made], tmp_path: Path
) -> None:
    folder, made = lost
    older = bring_back(folder / "b.tar", tmp_path / "older")
    (older / "restored.json").unlink()
    as_the_release_before_left_it(older / "records.sqlite3")
    file = back_up(older, tmp_path / "older.tar")
    data = bring_back(file, tmp_path / "new")
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        assert records.execute(f"SELECT version_num FROM {migrations.VERSION_TABLE}").fetchall() == [(OLDER,)]
    server = WholeServer(data, SettableClock(WallClock().now()), made=made)
    try:
        assert server.call("iot", "GET", "/things/kept", {}).status == 200
        make_thing(server, "after")
        assert any(warning.startswith("Restored from a backup of") for warning in describe(server))
    finally:
        server.close()
    assert verified(folder / "head-at-backup", data) == "holds"


def test_a_restore_is_noted_once_and_its_audit_tells_what_is_missing(lost: tuple[Path, Made], tmp_path: Path) -> None:
    folder, made = lost
    data = bring_back(folder / "b.tar", tmp_path / "new")
    assert verified(folder / "head-at-backup", data) == "holds"
    assert "The rows end with" in verified(folder / "head-later", data)
    for start in range(2):
        server = WholeServer(data, SettableClock(WallClock().now()), made=made)
        try:
            assert not (data / "restored.json").exists()
            assert sum("Restored from" in warning for warning in describe(server)) == 1
            for number in range(3):
                make_thing(server, f"after-{start}-{number}")
        finally:
            server.close()
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        rows = records.execute("SELECT resource FROM audit_records WHERE operation = 'Restore'").fetchall()
        ((restored, backed_up),) = records.execute("SELECT restored_at, backed_up_at FROM restores").fetchall()
    assert len(rows) == 1
    assert rows[0][0].startswith("backup of 20")
    assert restored > backed_up
    assert verified(folder / "head-at-backup", data) == "holds"
    said = verified(folder / "head-later", data)
    assert "lead to another hash than the head's" in said
    assert "says that the server was restored (backup of 20" in said


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"backedUpAt": "yesterday"}'])
def test_a_note_that_cant_be_read_keeps_the_server_from_starting(tmp_path: Path, text: str) -> None:
    (tmp_path / "restored.json").write_text(text)
    nothing: Any = None
    with pytest.raises(StateDirectoryRefused, match=r"restored\.json, which says of what time"):
        take_note(StateDirectory(tmp_path), nothing, nothing, account=AccountId("1"), clock=WallClock())
