"""OTA Connect's REST of roots: of the Image repository under ``/api/v1/user_repo``, of the Director under
``/api/v1/director/admin/repo`` (Uptane reference §9.3)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from overair.basics.errors import AlreadyExists, InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.aws_protocol.operations import Caller
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.erasure import KeyErasure
from overair.server.roots.model import RootPushed, StoredRoot, Unsigned
from overair.server.roots.service import Rehearsed, RootsService
from overair.wire.uptane.canonical import VERSION_MAX, canonical
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role
from overair.wire.uptane.metadata_writing import bytes_to_sign, expires_text
from overair.wire.uptane.refusals import MetadataRefused

IMAGE: Final = "/api/v1/user_repo"
DIRECTOR: Final = "/api/v1/director/admin/repo"
T = TypeVar("T")


class _RootRoutes:
    """What both repositories' paths mean."""

    def __init__(self, *, work: Work, roots: RootsService, erasure: KeyErasure, repository: Repository) -> None:
        self._work = work
        self._roots = roots
        self._erasure = erasure
        self._repository = repository

    async def create(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """An account has its repositories from the start: 409 says so, unless it has lost one."""
        key_type = _key_type(request)
        repository = self._repository
        if await self._work.read(lambda tx: self._roots.exists(tx, caller.account, repository)):
            raise AlreadyExists(
                f"The account has its {repository} repository already.", subject="repository", details={"field": "keyType"}
            )
        prepared = await asyncio.to_thread(self._roots.prepare, key_type)

        def unit(tx: Tx) -> str:
            self._roots.create(tx, caller.place, repository, key_type=key_type, prepared=prepared)
            return self._roots.repository_id(tx, caller.account, repository)

        repository_id, headers = await self._run(caller, unit)
        return RestAnswer(json=repository_id, headers=headers)

    async def get(self, caller: Caller, request: RestRequest) -> RestAnswer:
        version = _version(request.labels["version"]) if "version" in request.labels else None
        flavour = _flavour(request)
        document, headers = await self._read(
            caller,
            lambda tx: self._roots.document(tx, caller.account, self._repository, version, flavour, also_waiting=True),
        )
        return RestAnswer(body=document, headers=headers)

    async def get_unsigned(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The next root, as it would be signed; as a document without signatures with ``document=true``."""
        unsigned, headers = await self._read(caller, lambda tx: self._roots.unsigned(tx, caller.account, self._repository))
        signed = unsigned.signed[_flavour(request)]
        body = {"signatures": [], "signed": signed} if _flag(request, "document") else signed
        return RestAnswer(body=canonical(body), headers=headers)

    async def push(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """One flavour, Uptane's unless the query says ``flavour=tuf``. Both at once: PUT publication."""
        return await self._push(caller, request, {_flavour(request): request.body})

    async def _push(
        self, caller: Caller, request: RestRequest, documents: Mapping[Flavour, bytes], *, keep_keys: bool = False
    ) -> RestAnswer:
        dry_run, cosign = _flag(request, "dryRun"), _flag(request, "coSign")
        pushed, headers = await self._run(
            caller,
            lambda tx: self._roots.push(
                tx, caller.place, self._repository, documents, dry_run=dry_run, cosign=cosign, keep_keys=keep_keys
            ),
        )
        return RestAnswer(json=pushed_json(pushed), headers=headers)

    async def rotate(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """New keys for root and targets (``roles=root,snapshot`` says otherwise) as far as their keys are here; with
        ``online=true`` keys of the server's own for roles that are offline too. With the root's keys offline: 412 and the root
        to sign."""
        key_type, online = _key_type(request), _flag(request, "online")
        roles = _roles(request)
        prepared = await asyncio.to_thread(self._roots.prepare, key_type, roles)
        rotated, headers = await self._run(
            caller,
            lambda tx: self._roots.rotate(
                tx,
                caller.place,
                self._repository,
                roles=roles,
                key_type=key_type,
                prepared=prepared,
                also_offline=online,
            ),
        )
        if isinstance(rotated, Unsigned):
            return RestAnswer(status=412, json=_offline(caller, rotated), headers=headers)
        return RestAnswer(json=pushed_json(RootPushed(stored=rotated)), headers=headers)

    async def list_keys(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Which role keys the server holds the private half of, so that a signing tool can say who signs. Ids alone, and
        until when those are kept that sign nothing any more."""
        held, headers = await self._read(caller, lambda tx: self._roots.keys.all(tx, caller.account, self._repository))
        values = [
            {
                "keyid": key.key_id,
                "role": key.role.value,
                **({} if key.kept_until is None else {"keptUntil": expires_text(key.kept_until)}),
            }
            for key in held
        ]
        return RestAnswer(json={"values": values}, headers=headers)

    async def export(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """The one way in which a private key leaves. It is a change: the audit has it."""
        key_id = request.labels["keyId"]
        pair, headers = await self._run(
            caller, lambda tx: self._roots.export_private_key(tx, caller.place, self._repository, key_id)
        )
        return RestAnswer(json=pair.reveal(), headers={**headers, "cache-control": "no-store"})

    async def delete(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Answered once the key is in no file of the records. Where that can't be done now, the key is deleted all the same,
        the answer says so, and the same call again finishes it."""
        key_id, force = request.labels["keyId"], _flag(request, "force")

        def unit(tx: Tx) -> dict[str, str]:
            self._roots.delete_private_key(tx, caller.place, self._repository, key_id, force=force)
            return self._headers(tx, caller.account)

        try:
            headers = await self._work.run(unit)
        finally:
            await self._erasure.erase()
        return RestAnswer(status=204, headers=headers)

    async def _read(self, caller: Caller, query: Callable[[Tx], T]) -> tuple[T, dict[str, str]]:
        return await self._work.read(lambda tx: (query(tx), self._headers(tx, caller.account)))

    async def _run(self, caller: Caller, unit: Callable[[Tx], T]) -> tuple[T, dict[str, str]]:
        try:
            done = await self._work.run(lambda tx: (unit(tx), self._headers(tx, caller.account)))
            await self._erasure.erase_now_or_soon()
            return done
        except Rehearsed as rehearsed:
            outcome: T = rehearsed.outcome  # type: ignore[assignment]  # what the unit would have given
            _, headers = await self._read(caller, lambda tx: None)
            return outcome, headers

    def _headers(self, tx: Tx, account: AccountId) -> dict[str, str]:
        return {"x-ats-tuf-repo-id": self._roots.repository_id(tx, account, self._repository)}


class ImageRootRestApi(_RootRoutes):
    """The Image repository's root."""

    def __init__(self, *, work: Work, roots: RootsService, erasure: KeyErasure) -> None:
        super().__init__(work=work, roots=roots, erasure=erasure, repository=Repository.IMAGE)

    @route("POST", IMAGE, operation="CreateImageRepository")
    async def create_repository(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.create(caller, request)

    @route("GET", IMAGE + "/root.json", operation="GetImageRoot")
    @route("GET", IMAGE + "/{version}.root.json", operation="GetImageRoot")
    async def get_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.get(caller, request)

    @route("GET", IMAGE + "/root", operation="GetImageRoot")
    async def get_unsigned_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.get_unsigned(caller, request)

    @route("POST", IMAGE + "/root", operation="PushImageRoot", body_size_bytes_max=ROOT_SIZE_BYTES_MAX)
    async def push_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.push(caller, request)

    @route("PUT", IMAGE + "/root/rotate", operation="RotateImageRoot")
    async def rotate_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.rotate(caller, request)

    @route("GET", IMAGE + "/root/private_keys", operation="GetImageRoot")
    async def held_keys(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.list_keys(caller, request)

    @route("GET", IMAGE + "/root/private_keys/{keyId}", operation="ExportImageRoleKey")
    async def export_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.export(caller, request)

    @route("DELETE", IMAGE + "/root/private_keys/{keyId}", operation="DeleteImageRoleKey")
    async def delete_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.delete(caller, request)


class DirectorRootRestApi(_RootRoutes):
    """The Director's root; its targets are signed for each device, by keys that stay here."""

    def __init__(self, *, work: Work, roots: RootsService, erasure: KeyErasure) -> None:
        super().__init__(work=work, roots=roots, erasure=erasure, repository=Repository.DIRECTOR)

    @route("POST", DIRECTOR, operation="CreateDirectorRepository")
    async def create_repository(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.create(caller, request)

    @route("GET", DIRECTOR + "/root.json", operation="GetDirectorRoot")
    @route("GET", DIRECTOR + "/{version}.root.json", operation="GetDirectorRoot")
    async def get_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.get(caller, request)

    @route("GET", DIRECTOR + "/root", operation="GetDirectorRoot")
    async def get_unsigned_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.get_unsigned(caller, request)

    @route("POST", DIRECTOR + "/root", operation="PushDirectorRoot", body_size_bytes_max=ROOT_SIZE_BYTES_MAX)
    async def push_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.push(caller, request)

    @route("PUT", DIRECTOR + "/publication", operation="PushDirectorRoot", body_size_bytes_max=4 * ROOT_SIZE_BYTES_MAX)
    async def push_publication(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """Both flavours: ``{"uptane": {"root"}, "tuf": {"root"}}``. ``keepKeys=true``: private keys that the new root doesn't
        name wait for their DELETE."""
        return await self._push(caller, request, _both(request.json_object()), keep_keys=_flag(request, "keepKeys"))

    @route("PUT", DIRECTOR + "/root/rotate", operation="RotateDirectorRoot")
    async def rotate_root(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.rotate(caller, request)

    @route("GET", DIRECTOR + "/private_keys", operation="GetDirectorRoot")
    async def held_keys(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.list_keys(caller, request)

    @route("GET", DIRECTOR + "/private_keys/{keyId}", operation="ExportDirectorRoleKey")
    @route("GET", DIRECTOR + "/root/private_keys/{keyId}", operation="ExportDirectorRoleKey")
    async def export_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.export(caller, request)

    @route("DELETE", DIRECTOR + "/private_keys/{keyId}", operation="DeleteDirectorRoleKey")
    @route("DELETE", DIRECTOR + "/root/private_keys/{keyId}", operation="DeleteDirectorRoleKey")
    async def delete_key(self, caller: Caller, request: RestRequest) -> RestAnswer:
        return await self.delete(caller, request)


# ----------------------------------------------------------------------------------------------------------------------------


def pushed_json(pushed: RootPushed) -> dict[str, Any]:
    """What became of a root."""
    stored: StoredRoot = pushed.stored
    return {
        "versions": {"root": stored.version},
        "flavours": sorted(stored.documents),
        "warnings": [warning.to_json() for warning in pushed.warnings],
        "waitingRoot": None if stored.is_published else stored.version,
    }


def _offline(caller: Caller, unsigned: Unsigned) -> dict[str, Any]:
    def encoded(flavour: Flavour) -> str:
        return base64.b64encode(bytes_to_sign(unsigned.signed[flavour], flavour)).decode("ascii")

    return {
        "code": "role_keys_not_found",
        "description": "The root keys are offline. The server has made the new keys; sign this root, which names them, and "
        "push it.",
        "cause": None,
        "errorId": caller.request_id,
        "unsigned_metadata_base64": encoded(Flavour.UPTANE),
        "unsigned_tuf_metadata_base64": encoded(Flavour.TUF),
        "required_key_ids": list(unsigned.required_key_ids),
        "threshold": unsigned.threshold,
    }


def _both(body: Mapping[str, object]) -> dict[Flavour, bytes]:
    found: dict[Flavour, bytes] = {}
    for name, members in body.items():
        if name not in set(Flavour) or not isinstance(members, Mapping) or members.keys() - {"root"}:
            raise malformed_body('The body is {"uptane": {"root": …}, "tuf": {"root": …}}, or one of the two.')
        root = members.get("root")
        if not isinstance(root, Mapping):
            raise malformed_body(f"{name}.root is a signed document: an object with signatures and signed.")
        try:
            found[Flavour(name)] = canonical(root)
        except MetadataRefused as refusal:
            raise InvalidRequest(
                f"{name}.root has no canonical form: {refusal.message}",
                subject="malformed-body",
                details={"field": f"{name}.root.{refusal.field}"},
            ) from None
    if not found:
        raise malformed_body("Nothing was pushed.")
    return found


def _version(text: str) -> int:
    """A number that no root can have is one that isn't there."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else VERSION_MAX + 1


def _flavour(request: RestRequest) -> Flavour:
    text = request.query.get("flavour", Flavour.UPTANE.value)
    if text not in set(Flavour):
        raise InvalidRequest("The flavour is uptane or tuf.", details={"field": "flavour"})
    return Flavour(text)


def _flag(request: RestRequest, name: str) -> bool:
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise InvalidRequest(f"{name} is true or false.", details={"field": name})
    return text == "true"


def _key_type(request: RestRequest) -> str:
    value = request.json_object().get("keyType", "ED25519") if request.body.strip() else "ED25519"
    if not isinstance(value, str):
        raise malformed_body("keyType is ED25519 or RSA.")
    return value.upper()


def _roles(request: RestRequest) -> Iterable[Role]:
    names = [name for name in request.query.get("roles", "root,targets").split(",") if name]
    if not names or any(name not in set(Role) for name in names):
        raise InvalidRequest(f"roles is a list of {', '.join(Role)}.", details={"field": "roles"})
    return tuple(dict.fromkeys(Role(name) for name in names))
