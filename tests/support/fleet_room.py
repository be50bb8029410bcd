"""The fleet index over the registry's rooms, and over a test's records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import AccountId, ClientId, GroupName, IdSource, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.model import ThingGroup
from overair.server.devices.service import ThingUpdate
from overair.server.fleet_index.connectivity import Connectivity
from overair.server.fleet_index.fields import Index
from overair.server.fleet_index.service import FleetIndexService, Question
from overair.server.fleet_index.settings_messages import read_configuration
from overair.server.fleet_index.store import SqlDocumentStore, SqlSettingsStore
from overair.server.storage.work import SqlWork
from tests.support.registry import Registry

T = TypeVar("T")


class Connected:
    """Who is connected to a gateway that isn't there."""

    def __init__(self) -> None:
        self.clients: list[ClientId] = []

    def is_connected(self, account: AccountId, client_id: ClientId) -> bool:
        return client_id in self.clients

    def connected_clients(self, account: AccountId) -> Sequence[ClientId]:
        return list(self.clients)


class Statuses:
    """Executions by thing and job, as a room of jobs would tell of them."""

    def __init__(self) -> None:
        self.by_thing: dict[ThingName, dict[str, str]] = {}

    def statuses_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]:
        return self.by_thing.get(thing, {})


class FleetRoom:
    """Registry and index, joined as the server joins them."""

    def __init__(self, work: SqlWork, clock: SettableClock, ids: IdSource, place: Place) -> None:
        self.work, self.clock, self.place, self.account = work, clock, place, place.account
        self.registry = Registry(work, clock, ids)
        self.fleet = FleetIndexService(
            work=work,
            settings=SqlSettingsStore(),
            documents=SqlDocumentStore(),
            devices=self.registry.devices,
            groups=self.registry.groups,
            clock=clock,
            region=place.region,
        )
        self.connected = Connected()
        self.statuses = Statuses()
        self.fleet.hears_of_jobs_from(self.statuses)

    def run(self, unit: Callable[[Tx], T]) -> T:
        return self.work.run_blocking(unit)

    def configure(self, *, settle: bool = True, **things: Any) -> None:
        """Have things indexed; members as the wire has them."""
        wanted = {"thingIndexingMode": "REGISTRY", **things}
        self.run(
            lambda tx: self.fleet.configurations.change(
                tx,
                self.account,
                read_configuration(
                    {"thingIndexingConfiguration": wanted, "thingGroupIndexingConfiguration": {"thingGroupIndexingMode": "ON"}},
                    self.fleet.configurations.of(tx, self.account),
                ),
            )
        )
        if settle:
            self.settle()

    def settle(self) -> int:
        """Let the builder do all that it has to do; in how many steps."""
        steps = 0
        while self.run(lambda tx: self.fleet.builder.step(tx, now=self.clock.now())):
            steps += 1
        return steps

    def thing(self, name: str, type_name: str | None = None, **attributes: str) -> ThingName:
        made = ThingName(name)
        kind = None if type_name is None else ThingTypeName(type_name)
        self.run(lambda tx: self.registry.devices.create(tx, self.place, made, type_name=kind, attributes=attributes))
        return made

    def attributes(self, name: str, **attributes: str) -> None:
        change = ThingUpdate(attributes=attributes, merge=True)
        self.run(lambda tx: self.registry.devices.update(tx, self.account, ThingName(name), change))

    def group(self, name: str, *things: str, parent: str | None = None) -> GroupName:
        group = GroupName(name)

        def make(tx: Tx) -> None:
            self.registry.groups.create(tx, self.place, group, parent=None if parent is None else GroupName(parent))
            for thing in things:
                self.registry.groups.add(tx, self.account, group, ThingName(thing))

        self.run(make)
        return group

    def dynamic(self, name: str, query: str, *, settle: bool = True) -> ThingGroup:
        made = self.run(lambda tx: self.fleet.dynamic.create(tx, self.place, GroupName(name), query=query))
        if settle:
            self.settle()
        return made

    def members(self, group: str) -> list[str]:
        return list(
            self.run(
                lambda tx: self.registry.groups.members(
                    tx, self.account, GroupName(group), nested=True, after=None, limit=1_000
                )
            )
        )

    def search(self, query: str, index: Index = Index.THINGS) -> list[str]:
        question = Question(account=self.account, index=index, text=query)
        found, _ = self.work.read_blocking(lambda tx: self.fleet.searches.search(tx, question, after="", limit=500))
        return [each.name for each in found]

    def question(self, query: str, index: Index = Index.THINGS) -> Question:
        return Question(account=self.account, index=index, text=query)

    def connectivity(self, node: str = "node", living: Callable[[Tx], Collection[str]] | None = None) -> Connectivity:
        return self.fleet.connectivity(self.connected, node=node, living=living)
