"""What devices read, held ready in memory: no key is touched, and records are asked once after each publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from overair.basics.errors import NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.image_repository.model import StoredDocument, StoredTarget
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.objects.contents import ContentStore
from overair.server.rest.operations import RestAnswer, RestRequest
from overair.server.rest.ranges import ranged_answer
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository

IMAGES_IN_MEMORY_MAX: Final = 10_000
"""Of one account: where they lie, not their bytes."""
_HASH_LENGTHS: Final = frozenset({64, 96, 128})


@dataclass(slots=True)
class Served:
    """What one account serves between two publications."""

    newest_roots: Mapping[Flavour, int]
    documents: Mapping[tuple[str, Flavour], StoredDocument]
    roots: dict[tuple[Flavour, int], bytes] = field(default_factory=dict)
    images: dict[str, StoredTarget | None] = field(default_factory=dict)


class Shelf:
    """What is served now, by account. On the event loop alone."""

    def __init__(self, *, work: Work, roots: RootsService, images: ImageRepositoryService) -> None:
        self._work = work
        self._roots = roots
        self._images = images
        self._served: dict[AccountId, Served] = {}
        self._generations: dict[AccountId, int] = {}

    def evict(self, account: AccountId) -> None:
        """Something was published."""
        self._served.pop(account, None)
        self._generations[account] = self._generations.get(account, 0) + 1

    def heard(self, parts: Sequence[str]) -> None:
        """Another node has published something, or something was missed (``nodes.switchboard``)."""
        for account in [AccountId(parts[0])] if parts else list(self._generations):
            self.evict(account)

    async def root(self, account: AccountId, version: int | None, flavour: Flavour) -> bytes:
        """A root's bytes; ``version`` None: the newest.

        Raises:
            NotFound: with subject ``root-role``.
        """
        served = await self._of(account)
        newest = served.newest_roots[flavour]
        wanted = newest if version is None else version
        if not 0 < wanted <= newest:
            raise NotFound(f"The Image repository has no root version {wanted}.", subject="root-role")
        found = served.roots.get((flavour, wanted))
        if found is None:
            found = await self._work.read(lambda tx: self._roots.document(tx, account, Repository.IMAGE, wanted, flavour))
            served.roots[flavour, wanted] = found
        return found

    async def newest_root(self, account: AccountId, flavour: Flavour) -> int:
        """0 where there is none."""
        return (await self._of(account)).newest_roots[flavour]

    async def document(self, account: AccountId, role: str, flavour: Flavour, version: int | None = None) -> bytes:
        """A signed document's bytes, verbatim; ``version`` None: the newest.

        Raises:
            NotFound: with subject ``role``.
        """
        served = await self._of(account)
        found = served.documents.get((role, flavour))
        if found is not None and version in (None, found.version):
            return found.document
        if found is None or version is None:
            raise NotFound(f"The Image repository has no {role[:64]}.json.", subject="role")
        older = await self._work.read(lambda tx: self._images.document(tx, account, role, flavour, version))
        return older.document

    async def image(self, account: AccountId, name: str) -> StoredTarget | None:
        """A listed image by its name, or by its name behind one of its hashes: ``dir/HASH.name`` (Standard 5.2.7)."""
        found = await self._image(account, name)
        if found is not None:
            return found
        folder, _, last = name.rpartition("/")
        digits, _, plain = last.partition(".")
        if len(digits) not in _HASH_LENGTHS or not plain:
            return None
        found = await self._image(account, f"{folder}/{plain}" if folder else plain)
        return found if found is not None and digits.lower() in found.hashes.values() else None

    async def _image(self, account: AccountId, name: str) -> StoredTarget | None:
        served = await self._of(account)
        if name in served.images:
            return served.images[name]
        found = await self._work.read(lambda tx: self._images.find_target(tx, account, name))
        if len(served.images) < IMAGES_IN_MEMORY_MAX:
            served.images[name] = found
        return found

    async def _of(self, account: AccountId) -> Served:
        served = self._served.get(account)
        if served is not None:
            return served
        generation = self._generations.setdefault(account, 0)
        served = await self._work.read(lambda tx: self._load(tx, account))
        # What was published while the records were read is newer than this: then it is good for this request alone.
        if self._generations.get(account, 0) == generation:
            self._served[account] = served
        return served

    def _load(self, tx: Tx, account: AccountId) -> Served:
        return Served(
            newest_roots={flavour: self._roots.newest_version(tx, account, Repository.IMAGE, flavour) for flavour in Flavour},
            documents=self._images.standing(tx, account).documents,
        )


def image_answer(request: RestRequest, target: StoredTarget | None, contents: ContentStore) -> RestAnswer:
    """An image's bytes, whole or one range of them; or where else they are.

    Raises:
        NotFound: with subject ``target``: there is no such image, or its bytes are neither here nor elsewhere.
        InvalidRequest: with subject ``range``.
    """
    content_id = None if target is None else target.content_id
    if target is not None and content_id is not None:
        held = content_id
        return ranged_answer(
            request,
            size_bytes=target.length,
            read=lambda offset, size_bytes: contents.stream(held, offset, size_bytes),
            etag=target.sha256 or None,
        )
    if target is not None and target.uri:
        return RestAnswer(status=302, headers={"location": target.uri})
    raise NotFound("The Image repository holds no bytes under this name.", subject="target", details={"field": "filename"})
