"""Images on their way in, and those that wait for their ECUs: ``KEY.part`` and ``KEY`` in one folder.

How much of a part is on the disk for sure stands in ``KEY.length``, written only after the bytes were synced: a download goes
on from there, whatever was cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from overair.agent.durable import Disk
from overair.wire.image_signature import VerifiedImage
from overair.wire.uptane.matching import VerifiedTarget, verify_target_bytes
from overair.wire.uptane.metadata import TargetFile

SYNC_EVERY_BYTES: Final = 4 * 1024 * 1024
READ_SIZE_BYTES: Final = 256 * 1024


class ImageFiles:
    """One folder of images."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def whole(self, target: TargetFile) -> Path | None:
        """The image, if all of it has come; its bytes are still to be verified."""
        path = self._folder / key_of(target)
        return path if path.exists() else None

    def part(self, target: TargetFile) -> PartialImage:
        """The image as far as it is here."""
        return PartialImage(self._folder / f"{key_of(target)}.part", self._folder / f"{key_of(target)}.length", self._disk)

    def finish(self, target: TargetFile) -> Path:
        """All of it has come: give it its name."""
        path = self._folder / key_of(target)
        self._disk.rename(self._folder / f"{key_of(target)}.part", path)
        self._disk.remove(self._folder / f"{key_of(target)}.length")
        self._disk.sync_directory(self._folder)
        return path

    def forget(self, target: TargetFile) -> None:
        """Remove it, whole or in part."""
        self._remove({key_of(target)})

    def keep_only(self, targets: Iterator[TargetFile] | list[TargetFile]) -> None:
        """Remove whatever nobody waits for any more."""
        kept = {key_of(target) for target in targets}
        self._remove({path.name.split(".")[0] for path in self._folder.iterdir()} - kept)

    def _remove(self, keys: set[str]) -> None:
        gone = [path for path in sorted(self._folder.iterdir()) if path.name.split(".")[0] in keys]
        for path in gone:
            self._disk.remove(path)
        if gone:
            self._disk.sync_directory(self._folder)


class PartialImage:
    """An image that is being received in order."""

    def __init__(self, path: Path, length_file: Path, disk: Disk) -> None:
        self._path = path
        self._length_file = length_file
        self._disk = disk
        self._descriptor = -1
        self._synced = 0
        self.length = 0
        """How many bytes are here."""

    @contextmanager
    def opened(self) -> Iterator[PartialImage]:
        """Open for writing, at what is surely on the disk."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._synced = self.length = min(self._durable_length(), os.fstat(self._descriptor).st_size)
            os.ftruncate(self._descriptor, self.length)
            yield self
        finally:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes there; what lay beyond them is gone. A server that begins again begins at 0."""
        if offset > self.length:
            raise ValueError("Pieces come in order.")
        if offset < self.length:
            if offset < self._synced:
                self._disk.remove(self._length_file)
                self._synced = 0
            os.ftruncate(self._descriptor, offset)
        self._disk.write_at(self._descriptor, data, offset)
        self.length = offset + len(data)
        if self.length - self._synced >= SYNC_EVERY_BYTES:
            self.sync()

    def sync(self) -> None:
        """What is here stays."""
        self._disk.sync(self._descriptor)
        self._disk.write_whole(self._length_file, json.dumps(self.length).encode())
        self._synced = self.length

    def _durable_length(self) -> int:
        try:
            return max(0, int(json.loads(self._length_file.read_bytes())))
        except (FileNotFoundError, ValueError, TypeError):
            return 0


def key_of(target: TargetFile) -> str:
    """A file name for an image's content: not for its name, so that one content is fetched once."""
    described = json.dumps([target.length, sorted(target.hashes.items())])
    return target.sha256 or hashlib.sha256(described.encode()).hexdigest()


def verify_file(path: Path, target: VerifiedTarget) -> VerifiedImage:
    """Check every byte against every hash that was signed.

    Raises:
        MetadataRefused: OVERSIZED_TARGET, TARGET_HASH_MISMATCH.
        OSError
    """
    with path.open("rb") as file:
        return verify_target_bytes(iter(lambda: file.read(READ_SIZE_BYTES), b""), target)
