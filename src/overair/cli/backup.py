"""``overair backup`` and ``overair restore``: a running server in one file, and a server out of it."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from json import dumps
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from overair.basics.clock import from_datetime
from overair.basics.ids import RandomIds
from overair.cli import backup_file
from overair.cli.backup_records import into_postgresql
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data
from overair.cli.output import Json, console, print_json
from overair.server.keyring.proof import prove_opens
from overair.server.keyring.wrapping import KeyringRefused, open_secret_box, read_passphrase
from overair.server.state_directory import RESTORED_NAME, write_file

Database = Annotated[
    str | None,
    typer.Option(envvar="OVERAIR_DATABASE", help="The PostgreSQL of a server that keeps its records there: postgresql://…"),
]

KEY_FILE_SIZE_BYTES_MAX = 4096


def backup(
    what: Annotated[list[str], typer.Argument(metavar="FILE | verify FILE", help="The file to write, or to check.")],
    with_wrapping_key: Annotated[
        bool, typer.Option("--with-wrapping-key", help="Put the key that opens all others, and the root's key, into it, too.")
    ] = False,
    database: Database = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Back up records, contents and wrapped keys of a server that may be running; or check a backup's hashes and version."""
    if len(what) == 2 and what[0] == "verify":
        found = backup_file.read(Path(what[1]))
        _tell(found, Path(what[1]), "is whole", json=json)
        return
    if len(what) != 1 or what[0] == "verify":
        raise CommandEnded(ExitCode.USAGE, "Name one file: overair backup FILE, or overair backup verify FILE.")
    made = backup_file.write(data, Path(what[0]), with_secrets=with_wrapping_key, database=database)
    _tell(made, Path(what[0]), "was written", json=json)
    if not made.has_wrapping_key and not json:
        console.print(
            f"It doesn't hold {data / backup_file.WRAPPING_KEY}: without a copy of that file nobody can use its keys. Keep one "
            "elsewhere.",
            soft_wrap=True,
        )


def restore(
    file: Annotated[Path, typer.Argument(help="What overair backup wrote.")],
    data: Annotated[Path, typer.Option("--data", help="The new state directory: a folder that is empty or isn't there.")],
    wrapping_key: Annotated[
        Path | None, typer.Option(help="The server's wrapping.key, where the backup was made without it.")
    ] = None,
    key_passphrase_file: Annotated[Path | None, typer.Option(help="What wrapping.key is sealed with, if it is.")] = None,
    database: Annotated[
        str | None, typer.Option(help="An empty PostgreSQL for the records, postgresql://…; without it they are in DIR.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a state directory out of a backup, once all of it has been checked. Start it with overair up --data DIR."""
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise CommandEnded(ExitCode.REFUSED, f"{data} isn't empty. A backup is restored into a new folder.")
    data.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f".{data.name}-", dir=data.parent))
    try:
        found = backup_file.read(file, folder)
        if wrapping_key is not None:
            _bring_key(wrapping_key, folder / backup_file.WRAPPING_KEY)
        elif not found.has_wrapping_key:
            raise CommandEnded(
                ExitCode.REFUSED,
                f"{file} was made without the key that opens all others. Name the server's wrapping.key with --wrapping-key.",
            )
        _prove_key(folder, key_passphrase_file)
        for name in ("contents", "contents/manifests"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        write_file(folder / RESTORED_NAME, _moment_of(found, file), mode=0o600)
        if database is None:
            _move(folder, data)
        else:
            with into_postgresql(folder / backup_file.RECORDS, database):
                for records in folder.glob(f"{backup_file.RECORDS}*"):
                    records.unlink()
                _move(folder, data)
    except OSError as error:
        raise CommandEnded(ExitCode.REFUSED, f"{data} can't be made: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tell(found, data, "was restored", json=json)
    if not json:
        console.print(
            f"It is as it was at {found.made_at}. What was revoked, blocked or deleted since is good again: revoke it again "
            "before devices reach this server (docs/security.md says how). The lost server must never run again.",
            soft_wrap=True,
        )


def _move(folder: Path, data: Path) -> None:
    if data.exists():
        data.rmdir()
    folder.rename(data)
    _settle(data.parent)


def _prove_key(folder: Path, key_passphrase_file: Path | None) -> None:
    """The wrapping key must open every key in the records: with another one the server would start and could do nothing."""
    try:
        passphrase = None if key_passphrase_file is None else read_passphrase(key_passphrase_file)
        box = open_secret_box(folder / backup_file.WRAPPING_KEY, passphrase=passphrase, ids=RandomIds())
        prove_opens(folder / backup_file.RECORDS, box)
    except KeyringRefused as error:
        raise CommandEnded(ExitCode.REFUSED, f"Nothing was restored. {error.message}") from error


def _moment_of(found: backup_file.Contents, file: Path) -> bytes:
    try:
        return dumps({"backedUpAt": from_datetime(datetime.fromisoformat(found.made_at))}).encode() + b"\n"
    except (ValueError, TypeError) as error:
        raise CommandEnded(ExitCode.REFUSED, f"{file} doesn't say when it was made: {error}.") from error


def _bring_key(wrapping_key: Path, to: Path) -> None:
    try:
        with wrapping_key.open("rb") as source:
            content = source.read(KEY_FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{wrapping_key} can't be read: {error.strerror}.") from error
    if len(content) > KEY_FILE_SIZE_BYTES_MAX:
        raise CommandEnded(ExitCode.USAGE, f"{wrapping_key} isn't a wrapping key.")
    to.unlink(missing_ok=True)
    descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())


def _settle(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tell(found: backup_file.Contents, where: Path, what: str, *, json: bool) -> None:
    if json:
        print_json(
            {
                "path": str(where),
                "account": found.account,
                "region": found.region,
                "schema": found.schema,
                "made_at": found.made_at,
                "files": len(found.files),
                "size_bytes": found.size_bytes,
                "has_wrapping_key": found.has_wrapping_key,
            }
        )
        return
    console.print(
        f"{where} {what}: account {found.account}, {len(found.files)} files, {found.size_bytes:,} bytes, records of revision "
        f"{found.schema}.",
        soft_wrap=True,
    )
