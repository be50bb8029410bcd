"""Nouns of streams. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import BucketName, ObjectKey, StreamId, VersionId
from overair.wire.blocks import BLOCK_SIZE_BYTES_MAX, BLOCK_SIZE_BYTES_MIN, file_size_bytes_max
from overair.wire.stream_messages import FILE_ID_MAX, STREAM_VERSION_MAX

STREAM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")
FILES_MAX: Final = 50
FIRST_VERSION: Final = 1
STREAMED_FILE_SIZE_BYTES_MAX: Final = file_size_bytes_max(BLOCK_SIZE_BYTES_MAX)
"""About 24 GiB: beyond this no block size reaches the end of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file as an operator names it. ``version`` None: whatever is current when the stream is created."""

    file_id: int
    bucket: BucketName
    key: ObjectKey
    version: VersionId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFile:
    """A file of a stream, pinned: its bytes are those of ``version`` with ``etag``, or it isn't served at all."""

    source: FileSource
    version: VersionId
    """``null`` where the bucket keeps no versions: then ``etag`` alone tells whether the object is still the same."""
    etag: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """What an operator asks for."""

    id: StreamId
    files: tuple[FileSource, ...]
    role_arn: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChange:
    """What UpdateStream changes; None leaves a part alone."""

    files: tuple[FileSource, ...] | None = None
    role_arn: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream in one of its versions. A (stream, version) never changes."""

    id: StreamId
    version: int
    description: str
    files: tuple[StreamFile, ...]
    role_arn: str
    created_at: Instant
    last_updated_at: Instant

    def arn(self, place: Place) -> str:
        return stream_arn(place, self.id)

    def file(self, file_id: int) -> StreamFile | None:
        return next((file for file in self.files if file.source.file_id == file_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestFile:
    """What one block size can carry whole."""

    block_size_bytes: int
    with_offset_bytes: int
    """For a client that sets the block offset."""
    whole_bitmap_bytes: int
    """For a client that always sends offset 0 and one bitmap of the whole file, as the C agent does."""


def stream_arn(place: Place, stream: StreamId) -> str:
    return place.iot("stream", stream)


def largest_files() -> list[LargestFile]:
    """The largest file for each block size that is a power of two.

    A block's number is the offset (at most 98,304) plus its bit in a bitmap of at most 12,287 bytes: 98,296 bits, so block
    196,599 is the last that can be named, and 98,295 with offset 0. 8 KiB blocks carry 1.5 GiB and 768 MiB, 16 KiB twice that.
    """
    sizes = []
    size = BLOCK_SIZE_BYTES_MIN
    while size <= BLOCK_SIZE_BYTES_MAX:
        sizes.append(
            LargestFile(
                block_size_bytes=size,
                with_offset_bytes=file_size_bytes_max(size),
                whole_bitmap_bytes=file_size_bytes_max(size, offset_used=False),
            )
        )
        size *= 2
    return sizes


def check_sources(files: tuple[FileSource, ...]) -> None:
    """Files of a stream: 1 to 50, each with an id of its own.

    Raises:
        InvalidRequest: subject ``stream-files``.
    """
    if not 1 <= len(files) <= FILES_MAX:
        raise InvalidRequest(f"A stream has 1 to {FILES_MAX} files, not {len(files)}.", subject="stream-files")
    seen: set[int] = set()
    for file in files:
        if not 0 <= file.file_id <= FILE_ID_MAX:
            raise InvalidRequest(f"File id {file.file_id} is not within 0 to {FILE_ID_MAX}.", subject="stream-files")
        if file.file_id in seen:
            raise InvalidRequest(f"File id {file.file_id} is given twice; each file needs its own.", subject="stream-files")
        seen.add(file.file_id)


RESTORE_GAP: Final = 1000
"""How many versions a restored server leaves out for each id: those that the lost one may have given out since the backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """How streams are numbered, such that an id and a version never stand for two contents: not after a deletion, nor after a
    restore, whose backup knows nothing of what was given out since it was made."""

    restores: int = 0
    """How often these records came out of a backup."""
    restored_at: Instant | None = None
    """The last time. Whatever was written before may have been changed since, unknown to us."""

    @property
    def first(self) -> int:
        """Of an id that isn't known: the lost server may have given it versions of its own."""
        return FIRST_VERSION + self.restores * RESTORE_GAP

    def after(self, version: int, written_at: Instant) -> int | None:
        """The version after this one, which was given out at that time; None when there is none left (65535 is the last)."""
        is_of_the_backup = self.restored_at is not None and written_at < self.restored_at
        following = max(version + (RESTORE_GAP if is_of_the_backup else 1), self.first)
        return following if following <= STREAM_VERSION_MAX else None
