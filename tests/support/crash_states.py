"""What a disk may hold after a power cut: every step of some work is recorded, and each state that could be left is rebuilt.

The model is stricter than journaling file systems are. Of bytes that were written to a file and not yet synced, each write
survives or not, whatever became of the others. Names that were made, changed or removed and whose directory wasn't synced
survive up to some point in their order. What was synced stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from overair.agent.durable import Disk


@dataclass(frozen=True)
class Step:
    """One step: its kind, the file (by number) or directory, and what is needed to do it again."""

    kind: str
    file: int = -1
    path: Path = Path()
    target: Path = Path()
    offset_bytes: int = 0
    data: bytes = b""
    size_bytes: int = 0
    mark: Any = None
    """What the world outside looked like just before."""

    @property
    def changes_data(self) -> bool:
        return self.kind in ("write", "truncate", "allocate", "shorten")

    @property
    def changes_names(self) -> bool:
        return self.kind in ("create", "rename", "remove")

    @property
    def directory(self) -> Path:
        return (self.target if self.kind == "rename" else self.path).parent


class RecordingDisk(Disk):
    """The real disk, and a record of all that is done to it."""

    def __init__(self, root: Path, mark: Callable[[], Any]) -> None:
        self.steps: list[Step] = []
        self.initial = {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        self._numbers = {path.stat().st_ino: number for number, path in enumerate(self.initial)}
        self._next = len(self.initial)
        self.mark = mark

    def _note(self, kind: str, **members: Any) -> None:
        self.steps.append(Step(kind=kind, mark=self.mark(), **members))

    def _number(self, descriptor: int) -> int:
        return self._numbers[os.fstat(descriptor).st_ino]

    def create(self, path: Path, flags: int, mode: int = 0o600) -> int:
        there = path.exists()
        descriptor = super().create(path, flags, mode)
        if not there:
            self._numbers[os.fstat(descriptor).st_ino] = self._next
            self._next += 1
            self._note("create", file=self._number(descriptor), path=path)
        elif flags & os.O_TRUNC:
            self._note("truncate", file=self._number(descriptor))
        return descriptor

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        self._note("allocate", file=self._number(descriptor), size_bytes=size_bytes)
        super().allocate(descriptor, size_bytes)

    def shorten(self, descriptor: int, size_bytes: int) -> None:
        self._note("shorten", file=self._number(descriptor), size_bytes=size_bytes)
        super().shorten(descriptor, size_bytes)

    def write_at(self, descriptor: int, data: bytes, offset_bytes: int) -> None:
        self._note("write", file=self._number(descriptor), data=bytes(data), offset_bytes=offset_bytes)
        super().write_at(descriptor, data, offset_bytes)

    def sync(self, descriptor: int) -> None:
        self._note("sync", file=self._number(descriptor))

    def sync_directory(self, directory: Path) -> None:
        self._note("sync directory", path=directory)

    def rename(self, source: Path, target: Path) -> None:
        self._note("rename", path=source, target=target)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        if path.exists():
            self._note("remove", path=path)
        super().remove(path)


@dataclass(frozen=True)
class Cut:
    """The power failed just before step ``at``."""

    disk: RecordingDisk
    at: int
    durable: frozenset[int]
    """Steps whose effect is certain."""
    data: tuple[int, ...]
    """Unsynced writes."""
    names: tuple[int, ...]
    """Unsynced changes of names, in their order."""

    @property
    def mark(self) -> Any:
        """What the world outside looked like."""
        return self.disk.steps[self.at].mark if self.at < len(self.disk.steps) else self.disk.mark()

    @property
    def count(self) -> int:
        """How many fates there are."""
        return 2 ** len(self.data) * (len(self.names) + 1)

    def fates(self) -> Iterator[frozenset[int]]:
        """Every subset of the unsynced writes, with every beginning of the unsynced changes of names."""
        for kept in range(len(self.names), -1, -1):
            for chosen in product((True, False), repeat=len(self.data)):
                survived = (number for number, yes in zip(self.data, chosen, strict=True) if yes)
                yield frozenset((*survived, *self.names[:kept]))

    def files(self, survived: frozenset[int], torn: frozenset[int] = frozenset()) -> dict[Path, bytes]:
        """What the disk holds if these unsynced steps survived, some writes only with their first half."""
        names = {path: number for number, path in enumerate(self.disk.initial)}
        contents = {number: bytearray(data) for number, data in enumerate(self.disk.initial.values())}
        for number, step in enumerate(self.disk.steps[: self.at]):
            if number not in self.durable and number not in survived:
                continue
            content = contents.setdefault(step.file, bytearray())
            if step.kind == "create":
                names[step.path] = step.file
            elif step.kind == "truncate":
                content.clear()
            elif step.kind == "allocate":
                content.extend(bytes(max(0, step.size_bytes - len(content))))
            elif step.kind == "shorten":
                del content[step.size_bytes :]
            elif step.kind == "write":
                data = step.data[: len(step.data) // 2] if number in torn and number not in self.durable else step.data
                content.extend(bytes(max(0, step.offset_bytes - len(content))))
                content[step.offset_bytes : step.offset_bytes + len(data)] = data
            elif step.kind == "rename" and step.path in names:
                names[step.target] = names.pop(step.path)
            elif step.kind == "remove":
                names.pop(step.path, None)
        return {path: bytes(contents.get(number, b"")) for path, number in names.items()}


def cuts(disk: RecordingDisk) -> Iterator[Cut]:
    """A cut before each step, and one after the last."""
    data: list[int] = []
    names: list[int] = []
    for at in range(len(disk.steps) + 1):
        pending = frozenset((*data, *names))
        durable = frozenset(number for number in range(at) if number not in pending)
        yield Cut(disk=disk, at=at, durable=durable, data=tuple(data), names=tuple(names))
        if at == len(disk.steps):
            return
        step = disk.steps[at]
        if step.changes_data:
            data.append(at)
        elif step.changes_names:
            names.append(at)
        elif step.kind == "sync":
            data = [number for number in data if disk.steps[number].file != step.file]
        else:
            names = [number for number in names if disk.steps[number].directory != step.path]
