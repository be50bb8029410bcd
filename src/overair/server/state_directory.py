"""The state directory: one folder that is the whole embedded server.

```
DIR/                 0700
├─ overair.json      what this folder is: format, account, region
├─ lock              held by the running server
├─ first-start       there until the first start is done; only then does a start clear what a cut one left
├─ records.sqlite3   records, unless a PostgreSQL is named
├─ contents/         object contents, by their hash
├─ ca.pem            the CA that clients trust for every port
├─ root-key.json     0600: the first operator's access key
├─ signer.pem        the default code-signing certificate, for devices' trust folders
├─ wrapping.key      0600: wraps private keys at rest, unless a passphrase file does
└─ run/endpoints.json   there while every port accepts
```
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overair.basics.errors import OverairError
from overair.basics.ids import AccountId

FORMAT = 1
"""Rises when an older server could no longer understand the folder."""


class StateDirectoryRefused(OverairError):
    """The folder can't be used: held, foreign, newer or unreadable. The message is the one line an operator sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What ``overair.json`` says."""

    format: int
    account: AccountId
    region: str


class StateDirectory:
    """Paths within the folder, and the rules for opening it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def marker_file(self) -> Path:
        return self.path / "overair.json"

    @property
    def records_file(self) -> Path:
        return self.path / "records.sqlite3"

    @property
    def contents(self) -> Path:
        return self.path / "contents"

    @property
    def ca_file(self) -> Path:
        return self.path / "ca.pem"

    @property
    def root_key_file(self) -> Path:
        return self.path / "root-key.json"

    @property
    def signer_certificate_file(self) -> Path:
        return self.path / "signer.pem"

    @property
    def wrapping_key_file(self) -> Path:
        return self.path / "wrapping.key"

    @property
    def endpoints_file(self) -> Path:
        return self.path / "run" / "endpoints.json"

    @property
    def _first_start_file(self) -> Path:
        return self.path / "first-start"

    def open(self) -> Marker | None:
        """Make the folder if need be, take its lock, and read its marker.

        Returns:
            The marker, or None on the first start.

        Raises:
            StateDirectoryRefused: another server holds the folder; it isn't ours; a newer version made it; it can't be read
                or written.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_ours_or_empty()
            # A folder that was there before may be open to others; what comes into it is not for them.
            if stat.S_IMODE(self.path.stat().st_mode) != 0o700:
                self.path.chmod(0o700)
            (self.path / "run").mkdir(mode=0o700, exist_ok=True)
            marker = self._read_marker()
            self._take_lock()
            self.endpoints_file.unlink(missing_ok=True)
            if marker is None:
                self._begin_first_start()
            else:
                self._first_start_file.unlink(missing_ok=True)
        except OSError as error:
            raise StateDirectoryRefused(f"The state directory {self.path} can't be used: {error.strerror}.") from error
        return marker

    def _check_ours_or_empty(self) -> None:
        names = {entry.name for entry in self.path.iterdir()}
        # With a first start's own mark, that start was cut before it was done: nothing was acknowledged, so it begins again.
        if names & {"overair.json", self._first_start_file.name} or not names - {"lock", "run"}:
            return
        if names & {"records.sqlite3", "wrapping.key"}:
            raise StateDirectoryRefused(
                f"{self.path} holds a server's records or keys, but its overair.json is gone. Nothing was touched: restore "
                "that file from your backup, or name another folder."
            )
        raise StateDirectoryRefused(
            f"{self.path} holds files but isn't a state directory of Overair (no overair.json). Name an empty or new folder."
        )

    def _begin_first_start(self) -> None:
        # While this file is there nothing in here was ever shown to anybody, and what a cut start left may go. Without it
        # nothing is ever cleared: a folder that lost its marker is an operator's to mend.
        write_file(self._first_start_file, b"", mode=0o600)
        for name in ("records.sqlite3", "records.sqlite3-wal", "records.sqlite3-shm", "wrapping.key"):
            (self.path / name).unlink(missing_ok=True)

    def _read_marker(self) -> Marker | None:
        if not self.marker_file.exists():
            return None
        try:
            content = json.loads(self.marker_file.read_bytes())
            marker = Marker(format=int(content["format"]), account=AccountId(content["account"]), region=str(content["region"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StateDirectoryRefused(
                f"{self.marker_file} isn't one that Overair wrote. Restore it or name another folder."
            ) from error
        if marker.format > FORMAT:
            raise StateDirectoryRefused(
                f"{self.path} was made by a newer Overair (format {marker.format}; this one reads up to {FORMAT}). "
                "Upgrade Overair."
            )
        return marker

    def _take_lock(self) -> None:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StateDirectoryRefused(
                f"Another server runs on {self.path}. Stop it first, or name another folder with --data."
            ) from None
        self._lock = descriptor

    def write_marker(self, marker: Marker) -> None:
        """The last act of a first start: from here on the folder is a server's."""
        write_file(
            self.marker_file,
            json.dumps({"format": marker.format, "account": marker.account, "region": marker.region}, indent=2).encode()
            + b"\n",
            mode=0o600,
        )
        self._first_start_file.unlink(missing_ok=True)

    def write_endpoints(self, endpoints: dict[str, Any]) -> None:
        """Say where to knock; appears whole or not at all."""
        write_file(self.endpoints_file, json.dumps(endpoints, indent=2).encode() + b"\n", mode=0o600)

    def close(self) -> None:
        """Say that nobody is here any more, and let the lock go."""
        if self._lock is not None:
            self.endpoints_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that appears whole or not at all, and stays: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(path.name + ".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.fchmod(descriptor, mode)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
