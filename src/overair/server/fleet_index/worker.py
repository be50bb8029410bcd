"""Filling indices and dynamic groups, in bounded pieces that may be cut after any of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx, Work
from overair.server.devices.model import DynamicStatus, GroupQuery, ThingGroup, ThingQuery
from overair.server.devices.service import DevicesService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.fleet_index.configurations import Configurations, query_of
from overair.server.fleet_index.fields import Index
from overair.server.fleet_index.indexing import Indexer
from overair.server.fleet_index.matching import matches
from overair.server.fleet_index.model import BuildPhase, GroupBuild, IndexState, Phase, document_of
from overair.server.fleet_index.ports import DocumentStore, SettingsStore
from overair.server.fleet_index.query import Query

DOCUMENTS_PER_STEP_MAX: Final = 200
MEMBERS_PER_STEP_MAX: Final = 100


class IndexBuilder:
    """The worker (``workers.loop.Worker``) that brings indices and dynamic groups to what was asked for."""

    name = "fleet-index"

    def __init__(
        self,
        *,
        work: Work,
        configurations: Configurations,
        settings: SettingsStore,
        documents: DocumentStore,
        indexer: Indexer,
        devices: DevicesService,
        groups: ThingGroupsService,
        clock: Clock,
        region: str,
    ) -> None:
        self._work = work
        self._configurations = configurations
        self._settings = settings
        self._documents = documents
        self._indexer = indexer
        self._devices = devices
        self._groups = groups
        self._clock = clock
        self._region = region

    async def run_once(self) -> bool:
        now = self._clock.now()
        if not await self._work.read(lambda tx: self._settings.has_step(tx, now=now)):
            return False
        return await self._work.run(lambda tx: self.step(tx, now=now))

    def step(self, tx: Tx, *, now: Instant) -> bool:
        """Do one piece. False: there was none."""
        if (state := self._settings.unsettled(tx, now=now)) is not None:
            self._step_of_index(tx, state, now=now)
            return True
        if (build := self._settings.build(tx)) is not None:
            self._step_of_group(tx, build)
            return True
        return False

    # Indices --------------------------------------------------------------------------------------------------------------

    def _step_of_index(self, tx: Tx, state: IndexState, *, now: Instant) -> None:
        account, index = state.account, state.index
        configuration = self._configurations.of(tx, account)
        if state.phase is Phase.EMPTYING:
            if self._documents.empty(tx, account, index, limit=DOCUMENTS_PER_STEP_MAX):
                return
            if configuration.has(index):
                self._settings.save_state(tx, replace(state, phase=Phase.BUILDING, cursor=""))
            else:
                self._settings.delete_state(tx, account, index)
            return
        names = self._names(tx, account, index, after=state.cursor)
        for name in names:
            if index is Index.THINGS:
                self._indexer.index_thing(tx, account, ThingName(name), configuration, whole=True)
            else:
                self._indexer.index_group(tx, account, GroupName(name))
        if len(names) == DOCUMENTS_PER_STEP_MAX:
            self._settings.save_state(tx, replace(state, cursor=names[-1]))
        else:
            self._settings.save_state(tx, replace(state, phase=Phase.ACTIVE, cursor="", built_at=now))

    def _names(self, tx: Tx, account: AccountId, index: Index, *, after: str) -> Sequence[str]:
        cursor, limit = after or None, DOCUMENTS_PER_STEP_MAX
        if index is Index.GROUPS:
            return self._groups.page(tx, account, GroupQuery(), after=cursor, limit=limit)
        return [thing.name for thing in self._devices.page(tx, account, ThingQuery(), after=cursor, limit=limit)]

    # Dynamic groups -------------------------------------------------------------------------------------------------------

    def _step_of_group(self, tx: Tx, build: GroupBuild) -> None:
        account, name = build.account, build.group
        try:
            group = self._groups.find(tx, account, name)
        except NotFound:
            self._settings.delete_build(tx, account, name)
            return
        assert group.dynamic is not None
        query = query_of(group.dynamic)
        limit = MEMBERS_PER_STEP_MAX
        if build.phase is BuildPhase.DELETING:
            leaving = self._groups.members(tx, account, name, nested=False, after=None, limit=limit)
            for thing in leaving:
                self._groups.settle(tx, account, thing, joins=[], leaves=[name])
            if len(leaving) < limit:
                self._settings.delete_build(tx, account, name)
                self._groups.delete(tx, Place(self._region, account), name, dynamic=True)
            return
        if build.phase is BuildPhase.JOINING:
            found = self._documents.search(tx, account, Index.THINGS, query, after=build.cursor, limit=limit)
            self._settle(tx, group, query, found)
        else:
            found = self._groups.members(tx, account, name, nested=False, after=build.cursor, limit=limit)
            staying = self._documents.those_that_meet(tx, account, Index.THINGS, query, found)
            self._settle(tx, group, query, [thing for thing in found if thing not in staying])
        if len(found) == limit:
            self._settings.save_build(tx, replace(build, cursor=found[-1]))
        elif build.phase is BuildPhase.JOINING:
            self._settings.save_build(tx, replace(build, phase=BuildPhase.LEAVING, cursor=""))
        else:
            self._settings.delete_build(tx, account, name)
            self._groups.set_query(tx, account, name, replace(group.dynamic, status=DynamicStatus.ACTIVE))

    def _settle(self, tx: Tx, group: ThingGroup, query: Query, things: Sequence[str]) -> None:
        """Each is judged again while it is held: it may have changed since it was found."""
        for thing in things:
            if not self._documents.lock(tx, group.account, Index.THINGS, thing):
                continue
            document = document_of(self._documents.entries(tx, group.account, Index.THINGS, thing))
            joins, leaves = ([group.name], []) if matches(query, document) else ([], [group.name])
            self._groups.settle(tx, group.account, ThingName(thing), joins=joins, leaves=leaves)
