"""The state directory: one folder that is the whole embedded server.

```
DIR/                 0700
├─ overair.json      what this folder is: format, account, region
├─ lock              held by the running server, or shared by the processes of a server with several
├─ starting          held by the one of several that is starting
├─ first-start       there until the first start is done; only then does a start clear what a cut one left
├─ restored.json     there after a restore, until the start that has taken note of it
├─ records.sqlite3   records, unless a PostgreSQL is named
├─ contents/         object contents, by their hash
├─ ca.pem            the CA that clients trust for every port
├─ root-key.json     0600: the first operator's access key
├─ signer.pem        the default code-signing certificate, for devices' trust folders
├─ wrapping.key      0600: wraps private keys at rest, unless a passphrase file does
├─ run/node-*.json   of a server with several: where each process listens, held by it while it lives
└─ run/endpoints.json   there while every port accepts
```
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overair.basics.errors import OverairError
from overair.basics.ids import AccountId

RESTORED_NAME = "restored.json"
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

    def __init__(self, path: Path, *, is_shared: bool = False) -> None:
        """``is_shared``: with the other processes of one server; otherwise the folder is this one's alone."""
        self.path = path
        self._is_shared = is_shared
        self._lock: int | None = None
        self._starting: int | None = None
        self._shown: NodeFiles | None = None

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
    def restored_file(self) -> Path:
        return self.path / RESTORED_NAME

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
            if self._is_shared:
                self._wait_for_others_to_start()
            self._take_lock()
            marker = self._read_marker()
            if not self._is_shared:
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
        if names & {"overair.json", self._first_start_file.name} or not names - {"lock", "starting", "run"}:
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
            fcntl.flock(descriptor, (fcntl.LOCK_SH if self._is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StateDirectoryRefused(
                f"Another server runs on {self.path}. Stop it first, or name another folder with --data."
            ) from None
        self._lock = descriptor

    def _wait_for_others_to_start(self) -> None:
        """One at a time makes what is missing; the others find it made."""
        self._starting = os.open(self.path / "starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._starting, fcntl.LOCK_EX)

    def let_others_start(self) -> None:
        """What a first start makes is there."""
        if self._starting is not None:
            os.close(self._starting)
            self._starting = None

    def write_marker(self, marker: Marker) -> None:
        """The last act of a first start: from here on the folder is a server's."""
        write_file(
            self.marker_file,
            json.dumps({"format": marker.format, "account": marker.account, "region": marker.region}, indent=2).encode()
            + b"\n",
            mode=0o600,
        )
        self._first_start_file.unlink(missing_ok=True)

    def show(self, name: str, endpoints: dict[str, Any]) -> None:
        """Say where to knock; appears whole or not at all. Of several processes each says its own, and all is shown as one."""
        if not self._is_shared:
            write_file(self.endpoints_file, _as_text(endpoints), mode=0o600)
            return
        self._shown = NodeFiles(self.path / "run", self.endpoints_file, name)
        self._shown.show(endpoints)

    def look_around(self) -> None:
        """Another process of the server has come or gone: show what is there now."""
        if self._shown is not None:
            self._shown.look_around()

    def device_url(self) -> str | None:
        """Where some gateway of the server serves devices over HTTPS; None while none is up."""
        return None if self._shown is None else self._shown.device_url()

    def close(self) -> None:
        """Say that nobody is here any more, and let the lock go."""
        self.let_others_start()
        if self._shown is not None:
            self._shown.close()
            self._shown = None
        if self._lock is not None:
            if not self._is_shared:
                self.endpoints_file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


class NodeFiles:
    """Where each process of one server listens, in a file that it holds while it lives; and all of them as one server.

    Whoever looks tells the living from the dead by the lock on the file: a process that was killed holds none.
    """

    def __init__(self, folder: Path, endpoints_file: Path, name: str) -> None:
        self._folder = folder
        self._endpoints_file = endpoints_file
        self._own = folder / f"node-{name}.json"
        self._held: int | None = None

    def show(self, endpoints: dict[str, Any]) -> None:
        """This process is up."""
        with self._alone():
            self._held = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._held, fcntl.LOCK_EX)
            os.write(self._held, _as_text(endpoints))
            self._show_all()

    def look_around(self) -> None:
        """Show what is there now."""
        with self._alone():
            self._show_all()

    def device_url(self) -> str | None:
        """Of any gateway that is up."""
        with self._alone():
            found = self._living()
        return next((str(each["device_url"]) for each in found if each["device_url"]), None)

    def close(self) -> None:
        """This process goes."""
        with self._alone():
            if self._held is not None:
                self._own.unlink(missing_ok=True)
                os.close(self._held)
                self._held = None
            self._show_all()

    def _show_all(self) -> None:
        living = self._living()
        operators = [each for each in living if each["operator_url"]]
        gateways = [each for each in living if each["mqtt_port"]]
        if not operators or not gateways:
            self._endpoints_file.unlink(missing_ok=True)
            return
        devices = {name: gateways[0][name] for name in ("mqtt_host", "mqtt_port", "device_url")}
        write_file(self._endpoints_file, _as_text({**operators[0], **devices}), mode=0o600)

    def _living(self) -> list[dict[str, Any]]:
        """What those say that are up, the longest there first; files of the dead go."""
        found = []
        for path in sorted(self._folder.glob("node-*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            if path == self._own:
                if self._held is not None:
                    found.append(json.loads(path.read_bytes()))
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(json.loads(path.read_bytes()))
            else:
                path.unlink()
            finally:
                os.close(descriptor)
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "looking", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _as_text(endpoints: dict[str, Any]) -> bytes:
    return json.dumps(endpoints, indent=2).encode() + b"\n"


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
