"""A backup: one tar file of records, contents and the state directory's small files, with the hash of each at its end.

It is made while the server runs. Contents never change and only go where no record names them, so they are linked aside before
the records are copied and once more afterwards: whatever the copied records name is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Final

from overair.basics.clock import WallClock, as_datetime
from overair.cli.backup_records import copy_of_postgresql, copy_of_sqlite, schema_of
from overair.cli.ends import CommandEnded, ExitCode
from overair.server.storage.migrations import REVISIONS

FORMAT: Final = 1
TABLE: Final = "backup.json"
TABLE_SIZE_BYTES_MAX: Final = 1024 * 1024 * 1024
RECORDS: Final = "records.sqlite3"
WRAPPING_KEY: Final = "wrapping.key"
OPEN_FILES: Final = ("overair.json", "ca.pem", "signer.pem")
SECRET_FILES: Final = (WRAPPING_KEY, "root-key.json")
"""With these in his hands a thief of the backup is the server, and its root."""
STAGING: Final = ".overair-backup-"
PIECE_SIZE_BYTES: Final = 1024 * 1024

_CONTENT: Final = re.compile(r"contents/(?:[0-9a-f]{2}|manifests)/(?P<hash>[0-9a-f]{64})")
_NAMES: Final = frozenset({RECORDS, *OPEN_FILES, *SECRET_FILES})


@dataclass(slots=True, kw_only=True)
class Contents:
    """What a backup says of itself; ``files``: (size in bytes, SHA-256) by name."""

    account: str = ""
    region: str = ""
    schema: str = ""
    made_at: str = ""
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def has_wrapping_key(self) -> bool:
        return WRAPPING_KEY in self.files

    @property
    def size_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


# Writing --------------------------------------------------------------------------------------------------------------


def write(data: Path, file: Path, *, with_secrets: bool, database: str | None = None) -> Contents:
    """Back up the server on ``data``, which may be running, into a file that appears whole or not at all.

    Args:
        database: The PostgreSQL that the server keeps its records in, unless they are in ``data``.

    Raises:
        CommandEnded: it isn't a state directory with its records in it; the file is there; the disk fails.
    """
    marker = _marker(data)
    is_in_folder = (data / RECORDS).is_file()
    if not is_in_folder and database is None:
        raise CommandEnded(
            ExitCode.USAGE,
            f"The records aren't in {data}: this server keeps them in PostgreSQL. Name it with --database, as at the start of "
            "the server.",
        )
    if file.exists():
        raise CommandEnded(ExitCode.USAGE, f"{file} is there already. Name another file.")
    part = file.with_name(file.name + ".part")
    try:
        with _staging(data) as aside:
            _link_contents(data, aside)
            if is_in_folder or database is None:
                copy_of_sqlite(data / RECORDS, aside / RECORDS)
            else:
                copy_of_postgresql(database, aside / RECORDS, account=marker["account"])
            _link_contents(data, aside)
            told = Contents(
                account=marker["account"], region=marker["region"], made_at=as_datetime(WallClock().now()).isoformat()
            )
            told.schema = schema_of(aside / RECORDS)
            names = [name for name in (*OPEN_FILES, *(SECRET_FILES if with_secrets else ())) if (data / name).is_file()]
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as output, tarfile.open(fileobj=output, mode="w|") as archive:
                _add(archive, told, RECORDS, aside / RECORDS)
                for name in names:
                    _add(archive, told, name, data / name)
                for path in _files_below(aside / "contents"):
                    _add(archive, told, path.relative_to(aside).as_posix(), path)
                _add_table(archive, told)
                archive.close()
                output.flush()
                os.fsync(output.fileno())
        part.rename(file)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise CommandEnded(ExitCode.REFUSED, f"The backup can't be made: {error}.") from error
    return told


def _marker(data: Path) -> dict[str, str]:
    try:
        content = json.loads((data / "overair.json").read_bytes())
        return {"account": str(content["account"]), "region": str(content["region"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandEnded(ExitCode.USAGE, f"{data} isn't a server's state directory: {error}.") from error


@contextmanager
def _staging(data: Path) -> Iterator[Path]:
    """A folder beside the contents, on their disk, so that linking copies nothing."""
    folder = Path(mkdtemp(prefix=STAGING, dir=data))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _link_contents(data: Path, aside: Path) -> None:
    for path in _files_below(data / "contents"):
        name = path.relative_to(data)
        if _CONTENT.fullmatch(name.as_posix()) and not (aside / name).exists():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            # Gone since it was listed: then nothing named it.
            with suppress(FileNotFoundError):
                os.link(path, aside / name)


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield Path(parent, name)


def _add(archive: tarfile.TarFile, told: Contents, name: str, path: Path) -> None:
    with path.open("rb") as source:
        size_bytes = os.fstat(source.fileno()).st_size
        hashing = _Hashing(source)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size_bytes, 0o600
        archive.addfile(info, hashing)
    told.files[name] = (size_bytes, hashing.digest.hexdigest())


def _add_table(archive: tarfile.TarFile, told: Contents) -> None:
    content: dict[str, Any] = {
        "format": FORMAT,
        "account": told.account,
        "region": told.region,
        "schema": told.schema,
        "made_at": told.made_at,
        "files": told.files,
    }
    # The table vouches for every file, and its own last line for the table.
    text = json.dumps(content).encode()
    text += b"\n" + hashlib.sha256(text).hexdigest().encode()
    info = tarfile.TarInfo(TABLE)
    info.size, info.mode = len(text), 0o600
    archive.addfile(info, io.BytesIO(text))


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size_bytes: int = -1) -> bytes:
        piece = self._source.read(size_bytes)
        self.digest.update(piece)
        return piece


# Reading --------------------------------------------------------------------------------------------------------------


def read(file: Path, into: Path | None = None) -> Contents:
    """Check every hash of a backup; with ``into``, an empty folder, write its files there, too.

    Raises:
        CommandEnded: it isn't a backup, or not whole; a hash doesn't fit; a newer Overair made it.
    """
    found: dict[str, tuple[int, str]] = {}
    table = b""
    try:
        with tarfile.open(file, mode="r|") as archive:
            for member in archive:
                if table or not member.isfile() or not (member.name in (TABLE, *_NAMES) or _CONTENT.fullmatch(member.name)):
                    raise _refused(file, f"it holds {member.name[:100]!r}, which no backup does")
                source = archive.extractfile(member)
                assert source is not None
                if member.name == TABLE:
                    if member.size > TABLE_SIZE_BYTES_MAX:
                        raise _refused(file, "its table is too long")
                    table = source.read()
                elif member.name in found:
                    raise _refused(file, f"it holds {member.name} twice")
                else:
                    found[member.name] = (member.size, _take(source, None if into is None else into / member.name))
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, tarfile.TarError) and error.errno is not None:
            raise CommandEnded(ExitCode.USAGE, f"{file} can't be read, or not be written from: {error}.") from error
        raise _refused(file, f"it is no tar file, or cut off ({error})") from error
    told = _told(file, table)
    for name in sorted({*told.files, *found}):
        if name not in found:
            raise _refused(file, f"{name} is missing")
        if found[name] != told.files.get(name):
            raise _refused(file, f"{name} isn't what was backed up")
        content = _CONTENT.fullmatch(name)
        if content and content["hash"] != found[name][1]:
            raise _refused(file, f"{name} was damaged before it was backed up: the bytes aren't the ones that its name says")
    if RECORDS not in found or "overair.json" not in found:
        raise _refused(file, "it holds no records")
    if told.schema not in REVISIONS:
        raise _refused(file, f"a newer Overair made it (records of revision {told.schema}). Upgrade Overair")
    return told


def _take(source: IO[bytes], to: Path | None) -> str:
    digest = hashlib.sha256()
    output: IO[bytes] | None = None
    if to is not None:
        to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The modes that the state directory gives them.
        mode = 0o400 if to.parent.parent.name == "contents" else 0o644 if to.suffix == ".pem" else 0o600
        output = os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")
    try:
        while piece := source.read(PIECE_SIZE_BYTES):
            digest.update(piece)
            if output is not None:
                output.write(piece)
        if output is not None:
            output.flush()
            os.fsync(output.fileno())
    finally:
        if output is not None:
            output.close()
    return digest.hexdigest()


def _told(file: Path, table: bytes) -> Contents:
    text, _, seal = table.rpartition(b"\n")
    if not table:
        raise _refused(file, "its end is missing")
    if hashlib.sha256(text).hexdigest().encode() != seal:
        raise _refused(file, "its table was changed")
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise _refused(file, "a newer Overair made it. Upgrade Overair")
        return Contents(
            account=str(content["account"]),
            region=str(content["region"]),
            schema=str(content["schema"]),
            made_at=str(content["made_at"]),
            files={str(name): (int(size), str(digest)) for name, (size, digest) in content["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(file, "its table can't be read") from error


def _refused(file: Path, why: str) -> CommandEnded:
    return CommandEnded(ExitCode.REFUSED, f"{file} isn't a whole backup: {why}.")
