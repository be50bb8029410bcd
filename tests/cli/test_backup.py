"""A backup holds what the server had at one moment, says so with hashes, and is restored whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import stat
import tarfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from overair.basics.ids import SeededIds
from overair.basics.redacted import Redacted
from overair.cli import backup_file
from overair.cli.backup import backup, restore
from overair.cli.ends import CommandEnded
from overair.server.keyring.wrapping import open_secret_box, read_passphrase
from overair.server.storage.migrations import REVISIONS, VERSION_TABLE

SECRETS = (b'"key":', b"the root's key")


def content(data: Path, text: bytes, *, folder: str | None = None) -> str:
    digest = hashlib.sha256(text).hexdigest()
    path = data / "contents" / (folder or digest[:2]) / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    written = data / "contents" / "incoming" / digest
    written.write_bytes(text)
    written.rename(path)  # whole at once, as the server does
    return digest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A state directory as a server leaves it."""
    data = tmp_path / "data"
    (data / "contents" / "incoming").mkdir(parents=True)
    (data / "run").mkdir()
    (data / "overair.json").write_text(json.dumps({"format": 1, "account": "123456789012", "region": "us-east-1"}))
    (data / "ca.pem").write_text("ca")
    (data / "signer.pem").write_text("signer")
    (data / "root-key.json").write_bytes(SECRETS[1])
    box = open_secret_box(data / "wrapping.key", passphrase=None, ids=SeededIds(1))
    (data / "lock").touch()
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        records.execute("PRAGMA journal_mode=WAL")
        records.execute(f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)")
        records.execute(f"INSERT INTO {VERSION_TABLE} VALUES (?)", (REVISIONS[-1],))
        records.execute("CREATE TABLE things (name TEXT)")
        records.execute("CREATE TABLE keyring_keys (account TEXT, key_id TEXT, sealed BLOB)")
        sealed = box.wrap(Redacted(b"a private key"), context="private-key/123456789012/k")
        # A key that a token holds has nothing sealed.
        records.executemany("INSERT INTO keyring_keys VALUES ('123456789012', ?, ?)", [("k", sealed), ("token", b"")])
        records.execute("INSERT INTO things VALUES ('one')")
        records.commit()
    first = content(data, b"first" * 100_000)
    content(data, f"{first} 500000\n".encode(), folder="manifests")
    (data / "contents" / "incoming" / "half").write_bytes(b"half an upload")
    return data


def files_of(data: Path) -> dict[str, bytes]:
    names = ("overair.json", "ca.pem", "signer.pem", "wrapping.key", "root-key.json")
    found = {name: (data / name).read_bytes() for name in names if (data / name).exists()}
    for path in (data / "contents").rglob("*"):
        if path.is_file() and path.parent.name != "incoming":
            found[path.relative_to(data).as_posix()] = path.read_bytes()
    return found


