"""An exported directory: everything that moves from one server to another, as files (docs/migration.md).

```
DIR/                        0700; no secret of the old server is in it, but names, notes and certificates of devices are
├─ export.json              what it is and where it came from; written last, so that an export that was cut is known as one
├─ image/                   roots/N.root.json, targets.json, snapshot.json, timestamp.json, delegations/NAME.json
│  ├─ tuf/                  the same in TUF's flavour, from a server that has it
│  └─ files/SHA256          images by the hash of their bytes
├─ director/roots/N.root.json, director/tuf/roots/N.root.json
├─ fleet_authorities.json   certificates of fleet authorities, with rules where there are any
├─ devices/UUID.json        one device each
└─ import/                  what an import waits for: requests to sign, signatures, its state
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from overair.agent.durable import Disk
from overair.cli.ends import CommandEnded, ExitCode
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import (
    DELEGATION_NAME,
    ROOT_SIZE_BYTES_MAX,
    SNAPSHOT_SIZE_BYTES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    TIMESTAMP_SIZE_BYTES_MAX,
    Repository,
)

FORMAT: Final = "overair-export/1"
ROOTS_MAX: Final = 1000
DELEGATIONS_MAX: Final = 1000
DEVICES_MAX: Final = 10_000_000
DEVICE_SIZE_BYTES_MAX: Final = 1024 * 1024
FLEET_SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
INDEX_SIZE_BYTES_MAX: Final = 1024 * 1024
ROLES: Final[Mapping[str, int]] = {
    "timestamp": TIMESTAMP_SIZE_BYTES_MAX,
    "snapshot": max(SNAPSHOT_SIZE_BYTES_MAX, 1024 * 1024),
    "targets": TARGETS_SIZE_BYTES_MAX,
}
"""The Image repository's documents beside its roots, in the order in which they are believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """One repository's documents in one flavour, as they were served."""

    roots: tuple[bytes, ...]
    """Each the next version. Of Uptane's flavour from version 1 on."""
    roles: Mapping[str, bytes] = field(default_factory=dict)
    """``timestamp``, ``snapshot``, ``targets``; none of the Director's, which are each vehicle's own."""
    delegations: Mapping[str, bytes] = field(default_factory=dict)
    first_version: int = 1


