"""Buckets, object versions, and the rules of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NewType

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId

ContentId = NewType("ContentId", str)
"""Names bytes by their SHA-256: 64 hexadecimal digits, or ``m-`` and the digits of a list of such contents. Immutable: what was
read under an id once may be cached for ever."""

UploadId = NewType("UploadId", str)

KEY_SIZE_BYTES_MAX: Final = 1024
METADATA_SIZE_BYTES_MAX: Final = 2048
OBJECT_SIZE_BYTES_MAX: Final = 5 * 1024**4
SINGLE_PUT_SIZE_BYTES_MAX: Final = 5 * 1024**3
PART_SIZE_BYTES_MIN: Final = 5 * 1024**2
PART_NUMBER_MAX: Final = 10_000
LIST_KEYS_MAX: Final = 1000
DELETE_KEYS_MAX: Final = 1000
BUCKETS_MAX: Final = 1000
POLICY_SIZE_BYTES_MAX: Final = 20 * 1024

NULL_VERSION: Final = VersionId("null")
"""The version of an object that was written while its bucket kept none."""

_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_VERSION_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_IP_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+", re.ASCII)


class Versioning(StrEnum):
    """Whether a bucket keeps what is overwritten. Once enabled it can only be suspended."""

    NEVER = ""
    ENABLED = "Enabled"
    SUSPENDED = "Suspended"


class ChecksumType(StrEnum):
    """Over the bytes of the whole object, or over the checksums of its parts."""

    FULL_OBJECT = "FULL_OBJECT"
    COMPOSITE = "COMPOSITE"


@dataclass(frozen=True, slots=True)
class PublicAccessBlock:
    """What of a bucket may not be open to everyone. A new bucket has all of it, as in AWS."""

    public_acls: bool = True
    existing_public_acls: bool = True
    public_policy: bool = True
    public_buckets: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A named set of objects."""

    account: AccountId
    name: BucketName
    region: str
    created: Instant
    versioning: Versioning
    policy: str | None
    """A resource policy document, as it was put."""
    public_access_block: PublicAccessBlock | None = PublicAccessBlock()
    """None where it was taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredContent:
    """Bytes that are durable under their id, though no record may name them yet."""

    content_id: ContentId
    size_bytes: int
    md5_hex: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Base64 by lower-case algorithm: those that were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """What a writer says of an object beside its bytes."""

    content_type: str = "binary/octet-stream"
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    expires: str | None = None
    """As the writer spelt it: an HTTP date, usually."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The ``x-amz-meta-`` headers by lower-case name."""
    checksums: Mapping[str, str] = field(default_factory=dict)
    """Base64 by lower-case algorithm; a composite one ends in ``-{parts}``."""
    checksum_type: ChecksumType = ChecksumType.FULL_OBJECT
    part_sizes_bytes: Sequence[int] = ()
    """Of a multipart upload; empty otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectVersion:
    """One version of one object. Never changes but for being the latest."""

    account: AccountId
    bucket: BucketName
    key: ObjectKey
    version_id: VersionId
    sequence: int
    """Rises with each version of the key."""
    is_latest: bool
    modified: Instant
    content_id: ContentId
    size_bytes: int
    etag: str
    """Without quotes: the MD5 in hexadecimal, or for a multipart upload the MD5 of its parts' and ``-{parts}``."""
    properties: Properties

    @property
    def arn(self) -> str:
        return object_arn(self.bucket, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteMarker:
    """A version that says that the object is gone."""

    account: AccountId
    bucket: BucketName
    key: ObjectKey
    version_id: VersionId
    sequence: int
    is_latest: bool
    modified: Instant


AnyVersion = ObjectVersion | DeleteMarker


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What deleting did."""

    version_id: VersionId | None
    """The version that went, or the marker that came; None where nothing keeps versions."""
    is_marker: bool
    """A marker came, or one went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a writer demands of the present latest version."""

    if_match: str | None = None
    if_none_match: str | None = None


NO_CONDITIONS: Final = Conditions()


def bucket_arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def object_arn(bucket: str, key: str) -> str:
    return f"arn:aws:s3:::{bucket}/{key}"


def check_bucket_name(name: str) -> BucketName:
    """Raises:
    InvalidRequest: with subject ``bucket-name``.
    """
    if not _BUCKET_NAME.fullmatch(name) or ".." in name or _IP_ADDRESS.fullmatch(name):
        raise InvalidRequest(
            f"The specified bucket is not valid: {name[:100]!r}. A bucket's name has 3 to 63 lower-case letters, digits, "
            "hyphens and dots, begins and ends with a letter or digit, and is no IP address.",
            subject="bucket-name",
        )
    return BucketName(name)


def check_key(key: str) -> ObjectKey:
    """Raises:
    InvalidRequest: with subject ``key-too-long``, or ``key`` for text that no database keeps.
    """
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest("An object's key must be valid UTF-8.", subject="key") from None
    if size_bytes > KEY_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"Your key is too long: it has {size_bytes} bytes of UTF-8, and {KEY_SIZE_BYTES_MAX} are allowed.",
            subject="key-too-long",
        )
    if not key or not is_showable(key):
        raise InvalidRequest(
            "An object's key has at least one character, and no control characters but tab and line ends, which no list "
            "could show.",
            subject="key",
        )
    return ObjectKey(key)


def is_showable(text: str) -> bool:
    """Whether an XML document can hold the text (XML 1.0 §2.2)."""
    return _UNSHOWABLE.search(text) is None


def check_version_id(version_id: str) -> VersionId:
    """Raises:
    InvalidRequest: with subject ``argument``: no version has such an id.
    """
    if not _VERSION_ID.fullmatch(version_id):
        raise InvalidRequest("Invalid version id specified: it has 1 to 64 letters and digits.", subject="argument")
    return VersionId(version_id)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises:
    InvalidRequest: with subject ``metadata-too-large``.
    """
    size_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size_bytes > METADATA_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"Your metadata headers exceed the maximum allowed metadata size: {size_bytes} bytes of names and values, and "
            f"{METADATA_SIZE_BYTES_MAX} are allowed.",
            subject="metadata-too-large",
        )


def successor(prefix: str) -> str | None:
    """The least text above every text that begins with ``prefix``, in code-point order; None where there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            # Surrogates aren't characters: the one after U+D7FF is U+E000.
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None
