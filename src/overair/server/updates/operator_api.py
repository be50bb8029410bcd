"""The OTA update operations of service ``iot`` (wire reference §5.2, §5.3)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

from overair.basics.clock import Instant
from overair.basics.ids import OtaUpdateId
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import PAGE_SIZE_DEFAULT, cut, read_page_token
from overair.server.objects.model import ContentId
from overair.server.updates.encryption import encryption_of, head_size_of
from overair.server.updates.model import CustomSigning, StoredFile, StreamedFile, Update, UpdateFile, UpdateStatus
from overair.server.updates.plan import file_members, plan_of
from overair.server.updates.ports import UpdateQuery
from overair.server.updates.service import Found, UpdatesService, signing_job_of
from overair.server.updates.signatures import check_signature, hash_name
from overair.server.updates.steps import Step
from overair.wire.image_envelope import LEADER_SIZE_BYTES, is_encrypted
from overair.wire.job_document import FileEncryption, TransferProtocol

UNSIGNED_PARAMETER: Final = "overair:unsigned"
"""Added to ``additionalParameters`` of an update that sends a file unsigned: the one place of GetOTAUpdate's shape that has
room for a word of ours."""
ENCRYPTED_PARAMETER: Final = "overair:encrypted"
"""The same for an update that sends a file encrypted."""


class Contents(Protocol):
    """Whoever keeps the bytes of objects (``objects.contents.ContentStore``)."""

    def stream(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> AsyncIterator[bytes]: ...


class UpdateOperations:
    """OTA updates, for operators."""

    def __init__(
        self,
        *,
        work: Work,
        updates: UpdatesService,
        contents: Contents,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._work = work
        self._updates = updates
        self._contents = contents
        self._after_step = after_step

    @operation("iot", "CreateOTAUpdate")
    async def create_ota_update(self, caller: Caller, request: Request) -> Members:
        plan = plan_of(request)
        prepared = await self._work.read(lambda tx: self._updates.prepare(tx, caller, plan))
        encrypted: dict[int, FileEncryption] = {}
        for found in prepared.found:
            file = plan.files[found.file_number]
            encryption = await self._encryption(found, file)
            signing = prepared.to_check(found)
            if encryption is not None:
                encrypted[found.file_number] = encryption
            elif signing is not None:
                await self._check(found, signing, file.name)
        checked = prepared.checked(encrypted)
        update = await self._work.run(lambda tx: self._updates.create(tx, caller, checked))
        self._after_step(Step.ACCEPT.value)
        return {
            "otaUpdateId": update.id,
            "awsIotJobId": update.job,
            "otaUpdateArn": update.arn,
            "awsIotJobArn": update.job_arn,
            "otaUpdateStatus": update.status.value,
        }

    @operation("iot", "GetOTAUpdate")
    async def get_ota_update(self, caller: Caller, request: Request) -> Members:
        update_id = OtaUpdateId(request["otaUpdateId"])
        update = await self._work.read(lambda tx: self._updates.find(tx, caller.account, update_id))
        return {"otaUpdateInfo": _info(update)}

    @operation("iot", "ListOTAUpdates")
    async def list_ota_updates(self, caller: Caller, request: Request) -> Members:
        limit = request.get("maxResults", PAGE_SIZE_DEFAULT)
        position = read_page_token(request.get("nextToken"), tuple[int, str])
        status = request.get("otaUpdateStatus")
        query = UpdateQuery(
            limit=limit + 1,
            after=(Instant(position[0]), OtaUpdateId(position[1])) if position else None,
            status=UpdateStatus(status) if status else None,
        )
        found = await self._work.read(lambda tx: self._updates.page(tx, caller.account, query))
        page, token = cut(found, limit, lambda update: (update.created_at, update.id))
        summaries = [
            {"otaUpdateId": update.id, "otaUpdateArn": update.arn, "creationDate": update.created_at} for update in page
        ]
        return {"otaUpdates": summaries, "nextToken": token}

    @operation("iot", "DeleteOTAUpdate")
    async def delete_ota_update(self, caller: Caller, request: Request) -> Members:
        update_id = OtaUpdateId(request["otaUpdateId"])
        await self._work.run(
            lambda tx: self._updates.delete(
                tx,
                caller,
                update_id,
                delete_stream=request.get("deleteStream", False),
                force_delete_job=request.get("forceDeleteAWSJob", False),
            )
        )
        return {}

    async def _encryption(self, found: Found, file: UpdateFile) -> FileEncryption | None:
        """Look at the file's head: whether it is encrypted, and to whom. Refuses one that no device could use."""
        start = await self._start_of(found, LEADER_SIZE_BYTES)
        if not is_encrypted(start):
            return None
        head = await self._start_of(found, head_size_of(start, name=file.name))
        return encryption_of(head, file, size_bytes=found.size_bytes)

    async def _start_of(self, found: Found, size_bytes: int) -> bytes:
        pieces = self._contents.stream(found.content_id, 0, min(size_bytes, found.size_bytes))
        return b"".join([piece async for piece in pieces])

    async def _check(self, found: Found, signing: CustomSigning, name: str) -> None:
        """Read the file beside the event loop and refuse a signature that isn't its certificate's."""
        digest = hashlib.new(hash_name(signing.algorithm), usedforsecurity=False)
        async for piece in self._contents.stream(found.content_id, 0, found.size_bytes):
            await asyncio.to_thread(digest.update, piece)
        assert signing.certificate_pem is not None
        check_signature(
            digest.digest(),
            signature=signing.signature,
            algorithm=signing.algorithm,
            certificate_pem=signing.certificate_pem,
            name=name,
        )


