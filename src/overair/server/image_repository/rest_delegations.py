"""OTA Connect's REST of delegations (Uptane reference §9.3): whom targets trust, and the documents of those.

Delegations that the server would fetch from an address of somebody else's are not here: whoever has the document pushes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, NotFound, Unsupported
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.model import Changed
from overair.server.image_repository.ports import DocumentStore
from overair.server.image_repository.pushing import Push, Pushes
from overair.server.image_repository.rest_answers import (
    CHECKSUM,
    PREFIX,
    ImageRest,
    flag,
    flavour_of,
    page_json,
    published_json,
    text_member,
)
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.standing import checksum_of, targets_body
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.service import RootsService
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.keys import Flavour, PublicKey, read_public_key
from overair.wire.uptane.metadata import DELEGATION_NAME, TARGETS_SIZE_BYTES_MAX, Delegation, Document, Role
from overair.wire.uptane.metadata_reading import read_targets
from overair.wire.uptane.refusals import MetadataRefused

FRIENDLY_NAME_LENGTH_MAX: Final = 255
DELEGATIONS_MAX: Final = 200


class DelegationsRestApi(ImageRest):
    """The delegation block of targets, which the server signs where their keys are online, and delegated documents."""

    def __init__(
        self,
        *,
        work: Work,
        roots: RootsService,
        images: ImageRepositoryService,
        pushes: Pushes,
        documents: DocumentStore,
    ) -> None:
        super().__init__(work=work, roots=roots, images=images)
        self._pushes = pushes
        self._documents = documents

    @route("GET", PREFIX + "/trusted-delegations", operation="GetImageMetadata")
    async def get_trusted(self, caller: Caller, request: RestRequest) -> RestAnswer:
        current, headers = await self._read(caller, lambda tx: self._images.current(tx, caller.account))
        return RestAnswer(json=[_delegation_json(each) for each in current.targets.delegations], headers=headers)

    @route("PUT", PREFIX + "/trusted-delegations", operation="PutTrustedDelegations")
    async def put_trusted(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The whole list, in the order in which clients search it; keys are set before."""
        value, force = request.json(), flag(request, "force")

        def unit(tx: Tx) -> Changed:
            body = self._images.current(tx, caller.account).targets
            delegations = _read_block(body.delegation_keys, value)
            return self._images.set_delegations(tx, caller.place, delegations=delegations, force=force)

        changed, headers = await self._run(caller, unit)
        return self._changed(caller, changed, headers)

    @route("DELETE", PREFIX + "/trusted-delegations/{name}", operation="PutTrustedDelegations")
    async def delete_trusted(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name, force = request.labels["name"], flag(request, "force")

        def unit(tx: Tx) -> Changed:
            body = self._images.current(tx, caller.account).targets
            kept = [each for each in body.delegations if each.name != name]
            if len(kept) == len(body.delegations):
                raise _no_delegation(name)
            return self._images.set_delegations(tx, caller.place, delegations=kept, force=force)

        changed, headers = await self._run(caller, unit)
        return self._changed(caller, changed, headers)

    @route("GET", PREFIX + "/trusted-delegations/keys", operation="GetImageMetadata")
    async def get_keys(self, caller: Caller, request: RestRequest) -> RestAnswer:
        current, headers = await self._read(caller, lambda tx: self._images.current(tx, caller.account))
        return RestAnswer(json=[key.to_json() for key in current.targets.delegation_keys.values()], headers=headers)

    @route("PUT", PREFIX + "/trusted-delegations/keys", operation="PutTrustedDelegations")
    async def put_keys(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """All keys that delegations may name; each is called by the SHA-256 of its SubjectPublicKeyInfo."""
        keys = _read_keys(request.json())
        changed, headers = await self._run(caller, lambda tx: self._images.set_delegations(tx, caller.place, keys=keys))
        return self._changed(caller, changed, headers)

    # What is known of each ------------------------------------------------------------------------------------------------

    @route("GET", PREFIX + "/trusted-delegations/info", operation="GetImageMetadata")
    async def get_all_info(self, caller: Caller, request: RestRequest) -> RestAnswer:
        def query(tx: Tx) -> dict[str, Any]:
            body = self._images.current(tx, caller.account).targets
            return {each.name: self._info(tx, caller.account, each.name) for each in body.delegations}

        told, headers = await self._read(caller, query)
        return RestAnswer(json=told, headers=headers)

    @route("GET", PREFIX + "/trusted-delegations/{name}/info", operation="GetImageMetadata")
    async def get_info(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]

        def query(tx: Tx) -> dict[str, Any]:
            self._require(tx, caller.account, name)
            return self._info(tx, caller.account, name)

        told, headers = await self._read(caller, query)
        return RestAnswer(json=told, headers=headers)

    @route("PATCH", PREFIX + "/trusted-delegations/{name}/info", operation="PutTrustedDelegations")
    async def patch_info(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name, friendly_name = request.labels["name"], text_member(request.json_object(), "friendlyName")
        if not 1 <= len(friendly_name) <= FRIENDLY_NAME_LENGTH_MAX or "\0" in friendly_name:
            raise InvalidRequest(
                f"A friendly name has 1 to {FRIENDLY_NAME_LENGTH_MAX} characters.", details={"field": "friendlyName"}
            )

        def unit(tx: Tx) -> None:
            self._require(tx, caller.account, name)
            self._documents.set_friendly_name(tx, caller.account, name, friendly_name)

        _, headers = await self._run(caller, unit)
        return RestAnswer(headers=headers)

    @route("PUT", PREFIX + "/trusted-delegations/{name}/remote", operation="PutTrustedDelegations")
    @route("PUT", PREFIX + "/trusted-delegations/{name}/remote/refresh", operation="PutTrustedDelegations")
    async def put_remote(self, caller: Caller, request: RestRequest) -> RestAnswer:
        raise Unsupported(
            "The server fetches no delegations from elsewhere. Fetch the document and push it: PUT delegations/NAME.json.",
            details={"hint": f"PUT {PREFIX}/delegations/{request.labels['name'][:50]}.json"},
        )

    # Their documents --------------------------------------------------------------------------------------------------------

    @route("GET", PREFIX + "/delegations/{name}.json", operation="GetImageMetadata")
    async def get_document(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]
        if name in set(Role):
            raise _no_delegation(name)
        document, headers = await self._read(
            caller, lambda tx: self._images.document(tx, caller.account, name, flavour_of(request))
        )
        return RestAnswer(body=document.document, headers={**headers, CHECKSUM: checksum_of(document.document)})

    @route(
        "PUT",
        PREFIX + "/delegations/{name}.json",
        operation="PushDelegation",
        body_size_bytes_max=TARGETS_SIZE_BYTES_MAX,
    )
    async def put_document(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Signed by the keys of the delegation. Both flavours at once: PUT publication."""
        name = request.labels["name"]
        if not DELEGATION_NAME.fullmatch(name) or name in set(Role):
            raise InvalidRequest(
                "A delegation's name has 1 to 50 letters, digits, hyphens, dots and underscores.", details={"field": "name"}
            )
        push = Push(
            delegations={name: {flavour_of(request): request.body}},
            force=flag(request, "force"),
            after_restore=flag(request, "afterRestore"),
            dry_run=flag(request, "dryRun"),
        )
        published, headers = await self._run(caller, lambda tx: self._pushes.push(tx, caller.place, push))
        if push.dry_run:
            return RestAnswer(json=published_json(published), headers=headers)
        return RestAnswer(status=204, headers=headers)

    @route("GET", PREFIX + "/delegations_items", operation="ListTargets")
    async def list_items(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Every image that a delegation lists; ``nameContains``."""
        wanted = request.query.get("nameContains", "")
        found, headers = await self._read(caller, lambda tx: self._items(tx, caller.account))
        meant = [item for item in found if wanted in item["filename"]]
        return RestAnswer(json=page_json(meant, len(meant), 0, len(meant)), headers=headers)

    @route("GET", PREFIX + "/delegations_items/{name:path}", operation="GetTarget")
    async def get_item(self, caller: Caller, request: RestRequest) -> RestAnswer:
        name = request.labels["name"]
        found, headers = await self._read(caller, lambda tx: self._items(tx, caller.account))
        return RestAnswer(json=[item for item in found if item["filename"] == name], headers=headers)

    # ------------------------------------------------------------------------------------------------------------------

    def _items(self, tx: Tx, account: AccountId) -> list[dict[str, Any]]:
        standing = self._images.standing(tx, account)
        return [
            {
                "filename": name,
                "hashes": dict(file.hashes),
                "length": file.length,
                "custom": dict(file.custom),
                "delegatedRoleName": role,
            }
            for role in standing.delegations_in_force()
            for name, file in targets_body(standing.documents[role, Flavour.UPTANE].document, Flavour.UPTANE).targets.items()
        ]

    def _require(self, tx: Tx, account: AccountId, name: str) -> None:
        if all(each.name != name for each in self._images.current(tx, account).targets.delegations):
            raise _no_delegation(name)

    def _info(self, tx: Tx, account: AccountId, name: str) -> dict[str, Any]:
        return {
            "friendlyName": self._documents.friendly_name(tx, account, name),
            "lastFetched": None,
            "remoteUri": None,
            "remoteHeaders": None,
        }


def _no_delegation(name: str) -> NotFound:
    return NotFound(f"Targets delegate nothing to {name[:64]!r}.", subject="delegation")


def _delegation_json(delegation: Delegation) -> dict[str, Any]:
    return {
        "name": delegation.name,
        "keyids": list(delegation.keys.key_ids),
        "paths": list(delegation.paths),
        "threshold": delegation.keys.threshold,
        "terminating": delegation.terminating,
    }


def _read_block(keys: Mapping[str, PublicKey], value: object) -> tuple[Delegation, ...]:
    """Delegations as documents write them, read as clients read them.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    if not isinstance(value, list) or len(value) > DELEGATIONS_MAX:
        raise malformed_body(f"The body is a list of at most {DELEGATIONS_MAX} delegations.")
    written = {"keys": {key_id: key.to_json() for key_id, key in keys.items()}, "roles": value}
    try:
        canonical(written)
        return read_targets(_document_of(written)).delegations
    except MetadataRefused as refusal:
        raise InvalidRequest(
            f"The delegations can't be read. {refusal.message}",
            subject="malformed-body",
            details={"field": refusal.field.removeprefix("signed.delegations.")},
        ) from None


def _document_of(delegations: Mapping[str, object]) -> Document:
    """A targets document that says nothing else."""
    return Document(
        role=Role.TARGETS,
        flavour=Flavour.UPTANE,
        signed={"targets": {}, "delegations": delegations},
        signed_bytes=b"",
        signatures=(),
        version=1,
        expires=Instant(0),
        raw=b"",
        hashed_bytes=b"",
    )


def _read_keys(value: object) -> dict[str, PublicKey]:
    if not isinstance(value, list) or len(value) > DELEGATIONS_MAX:
        raise malformed_body(f"The body is a list of at most {DELEGATIONS_MAX} keys.")
    found: dict[str, PublicKey] = {}
    for number, item in enumerate(value):
        try:
            key = read_public_key(item, field=f"[{number}]")
        except MetadataRefused as refusal:
            raise InvalidRequest(
                f"A key can't be read. {refusal.message}", subject="malformed-body", details={"field": refusal.field}
            ) from None
        found[key.id] = key
    return found
