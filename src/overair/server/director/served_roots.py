"""The Director's roots, held ready in memory: every vehicle asks for the next one at every round, and mostly there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from overair.basics.errors import NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx, Work
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository

ROOTS_IN_MEMORY_MAX: Final = 200
"""Of one account; older ones are read from the records."""


@dataclass(slots=True)
class _Chain:
    """What one account serves between two roots."""

    newest: int
    documents: dict[int, bytes] = field(default_factory=dict)


class ServedRoots:
    """The roots that vehicles may read now, by account. On the event loop alone."""

    def __init__(self, *, work: Work, roots: RootsService) -> None:
        self._work = work
        self._roots = roots
        self._chains: dict[AccountId, _Chain] = {}
        self._generations: dict[AccountId, int] = {}

    def evict(self, account: AccountId) -> None:
        """The chain has changed."""
        self._chains.pop(account, None)
        self._generations[account] = self._generations.get(account, 0) + 1

    def heard(self, parts: Sequence[str]) -> None:
        """Another node has published something, or something was missed (``nodes.switchboard``)."""
        for account in [AccountId(parts[0])] if parts else list(self._generations):
            self.evict(account)

    async def newest(self, account: AccountId) -> int:
        """0 where there is none."""
        return (await self._chain(account)).newest

    async def document(self, account: AccountId, version: int | None) -> bytes:
        """A root's bytes; ``version`` None: the newest.

        Raises:
            NotFound: subject ``root-role``.
        """
        chain = await self._chain(account)
        wanted = chain.newest if version is None else version
        if not 0 < wanted <= chain.newest:
            raise NotFound(f"The Director repository has no root version {wanted or 1}.", subject="root-role")
        found = chain.documents.get(wanted)
        if found is None:
            found = await self._work.read(
                lambda tx: self._roots.document(tx, account, Repository.DIRECTOR, wanted, Flavour.UPTANE)
            )
            if len(chain.documents) < ROOTS_IN_MEMORY_MAX:
                chain.documents[wanted] = found
        return found

    async def _chain(self, account: AccountId) -> _Chain:
        chain = self._chains.get(account)
        if chain is not None:
            return chain
        generation = self._generations.setdefault(account, 0)

        def read(tx: Tx) -> int:
            return self._roots.newest_version(tx, account, Repository.DIRECTOR, Flavour.UPTANE)

        chain = _Chain(newest=await self._work.read(read))
        # What changed while the records were read is newer than this: then it is good for this request alone.
        if self._generations.get(account, 0) == generation:
            self._chains[account] = chain
        return chain
