"""What the fleet index asks of its records and of other rooms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ClientId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.fleet_index.fields import Field, Index
from overair.server.fleet_index.model import Configuration, Entry, Found, GroupBuild, IndexState, Statistics
from overair.server.fleet_index.query import Query


class JobStatuses(Protocol):
    """Which jobs a thing has executions of, and the state of the latest one. Implemented above, by jobs."""

    def statuses_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]: ...


class PackagesOnThings(Protocol):
    """Which package versions jobs have put on a thing (``packages.installed.InstalledPackages``)."""

    def versions_on(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]: ...


class Connections(Protocol):
    """Who is connected to this process now (``broker.service.Broker``)."""

    def is_connected(self, account: AccountId, client_id: ClientId) -> bool: ...
    def connected_clients(self, account: AccountId) -> Sequence[ClientId]: ...


class SettingsStore(Protocol):
    """Rows of configurations, and of what workers still have to do."""

    def configuration(self, tx: Tx, account: AccountId) -> Configuration | None: ...
    def save_configuration(self, tx: Tx, account: AccountId, configuration: Configuration) -> None: ...
    def state(self, tx: Tx, account: AccountId, index: Index) -> IndexState | None: ...
    def save_state(self, tx: Tx, state: IndexState) -> None: ...
    def delete_state(self, tx: Tx, account: AccountId, index: Index) -> None: ...
    def has_step(self, tx: Tx, *, now: Instant) -> bool: ...
    def unsettled(self, tx: Tx, *, now: Instant) -> IndexState | None:
        """An index that isn't ACTIVE, locked until the commit."""
        ...

    def with_connectivity(self, tx: Tx) -> Sequence[tuple[AccountId, int]]:
        """The accounts whose connections are indexed, each with the moment when its index was built last."""
        ...

    def build(self, tx: Tx) -> GroupBuild | None:
        """A dynamic group to be filled whose account's index is ACTIVE, locked until the commit."""
        ...

    def save_build(self, tx: Tx, build: GroupBuild) -> None: ...
    def delete_build(self, tx: Tx, account: AccountId, group: GroupName) -> None: ...


class DocumentStore(Protocol):
    """Rows of documents and of their fields' values."""

    def lock(self, tx: Tx, account: AccountId, index: Index, name: str) -> bool:
        """Whether the document is there; if so nobody else changes it before this unit's commit."""
        ...

    def insert(self, tx: Tx, account: AccountId, index: Index, name: str) -> None: ...
    def delete(self, tx: Tx, account: AccountId, index: Index, name: str) -> None: ...
    def entries(self, tx: Tx, account: AccountId, index: Index, name: str) -> Sequence[Entry]: ...
    def change(
        self,
        tx: Tx,
        account: AccountId,
        index: Index,
        name: str,
        *,
        gone: Collection[Entry],
        new: Collection[Entry],
    ) -> None: ...
    def empty(self, tx: Tx, account: AccountId, index: Index, *, limit: int) -> bool:
        """Take away documents, at most so many; whether more may be there."""
        ...

    def connected_elsewhere(self, tx: Tx, account: AccountId, *, living: Collection[str], limit: int) -> Sequence[str]:
        """Things that were noted as connected by a process that isn't one of these."""
        ...

    def search(self, tx: Tx, account: AccountId, index: Index, query: Query, *, after: str, limit: int) -> Sequence[str]:
        """Names that meet a query, in order."""
        ...

    def those_that_meet(
        self, tx: Tx, account: AccountId, index: Index, query: Query, names: Sequence[str]
    ) -> frozenset[str]: ...

    def found(self, tx: Tx, account: AccountId, index: Index, names: Sequence[str]) -> Sequence[Found]: ...
    def count(self, tx: Tx, account: AccountId, index: Index, query: Query) -> int: ...
    def statistics(self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field) -> Statistics: ...
    def cardinality(self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field) -> int: ...
    def percentiles(
        self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field, percents: Sequence[float]
    ) -> Sequence[tuple[float, float]]: ...
    def buckets(
        self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field, *, limit: int
    ) -> Sequence[tuple[str, int]]: ...
