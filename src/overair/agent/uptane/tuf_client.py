"""A client of a plain TUF repository, over the same trusted set in its TUF flavour: what ``overair-device tuf`` runs.

Metadata lie in one folder under the names that TUF gives them (``root.json``, ``timestamp.json``, …); a delegated role's name
is percent-encoded, since it may hold any character.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from overair.agent.durable import Disk
from overair.agent.uptane.https import BadStatus, HttpClient, Oversized
from overair.agent.uptane.refresh import DocumentMissing, Refresh
from overair.basics.clock import Instant
from overair.wire.uptane.content import ContentCheck
from overair.wire.uptane.hashing import known_hashes
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, TARGETS_SIZE_BYTES_MAX, Repository, TargetFile
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import search
from overair.wire.uptane.trust import ROOT_FILE, TrustedSet
from overair.wire.uptane.verdicts import Refused

READ_SIZE_BYTES: Final = 256 * 1024


class NotInitialised(Exception):
    """The folder holds no trusted root."""


def begin(folder: Path, root: bytes, disk: Disk) -> None:
    """Trust a root that came some other way.

    Raises:
        MetadataRefused: it doesn't vouch for itself.
    """
    TrustedSet.begin(root, repository=Repository.IMAGE, flavour=Flavour.TUF)
    folder.mkdir(parents=True, exist_ok=True)
    disk.write_whole(folder / ROOT_FILE, root, mode=0o644)


class TufClient:
    """One repository: trusted metadata in ``folder``, the rest behind ``metadata_url``."""

    def __init__(self, folder: Path, client: HttpClient, metadata_url: str, *, disk: Disk, now: Callable[[], Instant]) -> None:
        """
        Raises:
            NotInitialised; MetadataRefused: the stored root can't be used.
        """
        self._folder = folder
        self._client = client
        self._url = metadata_url.rstrip("/")
        self._disk = disk
        self._now = now
        self._kept = self._stored()
        try:
            root = self._kept[ROOT_FILE]
        except KeyError:
            raise NotInitialised(f"{folder} holds no trusted root: overair-device tuf --metadata-dir … init ROOT") from None
        self._trusted = TrustedSet.begin(root, repository=Repository.IMAGE, flavour=Flavour.TUF)
        self._trusted.adopt(self._kept, now=now())
        self._refresh = Refresh(self._trusted, fetch=self._fetch, keep=self._keep, now=now)

    def refresh(self) -> None:
        """Bring the four top-level roles up to date.

        Raises:
            MetadataRefused, TransportFailed, DocumentMissing
        """
        self._refresh.roots()
        if not self._refresh.timestamp():
            raise DocumentMissing("The server has no timestamp.json.")
        self._refresh.snapshot_and_targets()

    def find(self, name: str) -> TargetFile:
        """What the repository says of a target, asking the delegations that may answer for it.

        Raises:
            MetadataRefused, TransportFailed
        """
        asking = search(name, self._trusted, now=self._now())
        try:
            needed = next(asking)
            while True:
                needed = asking.send(self._refresh.delegated_document(needed))
        except StopIteration as end:
            found = end.value
        finally:
            self._keep(self._trusted)
        if isinstance(found, Refused):
            raise MetadataRefused(found.reason, found.message, field=found.field)
        target: TargetFile = found.target
        return target

    def download(self, target: TargetFile, *, base_url: str, folder: Path) -> Path:
        """The target's file, fetched unless the same bytes are there already.

        Raises:
            MetadataRefused, TransportFailed, OSError
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / quote(target.name, safe="")
        if _holds(path, target):
            return path
        part = folder / f".{path.name[:200]}.part"
        check = ContentCheck(target)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)

        def take(offset: int, data: bytes) -> None:
            check.update(data)
            self._disk.write_at(descriptor, data, offset)

        try:
            self._client.download(
                f"{base_url.rstrip('/')}/{self._served_as(target)}", first_byte=0, size_bytes=target.length, take=take
            )
            check.finish()
            self._disk.sync(descriptor)
            self._disk.rename(part, path)
            self._disk.sync_directory(folder)
        except Oversized as error:
            raise MetadataRefused(Reason.OVERSIZED_TARGET, str(error)) from None
        finally:
            os.close(descriptor)
            self._disk.remove(part)
        return path

    def _served_as(self, target: TargetFile) -> str:
        name = target.name
        if self._trusted.root.consistent_snapshot:
            folder, _, last = name.rpartition("/")
            digests = known_hashes(target.hashes)
            digest = digests.get("sha256") or next(iter(digests.values()), "")
            name = f"{folder}/{digest}.{last}" if folder else f"{digest}.{last}"
        return quote(name)

    def _fetch(self, name: str, size_bytes_max: int) -> bytes | None:
        answer = self._client.request("GET", f"{self._url}/{name}", size_bytes_max=size_bytes_max)
        if answer.status == 200:
            return answer.body
        if answer.status in (403, 404):
            return None
        raise BadStatus(answer.status, f"{self._url}/{name} answers with status {answer.status}.")

    def _stored(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in sorted(self._folder.glob("*.json")):
            limit = ROOT_SIZE_BYTES_MAX if path.name == ROOT_FILE else TARGETS_SIZE_BYTES_MAX
            with path.open("rb") as file:
                found[unquote(path.name)] = file.read(limit + 1)
        return found

    def _keep(self, trusted: TrustedSet) -> None:
        documents = trusted.documents
        for name, data in documents.items():
            if self._kept.get(name) != data:
                self._disk.write_whole(self._folder / quote(name, safe=""), data, mode=0o644)
        for name in self._kept.keys() - documents.keys():
            self._disk.remove(self._folder / quote(name, safe=""))
        self._kept = dict(documents)


def _holds(path: Path, target: TargetFile) -> bool:
    """Whether the file is the target's already."""
    check = ContentCheck(target)
    try:
        with path.open("rb") as file:
            while data := file.read(READ_SIZE_BYTES):
                check.update(data)
        check.finish()
    except (FileNotFoundError, MetadataRefused):
        return False
    return True
