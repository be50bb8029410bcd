"""One thing or group as the index has it, written anew when it changes; and the dynamic groups that the thing then belongs to.

A change of one thing costs statements about that thing: its document is read by its name, what differs is written, and the
account's dynamic groups judge that document in memory. No other thing is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import structlog

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, ClientId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.devices.service import DevicesService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.fleet_index.configurations import Configurations, query_of
from overair.server.fleet_index.fields import ATTRIBUTES, DESCRIPTION, JOBS, VERSION, Index, package_field
from overair.server.fleet_index.matching import matches
from overair.server.fleet_index.model import (
    NEVER_CONNECTED,
    NODE,
    Configuration,
    ConnectionNote,
    Entry,
    Source,
    document_of,
)
from overair.server.fleet_index.ports import DocumentStore, JobStatuses, PackagesOnThings
from overair.server.fleet_index.query import Query, terms

WORD_LENGTH_MAX = 400
"""Of a description."""
EVERYTHING = "*"
"""Stands for all fields where a thing is new."""
ROUNDS_MAX = 8
"""How often one change may lead from a group to a job to a group. A job that goes to who doesn't have it would never end."""

logger = structlog.get_logger("overair.fleet_index")


class NoJobs:
    """``ports.JobStatuses`` where there are no jobs."""

    def statuses_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]:
        return {}


class NoPackages:
    """``ports.PackagesOnThings`` where nothing is written down."""

    def versions_on(self, tx: Tx, account: AccountId, thing: ThingName) -> Mapping[str, str]:
        return {}


