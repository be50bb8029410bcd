"""The wrapping key is changed, cut anywhere, and nothing is lost nor left behind."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccessKeyId, AccountId, RandomIds
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access.keys import seal
from overair.server.access.store import SealedSecrets, access_keys
from overair.server.composition.rewrapping import TABLES, change_wrapping_key
from overair.server.config import load_settings
from overair.server.keyring import rewrapping, wrapping
from overair.server.keyring.rewrapping import Batch, rewrap
from overair.server.keyring.service import Keyring
from overair.server.keyring.store import SqlKeyStore
from overair.server.keyring.wrapping import KeyringRefused, SecretBox, begin_change, end_change, open_secret_box
from overair.server.state_directory import StateDirectory, StateDirectoryRefused
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_sqlite, sql

ACCOUNT, OTHER = AccountId("123456789012"), AccountId("210987654321")
IDS = RandomIds()
OLD, NEW = Redacted(b"the old words"), Redacted(b"the new words")


class Cut(Exception):
    """The process is gone."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "SCRYPT_N", 2**4)
    monkeypatch.setattr(rewrapping, "ROWS_AT_ONCE", 3)


def fill(work: SqlWork, box: SecretBox, clock: SettableClock) -> None:
    """Keys of two accounts, one of them elsewhere, and access keys."""
    keyring = Keyring(SqlKeyStore(), box, clock=clock, ids=RandomIds())

    def unit(tx: Tx) -> None:
        for account in (ACCOUNT, OTHER):
            for _ in range(4):
                keyring.create(tx, account, "ec-p256", "test")
        keyring.keep(tx, ACCOUNT, replace(keyring.prepare("ec-p256"), holder="pkcs11:token=a;object=b"), "test")
        for number in range(4):
            key_id = AccessKeyId(f"AKIA{number}")
            values = {"account": ACCOUNT, "key_id": key_id, "user_name": "", "status": "Active", "created": clock.now()}
            sealed = seal(box, ACCOUNT, key_id, Redacted(f"secret {number}"))
            sql(tx).execute(access_keys.insert().values(sealed_secret=sealed, **values))

    work.run_blocking(unit)


def all_open(work: SqlWork, box: SecretBox, *, by_this_key: bool = True) -> int:
    """How many secrets there are; all of them open, by this very key."""
    count = 0
    for table in (SqlKeyStore(), SealedSecrets(access_keys)):
        for row in work.read_blocking(lambda tx: table.sealed(tx, after=None, limit=1000)):  # noqa: B023
            box.unwrap(row.sealed, context=row.context)
            assert box.wraps(row.sealed, context=row.context) or not by_this_key
            count += 1
    return count


def test_every_secret_is_sealed_anew_and_the_former_key_opens_none(work: SqlWork, clock: SettableClock, tmp_path: Path) -> None:
    path = tmp_path / "wrapping.key"
    before = open_secret_box(path, passphrase=OLD, ids=IDS)
    fill(work, before, clock)
    box = begin_change(path, passphrase=OLD, new_passphrase=NEW, ids=IDS)
    tables = [SqlKeyStore(), SealedSecrets(access_keys)]
    assert rewrap(box, tables, work.run_blocking) == 12
    assert rewrap(box, tables, work.run_blocking) == 0
    end_change(path, passphrase=NEW, ids=IDS)
    after = open_secret_box(path, passphrase=NEW, ids=IDS)
    assert (all_open(work, after), after.is_changing) == (12, False)
    with pytest.raises(KeyringRefused):
        all_open(work, before)
    with pytest.raises(KeyringRefused, match="doesn't open"):
        open_secret_box(path, passphrase=OLD, ids=IDS)


