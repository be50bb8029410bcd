"""Multipart uploads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, BucketName, ObjectKey
from overair.server.objects.model import PART_NUMBER_MAX, ChecksumType, ContentId, Properties, UploadId

MAY_COVER: Final = {
    "crc32": frozenset({ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT}),
    "crc32c": frozenset({ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT}),
    "crc64nvme": frozenset({ChecksumType.FULL_OBJECT}),
    "sha1": frozenset({ChecksumType.COMPOSITE}),
    "sha256": frozenset({ChecksumType.COMPOSITE}),
}
"""Which kinds of multipart checksum an algorithm can make; a CRC of the whole follows from the parts', a hash doesn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An object that comes in parts and is nothing until it is completed."""

    account: AccountId
    bucket: BucketName
    key: ObjectKey
    upload_id: UploadId
    initiated: Instant
    properties: Properties
    checksum_algorithm: str | None
    checksum_type: ChecksumType | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; the same number again replaces it."""

    number: int
    content_id: ContentId
    size_bytes: int
    md5_hex: str
    modified: Instant
    checksums: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedPart:
    """What the client says of a part when it completes the upload."""

    number: int
    etag: str
    checksums: Mapping[str, str]


def check_part_number(number: int) -> None:
    """Raises:
    InvalidRequest: with subject ``argument``.
    """
    if not 1 <= number <= PART_NUMBER_MAX:
        raise InvalidRequest(
            f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive; {number} isn't.", subject="argument"
        )


def checksum_plan(algorithm: str | None, checksum_type: ChecksumType | None) -> tuple[str | None, ChecksumType | None]:
    """The algorithm and kind of checksum that an upload will have.

    Raises:
        InvalidRequest: the algorithm can't make that kind, or a kind came without an algorithm.
    """
    if algorithm is None:
        if checksum_type is not None:
            raise InvalidRequest("A checksum type needs a checksum algorithm: send both, or neither.")
        return None, None
    kinds = MAY_COVER[algorithm]
    if checksum_type is None:
        checksum_type = ChecksumType.COMPOSITE if ChecksumType.COMPOSITE in kinds else ChecksumType.FULL_OBJECT
    if checksum_type not in kinds:
        raise InvalidRequest(
            f"The {checksum_type.value} checksum type cannot be used with the {algorithm} checksum algorithm; "
            f"{' or '.join(sorted(kind.value for kind in kinds))} can."
        )
    return algorithm, checksum_type