class Indexer:
    """Hears what changes and writes it into the index: ``devices.ports.RegistryChanged``, ``jobs.ports.StatusesChanged``,
    ``packages.ports.PackagesChanged``."""

    def __init__(
        self,
        *,
        configurations: Configurations,
        documents: DocumentStore,
        devices: DevicesService,
        groups: ThingGroupsService,
    ) -> None:
        self._configurations = configurations
        self._documents = documents
        self._devices = devices
        self._groups = groups
        self._settling: dict[tuple[AccountId, ThingName], set[str]] = {}
        """Things whose groups are being changed, and what has changed of them meanwhile. On the writer's thread alone."""
        self.jobs: JobStatuses = NoJobs()
        """Who knows of executions; ``composition`` points it at jobs."""
        self.packages: PackagesOnThings = NoPackages()
        """Who knows what jobs have put on things; ``composition`` points it at packages."""
        self.look: Callable[[AccountId, ClientId], None] = _nobody_connects
        """Asks after the commit whether a new thing is connected already; ``composition`` points it at ``connectivity``."""

    # What the registry tells ----------------------------------------------------------------------------------------------

    def thing_changed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """See ``devices.ports.RegistryChanged``."""
        configuration = self._configurations.remembered(tx, account)
        if configuration.things:
            self.index_thing(tx, account, thing, configuration)

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """See ``devices.ports.RegistryChanged``."""
        if self._configurations.remembered(tx, account).things:
            self._documents.delete(tx, account, Index.THINGS, thing)

    def group_changed(self, tx: Tx, account: AccountId, group: GroupName) -> None:
        """See ``devices.ports.RegistryChanged``."""
        if self._configurations.remembered(tx, account).groups:
            self.index_group(tx, account, group)

    def group_deleted(self, tx: Tx, account: AccountId, group: GroupName) -> None:
        """See ``devices.ports.RegistryChanged``."""
        if self._configurations.remembered(tx, account).groups:
            self._documents.delete(tx, account, Index.GROUPS, group)

    # Writing --------------------------------------------------------------------------------------------------------------

    def index_thing(
        self, tx: Tx, account: AccountId, thing: ThingName, configuration: Configuration, *, whole: bool = False
    ) -> None:
        """Write what the registry says of a thing; ``whole``: and what everybody else says, as a new configuration has it."""
        old = self._open(tx, account, Index.THINGS, thing)
        is_new = old is None
        old = old or ()
        said: list[Entry] = self._registered(tx, account, thing)
        sources = {Source.REGISTRY}
        if is_new or whole:
            sources = set(Source)
            if configuration.connectivity:
                known = [entry for entry in old if Source.CONNECTIVITY.owns(entry[0])]
                said += known or NEVER_CONNECTED
            if configuration.has_jobs:
                statuses = self.jobs.statuses_of(tx, account, thing)
                said += [(JOBS + job, status) for job, status in statuses.items() if configuration.has_job(JOBS + job)]
            if configuration.packages:
                said += self._packaged(tx, account, thing)
        self._write(tx, account, thing, old, said, lambda name: any(source.owns(name) for source in sources))
        if is_new and configuration.connectivity:
            tx.after_commit(lambda: self.look(account, ClientId(thing)))

    def index_group(self, tx: Tx, account: AccountId, name: GroupName) -> None:
        """Write what the registry says of a group."""
        group = self._groups.find(tx, account, name)
        said: list[Entry] = [("thingGroupName", group.name), ("thingGroupId", group.id)]
        said += [(DESCRIPTION, word) for word in dict.fromkeys(word[:WORD_LENGTH_MAX] for word in group.description.split())]
        said += [("parentGroupNames", parent) for parent in self._groups.ancestors(tx, account, name)]
        said += [(ATTRIBUTES + attribute, value) for attribute, value in group.attributes.items()]
        old = self._open(tx, account, Index.GROUPS, name) or ()
        self._change(tx, account, Index.GROUPS, name, old, said)

    def connection(self, tx: Tx, account: AccountId, thing: str, note: ConnectionNote, *, node: str) -> None:
        """Write whether a thing is connected, as a process of the server saw it. A client that is no thing is passed over."""
        if not self._configurations.remembered(tx, account).connectivity:
            return
        if not self._documents.lock(tx, account, Index.THINGS, thing):
            return
        old = self._documents.entries(tx, account, Index.THINGS, thing)
        if not note.connected and any(name == NODE and holder != node for name, holder in old):
            return  # it is connected elsewhere by now
        said = [*note.entries, (NODE, node)] if note.connected else list(note.entries)
        self._write(tx, account, ThingName(thing), old, said, Source.CONNECTIVITY.owns)

    def lost(self, tx: Tx, account: AccountId, thing: str, *, living: Collection[str], at: Instant, reason: str) -> None:
        """Write that a thing isn't connected, if the process that held its connection is none of the living."""
        if not self._documents.lock(tx, account, Index.THINGS, thing):
            return
        old = self._documents.entries(tx, account, Index.THINGS, thing)
        if any(name == NODE and holder not in living for name, holder in old):
            said = ConnectionNote(connected=False, at=at, reason=reason).entries
            self._write(tx, account, ThingName(thing), old, said, Source.CONNECTIVITY.owns)

    def statuses_changed(self, tx: Tx, account: AccountId, job: str, things: Sequence[ThingName], status: str | None) -> None:
        """The latest executions of a job on these things are in this state now; None: there are none any more."""
        named = JOBS + job
        if not self._configurations.remembered(tx, account).has_job(named):
            return
        for thing in things:
            if self._documents.lock(tx, account, Index.THINGS, thing):
                old = self._documents.entries(tx, account, Index.THINGS, thing)
                said = [] if status is None else [(named, status)]
                self._write(tx, account, thing, old, said, lambda name: name == named)

    def packages_changed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """See ``packages.ports.PackagesChanged``."""
        if not self._configurations.remembered(tx, account).packages:
            return
        if self._documents.lock(tx, account, Index.THINGS, thing):
            old = self._documents.entries(tx, account, Index.THINGS, thing)
            self._write(tx, account, thing, old, self._packaged(tx, account, thing), Source.PACKAGES.owns)

    # ----------------------------------------------------------------------------------------------------------------------

    def _packaged(self, tx: Tx, account: AccountId, thing: ThingName) -> list[Entry]:
        versions = self.packages.versions_on(tx, account, thing)
        return [(package_field(package), version) for package, version in versions.items()]

    def _registered(self, tx: Tx, account: AccountId, name: ThingName) -> list[Entry]:
        thing = self._devices.find(tx, account, name)
        dynamic = {group.name for group in self._groups.dynamic_groups(tx, account)}
        said: list[Entry] = [("thingName", thing.name), ("thingId", thing.id), (VERSION, str(thing.version))]
        if thing.type_name is not None:
            said.append(("thingTypeName", thing.type_name))
        # Dynamic groups aren't among them: one that depended on another, or on itself, would have no answer.
        said += [("thingGroupNames", group) for group in self._groups.all_groups_of(tx, account, name) - dynamic]
        said += [(ATTRIBUTES + attribute, value) for attribute, value in thing.attributes.items()]
        return said

    def _open(self, tx: Tx, account: AccountId, index: Index, name: str) -> Sequence[Entry] | None:
        """What a document holds, now ours until the commit; None, and an empty one made, where there was none."""
        if self._documents.lock(tx, account, index, name):
            return self._documents.entries(tx, account, index, name)
        self._documents.insert(tx, account, index, name)
        return None

    def _write(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        old: Sequence[Entry],
        said: Sequence[Entry],
        owns: Callable[[str], bool],
    ) -> None:
        """Put ``said`` in place of the entries that ``owns`` names, and have the dynamic groups judge what came of it."""
        entries = [entry for entry in old if not owns(entry[0])] + list(said)
        changed = self._change(tx, account, Index.THINGS, thing, old, entries)
        changed.discard(VERSION)
        if not changed:
            return
        if not old:
            # Of a new thing everything is new, what it hasn't too.
            changed.add(EVERYTHING)
        key = account, thing
        if key in self._settling:
            # A group that the thing has just entered or left changed a job of it: that is judged next.
            self._settling[key] |= changed
            return
        try:
            for _ in range(ROUNDS_MAX):
                self._settling[key] = set()
                self._judge(tx, account, thing, entries, changed)
                changed = self._settling[key]
                if not changed:
                    return
                entries = list(self._documents.entries(tx, account, Index.THINGS, thing))
            logger.warning(
                "dynamic groups and jobs contradict each other", account=account, thing=thing, fields=sorted(changed)
            )
        finally:
            self._settling.pop(key, None)

    def _change(
        self, tx: Tx, account: AccountId, index: Index, name: str, old: Collection[Entry], entries: Collection[Entry]
    ) -> set[str]:
        gone, new = set(old) - set(entries), set(entries) - set(old)
        self._documents.change(tx, account, index, name, gone=gone, new=new)
        return {field for field, _ in gone | new}

    def _judge(self, tx: Tx, account: AccountId, thing: ThingName, entries: Sequence[Entry], changed: Collection[str]) -> None:
        document = document_of(entries)
        joins: list[GroupName] = []
        leaves: list[GroupName] = []
        for group in self._groups.dynamic_groups(tx, account):
            assert group.dynamic is not None
            query = query_of(group.dynamic)
            if _depends(query, changed):
                (joins if matches(query, document) else leaves).append(group.name)
        if joins or leaves:
            self._groups.settle(tx, account, thing, joins=joins, leaves=leaves)


def _depends(query: Query, changed: Collection[str]) -> bool:
    """Whether the change of these fields may change the answer."""
    if EVERYTHING in changed:
        return True
    named = {term.field for term in terms(query)}
    return not named.isdisjoint(changed) or (None in named and any(Source.REGISTRY.owns(field) for field in changed))


def _nobody_connects(account: AccountId, client_id: ClientId) -> None:
    return None
