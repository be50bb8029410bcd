"""Operations on multipart uploads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.objects.contents import ContentStore
from overair.server.objects.listing import ObjectLists
from overair.server.objects.members import (
    body_of,
    check_md5,
    check_supported,
    checksum_members,
    encoded,
    md5_of,
    owner,
    quoted,
    read_algorithm,
    read_checksums,
    read_copy_source,
    read_properties,
    showable,
    version_member,
    with_type,
)
from overair.server.objects.model import (
    LIST_KEYS_MAX,
    SINGLE_PUT_SIZE_BYTES_MAX,
    Bucket,
    ChecksumType,
    Conditions,
    ObjectVersion,
    UploadId,
)
from overair.server.objects.operator_objects import check_copy_source
from overair.server.objects.reading import copy_range
from overair.server.objects.service import ObjectsService
from overair.server.objects.upload_model import CompletedPart, Upload, check_part_number
from overair.server.objects.uploads import Completion, UploadsService


class UploadOperations:
    """Objects that come in parts."""

    work: Work
    objects: ObjectsService
    uploads: UploadsService
    lists: ObjectLists
    contents: ContentStore

    @operation("s3", "CreateMultipartUpload")
    async def create_multipart_upload(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        properties = read_properties(request)
        algorithm = read_algorithm(request)
        covers = _checksum_type(request)
        upload = await self.work.run(
            lambda tx: self.uploads.create(
                tx,
                caller.place,
                request["Bucket"],
                request["Key"],
                properties=properties,
                checksum_algorithm=algorithm,
                checksum_type=covers,
            )
        )
        return {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            **_checksum_plan(upload),
        }

    @operation("s3", "UploadPart")
    async def upload_part(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        number, expected_md5_hex = int(request["PartNumber"]), md5_of(request)
        check_part_number(number)
        upload = await self.work.read(lambda tx: self._find_upload(tx, caller, request))
        body = body_of(request)
        declares = bool(request.get("ChecksumAlgorithm") or read_checksums(request))
        # Where the client leaves the checksum to us, it is computed as the bytes pass.
        wanted = [upload.checksum_algorithm] if upload.checksum_algorithm and not declares else []
        stored = await self.contents.store(body, algorithms=wanted, size_bytes_max=SINGLE_PUT_SIZE_BYTES_MAX)
        check_md5(expected_md5_hex, stored)
        stored = replace(stored, checksums={**stored.checksums, **body.checksums})
        part = await self.work.run(
            lambda tx: self.uploads.put_part(
                tx, caller.place, request["Bucket"], request["Key"], request["UploadId"], number, stored
            )
        )
        return {"ETag": quoted(part.md5_hex), **checksum_members(body.checksums or part.checksums)}

    @operation("s3", "UploadPartCopy")
    async def upload_part_copy(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        number, source = int(request["PartNumber"]), read_copy_source(request)
        check_part_number(number)

        def query(tx: Tx) -> tuple[Upload, ObjectVersion]:
            upload = self._find_upload(tx, caller, request)
            return upload, self.objects.find(tx, caller.place, source.bucket, source.key, source.version_id)

        upload, found = await self.work.read(query)
        check_copy_source(found, request)
        offset, size = 0, found.size_bytes
        if request.get("CopySourceRange"):
            part_of = copy_range(request["CopySourceRange"], found.size_bytes)
            offset, size = part_of.offset_bytes, part_of.size_bytes
        stored = await self.contents.store(
            self.contents.stream(found.content_id, offset, size),
            algorithms=[upload.checksum_algorithm] if upload.checksum_algorithm else [],
        )
        part = await self.work.run(
            lambda tx: self.uploads.put_part(
                tx, caller.place, request["Bucket"], request["Key"], request["UploadId"], number, stored
            )
        )
        return {
            "CopyPartResult": {
                "ETag": quoted(part.md5_hex),
                "LastModified": part.modified,
                **checksum_members(part.checksums),
            },
            "CopySourceVersionId": found.version_id if found.version_id != "null" else None,
        }

    @operation("s3", "CompleteMultipartUpload")
    async def complete_multipart_upload(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        place, name, key, upload_id = caller.place, request["Bucket"], request["Key"], request["UploadId"]
        asked = [_completed_part(part) for part in (request.get("MultipartUpload") or {}).get("Parts") or []]

        def plan(tx: Tx) -> Completion | ObjectVersion:
            try:
                return self.uploads.plan_completion(tx, place, name, key, upload_id, asked)
            except NotFound as error:
                done = self.uploads.completed_before(tx, place, name, key, asked) if error.subject == "upload" else None
                if done is None:
                    raise
                return done

        planned = await self.work.read(plan)
        if isinstance(planned, ObjectVersion):
            bucket = await self.work.read(lambda tx: self.objects.require_bucket(tx, place, name))
            return _completed(bucket, planned)
        _check_declared(request, planned)
        if len(planned.parts) == 1:
            content_id = planned.parts[0].content_id
        else:
            contents = [(part.content_id, part.size_bytes) for part in planned.parts]
            content_id = await self.contents.in_thread(self.contents.store_list, contents)
        conditions = Conditions(if_match=request.get("IfMatch"), if_none_match=request.get("IfNoneMatch"))

        def unit(tx: Tx) -> tuple[Bucket, ObjectVersion]:
            version = self.uploads.complete(
                tx,
                place,
                name,
                key,
                upload_id,
                asked,
                planned=planned,
                content_id=content_id,
                conditions=conditions,
            )
            return self.objects.require_bucket(tx, place, name), version

        return _completed(*await self.work.run(unit))

    @operation("s3", "AbortMultipartUpload")
    async def abort_multipart_upload(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        await self.work.run(
            lambda tx: self.uploads.abort(tx, caller.place, request["Bucket"], request["Key"], request["UploadId"])
        )
        return {}

    @operation("s3", "ListParts")
    async def list_parts(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        limit = max(1, min(int(request.get("MaxParts", LIST_KEYS_MAX)), LIST_KEYS_MAX))
        after = _part_marker(request)
        upload, parts = await self.work.read(
            lambda tx: self.uploads.parts(
                tx,
                caller.place,
                request["Bucket"],
                request["Key"],
                request["UploadId"],
                after=after,
                limit=limit + 1,
            )
        )
        shown = parts[:limit]
        return {
            "Bucket": upload.bucket,
            "Key": upload.key,
            "UploadId": upload.upload_id,
            "PartNumberMarker": after,
            "NextPartNumberMarker": shown[-1].number if shown else after,
            "MaxParts": limit,
            "IsTruncated": len(parts) > limit,
            "Parts": [
                {
                    "PartNumber": part.number,
                    "ETag": quoted(part.md5_hex),
                    "Size": part.size_bytes,
                    "LastModified": part.modified,
                    **checksum_members(part.checksums),
                }
                for part in shown
            ],
            "Initiator": owner(caller.place),
            "Owner": owner(caller.place),
            "StorageClass": "STANDARD",
            **_checksum_plan(upload),
        }

    @operation("s3", "ListMultipartUploads")
    async def list_multipart_uploads(self, caller: Caller, request: Request) -> Members:
        check_supported(caller, request)
        limit = max(1, min(int(request.get("MaxUploads", LIST_KEYS_MAX)), LIST_KEYS_MAX))
        after_upload = UploadId(request["UploadIdMarker"]) if request.get("UploadIdMarker") else None
        page = await self.work.read(
            lambda tx: self.lists.uploads(
                tx,
                caller.place,
                request["Bucket"],
                prefix=request.get("Prefix", ""),
                delimiter=request.get("Delimiter", ""),
                after=request.get("KeyMarker") or None,
                after_upload=after_upload,
                limit=limit,
            )
        )
        account_owner = owner(caller.place)
        ended_with_entry = page.is_truncated and page.last_prefix is None and bool(page.entries)
        return {
            "Bucket": request["Bucket"],
            "KeyMarker": encoded(request.get("KeyMarker", ""), request),
            "UploadIdMarker": showable(request.get("UploadIdMarker", "")),
            "Prefix": encoded(request.get("Prefix", ""), request),
            "Delimiter": encoded(request.get("Delimiter"), request),
            "EncodingType": request.get("EncodingType"),
            "MaxUploads": limit,
            "IsTruncated": page.is_truncated,
            "NextKeyMarker": encoded(page.last_key, request) if page.is_truncated else None,
            "NextUploadIdMarker": page.entries[-1].upload_id if ended_with_entry else None,
            "CommonPrefixes": [{"Prefix": encoded(prefix, request)} for prefix in page.common_prefixes],
            "Uploads": [
                {
                    "UploadId": upload.upload_id,
                    "Key": encoded(upload.key, request),
                    "Initiated": upload.initiated,
                    "StorageClass": "STANDARD",
                    "Owner": account_owner,
                    "Initiator": account_owner,
                    **_checksum_plan(upload),
                }
                for upload in page.entries
            ],
        }

    def _find_upload(self, tx: Tx, caller: Caller, request: Request) -> Upload:
        return self.uploads.find(tx, caller.place, request["Bucket"], request["Key"], request["UploadId"])


def _checksum_type(request: Request) -> ChecksumType | None:
    try:
        return ChecksumType(request["ChecksumType"]) if request.get("ChecksumType") else None
    except ValueError:
        raise InvalidRequest("The checksum type is COMPOSITE or FULL_OBJECT.", subject="argument") from None


def _checksum_plan(upload: Upload) -> dict[str, str]:
    if upload.checksum_algorithm is None or upload.checksum_type is None:
        return {}
    return {"ChecksumAlgorithm": upload.checksum_algorithm.upper(), "ChecksumType": upload.checksum_type.value}


def _part_marker(request: Request) -> int:
    try:
        return max(0, int(request.get("PartNumberMarker") or 0))
    except ValueError:
        raise InvalidRequest("The part number marker is a number.", subject="argument") from None


def _completed_part(part: Members) -> CompletedPart:
    if part.get("PartNumber") is None or not part.get("ETag"):
        raise InvalidRequest("Each part is named by its PartNumber and ETag.", subject="malformed-body")
    return CompletedPart(number=int(part["PartNumber"]), etag=part["ETag"], checksums=read_checksums(part))


def _check_declared(request: Request, planned: Completion) -> None:
    """Hold what the client says of the whole against what its parts make.

    Raises:
        InvalidRequest: with subject ``digest`` for a checksum; the size or kind of checksum is another one.
    """
    size_bytes = request.get("MpuObjectSize")
    if size_bytes is not None and int(size_bytes) != planned.size_bytes:
        raise InvalidRequest(
            f"The provided 'x-amz-mp-object-size' header value {size_bytes} does not match what was computed: "
            f"{planned.size_bytes}."
        )
    covers = _checksum_type(request)
    if covers is not None and planned.checksums and covers is not planned.checksum_type:
        raise InvalidRequest(
            f"The upload was created using the {planned.checksum_type.value} checksum mode. The complete request must use the "
            "same checksum mode."
        )
    for algorithm, value in read_checksums(request).items():
        computed = planned.checksums.get(algorithm)
        # A composite one may come without the number of parts.
        if computed is not None and value not in (computed, computed.partition("-")[0]):
            raise InvalidRequest(f"The {algorithm} you specified did not match the calculated checksum.", subject="digest")


def _completed(bucket: Bucket, version: ObjectVersion) -> dict[str, Any]:
    return {
        "Location": f"/{version.bucket}/{version.key}",
        "Bucket": version.bucket,
        "Key": version.key,
        "ETag": quoted(version.etag),
        **version_member(bucket, version.version_id),
        **with_type(version.properties),
    }