@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
@pytest.mark.parametrize("units", range(7))
def test_cut_after_any_unit_the_server_goes_on_and_the_same_call_ends_it(
    work: SqlWork, clock: SettableClock, tmp_path: Path, units: int
) -> None:
    path = tmp_path / "wrapping.key"
    fill(work, open_secret_box(path, passphrase=None, ids=IDS), clock)
    tables = [SqlKeyStore(), SealedSecrets(access_keys)]
    left = units

    def run(unit: Callable[[Tx], Batch], /) -> Batch:
        nonlocal left
        if left == 0:
            raise Cut
        left -= 1
        return work.run_blocking(unit)

    box = begin_change(path, passphrase=None, new_passphrase=None, ids=IDS)
    done = 0
    try:
        done = rewrap(box, tables, run)
    except Cut:
        done = -1
    # The server starts on what is there, and seals by the new key.
    running = open_secret_box(path, passphrase=None, ids=IDS)
    assert running.is_changing
    assert all_open(work, running, by_this_key=False) == 12
    keyring = Keyring(SqlKeyStore(), running, clock=clock, ids=IDS)
    work.run_blocking(lambda tx: keyring.create(tx, ACCOUNT, "ec-p256", "meanwhile"))
    again = begin_change(path, passphrase=None, new_passphrase=None, ids=IDS)
    assert rewrap(again, tables, work.run_blocking) == 0 if done == 12 else True
    rewrap(again, tables, work.run_blocking)
    end_change(path, passphrase=None, ids=IDS)
    assert all_open(work, open_secret_box(path, passphrase=None, ids=IDS)) == 13


def test_a_passphrase_may_be_set_or_changed_on_the_way_but_not_twice(tmp_path: Path) -> None:
    path = tmp_path / "wrapping.key"
    bare = open_secret_box(path, passphrase=None, ids=IDS)
    sealed = bare.wrap(Redacted(b"x"), context="c")
    box = begin_change(path, passphrase=None, new_passphrase=NEW, ids=IDS)
    assert (box.has_passphrase, box.wraps(sealed, context="c")) == (True, False)
    assert box.unwrap(sealed, context="c").reveal() == b"x"
    with pytest.raises(KeyringRefused, match="under way"):
        begin_change(path, passphrase=NEW, new_passphrase=OLD, ids=IDS)
    with pytest.raises(KeyringRefused, match="sealed by a passphrase"):
        begin_change(path, passphrase=None, new_passphrase=None, ids=IDS)
    with pytest.raises(KeyringRefused, match="doesn't open"):
        begin_change(path, passphrase=OLD, new_passphrase=None, ids=IDS)
    again = begin_change(path, passphrase=NEW, new_passphrase=None, ids=IDS)
    assert again.unwrap(box.wrap(Redacted(b"y"), context="c"), context="c").reveal() == b"y"
    assert again.unwrap(sealed, context="c").reveal() == b"x"


def test_a_whole_directory_is_rewrapped_while_its_server_is_stopped(
    clock: SettableClock, tmp_path: Path, sqlite_template: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overair.server.composition.rewrapping.upgrade", lambda engine: None)
    data = tmp_path / "data"
    settings = load_settings({"data": data}, environment={})

    def change() -> int:
        return change_wrapping_key(settings, passphrase=None, new_passphrase=None, clock=clock, ids=IDS)

    with pytest.raises(InvalidRequest, match="isn't a server's state directory"):
        change()
    assert not data.exists()
    data.mkdir(mode=0o700)
    shutil.copyfile(sqlite_template(), data / "records.sqlite3")
    work = open_sqlite(data / "records.sqlite3", clock=clock)
    before = open_secret_box(data / "wrapping.key", passphrase=None, ids=IDS)
    fill(work, before, clock)
    sealed = [row.sealed for row in work.read_blocking(lambda tx: SqlKeyStore().sealed(tx, after=None, limit=99))]
    work.close()
    (data / "overair.json").write_text('{"format": 1, "account": "123456789012", "region": "us-east-1"}')
    running = StateDirectory(data)
    running.open()
    with pytest.raises(StateDirectoryRefused, match="Stop it first"):
        change()
    running.close()
    assert change() == 12
    work = open_sqlite(data / "records.sqlite3", clock=clock)
    assert all_open(work, open_secret_box(data / "wrapping.key", passphrase=None, ids=IDS)) == 12
    work.close()
    left = b"".join(path.read_bytes() for path in data.glob("records.sqlite3*"))
    assert not [each for each in sealed if each in left], "what the former key sealed is in no file any more"


def test_every_column_that_is_sealed_is_known_to_it() -> None:
    columns = [(table.name, column.name) for table in metadata.tables.values() for column in table.columns]
    sealed = {table for table, column in columns if re.search("sealed", column)}
    assert sealed == {table.name for table in TABLES}
