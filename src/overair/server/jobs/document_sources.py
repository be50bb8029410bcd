"""Where an operator's job document comes from: given, or read once from the object that ``documentSource`` names."""

from __future__ import annotations

from typing import Final, Protocol

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest
from overair.basics.ids import BucketName, ObjectKey, VersionId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.jobs.documents import parse_s3_url
from overair.server.jobs.model import DOCUMENT_SIZE_BYTES_MAX
from overair.server.objects.model import ContentId

DOCUMENT_READ_BYTES_MAX: Final = DOCUMENT_SIZE_BYTES_MAX + 1
"""One byte more than allowed tells that there is too much."""


class CallerRights(Protocol):
    """What this door asks of the callers' policies (``access.service.AccessService``)."""

    def require(self, tx: Tx, caller: Caller, action: str, resource: str) -> None: ...
    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None: ...


class ObjectContent(Protocol):
    @property
    def content_id(self) -> ContentId: ...


class DocumentObjects(Protocol):
    """Where a documentSource points to (``objects.service.ObjectsService``)."""

    def find(self, tx: Tx, place: Place, bucket: BucketName, key: ObjectKey, version: VersionId | None) -> ObjectContent: ...


class Contents(Protocol):
    """Where the bytes are (``objects.contents.ContentStore``)."""

    def read(self, content_id: ContentId, offset_bytes: int, size_bytes: int) -> bytes: ...


class DocumentSources:
    """Reads documents with the caller's own rights."""

    def __init__(self, *, work: Work, rights: CallerRights, objects: DocumentObjects, contents: Contents) -> None:
        self._work = work
        self._rights = rights
        self._objects = objects
        self._contents = contents

    async def read(self, caller: Caller, source: str) -> str:
        """Raises InvalidRequest (subjects ``s3-url``, ``job-document``), NotFound, AccessDenied."""
        name = parse_s3_url(source)

        def find(tx: Tx) -> ContentId:
            action = "s3:GetObject" if name.version is None else "s3:GetObjectVersion"
            self._rights.require(tx, caller, action, f"arn:aws:s3:::{name.bucket}/{name.key}")
            return self._objects.find(tx, caller.place, name.bucket, name.key, name.version).content_id

        content = await self._work.read(find)
        raw = self._contents.read(content, 0, DOCUMENT_READ_BYTES_MAX)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"The job document at {source} is not UTF-8 text.", subject="job-document") from None
