"""Bytes by their hash: content-addressed files on a local disk.

```
contents/incoming/{random}        being written
contents/{aa}/{sha256}            one content, mode 0400
contents/manifests/{sha256}       a list of contents that make one (a multipart upload): "{sha256} {size}\n" …
```

A content is durable before anyone hears its id: written under another name, fsync, rename, fsync of the folder. The same
bytes are kept once.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import contextlib
import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, NotFound, Unavailable
from overair.basics.ids import IdSource
from overair.server.aws_protocol.checksums import Checksum, checksum
from overair.server.objects.folder_gate import FolderGate
from overair.server.objects.model import SINGLE_PUT_SIZE_BYTES_MAX, ContentId, StoredContent
from overair.server.objects.page_cache import read_if_in_memory

T = TypeVar("T")

BUFFER_SIZE_BYTES: Final = 1024 * 1024
"""How much of a stream waits in memory before a thread writes it."""
ABANDONED_AFTER_MS: Final = 24 * 60 * 60 * 1000
"""A content on its way in that nobody has written to for so long belonged to a process that was killed."""
STREAMED_SIZE_BYTES: Final = 256 * 1024
"""How much of a content is read at once on its way out."""
OPEN_FILES_MAX: Final = 256
MANIFESTS_IN_MEMORY_MAX: Final = 256
THREADS: Final = 8
"""They mostly wait for fsync: more of them let the file system settle several contents at once."""
MANIFEST_PREFIX: Final = "m-"
_DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE})


class _OpenFile:
    """A descriptor that closes when nobody reads through it any more."""

    __slots__ = ("descriptor",)

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        # Absent where the constructor failed.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    contents: tuple[ContentId, ...]
    ends_bytes: tuple[int, ...]
    """Where each content ends within the whole."""


class _Incoming:
    """A content on its way in. Its methods run on worker threads; ``discard`` may come from another one, at any time."""

    def __init__(self, path: Path, algorithms: Sequence[str]) -> None:
        self.path = path
        self.gate = threading.RLock()
        self._descriptor = -1
        self._is_discarded = False
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._digests: dict[str, Checksum] = {algorithm: checksum(algorithm) for algorithm in algorithms}
        self.size_bytes = 0

    def write(self, pieces: Sequence[bytes]) -> None:
        with self.gate:
            self._check_wanted()
            if self._descriptor < 0:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
            for piece in pieces:
                self._sha256.update(piece)
                self._md5.update(piece)
                for digest in self._digests.values():
                    digest.update(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(self._descriptor, view) :]
                self.size_bytes += len(piece)

    def _check_wanted(self) -> None:
        if self._is_discarded:
            # Whoever asked has gone and hears nothing of this.
            raise Unavailable("The upload was broken off.", subject="storage")

    def described(self) -> StoredContent:
        return StoredContent(
            content_id=ContentId(self._sha256.hexdigest()),
            size_bytes=self.size_bytes,
            md5_hex=self._md5.hexdigest(),
            checksums={name: base64.b64encode(digest.digest()).decode() for name, digest in self._digests.items()},
        )

    def sync(self) -> None:
        with self.gate:
            self._check_wanted()
            os.fsync(self._descriptor)
            self._close()

    def discard(self) -> None:
        with self.gate:
            self._is_discarded = True
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ContentStore:
    """Files in one folder, for any number of threads; and for several processes, where they are told that they share it."""

    def __init__(self, folder: Path, *, clock: Clock, ids: IdSource, is_shared: bool = False) -> None:
        """Make the folder if need be, and clear what a killed process left half written: of a shared one only what nobody has
        written to for so long that nobody will."""
        self._folder = folder
        self._incoming = folder / "incoming"
        self._manifests = folder / "manifests"
        self._clock = clock
        self._ids = ids
        for path in (folder, self._incoming, self._manifests):
            path.mkdir(mode=0o700, exist_ok=True)
        for number in range(256):
            (folder / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        abandoned_ns = (clock.now() - ABANDONED_AFTER_MS) * 1_000_000
        for leftover in self._incoming.iterdir():
            # Another process may have finished or cleared it meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if not is_shared or leftover.stat().st_mtime_ns < abandoned_ns:
                    leftover.unlink()
        _sync_folder(folder)
        # Between "is it there?" and "it counts as young" no sweep may take a file away.
        self._gate = FolderGate(folder / "gate") if is_shared else threading.Lock()
        self._open: OrderedDict[ContentId, _OpenFile] = OrderedDict()
        self._lists: OrderedDict[ContentId, _Manifest] = OrderedDict()
        self._readers_gate = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="overair-contents")

    def forget(self, content_id: ContentId) -> None:
        """Another process has taken a content away: let its file go, and the room that it takes. For any thread."""
        with self._readers_gate:
            self._open.pop(content_id, None)
            self._lists.pop(content_id, None)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        with self._readers_gate:
            self._open.clear()

    async def in_thread(self, action: Callable[..., T], *arguments: object) -> T:
        """Run something that waits for the disk beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, action, *arguments)

    # Writing ----------------------------------------------------------------------------------------------------------

    async def store(
        self,
        chunks: AsyncIterable[bytes],
        *,
        algorithms: Sequence[str] = (),
        size_bytes_max: int = SINGLE_PUT_SIZE_BYTES_MAX,
    ) -> StoredContent:
        """Take in a stream, holding at most about 1 MiB of it. Whatever the stream raises leaves nothing behind.

        Args:
            algorithms: Checksums to compute beside MD5 and SHA-256 (``aws_protocol.checksums``).

        Raises:
            InvalidRequest: with subject ``too-large``.
            Unavailable: with subject ``storage``: the disk is full or fails.
        """
        incoming = _Incoming(self._incoming / self._ids.token(32), algorithms)
        try:
            pieces: list[bytes] = []
            waiting_bytes = 0
            async for chunk in chunks:
                pieces.append(chunk)
                waiting_bytes += len(chunk)
                if incoming.size_bytes + waiting_bytes > size_bytes_max:
                    raise InvalidRequest(
                        f"Your proposed upload exceeds the maximum allowed size of {size_bytes_max} bytes.", subject="too-large"
                    )
                if waiting_bytes >= BUFFER_SIZE_BYTES:
                    await self.in_thread(self._guarded, incoming.write, pieces)
                    pieces, waiting_bytes = [], 0
            return await self.in_thread(self._guarded, self._finish, incoming, pieces)
        except BaseException:
            # Also when the asker went away while a thread still writes: discarding waits for it.
            await asyncio.shield(self.in_thread(incoming.discard))
            raise

    def store_blocking(self, pieces: Iterable[bytes], *, algorithms: Sequence[str] = ()) -> StoredContent:
        """``store`` for a thread that may wait: workers and start-up."""
        incoming = _Incoming(self._incoming / self._ids.token(32), algorithms)
        try:
            for piece in pieces:
                self._guarded(incoming.write, [piece])
            return self._guarded(self._finish, incoming, [])
        except BaseException:
            incoming.discard()
            raise

    def store_list(self, contents: Sequence[tuple[ContentId, int]]) -> ContentId:
        """Make one content out of several stored ones (id, size in bytes), none of them a list. Blocking, durable, quick: no
        byte of theirs is copied."""
        text = "".join(f"{content_id} {size_bytes}\n" for content_id, size_bytes in contents).encode()
        name = hashlib.sha256(text).hexdigest()
        incoming = _Incoming(self._incoming / self._ids.token(32), ())
        try:
            self._guarded(incoming.write, [text])
            self._guarded(self._settle, incoming, self._manifests / name)
        except BaseException:
            incoming.discard()
            raise
        return ContentId(MANIFEST_PREFIX + name)

    def _finish(self, incoming: _Incoming, pieces: Sequence[bytes]) -> StoredContent:
        incoming.write(pieces)
        stored = incoming.described()
        self._settle(incoming, self._path(stored.content_id))
        return stored

    def _settle(self, incoming: _Incoming, path: Path) -> None:
        with self._gate:
            is_known = path.exists()
            if is_known:
                self._make_young(path)
        if is_known:
            incoming.discard()
        else:
            incoming.sync()
            with self._gate:
                incoming.path.rename(path)
                self._make_young(path)
        # Also for a known one: whoever renamed it may not have come this far.
        _sync_folder(path.parent)

    def _make_young(self, path: Path) -> None:
        now_ns = self._clock.now() * 1_000_000
        os.utime(path, ns=(now_ns, now_ns))

    @staticmethod
    def _guarded(action: Callable[..., T], *arguments: object) -> T:
        try:
            return action(*arguments)
        except OSError as error:
            if error.errno in _DISK_ERRORS:
                raise Unavailable(
                    f"The disk that holds the objects can't take more: {error.strerror}. Nothing was stored; ask again later.",
                    subject="storage",
                ) from error
            raise

    # Reading ----------------------------------------------------------------------------------------------------------

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        """Bytes from ``offset_bytes`` on, fewer than ``size_bytes`` only at the content's end. Blocking.

        Raises:
            NotFound: with subject ``content``: no such content (any more).
        """
        if not content_id.startswith(MANIFEST_PREFIX):
            return self._read_file(content_id, offset_bytes, size_bytes)
        manifest = self._manifest(content_id)
        pieces: list[bytes] = []
        index = bisect.bisect_right(manifest.ends_bytes, offset_bytes)
        while size_bytes > 0 and index < len(manifest.contents):
            begins = manifest.ends_bytes[index - 1] if index else 0
            wanted = min(size_bytes, manifest.ends_bytes[index] - offset_bytes)
            pieces.append(self._read_file(manifest.contents[index], offset_bytes - begins, wanted))
            offset_bytes += wanted
            size_bytes -= wanted
            index += 1
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def stream(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> AsyncIterator[bytes]:
        """The same bytes in pieces of at most ``STREAMED_SIZE_BYTES``.

        Raises:
            NotFound: with subject ``content``: at the first piece that is no longer there.
        """
        end = offset_bytes + size_bytes
        while offset_bytes < end:
            wanted = min(STREAMED_SIZE_BYTES, end - offset_bytes)
            # What is open and in memory takes less than handing it to a thread would.
            file = self._open.get(content_id)
            piece = None if file is None else read_if_in_memory(file.descriptor, wanted, offset_bytes)
            if piece is None:
                piece = await self.in_thread(self.read, content_id, offset_bytes, wanted)
            if not piece:
                raise NotFound(f"The content {content_id} is shorter than its record says.", subject="content")
            yield piece
            offset_bytes += len(piece)

    def _read_file(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes:
        file = self._open.get(content_id)
        if file is None:
            file = self._opened(content_id)
        piece = os.pread(file.descriptor, size_bytes, offset_bytes)
        # One pread gives at most 2 GiB and may be cut by a signal.
        while 0 < len(piece) < size_bytes:
            more = os.pread(file.descriptor, size_bytes - len(piece), offset_bytes + len(piece))
            if not more:
                break
            piece += more
        return piece

    def _opened(self, content_id: ContentId) -> _OpenFile:
        try:
            file = _OpenFile(self._path(content_id))
        except FileNotFoundError:
            raise NotFound(f"The content {content_id} is no longer there.", subject="content") from None
        with self._readers_gate:
            self._open[content_id] = file
            while len(self._open) > OPEN_FILES_MAX:
                self._open.popitem(last=False)
        return file

    def _manifest(self, content_id: ContentId) -> _Manifest:
        manifest = self._lists.get(content_id)
        if manifest is not None:
            return manifest
        try:
            text = self._path(content_id).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"The content {content_id} is no longer there.", subject="content") from None
        contents, ends_bytes, end = [], [], 0
        for line in text.decode().splitlines():
            part, _, size_bytes = line.partition(" ")
            end += int(size_bytes)
            contents.append(ContentId(part))
            ends_bytes.append(end)
        manifest = _Manifest(contents=tuple(contents), ends_bytes=tuple(ends_bytes))
        with self._readers_gate:
            self._lists[content_id] = manifest
            while len(self._lists) > MANIFESTS_IN_MEMORY_MAX:
                self._lists.popitem(last=False)
        return manifest

    def _path(self, content_id: ContentId) -> Path:
        if content_id.startswith(MANIFEST_PREFIX):
            return self._manifests / content_id.removeprefix(MANIFEST_PREFIX)
        return self._folder / content_id[:2] / content_id

    # What nobody names any more ---------------------------------------------------------------------------------------

    def shards(self) -> list[str]:
        """The folders that a sweep visits one by one."""
        return ["manifests", *(f"{number:02x}" for number in range(256))]

    def older_than(self, shard: str, moment: Instant) -> Iterator[ContentId]:
        """Contents in one shard that nobody has stored again since ``moment``. Blocking."""
        prefix = MANIFEST_PREFIX if shard == "manifests" else ""
        with os.scandir(self._folder / shard) as entries:
            for entry in entries:
                # Another process may have swept it meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime_ns < moment * 1_000_000:
                        yield ContentId(prefix + entry.name)

    def contents_in_lists(self) -> set[ContentId]:
        """Every content that some list names. Blocking."""
        named: set[ContentId] = set()
        for path in self._manifests.iterdir():
            # A sweep of another thread may have taken it away.
            with contextlib.suppress(NotFound):
                named.update(self._manifest(ContentId(MANIFEST_PREFIX + path.name)).contents)
        return named

    def delete_if_older(self, content_id: ContentId, moment: Instant) -> bool:
        """Take a content away, unless someone has stored it again since ``moment``. Blocking."""
        path = self._path(content_id)
        with self._gate:
            try:
                if path.stat().st_mtime_ns >= moment * 1_000_000:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        self.forget(content_id)
        return True


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
