"""A disk whose power fails at a chosen step, and which then shows what a real one might: unsynced writes partly gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from overair.agent.durable import Disk


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it on the way."""


class FailingDisk(Disk):
    """Counts steps; before step ``cut_at`` it takes back unsynced work and raises.

    Unsynced bytes of a file survive or not, write by write. Unsynced changes of names survive up to some point in their order,
    as a journaling file system has it.
    """

    def __init__(self, cut_at: int, seed: int = 0) -> None:
        self.steps = 0
        self._cut_at = cut_at
        self._chance = Random(seed)
        self._writes: list[tuple[int, Callable[[], None]]] = []
        self._names: list[tuple[Path, Callable[[], None]]] = []

    @property
    def dead(self) -> bool:
        """The power has failed: nothing works any more."""
        return self.steps >= self._cut_at

    def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        self._step()
        inode = os.fstat(descriptor).st_ino
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        with path.open("rb") as file:
            file.seek(offset_bytes)
            before = file.read(len(data))

        def undo() -> None:
            for candidate in path.parent.iterdir():
                if candidate.stat().st_ino == inode:
                    with candidate.open("r+b") as file:
                        file.seek(offset_bytes)
                        file.write(before.ljust(len(data), b"\x00"))

        self._writes.append((inode, undo))
        super().write_at(descriptor, data, offset_bytes)

    def shorten(self, descriptor: int, size_bytes: int) -> None:
        with Path(f"/proc/self/fd/{descriptor}").readlink().open("rb") as file:
            file.seek(size_bytes)
            tail = file.read()
        if tail:
            self.write_at(descriptor, b"", size_bytes)  # one step, which may be taken back with the bytes that are gone
            inode = os.fstat(descriptor).st_ino
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._writes[-1] = (inode, lambda: _append(path, inode, tail))
        super().shorten(descriptor, size_bytes)

    def sync(self, descriptor: int) -> None:
        self._step()
        inode = os.fstat(descriptor).st_ino
        self._writes = [entry for entry in self._writes if entry[0] != inode]
        super().sync(descriptor)

    def sync_directory(self, directory: Path) -> None:
        self._step()
        self._names = [entry for entry in self._names if entry[0] != directory]
        super().sync_directory(directory)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        old = target.read_bytes() if target.exists() else None

        def undo() -> None:
            if target.exists():
                target.replace(source)
            if old is not None:
                target.write_bytes(old)

        self._names.append((target.parent, undo))
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if not path.exists():
            return
        self._step()
        old = path.read_bytes()

        def undo() -> None:
            path.write_bytes(old)

        self._names.append((path.parent, undo))
        super().remove(path)

    def _step(self) -> None:
        if self.dead:
            raise PowerCut  # whatever still runs on the way out
        self.steps += 1
        if self.steps == self._cut_at:
            for _, undo in reversed(self._writes):
                if self._chance.random() < 0.5:
                    undo()
            kept = self._chance.randint(0, len(self._names))
            for _, undo in reversed(self._names[kept:]):
                undo()
            raise PowerCut


def _append(path: Path, inode: int, tail: bytes) -> None:
    for candidate in path.parent.iterdir():
        if candidate.stat().st_ino == inode:
            with candidate.open("ab") as file:
                file.write(tail)
