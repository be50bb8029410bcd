"""OTA Connect's REST of images: listed, described, commented, taken away (Uptane reference §9.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.form_data import boundary_of, file_in
from overair.server.image_repository.model import (
    COMMENT_LENGTH_MAX,
    TARGETS,
    StoredTarget,
    TargetPlan,
    TargetStatus,
    check_name,
    uri_fault,
)
from overair.server.image_repository.ports import TargetStore
from overair.server.image_repository.rest_answers import (
    PREFIX,
    ImageRest,
    flag,
    format_of,
    page_json,
    page_of,
    text_member,
    texts_member,
)
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.serving import image_answer
from overair.server.image_repository.upload_model import IMAGE_SIZE_BYTES_MAX
from overair.server.objects.contents import ContentStore
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import Flavour

NAMES_MAX: Final = 1000
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_EDITED: Final = frozenset({"uri", "hardwareIds", "name", "version", "proprietaryCustom"})


class ImagesRestApi(ImageRest):
    """Images of the catalogue."""

    def __init__(
        self,
        *,
        work: Work,
        roots: RootsService,
        images: ImageRepositoryService,
        targets: TargetStore,
        contents: ContentStore,
    ) -> None:
        super().__init__(work=work, roots=roots, images=images)
        self._targets = targets
        self._contents = contents

    @route(
        "PUT",
        PREFIX + "/targets/{name:path}",
        operation="PutTarget",
        streams=True,
        body_size_bytes_max=IMAGE_SIZE_BYTES_MAX,
    )
    async def put_target(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """An image with its bytes, raw or as the file of a form, and what it is in the query. Listed and signed at once, or,
        with offline keys, kept until a signed document lists it (412 says what to sign)."""
        name = request.labels["name"]
        check_name(name)
        described = _described(request, name)
        boundary = boundary_of(request.headers.get("content-type", ""))
        assert request.stream is not None
        chunks = file_in(request.stream, boundary) if boundary else request.stream
        stored = await self._contents.store(chunks, size_bytes_max=IMAGE_SIZE_BYTES_MAX)
        if stored.size_bytes == 0:
            raise InvalidRequest(
                "The request brought no bytes. For an image that lies elsewhere, POST its uri, checksum and length; the server "
                "fetches nothing itself.",
                subject="empty-body",
                details={"field": "body"},
            )
        plan = TargetPlan(length=stored.size_bytes, sha256=stored.content_id, content_id=stored.content_id, **described)
        changed, headers = await self._run(caller, lambda tx: self._images.add_target(tx, caller.place, plan))
        if changed.unsigned is None and boundary:
            return await self._targets_document(caller, headers)
        return self._changed(caller, changed, headers)

    @route("POST", PREFIX + "/targets/{name:path}", operation="PutTarget")
    async def post_target(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """An image that lies elsewhere: its address, length and hash."""
        body = request.json_object()
        plan = _external(request.labels["name"], body)
        changed, headers = await self._run(caller, lambda tx: self._images.add_target(tx, caller.place, plan))
        if changed.unsigned is None:
            return await self._targets_document(caller, headers)
        return self._changed(caller, changed, headers)

    @route("GET", PREFIX + "/targets/{name:path}", operation="GetTarget")
    async def get_target(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Its bytes, or 302 to where they are; HEAD asks whether there is such an image."""
        name = request.labels["name"]
        target = await self._work.read(lambda tx: self._images.catalogue.find(tx, caller.account, name))
        return image_answer(request, target, self._contents)

    @route("DELETE", PREFIX + "/targets/{name:path}", operation="DeleteTarget")
    async def delete_target(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Refused for an image that vehicles need, unless ``force=true``."""
        name, force = request.labels["name"], flag(request, "force")
        changed, headers = await self._run(caller, lambda tx: self._images.delete_target(tx, caller.place, name, force=force))
        return self._changed(caller, changed, headers)

    @route("PATCH", PREFIX + "/targets/{name:path}", operation="EditTarget")
    async def patch_target(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``uri``, ``hardwareIds``, ``name``, ``version``, and ``proprietaryCustom`` with members of the operator's own."""
        name, body = request.labels["name"], request.json_object()
        unknown = sorted(body.keys() - _EDITED)
        if unknown:
            raise malformed_body(f"{unknown[0][:40]!r} can't be edited: {', '.join(sorted(_EDITED))} can.")
        own = body.pop("proprietaryCustom", None) or {}
        if not isinstance(own, Mapping):
            raise malformed_body("proprietaryCustom is an object.")

        def unit(tx: Tx) -> Any:
            changed = self._images.edit_target(tx, caller.place, name, body) if body or not own else None
            return self._images.edit_target(tx, caller.place, name, own, own=True) if own else changed

        changed, headers = await self._run(caller, unit)
        if changed.unsigned is not None:
            return self._changed(caller, changed, headers)
        return RestAnswer(json=_item(changed.target), headers=headers)

    @route("PATCH", PREFIX + "/proprietary-custom/{name:path}", operation="EditTarget")
    async def patch_own_members(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Members of the operator's own, merged into ``custom``."""
        name, own = request.labels["name"], request.json_object()
        changed, headers = await self._run(caller, lambda tx: self._images.edit_target(tx, caller.place, name, own, own=True))
        return self._changed(caller, changed, headers)

    @route("GET", PREFIX + "/target_items", operation="ListTargets")
    async def list_items(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """A page of the catalogue; ``nameContains``; ``status`` listed (unless said otherwise), pending, uploaded or all."""
        offset, limit = page_of(request)
        statuses = statuses_of(request.query.get("status", TargetStatus.LISTED.value))
        (targets, total), headers = await self._read(
            caller,
            lambda tx: self._images.page(
                tx,
                caller.account,
                statuses=statuses,
                name_contains=request.query.get("nameContains", ""),
                offset=offset,
                limit=limit,
            ),
        )
        return RestAnswer(json=page_json([_item(each) for each in targets], total, offset, limit), headers=headers)

    @route("GET", PREFIX + "/target_items/{name:path}", operation="GetTarget")
    async def get_item(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]
        target, headers = await self._read(caller, lambda tx: self._images.catalogue.find(tx, caller.account, name))
        return RestAnswer(json=_item(target), headers=headers)

    # Comments -----------------------------------------------------------------------------------------------------------

    @route("GET", PREFIX + "/comments", operation="ListTargets")
    async def list_comments(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """A page of them; ``nameContains``."""
        offset, limit = page_of(request)
        found, headers = await self._read(caller, lambda tx: self._targets.comments(tx, caller.account, None))
        wanted = request.query.get("nameContains", "")
        meant = [_comment(name, text) for name, text in found.items() if wanted in name]
        return RestAnswer(json=page_json(meant[offset : offset + limit], len(meant), offset, limit), headers=headers)

    @route("POST", PREFIX + "/list-target-comments", operation="ListTargets")
    async def comments_of(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Of the images that a list names."""
        names = request.json()
        if not isinstance(names, list) or len(names) > NAMES_MAX or not all(isinstance(name, str) for name in names):
            raise malformed_body(f"The body is a list of at most {NAMES_MAX} file names.")
        found, headers = await self._read(caller, lambda tx: self._targets.comments(tx, caller.account, names))
        return RestAnswer(json=[_comment(name, text) for name, text in found.items()], headers=headers)

    @route("PUT", PREFIX + "/comments/{name:path}", operation="EditTarget")
    async def put_comment(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name, comment = request.labels["name"], text_member(request.json_object(), "comment")
        if len(comment) > COMMENT_LENGTH_MAX or "\0" in comment:
            raise InvalidRequest(f"A comment has at most {COMMENT_LENGTH_MAX} characters.", details={"field": "comment"})

        def unit(tx: Tx) -> None:
            self._images.catalogue.find(tx, caller.account, name)
            self._targets.set_comment(tx, caller.account, name, comment, now=caller.now)

        _, headers = await self._run(caller, unit)
        return RestAnswer(headers=headers)

    @route("GET", PREFIX + "/comments/{name:path}", operation="GetTarget")
    async def get_comment(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]
        found, headers = await self._read(caller, lambda tx: self._targets.comments(tx, caller.account, [name]))
        if name not in found:
            raise NotFound(f"There is no comment on {name[:80]!r}.", subject="comment")
        return RestAnswer(json={"comment": found[name]}, headers=headers)

    async def _targets_document(self, caller: Caller, headers: Mapping[str, str]) -> RestAnswer:
        """The signed document that lists it, as OTA Connect answers."""
        found = await self._work.read(lambda tx: self._images.document(tx, caller.account, TARGETS, Flavour.UPTANE))
        return RestAnswer(body=found.document, headers=headers)


def _described(request: RestRequest, name: str) -> dict[str, Any]:
    query = request.query
    if "fileUri" in query:
        raise InvalidRequest(
            "The server fetches nothing from elsewhere. POST uri, checksum and length of an image that stays where it is, or "
            "send its bytes.",
            subject="file-uri",
            details={"field": "fileUri"},
        )
    hardware_ids = tuple(item.strip() for item in query.get("hardwareIds", "").split(",") if item.strip())
    return {
        "name": name,
        "display_name": query.get("name", ""),
        "version": query.get("version", ""),
        "hardware_ids": hardware_ids,
        "format": format_of(query.get("targetFormat", "BINARY")),
        "release_counter": _counter(query.get("releaseCounter")),
    }


def _counter(value: object) -> int | None:
    """A release counter out of a query or a body.

    Raises:
        InvalidRequest: with subject ``target``.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidRequest("releaseCounter is a number.", subject="target", details={"field": "releaseCounter"})


def _external(name: str, body: Mapping[str, object]) -> TargetPlan:
    uri = text_member(body, "uri")
    fault = uri_fault(uri)
    if fault is not None:
        raise InvalidRequest(fault, subject="target", details={"field": "uri"})
    checksum, length = body.get("checksum"), body.get("length")
    if not isinstance(checksum, Mapping) or str(checksum.get("method", "")).lower() != "sha256":
        raise malformed_body('checksum is {"method": "sha256", "hash": …}.')
    digits = checksum.get("hash")
    if not isinstance(digits, str) or not _HEX.fullmatch(digits):
        raise malformed_body("checksum.hash is 64 hexadecimal digits.")
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length < 2**53:
        raise malformed_body("length is the image's size in bytes.")
    return TargetPlan(
        name=name,
        length=length,
        sha256=digits.lower(),
        display_name=text_member(body, "name", ""),
        version=text_member(body, "version", ""),
        hardware_ids=texts_member(body, "hardwareIds"),
        format=format_of(text_member(body, "targetFormat", "BINARY")),
        uri=uri,
        release_counter=_counter(body.get("releaseCounter")),
    )


def _item(target: StoredTarget) -> dict[str, Any]:
    return {
        "filename": target.name,
        "hashes": dict(target.hashes),
        "length": target.length,
        "custom": dict(target.custom),
        "status": target.status.value,
        "role": target.role,
    }


def _comment(name: str, text: str) -> dict[str, str]:
    return {"filename": name, "comment": text}


def statuses_of(text: str) -> list[TargetStatus]:
    """Of ``status`` in a query: listed images unless said otherwise.

    Raises:
        InvalidRequest.
    """
    if text == "all":
        return [TargetStatus.LISTED, TargetStatus.PENDING, TargetStatus.UPLOADED]
    if text not in set(TargetStatus):
        raise InvalidRequest(f"A status is one of {', '.join(TargetStatus)}, or all.", details={"field": "status"})
    return [TargetStatus(text)]