def things_of(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        return [name for (name,) in records.execute("SELECT name FROM things ORDER BY rowid")]


def backed_up(data: Path, file: Path, **more: Any) -> Path:
    backup([str(file)], **{"with_wrapping_key": False, "database": None, "data": data, "json": False, **more})
    return file


def restored(file: Path, to: Path, *, wrapping_key: Path | None = None, passphrase: Path | None = None) -> Path:
    restore(file, to, wrapping_key=wrapping_key, key_passphrase_file=passphrase, database=None, json=False)
    return to


def test_what_is_restored_is_what_was_backed_up(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar", with_wrapping_key=True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    backup(["verify", str(file)], with_wrapping_key=False, database=None, data=data, json=True)
    new = restored(file, tmp_path / "new")
    assert files_of(new) == files_of(data)
    assert things_of(new) == ["one"]
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    assert stat.S_IMODE((new / "wrapping.key").stat().st_mode) == 0o600
    assert not list(data.glob(f"{backup_file.STAGING}*")), "what was linked aside goes"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data", "new"]


def test_without_being_asked_no_key_that_opens_others_is_in_it(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar")
    assert not any(secret in file.read_bytes() for secret in SECRETS)
    with pytest.raises(CommandEnded, match="--wrapping-key"):
        restored(file, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    new = restored(file, tmp_path / "new", wrapping_key=data / "wrapping.key")
    assert (new / "wrapping.key").read_bytes() == (data / "wrapping.key").read_bytes()
    assert not (new / "root-key.json").exists()


def test_the_wrapping_key_is_proved_before_anything_is_restored(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar")
    other = tmp_path / "other.key"
    open_secret_box(other, passphrase=None, ids=SeededIds(2))
    with pytest.raises(CommandEnded, match="isn't the one that sealed the keys"):
        restored(file, tmp_path / "new", wrapping_key=other)
    other.write_bytes(b"no key")
    with pytest.raises(CommandEnded, match="isn't a wrapping key"):
        restored(file, tmp_path / "new", wrapping_key=other)
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        records.execute("UPDATE keyring_keys SET key_id = 'elsewhere'")
        records.commit()
    with pytest.raises(CommandEnded, match="or they were changed"):
        restored(backed_up(data, tmp_path / "c.tar"), tmp_path / "new", wrapping_key=data / "wrapping.key")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "c.tar", "data", "other.key"]


def test_a_wrapping_key_with_a_passphrase_is_proved_with_it(data: Path, tmp_path: Path) -> None:
    passphrase, wrong = tmp_path / "passphrase", tmp_path / "wrong"
    passphrase.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    open_secret_box(data / "wrapping.key", passphrase=read_passphrase(passphrase), ids=SeededIds(3))
    file = backed_up(data, tmp_path / "b.tar", with_wrapping_key=True)
    for given, said in ((None, "--key-passphrase-file"), (wrong, "doesn't open")):
        with pytest.raises(CommandEnded, match=said):
            restored(file, tmp_path / "new", passphrase=given)
    assert things_of(restored(file, tmp_path / "new", passphrase=passphrase)) == ["one"]


def test_a_folder_that_isnt_empty_is_left_alone(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar", with_wrapping_key=True)
    before = files_of(data)
    with pytest.raises(CommandEnded, match="isn't empty"):
        restored(file, data)
    assert files_of(data) == before
    (tmp_path / "empty").mkdir()
    assert things_of(restored(file, tmp_path / "empty")) == ["one"]


def test_a_file_that_is_there_is_not_written_over(data: Path, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"mine")
    with pytest.raises(CommandEnded, match="is there already"):
        backed_up(data, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_bytes() == b"mine"


def test_a_byte_that_was_changed_anywhere_in_a_file_is_found(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar", with_wrapping_key=True)
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        places = [(member.offset_data, member.size) for member in archive]
    for begin, size in places:
        for place in (begin, begin + size // 2, begin + size - 1):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(CommandEnded, match="isn't a whole backup"):
                backup_file.read(file)
    file.write_bytes(whole)
    backup_file.read(file)


def test_a_backup_that_was_cut_off_is_found(data: Path, tmp_path: Path) -> None:
    file = backed_up(data, tmp_path / "b.tar")
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        ends = [member.offset_data for member in archive]
    for length in (0, 100, 512, *(end + 7 for end in ends), *ends):
        file.write_bytes(whole[:length])
        with pytest.raises(CommandEnded, match="isn't a whole backup"):
            restored(file, tmp_path / "new", wrapping_key=data / "wrapping.key")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "data"]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "contents/../evil", "contents/aa/short", "run/endpoints.json"])
def test_a_name_that_no_backup_has_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / "b.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(CommandEnded, match="no backup does"):
        restored(file, tmp_path / "deep" / "new")
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_in_a_backup_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("ca.pem")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(CommandEnded, match="no backup does"):
        backup_file.read(file)


def test_content_that_rotted_on_the_disk_is_named(data: Path, tmp_path: Path) -> None:
    digest = content(data, b"sound")
    (data / "contents" / digest[:2] / digest).write_bytes(b"rotten")
    file = backed_up(data, tmp_path / "b.tar")
    with pytest.raises(CommandEnded, match=f"{digest} was damaged before it was backed up"):
        backup_file.read(file)


def test_records_of_a_newer_version_are_refused(data: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(data / "records.sqlite3")) as records:
        records.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        records.commit()
    file = backed_up(data, tmp_path / "b.tar")
    with pytest.raises(CommandEnded, match="newer Overair"):
        backup_file.read(file)


def test_a_server_with_its_records_in_postgresql_is_told_how(data: Path, tmp_path: Path) -> None:
    (data / "records.sqlite3").unlink()
    with pytest.raises(CommandEnded, match="PostgreSQL"):
        backed_up(data, tmp_path / "b.tar")
    with pytest.raises(CommandEnded, match="isn't a server's state directory"):
        backed_up(tmp_path, tmp_path / "b.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_whatever_the_copied_records_name_is_there_though_the_server_goes_on(data: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def goes_on() -> None:
        """Stores a content, then names it, as the server does."""
        number = 0
        with closing(sqlite3.connect(data / "records.sqlite3", timeout=60)) as records:
            while not stop.is_set() and number < 300:
                number += 1
                digest = content(data, b"content %d" % number)
                records.execute("INSERT INTO things VALUES (?)", (digest,))
                records.commit()

    going = threading.Thread(target=goes_on)
    going.start()
    try:
        files = [backed_up(data, tmp_path / f"{number}.tar", with_wrapping_key=True) for number in range(3)]
    finally:
        stop.set()
        going.join()
    for number, file in enumerate(files):
        new = restored(file, tmp_path / f"new-{number}")
        for name in things_of(new)[1:]:
            assert (new / "contents" / name[:2] / name).is_file()
    assert things_of(data)[: len(things_of(tmp_path / "new-2"))] == things_of(tmp_path / "new-2")
