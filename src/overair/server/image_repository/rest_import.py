"""The operators' route by which another server's repositories are taken over (docs/migration.md).

``PUT /api/v1/user_repo/import``, with ``dryRun`` and ``mayLackImages``; documents stand in it as strings, so that each keeps
its bytes::

    {"image": {"roots": [{"uptane": "…", "tuf"?: "…"}, …], "targets": {"uptane": "…"}, "snapshot": {…}, "timestamp": {…},
               "delegations"?: {"NAME": {…}}, "next"?: {"root": {"uptane": "…", "tuf": "…"}, "targets"?: {…}}},
     "director": {"roots": […], "next"?: {"root": {…}}}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller
from overair.server.image_repository.importing import Imported, RepositoryImport, RepositoryImports
from overair.server.image_repository.model import SNAPSHOT, TARGETS, TIMESTAMP
from overair.server.image_repository.rest_answers import PREFIX, ImageRest, flag
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.rest.operations import RestAnswer, RestRequest, malformed_body, route
from overair.server.roots.importing import CHAIN_LENGTH_MAX, ImportedChain
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import DELEGATION_NAME, Repository

IMPORT_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
DELEGATIONS_MAX: Final = 1000
_OWN: Final = (TARGETS, SNAPSHOT, TIMESTAMP)


class RepositoryImportRestApi(ImageRest):
    """One route. ``work`` is the audited one."""

    def __init__(self, *, work: Work, roots: RootsService, images: ImageRepositoryService, imports: RepositoryImports) -> None:
        super().__init__(work=work, roots=roots, images=images)
        self._imports = imports

    @route("PUT", PREFIX + "/import", operation="ImportRepositories", body_size_bytes_max=IMPORT_SIZE_BYTES_MAX)
    async def put_import(self, caller: Caller, request: RestRequest) -> RestAnswer:
        """What it came to; the same import again is ``alreadyThere``. Without ``next`` only a dry run is answered."""
        asked = _asked(request.json_object(), may_lack_images=flag(request, "mayLackImages"), dry_run=flag(request, "dryRun"))
        imported, headers = await self._run(caller, lambda tx: self._imports.take_over(tx, caller.place, asked))
        return RestAnswer(json=_told(imported), headers=headers)


def _told(imported: Imported) -> dict[str, Any]:
    return {
        "state": imported.state.value,
        "alreadyThere": imported.was_there,
        "versions": dict(imported.versions),
        "directorRootVersion": imported.director_root,
        "checksum": imported.checksum,
        "missingImages": list(imported.missing),
        "warnings": [warning.to_json() for warning in imported.warnings],
    }


def _asked(body: Mapping[str, object], *, may_lack_images: bool, dry_run: bool) -> RepositoryImport:
    image, director = _object(body, "image"), _object(body, "director")
    documents = {role: _flavours(image.get(role), f"image.{role}") for role in _OWN if role in image}
    delegations = image.get("delegations", {})
    if not isinstance(delegations, Mapping) or len(delegations) > DELEGATIONS_MAX:
        raise malformed_body(f"image.delegations is an object of at most {DELEGATIONS_MAX} names.")
    for name, each in delegations.items():
        if not DELEGATION_NAME.fullmatch(name) or name in _OWN or name == "root":
            raise malformed_body(f"{name[:64]!r} is no name of a delegation.")
        documents[name] = _flavours(each, f"image.delegations.{name}")
    nexts = {repository: _object(part, "next") for repository, part in _with_next(image, director)}
    return RepositoryImport(
        image=_chain(image, Repository.IMAGE),
        director=_chain(director, Repository.DIRECTOR),
        documents=documents,
        next_roots={repository: _flavours(each.get("root"), f"{repository}.next.root") for repository, each in nexts.items()},
        next_targets=(
            _flavours(nexts[Repository.IMAGE]["targets"], "image.next.targets")
            if "targets" in nexts.get(Repository.IMAGE, {})
            else {}
        ),
        may_lack_images=may_lack_images,
        dry_run=dry_run,
    )


def _with_next(
    image: Mapping[str, object], director: Mapping[str, object]
) -> Sequence[tuple[Repository, Mapping[str, object]]]:
    parts = ((Repository.IMAGE, image), (Repository.DIRECTOR, director))
    return [(repository, part) for repository, part in parts if part.get("next") is not None]


def _chain(part: Mapping[str, object], repository: Repository) -> ImportedChain:
    roots = part.get("roots")
    if not isinstance(roots, list) or not 1 <= len(roots) <= CHAIN_LENGTH_MAX:
        raise malformed_body(f"{repository}.roots is a list of 1 to {CHAIN_LENGTH_MAX} roots, version 1 first.")
    documents = tuple(_flavours(each, f"{repository}.roots[{number}]") for number, each in enumerate(roots))
    return ImportedChain(repository=repository, documents=documents)


def _object(body: Mapping[str, object], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if not isinstance(value, Mapping):
        raise malformed_body(f"{name} is an object.")
    return value


def _flavours(value: object, place: str) -> dict[Flavour, bytes]:
    """``{"uptane": "…", "tuf"?: "…"}``: documents as text.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    if not isinstance(value, Mapping) or not value or not value.keys() <= set(Flavour):
        raise malformed_body(f"{place} has the members uptane and, where there is one, tuf.")
    found: dict[Flavour, bytes] = {}
    for name, text in value.items():
        if not isinstance(text, str):
            raise malformed_body(f"{place}.{name} is a document as a string.")
        found[Flavour(name)] = text.encode("utf-8")
    return found
