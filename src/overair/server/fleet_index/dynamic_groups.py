"""Groups whose members a query finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from overair.basics.arn import Place
from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.ids import AccountId, GroupName
from overair.basics.work import Tx
from overair.server.devices.model import DynamicQuery, DynamicStatus, ThingGroup
from overair.server.devices.thing_groups import GroupSettings, ThingGroupsService
from overair.server.fleet_index.configurations import Configurations, query_of, require_fields
from overair.server.fleet_index.fields import Index, index_named
from overair.server.fleet_index.model import NOBODY, QUERY_VERSION, BuildPhase, GroupBuild
from overair.server.fleet_index.ports import SettingsStore
from overair.server.fleet_index.query import refused

MEMBERS_AT_ONCE_MAX = 200
"""So many members leave a deleted group in the unit that deletes it."""


class DynamicGroups:
    """Creates, changes and deletes them. A worker finds the members of a new query; from then on each thing that changes is
    judged by itself.

    Raises: what ``ThingGroupsService`` raises, and ``InvalidRequest`` with subjects ``query`` and ``index``.
    """

    def __init__(self, *, store: SettingsStore, groups: ThingGroupsService, configurations: Configurations) -> None:
        self._store = store
        self._groups = groups
        self._configurations = configurations

    def create(
        self,
        tx: Tx,
        place: Place,
        name: GroupName,
        *,
        query: str,
        index_name: str | None = None,
        version: str | None = None,
        settings: GroupSettings | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ThingGroup:
        """Create a dynamic group; an identical repeat gives the one that is there."""
        dynamic = self._checked(tx, place.account, query, index_name, version)
        is_new = not self._groups.has(tx, place.account, name)
        group = self._groups.create(tx, place, name, settings=settings, tags=tags, dynamic=dynamic)
        if is_new:
            self._fill(tx, GroupBuild(account=place.account, group=name))
        return group

    def update(
        self,
        tx: Tx,
        account: AccountId,
        name: GroupName,
        *,
        settings: GroupSettings,
        query: str | None = None,
        index_name: str | None = None,
        version: str | None = None,
        expected_version: int | None = None,
    ) -> ThingGroup:
        """Change what is given. A new query has the members found anew."""
        dynamic = before = self._dynamic(tx, account, name, instead="UpdateThingGroup")
        if before.text == NOBODY:
            raise NotFound(f"Thing group {name} not found: it is being deleted.", subject="thing-group")
        if query is not None or index_name is not None or version is not None:
            wanted = self._checked(
                tx, account, before.text if query is None else query, index_name or before.index_name, version or before.version
            )
            if wanted.text != before.text:
                is_filled = before.status is not DynamicStatus.BUILDING
                dynamic = replace(wanted, status=DynamicStatus.REBUILDING if is_filled else DynamicStatus.BUILDING)
                self._fill(tx, GroupBuild(account=account, group=name))
        return self._groups.update(tx, account, name, settings, expected_version=expected_version, dynamic=dynamic)

    def delete(self, tx: Tx, place: Place, name: GroupName, *, expected_version: int | None = None) -> None:
        """Delete one; its members leave it, many of them in the background: then the group is gone at the end of that. One that
        isn't there is fine."""
        account = place.account
        if (
            len(self._groups.members(tx, account, name, nested=False, after=None, limit=MEMBERS_AT_ONCE_MAX))
            < MEMBERS_AT_ONCE_MAX
        ):
            self._groups.delete(tx, place, name, expected_version=expected_version, dynamic=True)
            self._store.delete_build(tx, account, name)
            return
        dynamic = self._dynamic(tx, account, name, instead="DeleteThingGroup")
        if dynamic.text == NOBODY:
            return
        ending = replace(dynamic, text=NOBODY, status=DynamicStatus.REBUILDING)
        self._groups.update(tx, account, name, GroupSettings(), expected_version=expected_version, dynamic=ending)
        self._fill(tx, GroupBuild(account=account, group=name, phase=BuildPhase.DELETING))

    def _dynamic(self, tx: Tx, account: AccountId, name: GroupName, *, instead: str) -> DynamicQuery:
        dynamic = self._groups.find(tx, account, name).dynamic
        if dynamic is None:
            raise InvalidRequest(f"{name} is a static thing group: use {instead}.", subject="thing-group")
        return dynamic

    def _fill(self, tx: Tx, build: GroupBuild) -> None:
        self._store.save_build(tx, build)
        tx.after_commit(lambda: self._configurations.wake())

    def _checked(self, tx: Tx, account: AccountId, query: str, index_name: str | None, version: str | None) -> DynamicQuery:
        if index_named(index_name) is not Index.THINGS:
            raise InvalidRequest("A dynamic thing group is of the index AWS_Things.", subject="index")
        if query == NOBODY:
            raise refused(f"{NOBODY!r} finds nobody, ever.")
        dynamic = DynamicQuery(index_name=Index.THINGS.value, text=query, version=checked_version(version))
        require_fields(query_of(dynamic), self._configurations.of(tx, account))
        return dynamic


def checked_version(version: str | None) -> str:
    """The one version of the query language.

    Raises:
        InvalidRequest: another one was asked for. Subject ``query``.
    """
    if version not in (None, QUERY_VERSION):
        raise InvalidRequest(f"Invalid query: the query version is {QUERY_VERSION}, not {version[:32]!r}.", subject="query")
    return QUERY_VERSION
