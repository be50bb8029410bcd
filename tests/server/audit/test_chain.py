"""Each row vouches for all before it: whoever holds one signed head finds whatever was changed, taken away, put in or moved."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert
from typer.testing import CliRunner

from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, RandomIds
from overair.basics.work import Tx
from overair.cli.audit import app
from overair.cli.ends import CommandEnded
from overair.server.audit.heads import AuditHead, AuditHeads, read_head, walk
from overair.server.audit.model import AuditKind, AuditRecord, ChainBroken
from overair.server.audit.observed import AuditWriter, Observed
from overair.server.audit.store import SqlAuditStore, records
from overair.server.storage.work import SqlWork, open_sqlite, sql

OURS, THEIRS = AccountId("123456789012"), AccountId("210987654321")
STORE = SqlAuditStore()
ROWS = 6


class Key:
    """A head key in memory."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()

    def sign(self, tx: Tx, account: AccountId, data: bytes) -> tuple[bytes, bytes]:
        return self._key.public_key().public_bytes_raw(), self._key.sign(data)


def row(account: AccountId, number: int) -> AuditRecord:
    return AuditRecord(
        account=account,
        at=Instant(1_000 + number // 2),
        record_id=f"{(number * 7919) % 1000:036}",
        principal_arn=f"arn:aws:iam::{account}:user/ann",
        access_key_id="AKIA1",
        service="iot",
        operation="CreateThing",
        resource=f"thing/{number}",
        request_id=f"r-{number}",
        source_ip="192.0.2.7",
    )


def head_of(work: SqlWork, account: AccountId, clock: SettableClock) -> AuditHead:
    return work.run_blocking(lambda tx: AuditHeads(STORE, Key(), clock=clock).sign(tx, account))


def chain_of(work: SqlWork, account: AccountId) -> list[AuditRecord]:
    return work.read_blocking(lambda tx: STORE.in_chain_order(tx, account, after=None, limit=1000))


def add(work: SqlWork, account: AccountId, *numbers: int) -> None:
    for number in numbers:
        work.run_blocking(lambda tx, number=number: STORE.add(tx, row(account, number)))


def test_a_chain_holds_and_goes_on_after_its_head_was_signed(work: SqlWork, clock: SettableClock) -> None:
    add(work, OURS, 1, 2)
    work.run_blocking(lambda tx: STORE.add_many(tx, OURS, [row(OURS, number) for number in (3, 4)]))
    head = head_of(work, OURS, clock)
    add(work, OURS, 5)
    assert [each.sequence for each in chain_of(work, OURS)] == [1, 2, 3, 4, 5]
    assert walk(head, chain_of(work, OURS)) == 5
    assert head.reached.sequence == 4


def test_each_account_has_a_chain_of_its_own(work: SqlWork, clock: SettableClock) -> None:
    add(work, OURS, 1)
    add(work, THEIRS, 2)
    add(work, OURS, 3)
    assert [each.sequence for each in chain_of(work, OURS)] == [1, 2]
    assert [each.sequence for each in chain_of(work, THEIRS)] == [1]
    with pytest.raises(ChainBroken, match="another account"):
        walk(head_of(work, OURS, clock), chain_of(work, THEIRS))


def test_an_empty_chain_has_a_head_too(work: SqlWork, clock: SettableClock) -> None:
    head = head_of(work, OURS, clock)
    assert walk(head, []) == 0
    add(work, OURS, 1)
    assert walk(head, chain_of(work, OURS)) == 1


def test_rows_of_a_version_without_a_chain_are_vouched_for_by_its_beginning(work: SqlWork, clock: SettableClock) -> None:
    def as_they_were(tx: Tx) -> None:
        for number in (1, 2, 3):
            old = {name: getattr(row(OURS, number), name) for name in records.columns.keys()[:10]}
            sql(tx).execute(insert(records).values(old))

    work.run_blocking(as_they_were)
    empty = head_of(work, OURS, clock)
    add(work, OURS, 4)
    head = head_of(work, OURS, clock)
    rows = chain_of(work, OURS)
    assert [each.sequence for each in rows] == [0, 0, 0, 1]
    assert walk(head, rows) == walk(empty, rows) == 1
    for place in range(3):
        with pytest.raises(ChainBroken):
            walk(head, rows[:place] + rows[place + 1 :])


def test_pages_of_the_chain_are_its_rows(work: SqlWork) -> None:
    add(work, OURS, *range(ROWS))
    seen: list[AuditRecord] = []
    after = None
    while page := work.read_blocking(lambda tx, after=after: STORE.in_chain_order(tx, OURS, after=after, limit=4)):
        seen += page
        after = (page[-1].sequence, page[-1].at, page[-1].record_id)
    assert seen == chain_of(work, OURS)


def test_a_head_that_was_changed_is_no_head(work: SqlWork, clock: SettableClock) -> None:
    add(work, OURS, 1)
    text = head_of(work, OURS, clock).text()
    assert read_head(text.encode()).reached.sequence == 1
    for name, value in (("sequence", 0), ("chainHash", "0" * 64), ("time", 5), ("account", THEIRS)):
        with pytest.raises(InvalidRequest, match="changed after it was signed"):
            read_head(json.dumps(json.loads(text) | {name: value}).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"7",
        b"{}",
        b'{"format": "overair-audit-1"}',
        b'{"format": "overair-audit-2"}',
        b'{"format": "overair-audit-1", "account": "1", "sequence": "x", "chainHash": 1, "time": 1, "publicKey": ""}',
        b'{"format": "overair-audit-1", "account": "1", "sequence": 1, "chainHash": 1, "time": 1, "publicKey": "A"}',
        b"[" * 4000,
        b" " * 5000,
    ],
)
def test_whatever_is_no_head_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_head(text)


