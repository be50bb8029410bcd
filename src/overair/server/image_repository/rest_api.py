"""OTA Connect's REST of the Image repository (Uptane reference §9.3): signed documents pushed and read, and what is served.

Images stand in ``rest_images.py``, uploads in ``rest_uploads.py``, delegations in ``rest_delegations.py``; the root, which the
Director has too, in ``roots/operator_rest_api.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.model import TARGETS
from overair.server.image_repository.pushing import Push, Pushes
from overair.server.image_repository.rest_answers import (
    CHECKSUM,
    PREFIX,
    ImageRest,
    flag,
    flavour_of,
    moment_member,
    published_json,
    unsigned_document,
)
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.standing import checksum_of
from overair.server.image_repository.status import RepositoryStatuses
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import RootsService
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import DELEGATION_NAME, TARGETS_SIZE_BYTES_MAX, Repository, Role
from overair.wire.uptane.metadata_writing import expires_text
from overair.wire.uptane.refusals import MetadataRefused

PUBLICATION_SIZE_BYTES_MAX: Final = 4 * TARGETS_SIZE_BYTES_MAX
_READABLE: Final = frozenset({"targets", "snapshot", "timestamp"})


class ImageRepositoryRestApi(ImageRest):
    """Documents."""

    def __init__(
        self,
        *,
        work: Work,
        roots: RootsService,
        images: ImageRepositoryService,
        pushes: Pushes,
        probes: RootProbes,
        statuses: RepositoryStatuses,
        erasure: KeyErasure,
    ) -> None:
        super().__init__(work=work, roots=roots, images=images)
        self._pushes = pushes
        self._probes = probes
        self._statuses = statuses
        self._erasure = erasure

    @route("GET", PREFIX + "/{role}.json", operation="GetImageMetadata")
    async def get_role(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """``targets.json``, ``snapshot.json``, ``timestamp.json``, with the checksum of this document."""
        role = request.labels["role"]
        if role not in _READABLE:
            raise NotFound(f"There is no {role[:64]}.json here: targets, snapshot and timestamp are.", subject="role")
        document, headers = await self._read(
            caller, lambda tx: self._images.document(tx, caller.account, role, flavour_of(request))
        )
        return RestAnswer(body=document.document, headers={**headers, CHECKSUM: checksum_of(document.document)})

    @route("PUT", PREFIX + "/targets", operation="PushImageMetadata", body_size_bytes_max=TARGETS_SIZE_BYTES_MAX)
    async def push_targets(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Targets signed elsewhere, in the Uptane flavour or (``flavour=tuf``) in TUF's for what stands there already."""
        push = self._push(request, targets={flavour_of(request): request.body}, checksum=request.headers.get(CHECKSUM))
        published, headers = await self._run(caller, lambda tx: self._pushes.push(tx, caller.place, push))
        await self._erasure.erase_now_or_soon()
        if push.dry_run:
            return RestAnswer(json=published_json(published), headers=headers)
        return RestAnswer(status=204, headers={**headers, **_warned(published.warnings)})

    @route("PUT", PREFIX + "/publication", operation="PushImageMetadata", body_size_bytes_max=PUBLICATION_SIZE_BYTES_MAX)
    async def push_publication(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Root, targets and delegations in both flavours, all in one step: ``{"uptane": {"root"?, "targets"?, "delegations"?},
        "tuf": {…}}``. ``keepKeys=true``: private keys that the new root doesn't name wait for their DELETE."""
        documents = _publication(request.json_object())
        keep_keys = flag(request, "keepKeys")
        push = self._push(request, checksum=request.headers.get(CHECKSUM), keep_keys=keep_keys, **documents)
        published, headers = await self._run(caller, lambda tx: self._pushes.push(tx, caller.place, push))
        await self._erasure.erase_now_or_soon()
        return RestAnswer(json=published_json(published), headers=headers)

    @route("PUT", PREFIX + "/targets/expire/not-before", operation="PutImageExpiry")
    async def expire_not_before(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What the server signs counts until then, at least."""
        moment = moment_member(request.json_object(), "expireAt")

        def unit(tx: Tx) -> None:
            self._images.expire_not_before(tx, caller.place, moment)
            root = self._roots.accepted(tx, caller.account, Repository.IMAGE).root
            if root.expires < moment and self._roots.is_online(tx, caller.account, Repository.IMAGE, Role.ROOT):
                self._roots.renew(tx, caller.place, Repository.IMAGE, not_before=moment)

        _, headers = await self._run(caller, unit)
        return RestAnswer(status=204, headers=headers)

    @route("GET", PREFIX + "/unsigned/targets.json", operation="GetImageMetadata")
    async def get_unsigned_targets(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The targets document that would follow, with every pending image, ready to be signed elsewhere."""
        unsigned, headers = await self._read(caller, lambda tx: self._images.unsigned(tx, caller.account))
        return RestAnswer(body=unsigned_document(unsigned, request), headers=headers)

    @route("GET", PREFIX + "/status", operation="GetImageMetadata")
    async def get_status(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Versions, who signs, until when, what waits, and how many devices haven't seen the newest root."""
        told, headers = await self._read(caller, lambda tx: self._statuses.status(tx, caller.account))
        return RestAnswer(json={**told.to_json(), "warnings": told.warnings}, headers=headers)

    @route("GET", PREFIX + "/root/devices", operation="GetImageMetadata")
    async def get_root_devices(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Which root each device has, from what it asked for; ``behind=true``: those that haven't seen the newest. They look
        for a new root only when there is something to install: any update brings it to them (Uptane reference §5.2)."""
        only_behind = flag(request, "behind")

        def query(tx: Tx) -> list[dict[str, Any]]:
            newest = self._roots.newest_version(tx, caller.account, Repository.IMAGE, Flavour.UPTANE)
            return [
                {"thing": probe.thing, "rootVersion": probe.client_version, "askedAt": expires_text(probe.at)}
                for probe in self._probes.all(tx, caller.account, Repository.IMAGE)
                if not only_behind or probe.client_version < newest
            ]

        devices, headers = await self._read(caller, query)
        return RestAnswer(json={"devices": devices}, headers=headers)

    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _push(request: RestRequest, **documents: Any) -> Push:
        return Push(
            force=flag(request, "force"),
            after_restore=flag(request, "afterRestore"),
            cosign=flag(request, "coSign"),
            dry_run=flag(request, "dryRun"),
            **documents,
        )


def _publication(body: Mapping[str, object]) -> dict[str, Any]:
    """Documents by kind and flavour, in canonical form.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    found: dict[str, Any] = {"root": {}, "targets": {}, "delegations": {}}
    unknown = sorted(body.keys() - {flavour.value for flavour in Flavour})
    if unknown:
        raise malformed_body(f"A publication has the members uptane and tuf, not {unknown[0][:40]!r}.")
    for name, members in body.items():
        flavour = Flavour(name)
        if not isinstance(members, Mapping) or members.keys() - found.keys():
            raise malformed_body(f"{name} is an object with root, targets and delegations, as far as they are pushed.")
        for kind in ("root", TARGETS):
            if members.get(kind) is not None:
                found[kind][flavour] = _document(members[kind], f"{name}.{kind}")
        delegations = members.get("delegations") or {}
        if not isinstance(delegations, Mapping) or not all(DELEGATION_NAME.fullmatch(each) for each in delegations):
            raise malformed_body(f"{name}.delegations is an object: name of the delegation → its document.")
        for delegation, document in delegations.items():
            found["delegations"].setdefault(delegation, {})[flavour] = _document(document, f"{name}.{delegation}")
    return found


def _document(value: object, place: str) -> bytes:
    if not isinstance(value, Mapping):
        raise malformed_body(f"{place} is a signed document: an object with signatures and signed.")
    try:
        return canonical(value)
    except MetadataRefused as refusal:
        raise InvalidRequest(
            f"{place} has no canonical form: {refusal.message}",
            subject="malformed-body",
            details={"field": f"{place}.{refusal.field}"},
        ) from None


def _warned(warnings: Any) -> dict[str, str]:
    """The codes of warnings, for answers without a body."""
    codes = ", ".join(dict.fromkeys(warning.code for warning in warnings))
    return {"x-overair-warnings": codes} if codes else {}
