"""Operations on objects: put, get, head, copy, delete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from overair.basics.errors import Conflict, InvalidRequest, NotFound, OverairError
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Answer, Caller, Members, Request, operation
from overair.server.aws_protocol.ranges import ByteRange, byte_range
from overair.server.error_codes import code_for
from overair.server.objects.contents import BUFFER_SIZE_BYTES, ContentStore
from overair.server.objects.members import (
    body_of,
    check_md5,
    check_supported,
    known_checksums,
    md5_of,
    nothing,
    property_members,
    quoted,
    read_algorithm,
    read_copy_source,
    read_properties,
    version_member,
    with_type,
)
from overair.server.objects.model import (
    DELETE_KEYS_MAX,
    SINGLE_PUT_SIZE_BYTES_MAX,
    Bucket,
    ChecksumType,
    Conditions,
    DeleteMarker,
    ObjectVersion,
    StoredContent,
    check_key,
    check_metadata,
)
from overair.server.objects.reading import ReadConditions, is_not_modified, part_range
from overair.server.objects.service import ObjectsService, precondition_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    bucket: Bucket
    version: ObjectVersion


class ObjectOperations:
    """One object at a time, and deleting many."""

    work: Work
    objects: ObjectsService
    contents: ContentStore

    @operation("s3", "PutObject")
    async def put_object(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        place, name, key = caller.place, request["Bucket"], check_key(request["Key"])
        properties = read_properties(request)
        check_metadata(properties.metadata)
        expected_md5_hex = md5_of(request)
        body = body_of(request)
        if body.length_bytes is not None and body.length_bytes > SINGLE_PUT_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"Your proposed upload exceeds the maximum allowed size of {SINGLE_PUT_SIZE_BYTES_MAX} bytes: use a multipart "
                "upload.",
                subject="too-large",
            )
        if body.length_bytes is None or body.length_bytes > BUFFER_SIZE_BYTES:
            # Before a gigabyte is taken in for a bucket that isn't there.
            await self.work.read(lambda tx: self.objects.require_bucket(tx, place, name))
        stored = await self.contents.store(body)
        check_md5(expected_md5_hex, stored)
        # Trailing checksums are known, and were checked, only now.
        properties = replace(properties, checksums=known_checksums(body.checksums))

        def unit(tx: Tx) -> tuple[Bucket, ObjectVersion]:
            conditions = _write_conditions(request)
            put = self.objects.put(tx, place, name, key, stored, properties=properties, conditions=conditions)
            return self.objects.require_bucket(tx, place, name), put

        bucket, version = await self.work.run(unit)
        return {
            "ETag": quoted(version.etag),
            **version_member(bucket, version.version_id),
            **with_type(version.properties),
        }

    @operation("s3", "GetObject")
    async def get_object(self, caller: Caller, request: Request) -> Answer:
        answer, version, part = await self._read(caller, request)
        if version is None:
            return answer
        offset, size = (part.offset_bytes, part.size_bytes) if part else (0, version.size_bytes)
        return replace(answer, stream=self.contents.stream(version.content_id, offset, size) if size else nothing())

    @operation("s3", "HeadObject")
    async def head_object(self, caller: Caller, request: Request) -> Answer:
        answer, _, _ = await self._read(caller, request)
        return answer

    @operation("s3", "GetObjectAttributes")
    async def get_object_attributes(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        found = await self.work.read(lambda tx: self._find_version(tx, caller, request))
        version, properties = found.version, found.version.properties
        asked = set(request.get("ObjectAttributes") or ())
        known = {
            "ETag": version.etag,
            "Checksum": with_type(properties) or None,
            "ObjectParts": {"TotalPartsCount": len(properties.part_sizes_bytes)} if properties.part_sizes_bytes else None,
            "StorageClass": "STANDARD",
            "ObjectSize": version.size_bytes,
        }
        if not asked or not asked <= set(known):
            raise InvalidRequest(f"Object attributes are one or more of {', '.join(known)}.", subject="argument")
        return {
            "LastModified": version.modified,
            **version_member(found.bucket, version.version_id),
            **{name: value for name, value in known.items() if name in asked},
        }

    async def _read(self, caller: Caller, request: Request) -> tuple[Answer, ObjectVersion | None, ByteRange | None]:
        check_supported(caller, request)
        found = await self.work.read(lambda tx: self._find_version(tx, caller, request))
        version, properties = found.version, found.version.properties
        members: dict[str, Any] = {
            "ETag": quoted(version.etag),
            "LastModified": version.modified,
            **version_member(found.bucket, version.version_id),
        }
        conditions = ReadConditions(
            if_match=request.get("IfMatch"),
            if_none_match=request.get("IfNoneMatch"),
            if_modified_since=request.get("IfModifiedSince"),
            if_unmodified_since=request.get("IfUnmodifiedSince"),
        )
        if is_not_modified(version, conditions):
            return Answer(members=members, status_code=304), None, None
        part: ByteRange | None
        if request.get("PartNumber") is not None:
            if request.get("Range"):
                raise InvalidRequest("Cannot specify both Range header and partNumber query parameter.")
            part = part_range(version, int(request["PartNumber"]))
        else:
            part = byte_range(request.get("Range"), version.size_bytes)
        members |= property_members(properties, request)
        members |= {
            "AcceptRanges": "bytes",
            "ContentLength": part.size_bytes if part else version.size_bytes,
            "ContentRange": part.content_range(version.size_bytes) if part else None,
        }
        if request.get("PartNumber") is not None and properties.part_sizes_bytes:
            members["PartsCount"] = len(properties.part_sizes_bytes)
        # A checksum of the whole would not be that of a part.
        is_whole = part is None or part.size_bytes == version.size_bytes
        if request.get("ChecksumMode") == "ENABLED" and is_whole:
            members |= with_type(properties)
        return Answer(members=members, status_code=206 if part else 200), version, part

    def _find_version(self, tx: Tx, caller: Caller, request: Request) -> _Found:
        bucket = self.objects.require_bucket(tx, caller.place, request["Bucket"])
        version = self.objects.look(tx, caller.place, request["Bucket"], request["Key"], request.get("VersionId"))
        if isinstance(version, DeleteMarker):
            if request.get("VersionId"):
                raise Conflict(
                    "The specified method is not allowed against this resource: the version is a delete marker, which can only "
                    "be deleted.",
                    subject="delete-marker",
                    details={"Method": "GET", "ResourceType": "DeleteMarker", **_delete_marker_headers(version)},
                )
            raise NotFound(
                "The specified key does not exist: its latest version is a delete marker.",
                subject="key",
                details={"Key": request["Key"], "VersionId": version.version_id, **_delete_marker_headers(version)},
            )
        return _Found(bucket=bucket, version=version)

    @operation("s3", "CopyObject")
    async def copy_object(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        source, key = read_copy_source(request), check_key(request["Key"])
        place, name = caller.place, request["Bucket"]
        replaces = request.get("MetadataDirective", "COPY") == "REPLACE"
        algorithm = read_algorithm(request)
        found = await self.work.read(lambda tx: self.objects.find(tx, place, source.bucket, source.key, source.version_id))
        check_copy_source(found, request)
        if (source.bucket, source.key, source.version_id) == (name, key, None) and not replaces:
            raise InvalidRequest(
                "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
                "metadata."
            )
        properties = found.properties
        if algorithm is not None and algorithm not in properties.checksums:
            whole = self.contents.stream(found.content_id, 0, found.size_bytes)
            computed = await self.contents.store(whole, algorithms=[algorithm])
            properties = replace(properties, checksums=computed.checksums, checksum_type=ChecksumType.FULL_OBJECT)
        if replaces:
            properties = replace(
                read_properties(request),
                checksums=properties.checksums,
                checksum_type=properties.checksum_type,
                part_sizes_bytes=properties.part_sizes_bytes,
            )

        def unit(tx: Tx) -> tuple[Bucket, ObjectVersion]:
            # Again, inside the unit: a source that has gone meanwhile may have lost its content.
            present = self.objects.find(tx, place, source.bucket, source.key, found.version_id)
            content = StoredContent(content_id=present.content_id, size_bytes=present.size_bytes, md5_hex="")
            copied = self.objects.put(
                tx,
                place,
                name,
                key,
                content,
                properties=properties,
                conditions=_write_conditions(request),
                etag=present.etag,
            )
            return self.objects.require_bucket(tx, place, name), copied

        bucket, version = await self.work.run(unit)
        return {
            "CopyObjectResult": {
                "ETag": quoted(version.etag),
                "LastModified": version.modified,
                **with_type(version.properties),
            },
            "CopySourceVersionId": found.version_id if found.version_id != "null" else None,
            **version_member(bucket, version.version_id),
        }

    @operation("s3", "DeleteObject")
    async def delete_object(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        deletion = await self.work.run(
            lambda tx: self.objects.delete(
                tx,
                caller.place,
                request["Bucket"],
                request["Key"],
                request.get("VersionId") or None,
                if_match=request.get("IfMatch"),
            )
        )
        return {"VersionId": deletion.version_id, "DeleteMarker": True if deletion.is_marker else None}

    @operation("s3", "DeleteObjects")
    async def delete_objects(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        asked = request["Delete"].get("Objects") or []
        if not 1 <= len(asked) <= DELETE_KEYS_MAX:
            raise InvalidRequest(
                f"One request deletes 1 to {DELETE_KEYS_MAX} objects; this one names {len(asked)}.", subject="malformed-body"
            )

        def unit(tx: Tx) -> tuple[list[Members], list[Members]]:
            self.objects.require_bucket(tx, caller.place, request["Bucket"])
            deleted: list[Members] = []
            errors: list[Members] = []
            for item in asked:
                key, version_id = item.get("Key", ""), item.get("VersionId") or None
                try:
                    deletion = self.objects.delete(
                        tx, caller.place, request["Bucket"], key, version_id, if_match=item.get("ETag")
                    )
                except OverairError as error:
                    errors.append(
                        {"Key": key, "VersionId": version_id, "Code": code_for("s3", error), "Message": error.message}
                    )
                    continue
                deleted.append(
                    {
                        "Key": key,
                        "VersionId": version_id,
                        "DeleteMarker": True if deletion.is_marker else None,
                        "DeleteMarkerVersionId": deletion.version_id if deletion.is_marker else None,
                    }
                )
            return deleted, errors

        deleted, errors = await self.work.run(unit)
        return {"Deleted": [] if request["Delete"].get("Quiet") else deleted, "Errors": errors}


def _delete_marker_headers(marker: DeleteMarker) -> dict[str, str]:
    return {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version_id}


def _write_conditions(request: Request) -> Conditions:
    return Conditions(if_match=request.get("IfMatch"), if_none_match=request.get("IfNoneMatch"))


def check_copy_source(source: ObjectVersion, request: Request) -> None:
    """Raises:
    PreconditionFailed: also where a reader would hear 304: a copy has no such answer.
    InvalidRequest: the source is too large for one copy.
    """
    conditions = ReadConditions(
        if_match=request.get("CopySourceIfMatch"),
        if_none_match=request.get("CopySourceIfNoneMatch"),
        if_modified_since=request.get("CopySourceIfModifiedSince"),
        if_unmodified_since=request.get("CopySourceIfUnmodifiedSince"),
    )
    if is_not_modified(source, conditions):
        raise precondition_failed("x-amz-copy-source-If-None-Match or x-amz-copy-source-If-Modified-Since")
    if source.size_bytes > SINGLE_PUT_SIZE_BYTES_MAX:
        raise InvalidRequest(
            "The specified copy source is larger than the maximum allowable size for a copy source: "
            f"{SINGLE_PUT_SIZE_BYTES_MAX} bytes."
        )