# In the file, as somebody with the disk in his hands would ------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Callable[[], Path]) -> tuple[Path, Path]:
    """A records file, and the head that its auditor kept when it had all rows but the last two."""
    folder = tmp_path_factory.mktemp("chain")
    file, kept = folder / "records.sqlite3", folder / "head.json"
    clock = SettableClock(Instant(9_000))
    shutil.copyfile(sqlite_template(), file)
    work = open_sqlite(file, clock=clock)
    try:
        add(work, THEIRS, 100)
        add(work, OURS, *range(ROWS - 2))
        kept.write_text(head_of(work, OURS, clock).text() + "\n")
        add(work, OURS, ROWS - 2, ROWS - 1)
    finally:
        work.close()
    return file, kept


def verify(file: Path, kept: Path) -> str:
    """What ``overair audit verify`` says."""
    result = CliRunner().invoke(app, ["verify", "--head", str(kept), "--records", str(file)])
    if isinstance(result.exception, CommandEnded):
        return result.exception.message
    assert result.exit_code == 0, result.exception
    return result.output


def tampered(file: Path, to: Path, *statements: str) -> Path:
    """A copy in which these statements were run on our rows."""
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)
        for statement in statements:
            assert copy.execute(statement).rowcount > 0
        copy.commit()
    return to


def test_an_untouched_file_holds(written: tuple[Path, Path]) -> None:
    file, kept = written
    assert f"{ROWS} rows, {ROWS - 2} of them" in verify(file, kept)


@pytest.mark.parametrize("column", [column.name for column in records.columns])
def test_an_edit_of_any_column_is_found(written: tuple[Path, Path], tmp_path: Path, column: str) -> None:
    file, kept = written
    value = "77" if column in ("at", "times", "sequence") else f"'{'f' * 12}'"
    edit = f"UPDATE audit_records SET {column} = {value} WHERE account = '{OURS}' AND sequence = 2"
    assert "doesn't hold" in verify(tampered(file, tmp_path / "r", edit), kept)


@pytest.mark.parametrize("sequence", range(1, ROWS))
def test_a_row_that_was_deleted_is_found(written: tuple[Path, Path], tmp_path: Path, sequence: int) -> None:
    file, kept = written
    delete = f"DELETE FROM audit_records WHERE account = '{OURS}' AND sequence = {sequence}"
    assert "doesn't hold" in verify(tampered(file, tmp_path / "r", delete), kept)
    closed_up = f"UPDATE audit_records SET sequence = sequence - 1 WHERE account = '{OURS}' AND sequence > {sequence}"
    assert "doesn't hold" in verify(tampered(file, tmp_path / "s", delete, closed_up), kept)


@pytest.mark.parametrize("left", range(ROWS - 2))
def test_an_end_that_was_cut_off_before_the_head_is_found(written: tuple[Path, Path], tmp_path: Path, left: int) -> None:
    file, kept = written
    cut = f"DELETE FROM audit_records WHERE account = '{OURS}' AND sequence > {left}"
    assert f"end with {left}" in verify(tampered(file, tmp_path / "r", cut), kept)


def test_rows_that_changed_places_are_found(written: tuple[Path, Path], tmp_path: Path) -> None:
    file, kept = written
    swap = (
        f"UPDATE audit_records SET sequence = 99 WHERE account = '{OURS}' AND sequence = 2",
        f"UPDATE audit_records SET sequence = 2 WHERE account = '{OURS}' AND sequence = 3",
        f"UPDATE audit_records SET sequence = 3 WHERE account = '{OURS}' AND sequence = 99",
    )
    assert "doesn't hold" in verify(tampered(file, tmp_path / "r", *swap), kept)


@pytest.mark.parametrize("sequence", [0, 2, 7, 50, -1])
def test_a_row_that_was_put_in_is_found(written: tuple[Path, Path], tmp_path: Path, sequence: int) -> None:
    file, kept = written
    names = [column.name for column in records.columns if column.name not in ("record_id", "sequence")]
    put = (
        f"INSERT INTO audit_records (record_id, sequence, {', '.join(names)}) "
        f"SELECT 'new', {sequence}, {', '.join(names)} FROM audit_records WHERE account = '{OURS}' AND sequence = 1"
    )
    assert "doesn't hold" in verify(tampered(file, tmp_path / "r", put), kept)


def test_a_whole_chain_that_was_written_anew_is_found(
    written: tuple[Path, Path], tmp_path: Path, sqlite_template: Callable[[], Path], clock: SettableClock
) -> None:
    file, kept = written
    other = tmp_path / "records.sqlite3"
    shutil.copyfile(sqlite_template(), other)
    work = open_sqlite(other, clock=clock)
    try:
        add(work, OURS, 0, 1, 42, 3, 4, 5)
    finally:
        work.close()
    assert "written anew" in verify(other, kept)
    assert "holds" in verify(file, kept)


def test_what_is_no_records_file_is_refused_by_name(written: tuple[Path, Path], tmp_path: Path) -> None:
    _, kept = written
    (tmp_path / "other").write_bytes(b"hello" * 1000)
    assert "isn't the records" in verify(tmp_path / "other", kept)
    assert "There is no file" in verify(tmp_path / "absent", kept)


def test_reads_and_denials_are_rows_of_the_same_chain(work: SqlWork, clock: SettableClock) -> None:
    observed = Observed(home=OURS, clock=clock, ids=RandomIds())
    observed.key_used(OURS, "k", "device-ca")
    add(work, OURS, 1)
    asyncio.run(AuditWriter(work=work, observed=observed, store=STORE).finish())
    assert [each.kind for each in chain_of(work, OURS)] == [AuditKind.CHANGE, AuditKind.KEY_USE]
    assert walk(head_of(work, OURS, clock), chain_of(work, OURS)) == 2
