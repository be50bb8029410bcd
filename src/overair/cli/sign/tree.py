"""The signing tree: one directory that holds everything a signer needs, and that works without a network.

```
DIR/                    0700; nothing in it is readable by others
├─ config.json          where the server is, with which right, and which root was pinned
├─ server_ca.pem        the CA that the server's certificate must come from
├─ keys/NAME.pub.json   what is known in the open of each key
├─ keys/NAME.key        its private half, sealed by a passphrase; none for keys on tokens and in key services
├─ image/, director/    served.json (as last pulled), draft.json (edits), sealed.json (what is being signed), level.json (a
change of │                       level on its way), approved.json (what was signed here for others), requests, recovery sheets
└─ lock                 held by the running command
```
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from overair.agent.durable import Disk
from overair.cli.sign import ceremony, draft
from overair.cli.sign.draft import Draft
from overair.cli.sign.ends import usage
from overair.cli.sign.key_records import KEY_FILE_SIZE_BYTES_MAX, KeyRecord, read_record, write_record
from overair.cli.sign.known import Served
from overair.cli.sign.sealing import Sealed
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import MetadataRefused

FORMAT: Final = "overair-signing-tree/1"
FILE_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """By which right the tree speaks to the server. Secrets stand in ``config.json``, mode 0600, or stay with the server's own
    directory (``data``)."""

    kind: str
    """``data`` (a state directory on this machine), ``key`` (SigV4), ``oauth2``, ``open`` (no proof), ``none`` (air-gapped)."""
    data: str = ""
    key_id: str = ""
    secret: str = field(default="", repr=False)
    token_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """``config.json``."""

    operator_url: str
    director_url: str
    region: str
    access: Access
    pins: Mapping[str, str]
    """Repository → fingerprint of the first root of ``served.json``."""
    format: str = FORMAT

    @property
    def is_air_gapped(self) -> bool:
        return self.access.kind == "none"


class RepositoryFolder:
    """What the tree keeps of one repository."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.path = path
        self._disk = disk

    def served(self) -> Served | None:
        document = self._read("served.json")
        return None if document is None else ceremony.served_from_json(document)

    def save_served(self, served: Served) -> None:
        self.write("served.json", ceremony.served_to_json(served))

    def draft(self) -> Draft:
        document = self._read("draft.json")
        return Draft() if document is None else self._understood("draft.json", lambda: draft.from_json(document))

    def save_draft(self, wanted: Draft) -> None:
        if wanted.is_empty:
            self.remove("draft.json")
        else:
            self.write("draft.json", draft.to_json(wanted))

    def sealed(self) -> Sealed | None:
        document = self._read("sealed.json")
        return None if document is None else self._understood("sealed.json", lambda: ceremony.sealed_from_json(document))

    def save_sealed(self, sealed: Sealed | None) -> None:
        if sealed is None:
            self.remove("sealed.json")
        else:
            self.write("sealed.json", ceremony.sealed_to_json(sealed))

    def level(self) -> dict[str, Any] | None:
        """The change of level that is on its way, if one is."""
        return self._read("level.json")

    def approved(self) -> dict[str, Any]:
        """What was signed here for others: document and version → the request's id."""
        return self._read("approved.json") or {}

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        self.write_bytes(name, json.dumps(document, indent=1).encode("ascii") + b"\n")

    def write_bytes(self, name: str, data: bytes) -> Path:
        _make_directory(self.path)
        self._disk.write_whole(self.path / name, data)
        return self.path / name

    def remove(self, name: str) -> None:
        self._disk.remove(self.path / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        return read_json(path) if path.exists() else None

    def _understood(self, name: str, read: Any) -> Any:
        try:
            return read()
        except (KeyError, TypeError, ValueError, AttributeError, MetadataRefused) as error:
            raise usage(f"{self.path / name} can't be understood: {error}. `sign discard` throws it away.") from None


class Tree:
    """The directory and what is in it."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()
        self.config = self._config()

    @classmethod
    def create(cls, path: Path, config: Config, server_ca: bytes | None, disk: Disk | None = None) -> Tree:
        """Make the directory; its ``config.json`` is written last, so that a cut leaves no half tree.

        Raises:
            SignEnded: USAGE: there is something.
        """
        if path.exists() and any(path.iterdir()):
            raise usage(f"{path} isn't empty. Name another directory, or use the tree that is there.")
        _make_directory(path)
        _make_directory(path / "keys")
        disk = disk or Disk()
        if server_ca is not None:
            disk.write_whole(path / "server_ca.pem", server_ca)
        disk.write_whole(path / "config.json", _config_bytes(config))
        return cls(path, disk)

    @property
    def ca_file(self) -> Path | None:
        path = self.path / "server_ca.pem"
        return path if path.exists() else None

    @contextmanager
    def held(self) -> Iterator[None]:
        """One command at a time.

        Raises:
            SignEnded: USAGE: another one runs.
        """
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise usage(f"Another command works on {self.path}.") from None
        finally:
            os.close(descriptor)

    def pin(self, repository: Repository, fingerprint: str) -> None:
        self.config = replace(self.config, pins={**self.config.pins, repository.value: fingerprint})
        self._disk.write_whole(self.path / "config.json", _config_bytes(self.config))

    def repository(self, repository: Repository) -> RepositoryFolder:
        return RepositoryFolder(self.path / repository.value, self._disk)

    # Keys -----------------------------------------------------------------------------------------------------------------

    def records(self) -> dict[str, KeyRecord]:
        """Every key that the tree knows, by name."""
        found = {}
        for path in sorted((self.path / "keys").glob("*.pub.json")):
            record = read_record(read_file(path, KEY_FILE_SIZE_BYTES_MAX), path=str(path))
            if path.name != f"{record.name}.pub.json":
                raise usage(f"{path} is the record of {record.name}: it was renamed.")
            found[record.name] = record
        return found

    def add_key(self, record: KeyRecord, box: bytes | None) -> None:
        """Keep a key; what is sealed first, so that no record names a file that isn't there.

        Raises:
            SignEnded: USAGE: the name is taken.
        """
        path = self.path / "keys" / f"{record.name}.pub.json"
        if path.exists():
            raise usage(f"A key is called {record.name} already.")
        if box is not None:
            self._disk.write_whole(self.path / "keys" / f"{record.name}.key", box)
        self._disk.write_whole(path, write_record(record))

    def key_box(self, record: KeyRecord) -> bytes:
        """The sealed private half of a ``file:`` key.

        Raises:
            SignEnded: USAGE: it isn't there.
        """
        return read_file(self.path / "keys" / record.holder.removeprefix("file:"), KEY_FILE_SIZE_BYTES_MAX)

    def _config(self) -> Config:
        path = self.path / "config.json"
        if not path.exists():
            raise usage(f"{self.path} is no signing tree. Make one with `overair sign init CREDENTIALS.zip {self.path}`.")
        document = read_json(path)
        try:
            if document["format"] != FORMAT:
                raise KeyError("format")
            return Config(**{**document, "access": Access(**document["access"]), "pins": dict(document["pins"])})
        except (KeyError, TypeError, ValueError):
            raise usage(f"{path} isn't one that this tool wrote.") from None


def read_file(path: Path, size_bytes_max: int = FILE_SIZE_BYTES_MAX) -> bytes:
    """A whole file of a bounded size.

    Raises:
        SignEnded: USAGE: it can't be read or is too long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(size_bytes_max + 1)
    except OSError as error:
        raise usage(f"{path} can't be read: {error.strerror}.") from None
    if len(data) > size_bytes_max:
        raise usage(f"{path} is longer than {size_bytes_max} bytes.")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """Raises:
    SignEnded: USAGE: it can't be read or is no JSON object.
    """
    try:
        return decode_object(read_file(path), size_bytes_max=FILE_SIZE_BYTES_MAX, depth_max=64)
    except MalformedJson as error:
        raise usage(f"{path} can't be understood: {error}") from None


def _config_bytes(config: Config) -> bytes:
    return json.dumps({**asdict(config), "pins": dict(config.pins)}, indent=1).encode("ascii") + b"\n"


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
