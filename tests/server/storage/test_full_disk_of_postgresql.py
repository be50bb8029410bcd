"""PostgreSQL's disk without room: writes are refused with a reason, reads go on, and when there is room again all is well.

Where file systems may be mounted the disk is a real one; everywhere the database says so itself, at a statement and at a
commit.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from overair.basics.clock import WallClock
from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId
from overair.basics.work import Notice, Tx
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_postgresql, sql

ACCOUNT = AccountId("123456789012")
DISK_SIZE_MIB = 24
SAYS_FULL = """
CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device' USING ERRCODE = 'disk_full'; END $$
"""


@dataclass
class Disk:
    """Records on a disk that can be filled."""

    url: str
    fill: Callable[[], object]
    free: Callable[[], object]


@pytest.fixture(params=["a small disk", "at the statement", "at the commit"])
def disk(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[Disk]:
    with ExitStack() as stack:
        server = stack.enter_context(psycopg.connect(postgresql_url, autocommit=True))
        place = ""
        if request.param == "a small disk":
            folder = small_disk(stack, server)
            server.execute(f"CREATE TABLESPACE small LOCATION '{folder}'")  # type: ignore[arg-type]
            stack.callback(server.execute, "DROP TABLESPACE small")
            place = "TABLESPACE small"
        server.execute(f"CREATE DATABASE full_disk TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' {place}")  # type: ignore[arg-type]
        stack.callback(server.execute, "DROP DATABASE full_disk (FORCE)")
        url = postgresql_url.replace("/overair?", "/full_disk?")
        if place:
            yield Disk(url, lambda: fill(folder / "filler"), (folder / "filler").unlink)
            return
        own = stack.enter_context(psycopg.connect(url, autocommit=True))
        own.execute(SAYS_FULL)
        if request.param == "at the statement":
            trigger = "TRIGGER full_disk BEFORE INSERT ON outbox FOR EACH STATEMENT"
        else:
            trigger = "CONSTRAINT TRIGGER full_disk AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        yield Disk(
            url,
            lambda: own.execute(f"CREATE {trigger} EXECUTE FUNCTION disk_is_full()"),  # type: ignore[arg-type]
            lambda: own.execute("DROP TRIGGER full_disk ON outbox"),
        )


def small_disk(stack: ExitStack, server: psycopg.Connection) -> Path:
    """A file system of its own, which the database's server owns."""
    folder = Path(tempfile.mkdtemp(prefix="overair-disk-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE_MIB}m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=20)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not run: mounting a file system needs root")
    stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True, timeout=20)
    [data] = server.execute("SHOW data_directory").fetchone() or [""]
    owner = Path(data).stat()
    os.chown(folder, owner.st_uid, owner.st_gid)
    folder.chmod(0o700)
    return folder


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def test_a_full_disk_refuses_writes_and_serves_reads_and_all_is_well_when_there_is_room(disk: Disk) -> None:
    work = open_postgresql(disk.url, clock=WallClock(), readers=1)
    try:
        metadata.create_all(work.engine)
        work.run_blocking(lambda tx: announce(tx, "before"))
        disk.fill()
        for attempt in range(3):
            with pytest.raises(Unavailable, match="disk that holds the records is full") as refused:
                work.run_blocking(lambda tx, attempt=attempt: announce(tx, f"refused {attempt}"))  # type: ignore[misc]
            assert refused.value.subject == "storage"
            assert topics(work) == ["before"]
        disk.free()
        work.run_blocking(lambda tx: announce(tx, "after"))
        assert topics(work) == ["before", "after"]
    finally:
        work.close()


def announce(tx: Tx, topic: str) -> None:
    # So large that no page which is there already has room for it.
    tx.publish(Notice(account=ACCOUNT, topic=topic, payload=os.urandom(1_000_000)))


def topics(work: SqlWork) -> list[str]:
    return work.read_blocking(lambda tx: list(sql(tx).exec_driver_sql("SELECT topic FROM outbox ORDER BY id").scalars()))
