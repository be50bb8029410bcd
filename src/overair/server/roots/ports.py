"""What root chains ask of others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, KeyId, ThingName
from overair.basics.work import Tx
from overair.server.roots.model import OnlineKey, RootProbe, StoredRoot
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository


class RootStore(Protocol):
    """Where chains and the names of their online keys rest (``store.SqlRootStore``). A root is added, never changed."""

    def begin(self, tx: Tx, account: AccountId, repository: Repository, repository_id: str, *, now: Instant) -> None: ...
    def repository_id(self, tx: Tx, account: AccountId, repository: Repository) -> str | None: ...
    def repositories(self, tx: Tx) -> Sequence[tuple[AccountId, Repository]]:
        """Of all accounts."""
        ...

    def last_signed_at(self, tx: Tx, account: AccountId, repository: Repository) -> Instant: ...
    def signed_now(self, tx: Tx, account: AccountId, repository: Repository, *, now: Instant) -> None: ...

    def find(self, tx: Tx, account: AccountId, repository: Repository, version: int) -> StoredRoot | None: ...
    def document(
        self, tx: Tx, account: AccountId, repository: Repository, version: int, flavour: Flavour, *, published_only: bool
    ) -> bytes | None: ...
    def newest_version(
        self, tx: Tx, account: AccountId, repository: Repository, flavour: Flavour, *, published_only: bool
    ) -> int:
        """0 where there is none."""
        ...

    def add(self, tx: Tx, account: AccountId, stored: StoredRoot) -> None: ...
    def publish(self, tx: Tx, account: AccountId, repository: Repository, flavours: Collection[Flavour]) -> None:
        """Every version that waited is published in these flavours."""
        ...

    def clear(self, tx: Tx, account: AccountId, repository: Repository) -> None:
        """Forget a chain: only one that no device has followed."""
        ...

    def probes(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[RootProbe]: ...
    def probed(
        self, tx: Tx, account: AccountId, repository: Repository, thing: ThingName, version: int, *, now: Instant
    ) -> None:
        """Keep the highest version that a thing has asked for."""
        ...

    def keys(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[OnlineKey]: ...
    def add_key(self, tx: Tx, account: AccountId, key: OnlineKey) -> None: ...
    def exported(self, tx: Tx, account: AccountId, repository: Repository, key_id: str, *, now: Instant) -> None: ...
    def unlisted(self, tx: Tx, account: AccountId, repository: Repository, key_id: str, *, at: Instant | None) -> None: ...
    def drop_key(self, tx: Tx, account: AccountId, repository: Repository, key_id: str) -> KeyId | None: ...


class RepositoryKeeper(Protocol):
    """Who publishes what a root vouches for; called within the unit of work that changes the root."""

    def may_publish(self, tx: Tx, place: Place, root: StoredRoot) -> frozenset[Flavour]:
        """In which flavours clients that follow this root would believe what the repository then serves. The root waits for
        what fits it in the others, and altogether where the Uptane flavour isn't among them."""
        ...

    def root_published(self, tx: Tx, place: Place, root: StoredRoot) -> None:
        """Sign anew what the root's change calls for, and look at the whole as a client would."""
        ...
