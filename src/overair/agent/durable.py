"""Files that survive a power cut: every step that counts passes through here, so that tests can cut between any two.

A write counts once ``sync`` has returned; a name counts once its directory was synced. ``Disk`` is the real thing; a test's
subclass cuts the power at a chosen step and takes back what wasn't synced.
"""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """The operating system's files, with the order of durable steps made plain."""

    def create(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file to write to, made where it isn't there; its name is durable once its directory was synced."""
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, mode)

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        """Reserve room for a file of that size; it reads as zeros."""
        os.posix_fallocate(descriptor, 0, size_bytes)

    def shorten(self, descriptor: int, size_bytes: int) -> None:
        """Cut a file off after so many bytes; not durable yet."""
        os.ftruncate(descriptor, size_bytes)

    def make_directory(self, path: Path, mode: int = 0o700) -> None:
        """Make a directory that may be there already; it is durable when this returns."""
        path.mkdir(mode=mode, exist_ok=True)
        self.sync_directory(path.parent)

    def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        """Put all of ``data`` there; not durable yet."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset_bytes)
            view = view[written:]
            offset_bytes += written

    def sync(self, descriptor: int) -> None:
        """What was written to this file is durable when this returns."""
        os.fsync(descriptor)

    def sync_directory(self, directory: Path) -> None:
        """Names made, changed and removed in this directory are durable when this returns."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """``target`` is the old file or the new one, never a mixture."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file that may already be gone."""
        path.unlink(missing_ok=True)

    def write_whole(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Replace a file durably and at once: readers and power cuts see the old content or the new."""
        temporary = path.with_name(path.name + ".new")
        descriptor = self.create(temporary, os.O_WRONLY | os.O_TRUNC, mode)
        try:
            self.write_at(descriptor, data, 0)
            self.sync(descriptor)
        except OSError:
            self.remove(temporary)  # where the disk is full, nothing stays behind
            raise
        finally:
            os.close(descriptor)
        self.rename(temporary, path)
        self.sync_directory(path.parent)
