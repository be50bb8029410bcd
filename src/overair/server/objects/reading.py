"""What a reader may ask of a version: conditions and ranges. Pure. Reference: RFC 9110 §13 and §14, as S3 applies them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.objects.model import ObjectVersion
from overair.server.objects.service import precondition_failed

_ONE_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConditions:
    """The four conditional headers."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: Instant | None = None
    if_unmodified_since: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Part of an object, never empty."""

    offset_bytes: int
    size_bytes: int

    def content_range(self, whole_size_bytes: int) -> str:
        """The ``Content-Range`` header."""
        return f"bytes {self.offset_bytes}-{self.offset_bytes + self.size_bytes - 1}/{whole_size_bytes}"


def is_not_modified(version: ObjectVersion, conditions: ReadConditions) -> bool:
    """Whether the reader already has what it asks for (304). An entity tag outweighs a date.

    Raises:
        PreconditionFailed: the reader wants another version than this.
    """
    # HTTP dates have whole seconds.
    modified_s = version.modified // 1000
    if conditions.if_match is not None:
        if not _names(conditions.if_match, version.etag):
            raise precondition_failed("If-Match")
    elif conditions.if_unmodified_since is not None and modified_s > conditions.if_unmodified_since // 1000:
        raise precondition_failed("If-Unmodified-Since")
    if conditions.if_none_match is not None:
        return _names(conditions.if_none_match, version.etag)
    return conditions.if_modified_since is not None and modified_s <= conditions.if_modified_since // 1000


def _names(tags: str, etag: str) -> bool:
    """Whether a list of entity tags, or ``*``, names this one."""
    return any(tag.strip().removeprefix("W/").strip('"') in ("*", etag) for tag in tags.split(","))


def byte_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """What a ``Range`` header asks for; None for the whole object: no header, several ranges, another unit or nonsense, all of
    which a server may leave aside.

    Raises:
        InvalidRequest: with subject ``range``: it begins behind the object's end (416).
    """
    found = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        wanted = min(int(found[2]), size_bytes)
        if wanted == 0:
            raise _unsatisfiable(header, size_bytes)
        return ByteRange(offset_bytes=size_bytes - wanted, size_bytes=wanted)
    first = int(found[1])
    last = min(int(found[2]), size_bytes - 1) if found[2] else size_bytes - 1
    if found[2] and int(found[2]) < first:
        return None
    if first >= size_bytes:
        raise _unsatisfiable(header, size_bytes)
    return ByteRange(offset_bytes=first, size_bytes=last - first + 1)


def part_range(version: ObjectVersion, part_number: int) -> ByteRange | None:
    """The bytes of one part of a multipart upload; of an object that came in one piece, part 1 is the whole (None when that is
    empty).

    Raises:
        InvalidRequest: with subject ``range``: there are fewer parts.
    """
    sizes = list(version.properties.part_sizes_bytes) or [version.size_bytes]
    if not 1 <= part_number <= len(sizes):
        raise InvalidRequest(
            f"The requested partnumber is not satisfiable: the object has {len(sizes)} parts.", subject="range"
        )
    size_bytes = sizes[part_number - 1]
    return ByteRange(offset_bytes=sum(sizes[: part_number - 1]), size_bytes=size_bytes) if size_bytes else None


def copy_range(text: str, size_bytes: int) -> ByteRange:
    """``x-amz-copy-source-range``: ``bytes=first-last``, both given and inside the object.

    Raises:
        InvalidRequest: with subject ``argument`` or ``range``.
    """
    found = _ONE_RANGE.fullmatch(text)
    if found is None or not found[1] or not found[2] or int(found[1]) > int(found[2]):
        raise InvalidRequest(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based "
            "offsets of the first and last bytes to copy.",
            subject="argument",
        )
    if int(found[2]) >= size_bytes:
        raise InvalidRequest(f"Range specified is not valid for source object of size: {size_bytes}.", subject="argument")
    return ByteRange(offset_bytes=int(found[1]), size_bytes=int(found[2]) - int(found[1]) + 1)


def _unsatisfiable(header: str | None, size_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        "The requested range is not satisfiable: it begins behind the object's end.",
        subject="range",
        details={"RangeRequested": header or "", "ActualObjectSize": str(size_bytes)},
    )
