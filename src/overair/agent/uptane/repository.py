"""One repository as an ECU trusts it: begun with a first root, kept on the disk, brought up to date.

The Primary's documents come from the gateway, a Secondary's from its Primary; what is checked is the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from overair.agent.uptane.metadata_store import MetadataStore, Origin, StoredMetadataDamaged, restored
from overair.agent.uptane.refresh import DocumentMissing, Fetch, Refresh
from overair.basics.clock import Instant
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import DelegationNeeded
from overair.wire.uptane.trust import TIMESTAMP_FILE, Chain, TrustedSet
from overair.wire.uptane.verdicts import Refused

LOG = logging.getLogger("overair.uptane")

PASSES: Final = 2
"""A server may sign anew between two answers: what then doesn't fit together is asked for once more."""
_NEWER_NEEDED: Final = frozenset({Reason.VERSION_MISMATCH, Reason.HASH_MISMATCH})

T = TypeVar("T")
Search = Generator[DelegationNeeded, bytes | None, T]


class TrustedRepository:
    """Owns the trusted set of one repository and its file.

    ``first_root``: a root that was provisioned; without one the first that the server sends is believed. ``chain``: what is
    asked for; None (the Director alone): timestamp and snapshot too, where the server has them. A server that had them once
    must have them always.
    """

    def __init__(
        self,
        repository: Repository,
        store: MetadataStore,
        *,
        first_root: Callable[[], bytes | None],
        now: Callable[[], Instant],
        vehicle: str | None,
        chain: Chain | None = Chain.WHOLE,
    ) -> None:
        self.repository = repository
        self._store = store
        self._first_root = first_root
        self._now = now
        self._vehicle = vehicle
        self._wanted_chain = chain
        self._chain = chain or Chain.WHOLE
        self._origin = Origin.IMPORTED
        self._trusted: TrustedSet | None = None
        self._open()

    def _open(self) -> None:
        stored = self._store.load()
        if stored is None:
            return
        self._chain, self._origin = stored.chain, stored.origin
        self._trusted = restored(stored, repository=self.repository, vehicle=self._vehicle, now=self._now())

    # --- what is trusted ---

    @property
    def trusted(self) -> TrustedSet | None:
        """None before the first root."""
        return self._trusted

    @property
    def origin(self) -> Origin:
        """How the first root came."""
        return self._origin

    @property
    def root_version(self) -> int:
        """0 before the first root."""
        return 0 if self._trusted is None else self._trusted.root.version

    def kept_root(self, version: int) -> bytes | None:
        """One of the roots that were trusted here, for an ECU that stands further back."""
        return self._store.root(version)

    # --- bringing it up to date ---

    def refresh(self, fetch: Fetch) -> TrustedSet:
        """Everything, in order; what is accepted is kept at once.

        Raises:
            MetadataRefused, TransportFailed, DocumentMissing, StoredMetadataDamaged
        """
        self._begin(fetch)
        assert self._trusted is not None
        before = self._trusted.root.version
        refresh = self._refresh_of(self._trusted, fetch)
        refresh.roots()
        if self._wanted_chain is None and self._chain is Chain.ROOT_AND_TARGETS and self._trusted.root.version > before:
            # A new root may come with a new server, which has more to show.
            refresh = self._with_chain(Chain.WHOLE, fetch)
        if self._chain is Chain.ROOT_AND_TARGETS:
            refresh.targets_alone()
            return refresh.trusted
        return self._refresh_whole(refresh, fetch)

    def search(self, search: Search[T], fetch: Fetch) -> T:
        """Run a search for targets to its end, fetching the delegated documents that it asks for; those that were accepted are
        kept, also where it ends in a refusal.

        Raises:
            TransportFailed
        """
        assert self._trusted is not None
        refresh = self._refresh_of(self._trusted, fetch)
        before = set(self._trusted.documents.items())
        try:
            needed = next(search)
            while True:
                needed = search.send(refresh.delegated_document(needed))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            if set(self._trusted.documents.items()) != before:
                self._keep(self._trusted)

    def _refresh_whole(self, refresh: Refresh, fetch: Fetch) -> TrustedSet:
        for last in (number == PASSES - 1 for number in range(PASSES)):
            if not refresh.timestamp():
                if self._wanted_chain is None and refresh.trusted.timestamp is None:
                    refresh = self._with_chain(Chain.ROOT_AND_TARGETS, fetch)
                    refresh.targets_alone()
                    return refresh.trusted
                raise DocumentMissing(f"The {self.repository} server has no {TIMESTAMP_FILE}.")
            try:
                refresh.snapshot_and_targets()
            except MetadataRefused as error:
                if last or error.reason not in _NEWER_NEEDED:
                    raise
                LOG.info("asking again: %s", error.message)
            else:
                break
        return refresh.trusted

    def _begin(self, fetch: Fetch) -> None:
        if self._trusted is not None:
            return
        root = self._first_root()
        self._origin = Origin.IMPORTED
        if root is None:
            root = fetch("1.root.json", ROOT_SIZE_BYTES_MAX)
            self._origin = Origin.FIRST_USE
            if root is None:
                raise DocumentMissing(f"The {self.repository} server has no 1.root.json, and no root was provisioned.")
            LOG.warning(
                "NO ROOT OF THE %s WAS PROVISIONED: whoever answers now is trusted from here on (trust on first use)",
                self.repository.upper(),
            )
        trusted = TrustedSet.begin(root, repository=self.repository, chain=self._chain, vehicle=self._vehicle)
        self._trusted = trusted
        self._keep(trusted)

    def _with_chain(self, chain: Chain, fetch: Fetch) -> Refresh:
        """The same trust, asked for in another chain."""
        assert self._trusted is not None
        documents = self._trusted.documents
        trusted = TrustedSet.begin(documents["root.json"], repository=self.repository, chain=chain, vehicle=self._vehicle)
        for name, verdict in trusted.adopt(documents, now=self._now()).items():
            if isinstance(verdict, Refused):
                raise StoredMetadataDamaged(f"{name}: {verdict.message}")
        self._trusted, self._chain = trusted, chain
        return self._refresh_of(trusted, fetch)

    def _refresh_of(self, trusted: TrustedSet, fetch: Fetch) -> Refresh:
        return Refresh(trusted, fetch=fetch, keep=self._keep, now=self._now)

    def _keep(self, trusted: TrustedSet) -> None:
        self._store.keep(trusted, chain=self._chain, origin=self._origin)
