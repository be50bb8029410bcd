"""Uploads of images: in one request, or in parts to addresses that need no other proof (Uptane reference §9.3).

OTA Connect's tools send every image in parts, take the address of each part from the server, and fetch the whole back from an
address of the server's choice to compare it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any
from urllib.parse import quote

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.model import check_name
from overair.server.image_repository.rest_answers import PREFIX, ImageRest, flag, number, text_member
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.serving import image_answer
from overair.server.image_repository.upload_model import (
    IMAGE_SIZE_BYTES_MAX,
    PART_NUMBER_MAX,
    PART_SIZE_BYTES_MAX,
    URL_LASTS_MS,
    UploadedPart,
)
from overair.server.image_repository.uploads import ImageUploads, Planned, check_part_number
from overair.server.objects.contents import STREAMED_SIZE_BYTES, ContentStore
from overair.server.objects.model import ContentId
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.rest.tickets import Tickets, ticketed_url
from overair.server.roots.service import RootsService


class UploadsRestApi(ImageRest):
    """Bytes of images that nobody need have described yet."""

    def __init__(
        self,
        *,
        work: Work,
        roots: RootsService,
        images: ImageRepositoryService,
        uploads: ImageUploads,
        contents: ContentStore,
        tickets: Tickets,
    ) -> None:
        super().__init__(work=work, roots=roots, images=images)
        self._uploads = uploads
        self._contents = contents
        self._tickets = tickets

    @route(
        "PUT",
        PREFIX + "/uploads/{name:path}",
        operation="UploadTarget",
        streams=True,
        body_size_bytes_max=IMAGE_SIZE_BYTES_MAX,
    )
    async def put_upload(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """An image's bytes. The same again are welcome; others under this name aren't."""
        name = request.labels["name"]
        check_name(name)
        assert request.stream is not None
        stored = await self._contents.store(request.stream, size_bytes_max=IMAGE_SIZE_BYTES_MAX)
        if stored.size_bytes == 0:
            raise InvalidRequest("The request brought no bytes.", subject="empty-body", details={"field": "body"})
        _, headers = await self._run(
            caller,
            lambda tx: self._images.uploaded(
                tx,
                caller.place,
                name,
                sha256=stored.content_id,
                length=stored.size_bytes,
                content_id=stored.content_id,
            ),
        )
        return RestAnswer(status=204, headers={**headers, "etag": f'"{stored.content_id}"'})

    @route("GET", PREFIX + "/uploads/{name:path}", operation="GetTarget")
    async def get_upload(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """302 to where the bytes can be fetched without further proof, for an hour."""
        name = request.labels["name"]
        await self._work.read(lambda tx: self._images.catalogue.find(tx, caller.account, name))
        location = ticketed_url(
            self._tickets,
            caller,
            "GET",
            request.origin,
            f"{PREFIX}/contents/{name}",
            expires=Instant(caller.now + URL_LASTS_MS),
        )
        return RestAnswer(status=302, headers={"location": location})

    @route("GET", PREFIX + "/contents/{name:path}", operation="GetTarget", takes_ticket=True)
    async def get_content(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]
        target = await self._work.read(lambda tx: self._images.catalogue.find(tx, caller.account, name))
        return image_answer(request, target, self._contents)

    # In parts -------------------------------------------------------------------------------------------------------------

    @route("POST", PREFIX + "/multipart/initiate/{name:path}", operation="UploadTarget")
    async def initiate(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """An upload's id, and how large its parts should be."""
        name, size_bytes, again = request.labels["name"], number(request, "fileSize"), flag(request, "force")
        (upload, part_size_bytes), headers = await self._run(
            caller, lambda tx: self._uploads.begin(tx, caller.place, name, size_bytes, again=again)
        )
        return RestAnswer(json={"uploadId": upload.upload_id, "partSize": part_size_bytes}, headers=headers)

    @route("GET", PREFIX + "/multipart/url/{name:path}", operation="UploadTarget")
    async def part_url(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Where to PUT one part."""
        name, part = request.labels["name"], number(request, "part", maximum=PART_NUMBER_MAX)
        upload_id = request.query.get("uploadId", "")
        check_part_number(part)
        number(request, "contentLength", 0, maximum=PART_SIZE_BYTES_MAX)
        md5 = request.query.get("md5", "")
        _md5_hex(md5)
        upload, headers = await self._read(caller, lambda tx: self._uploads.find(tx, caller.account, upload_id, name=name))
        uri = ticketed_url(
            self._tickets,
            caller,
            "PUT",
            request.origin,
            f"{PREFIX}/multipart/parts/{upload.upload_id}/{part}/{name}",
            expires=Instant(caller.now + URL_LASTS_MS),
            query=f"md5={quote(md5, safe='')}" if md5 else "",
        )
        return RestAnswer(json={"uri": uri}, headers=headers)

    @route(
        "PUT",
        PREFIX + "/multipart/parts/{uploadId}/{part}/{name:path}",
        operation="UploadTarget",
        streams=True,
        body_size_bytes_max=PART_SIZE_BYTES_MAX,
        takes_ticket=True,
    )
    async def put_part(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """One part; the answer's ETag is asked for when the upload is completed."""
        upload_id, text, name = request.labels["uploadId"], request.labels["part"], request.labels["name"]
        if not text.isascii() or not text.isdigit() or len(text) > 5:
            raise InvalidRequest("A part is a number.", details={"field": "part"})
        check_part_number(int(text))
        wanted = {_md5_hex(each) for each in (request.query.get("md5", ""), request.headers.get("content-md5", ""))} - {""}
        await self._work.read(lambda tx: self._uploads.find(tx, caller.account, upload_id, name=name))
        assert request.stream is not None
        stored = await self._contents.store(request.stream, size_bytes_max=PART_SIZE_BYTES_MAX)
        if wanted - {stored.md5_hex}:
            raise InvalidRequest(
                "The part's bytes don't have the MD5 that was announced: send it again.",
                subject="digest",
                details={"field": "Content-MD5"},
            )
        part, _ = await self._run(caller, lambda tx: self._uploads.put_part(tx, caller.place, upload_id, int(text), stored))
        return RestAnswer(headers={"etag": f'"{part.md5_hex}"'})

    @route("PUT", PREFIX + "/multipart/complete/{name:path}", operation="UploadTarget")
    async def complete(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The parts become one image under this name."""
        name, body = request.labels["name"], request.json_object()
        upload_id, etags = text_member(body, "uploadId"), _etags(body.get("partETags"))
        planned = await self._work.read(lambda tx: self._uploads.plan(tx, caller.account, name, upload_id, etags))
        content_id, sha256 = await self._whole(planned)

        def unit(tx: Tx) -> Any:
            self._uploads.complete(tx, caller.place, planned)
            length = planned.upload.size_bytes
            return self._images.uploaded(tx, caller.place, name, sha256=sha256, length=length, content_id=content_id)

        _, headers = await self._run(caller, unit)
        return RestAnswer(status=204, headers=headers)

    async def _whole(self, planned: Planned) -> tuple[ContentId, str]:
        """The parts as one content, and its SHA-256: each byte is read once, on a thread of the store."""
        if len(planned.parts) == 1:
            only = planned.parts[0].content_id
            return only, only
        parts = [(part.content_id, part.size_bytes) for part in planned.parts]
        content_id = await self._contents.in_thread(self._contents.store_list, parts)
        digest = hashlib.sha256()
        for part in planned.parts:
            await self._contents.in_thread(self._digest, digest, part)
        return content_id, digest.hexdigest()

    def _digest(self, digest: Any, part: UploadedPart) -> None:
        offset = 0
        while offset < part.size_bytes:
            piece = self._contents.read(part.content_id, offset, STREAMED_SIZE_BYTES)
            digest.update(piece)
            offset += len(piece)


def _md5_hex(text: str) -> str:
    """A Content-MD5 in hexadecimal; empty where there is none.

    Raises:
        InvalidRequest: with subject ``invalid-digest``.
    """
    if not text:
        return ""
    try:
        digest = base64.b64decode(text, validate=True)
        if len(digest) != 16:
            raise ValueError
    except (ValueError, binascii.Error):
        raise InvalidRequest("An MD5 is 16 bytes in Base64.", subject="invalid-digest", details={"field": "md5"}) from None
    return digest.hex()


def _etags(value: object) -> dict[int, str]:
    if not isinstance(value, list) or not 1 <= len(value) <= PART_NUMBER_MAX:
        raise malformed_body(f"partETags is a list of 1 to {PART_NUMBER_MAX} parts with part and eTag.")
    found: dict[int, str] = {}
    for item in value:
        number, etag = (item.get("part"), item.get("eTag")) if isinstance(item, dict) else (None, None)
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(etag, str):
            raise malformed_body("Each of partETags has part, a number, and eTag, a string.")
        found[number] = etag
    return found