class ExportDirectory:
    """Files under fixed names, each written whole or not at all."""

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()

    # Writing --------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make the directory; until ``finish`` it is known as one that isn't whole. What a whole one says of devices is asked
        anew; an export that was cut goes on with those that are missing."""
        self._make(self.path)
        if (self.path / "export.json").exists():
            for path in (self.path / "devices").glob("*.json"):
                self._disk.remove(path)
            self._disk.remove(self.path / "export.json")

    def finish(self, index: Mapping[str, Any]) -> None:
        self.write("export.json", _text({"format": FORMAT, **index}))

    def write(self, name: str, data: bytes) -> Path:
        path = self.path / name
        self._make(path.parent)
        self._disk.write_whole(path, data)
        return path

    def write_json(self, name: str, document: Mapping[str, Any]) -> Path:
        return self.write(name, _text(document))

    def write_documents(self, repository: Repository, flavour: Flavour, documents: Documents) -> None:
        """Roots first; what isn't there any more goes."""
        folder = _folder(repository, flavour)
        for number, root in enumerate(documents.roots, start=documents.first_version):
            self.write(f"{folder}/roots/{number}.root.json", root)
        for path in (self.path / folder / "delegations").glob("*.json"):
            if path.name.removesuffix(".json") not in documents.delegations:
                self._disk.remove(path)
        for name, data in documents.delegations.items():
            self.write(f"{folder}/delegations/{name}.json", data)
        for role, data in documents.roles.items():
            self.write(f"{folder}/{role}.json", data)

    def image_file(self, sha256: str) -> Path:
        """Where an image's bytes lie, or are to lie."""
        return self.path / "image" / "files" / sha256

    def remove(self, name: str) -> None:
        self._disk.remove(self.path / name)

    # Reading --------------------------------------------------------------------------------------------------------------

    def index(self) -> dict[str, Any]:
        """What ``export.json`` says.

        Raises:
            CommandEnded: USAGE: there is none, or it isn't one.
        """
        path = self.path / "export.json"
        if not path.exists():
            raise CommandEnded(
                ExitCode.USAGE,
                f"{self.path} is no whole export: export.json isn't there. If `overair migrate export` was cut, the same "
                "command goes on where it stopped.",
            )
        found = self.read_json("export.json", INDEX_SIZE_BYTES_MAX)
        if found.get("format") != FORMAT:
            raise CommandEnded(ExitCode.USAGE, f"{path} isn't of the format {FORMAT}.")
        return found

    def documents(self, repository: Repository, flavour: Flavour = Flavour.UPTANE) -> Documents | None:
        """None where there are no roots.

        Raises:
            CommandEnded: USAGE: a file is missing, is too long or can't be read.
        """
        folder = _folder(repository, flavour)
        versions = sorted(_numbers(self.path / folder / "roots"))
        if not versions:
            return None
        first = versions[0]
        if versions != list(range(first, first + len(versions))) or len(versions) > ROOTS_MAX:
            raise CommandEnded(ExitCode.USAGE, f"{self.path / folder / 'roots'} isn't a chain: a version is missing.")
        roots = tuple(self.read(f"{folder}/roots/{number}.root.json", ROOT_SIZE_BYTES_MAX) for number in versions)
        if repository is Repository.DIRECTOR:
            return Documents(roots=roots, first_version=first)
        roles = {role: self.read(f"{folder}/{role}.json", limit) for role, limit in ROLES.items()}
        names = sorted(path.name.removesuffix(".json") for path in (self.path / folder / "delegations").glob("*.json"))
        good = [name for name in names if DELEGATION_NAME.fullmatch(name)][:DELEGATIONS_MAX]
        delegations = {name: self.read(f"{folder}/delegations/{name}.json", TARGETS_SIZE_BYTES_MAX) for name in good}
        return Documents(roots=roots, roles=roles, delegations=delegations, first_version=first)

    def fleet_authorities(self) -> list[dict[str, Any]]:
        if not (self.path / "fleet_authorities.json").exists():
            return []
        values = self.read_json("fleet_authorities.json", FLEET_SIZE_BYTES_MAX).get("values", [])
        return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []

    def devices(self) -> Iterator[dict[str, Any]]:
        """One after the other, by file name."""
        for path in sorted((self.path / "devices").glob("*.json")):
            yield self.read_json(f"devices/{path.name}", DEVICE_SIZE_BYTES_MAX)

    def has_device(self, key: str) -> bool:
        return (self.path / "devices" / f"{key}.json").exists()

    def read(self, name: str, size_bytes_max: int) -> bytes:
        """A whole file.

        Raises:
            CommandEnded: USAGE.
        """
        path = self.path / name
        try:
            with path.open("rb") as file:
                data = file.read(size_bytes_max + 1)
        except OSError as error:
            raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from None
        if len(data) > size_bytes_max:
            raise CommandEnded(ExitCode.USAGE, f"{path} has more than {size_bytes_max} bytes.")
        return data

    def read_json(self, name: str, size_bytes_max: int) -> dict[str, Any]:
        """Raises:
        CommandEnded: USAGE.
        """
        try:
            return decode_object(self.read(name, size_bytes_max), size_bytes_max=size_bytes_max)
        except MalformedJson as error:
            raise CommandEnded(ExitCode.USAGE, f"{self.path / name} can't be understood: {error}") from None

    @staticmethod
    def _make(path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _folder(repository: Repository, flavour: Flavour) -> str:
    return repository.value if flavour is Flavour.UPTANE else f"{repository.value}/tuf"


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.glob("*.root.json"):
        text = path.name.removesuffix(".root.json")
        if text.isascii() and text.isdigit() and len(text) <= 10:
            yield int(text)


def _text(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode("ascii") + b"\n"
