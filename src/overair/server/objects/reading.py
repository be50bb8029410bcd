"""What a reader may ask of a version: conditions and parts. Pure. Reference: RFC 9110 §13 and §14, as S3 applies them."""

from __future__ import annotations

from dataclasses import dataclass

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.ranges import ONE_RANGE, ByteRange
from overair.server.objects.model import ObjectVersion
from overair.server.objects.service import precondition_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConditions:
    """The four conditional headers."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: Instant | None = None
    if_unmodified_since: Instant | None = None


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
    found = ONE_RANGE.fullmatch(text)
    if found is None or not found[1] or not found[2] or int(found[1]) > int(found[2]):
        raise InvalidRequest(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based "
            "offsets of the first and last bytes to copy.",
            subject="argument",
        )
    if int(found[2]) >= size_bytes:
        raise InvalidRequest(f"Range specified is not valid for source object of size: {size_bytes}.", subject="argument")
    return ByteRange(offset_bytes=int(found[1]), size_bytes=int(found[2]) - int(found[1]) + 1)