def _info(update: Update) -> dict[str, Any]:
    plan = update.plan
    presigned = TransferProtocol.HTTP in plan.protocols
    additional = dict(plan.additional_parameters)
    if update.is_unsigned:
        additional[UNSIGNED_PARAMETER] = "true"
    if update.is_encrypted:
        additional[ENCRYPTED_PARAMETER] = "true"
    return {
        "otaUpdateId": update.id,
        "otaUpdateArn": update.arn,
        "creationDate": update.created_at,
        "lastModifiedDate": update.modified_at,
        "description": plan.description,
        "targets": list(plan.targets),
        "protocols": [protocol.value for protocol in plan.protocols],
        "awsJobExecutionsRolloutConfig": plan.settings.rollout,
        "awsJobPresignedUrlConfig": {"expiresInSec": plan.settings.presign_expiry_s} if presigned else None,
        "targetSelection": plan.selection.value,
        "otaUpdateFiles": [_file_info(update, number) for number in range(len(plan.files))],
        "otaUpdateStatus": update.status.value,
        "awsIotJobId": update.job,
        "awsIotJobArn": update.job_arn,
        "errorInfo": {"code": update.failure.code, "message": update.failure.message} if update.failure else None,
        "additionalParameters": additional or None,
    }


def _file_info(update: Update, number: int) -> dict[str, Any]:
    """The file as asked for, with what has become of it: Signer's job (checklist 55), where it is delivered from."""
    file, progress = update.plan.files[number], update.progress[number]
    members = file_members(file)
    job = signing_job_of(file, progress)
    if job is not None:
        members["codeSigning"] = {**(members["codeSigning"] or {}), "awsSignerJobId": job}
    location: dict[str, Any] = dict(members["fileLocation"] or {})
    if update.stream_made and not isinstance(file.location, StreamedFile):
        location["stream"] = {"streamId": update.stream, "fileId": number}
    if isinstance(progress.delivered, StoredFile):
        at = progress.delivered
        location["s3Location"] = {"bucket": at.bucket, "key": at.key, "version": at.version}
    members["fileLocation"] = location or None
    return members
