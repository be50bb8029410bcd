"""Between S3's members and this room's nouns."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, unquote

from overair.basics.arn import Place
from overair.basics.errors import AccessDenied, InvalidRequest, Unsupported
from overair.basics.ids import VersionId
from overair.server.aws_protocol.operations import Body, Caller, Request
from overair.server.objects.model import (
    NULL_VERSION,
    Bucket,
    ObjectVersion,
    Properties,
    StoredContent,
    Versioning,
    is_showable,
)

CHECKSUM_MEMBERS: Final = {
    "crc32": "ChecksumCRC32",
    "crc32c": "ChecksumCRC32C",
    "crc64nvme": "ChecksumCRC64NVME",
    "sha1": "ChecksumSHA1",
    "sha256": "ChecksumSHA256",
}
_OTHER_CHECKSUMS: Final = ("ChecksumSHA512", "ChecksumMD5", "ChecksumXXHASH64", "ChecksumXXHASH3", "ChecksumXXHASH128")
_PROPERTY_MEMBERS: Final = {
    "content_type": "ContentType",
    "cache_control": "CacheControl",
    "content_disposition": "ContentDisposition",
    "content_encoding": "ContentEncoding",
    "content_language": "ContentLanguage",
    "expires": "Expires",
}
_UNSUPPORTED: Final = {
    "ServerSideEncryption": "Encryption asked for by the client",
    "SSECustomerAlgorithm": "Encryption with a customer's key",
    "CopySourceSSECustomerAlgorithm": "Encryption with a customer's key",
    "SSEKMSKeyId": "Encryption with a KMS key",
    "WebsiteRedirectLocation": "A website redirect",
    "ObjectLockMode": "Object Lock",
    "ObjectLockRetainUntilDate": "Object Lock",
    "ObjectLockLegalHoldStatus": "Object Lock",
    "ObjectLockEventHold": "Object Lock",
    "ObjectLockEnabledForBucket": "Object Lock",
    "Tagging": "An object tag",
    "WriteOffsetBytes": "Appending to an object",
    "MFA": "Multi-factor deletion",
}
_OWNERS_ACLS: Final = frozenset({"private", "bucket-owner-full-control"})
_GRANTS: Final = ("GrantFullControl", "GrantRead", "GrantReadACP", "GrantWrite", "GrantWriteACP")


def check_supported(caller: Caller, request: Request) -> None:
    """Refuse what would be promised and not done.

    Raises:
        Unsupported: encryption, locks, other storage classes, newer checksum algorithms.
        InvalidRequest: with subject ``acl``: access control lists other than the owner's own.
        AccessDenied: the bucket's owner isn't who the client expects.
    """
    for member, what in _UNSUPPORTED.items():
        # False and "" ask for nothing.
        if request.get(member):
            raise Unsupported(f"{what} ({member}) isn't implemented by Overair. Leave it out.")
    for member in _OTHER_CHECKSUMS:
        if request.get(member):
            raise Unsupported(f"The checksum {member} isn't implemented by Overair. It knows {', '.join(CHECKSUM_MEMBERS)}.")
    if request.get("ACL", "private") not in _OWNERS_ACLS or any(request.get(member) for member in _GRANTS):
        raise no_lists()
    if request.get("StorageClass", "STANDARD") != "STANDARD":
        raise Unsupported("Overair has the storage class STANDARD alone.")
    for member in ("ExpectedBucketOwner", "ExpectedSourceBucketOwner"):
        if member in request and request[member] != caller.account:
            raise AccessDenied("Access Denied: the bucket isn't owned by the account that the request expects.")


def no_lists() -> InvalidRequest:
    """The refusal of every list but the one that each bucket and object has."""
    return InvalidRequest("The bucket does not allow ACLs: grant access with a bucket policy.", subject="acl")


def quoted(etag: str) -> str:
    return f'"{etag}"'


def owner(place: Place) -> dict[str, str]:
    """The canonical user of an account: 64 hexadecimal digits."""
    return {"ID": hashlib.sha256(f"overair/{place.account}".encode()).hexdigest()}


def read_properties(request: Request) -> Properties:
    """What a write says of the object."""
    given: dict[str, Any] = {name: request.get(member) for name, member in _PROPERTY_MEMBERS.items()}
    for name, value in given.items():
        check_header(value, _PROPERTY_MEMBERS[name])
    given["content_type"] = given["content_type"] or Properties().content_type
    if given["content_encoding"]:
        # The framing of the request isn't a property of the object.
        kept = [word.strip() for word in given["content_encoding"].split(",") if word.strip().lower() != "aws-chunked"]
        given["content_encoding"] = ",".join(kept) or None
    metadata = {name.lower(): value for name, value in (request.get("Metadata") or {}).items()}
    for name, value in metadata.items():
        check_header(name + value, f"metadata {name[:40]!r}")
    return Properties(**given, metadata=metadata)


def check_header(value: str | None, what: str) -> None:
    """Raises:
    InvalidRequest: with subject ``argument``: no HTTP header can carry it back.
    """
    if value is not None and any(character < " " or character == "\x7f" for character in value):
        raise InvalidRequest(f"The value of {what} has a control character, which no header may hold.", subject="argument")


def property_members(properties: Properties, request: Request) -> dict[str, Any]:
    """What a read says of the object, with the reader's ``response-…`` overrides.

    Raises:
        InvalidRequest: with subject ``argument``: an override that no header can carry.
    """
    for member in _PROPERTY_MEMBERS.values():
        check_header(request.get(f"Response{member}"), f"response-{member}")
    members = {
        member: request.get(f"Response{member}") or getattr(properties, name) for name, member in _PROPERTY_MEMBERS.items()
    }
    if properties.metadata:
        members["Metadata"] = dict(properties.metadata)
    return members


def checksum_members(checksums: Mapping[str, str]) -> dict[str, str]:
    return {CHECKSUM_MEMBERS[algorithm]: value for algorithm, value in checksums.items() if algorithm in CHECKSUM_MEMBERS}


def known_checksums(checksums: Mapping[str, str]) -> dict[str, str]:
    """Those that an object keeps; others were checked on the way and have done their work."""
    return {algorithm: value for algorithm, value in checksums.items() if algorithm in CHECKSUM_MEMBERS}


def with_type(properties: Properties) -> dict[str, str]:
    """The object's checksums and how they were made; nothing where it has none."""
    members = checksum_members(properties.checksums)
    return {**members, "ChecksumType": properties.checksum_type.value} if members else {}


def read_checksums(request: Mapping[str, Any]) -> dict[str, str]:
    """Declared checksums by algorithm."""
    return {algorithm: request[member] for algorithm, member in CHECKSUM_MEMBERS.items() if request.get(member)}


def read_algorithm(request: Request) -> str | None:
    """``ChecksumAlgorithm`` in lower case.

    Raises:
        InvalidRequest: not one of ours.
    """
    name = request.get("ChecksumAlgorithm")
    if not name:
        return None
    if name.lower() not in CHECKSUM_MEMBERS:
        raise InvalidRequest(
            f"Checksum algorithm provided is unsupported: {str(name)[:40]!r}. Please try again with any of the valid types: "
            f"{', '.join(algorithm.upper() for algorithm in CHECKSUM_MEMBERS)}."
        )
    return str(name).lower()


def version_member(bucket: Bucket, version_id: VersionId) -> dict[str, str]:
    """``VersionId``, which a bucket that never kept versions doesn't tell."""
    if bucket.versioning is Versioning.NEVER and version_id == NULL_VERSION:
        return {}
    return {"VersionId": version_id}


def md5_of(request: Request) -> str | None:
    """``Content-MD5`` in hexadecimal.

    Raises:
        InvalidRequest: with subject ``invalid-digest``.
    """
    text = request.get("ContentMD5")
    if not text:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise InvalidRequest(
            "The Content-MD5 you specified is not valid: it is the Base64 of 16 bytes.", subject="invalid-digest"
        )
    return digest.hex()


def check_md5(expected_hex: str | None, stored: StoredContent) -> None:
    """Raises:
    InvalidRequest: with subject ``digest``.
    """
    if expected_hex is not None and expected_hex != stored.md5_hex:
        raise InvalidRequest(
            "The Content-MD5 you specified did not match what we received.",
            subject="digest",
            details={"ExpectedDigest": expected_hex, "CalculatedDigest": stored.md5_hex},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySource:
    """Where a copy comes from."""

    bucket: str
    key: str
    version_id: str | None


def read_copy_source(request: Request) -> CopySource:
    """``x-amz-copy-source``: ``[/]bucket/key[?versionId=…]``, percent-encoded.

    Raises:
        InvalidRequest: with subject ``argument``.
    """
    path, _, version_id = str(request.get("CopySource", "")).partition("?versionId=")
    bucket, _, key = unquote(path).lstrip("/").partition("/")
    if not bucket or not key:
        raise InvalidRequest("Copy Source must mention the source bucket and key: sourcebucket/sourcekey.", subject="argument")
    return CopySource(bucket=bucket, key=key, version_id=version_id or None)


def encoded(text: str | None, request: Request) -> str | None:
    """A key as a list shows it: percent-encoded where the client asks for that, since XML can't hold every character.

    Raises:
        InvalidRequest: with subject ``argument``: the client didn't, and the list would have to repeat such a character.
    """
    if text is None or request.get("EncodingType") != "url":
        return showable(text)
    return quote(text, safe="/")


def showable(text: str | None) -> str | None:
    """The text itself, if a list can repeat it.

    Raises:
        InvalidRequest: with subject ``argument``.
    """
    if text is not None and not is_showable(text):
        raise InvalidRequest(
            "A parameter has a control character, which XML can't repeat. Send encoding-type=url, or leave it out.",
            subject="argument",
        )
    return text


class _NoBody:
    """The body of a request that has none."""

    length_bytes: int | None = 0
    checksums: Mapping[str, str] = MappingProxyType({})

    def __aiter__(self) -> AsyncIterator[bytes]:
        return nothing()


async def nothing() -> AsyncIterator[bytes]:
    """A stream without bytes."""
    no_pieces: tuple[bytes, ...] = ()
    for piece in no_pieces:
        yield piece


def body_of(request: Request) -> Body:
    return request.get("Body") or _NoBody()


def described(version: ObjectVersion) -> dict[str, Any]:
    """What lists say of a version beside its key."""
    members: dict[str, Any] = {
        "ETag": quoted(version.etag),
        "Size": version.size_bytes,
        "StorageClass": "STANDARD",
        "LastModified": version.modified,
    }
    if version.properties.checksums:
        members["ChecksumAlgorithm"] = [algorithm.upper() for algorithm in version.properties.checksums]
        members["ChecksumType"] = version.properties.checksum_type.value
    return members
