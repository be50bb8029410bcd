"""Thing groups, one inside the other, and who is in them.

A dynamic group's members are found by its query: the fleet index fills it (``settle``), nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, InvalidRequest, LimitExceeded, NotFound, VersionConflict
from overair.basics.ids import AccountId, GroupName, IdSource, ThingName
from overair.basics.work import Tx
from overair.server.devices.model import (
    GENEROUS,
    OFFLINE_SIGNED,
    SIGNING_RULE_ATTRIBUTE,
    DynamicQuery,
    GroupQuery,
    PolicyTarget,
    RegistryLimits,
    TargetKind,
    ThingGroup,
)
from overair.server.devices.ports import (
    AccessChanged,
    GroupStore,
    MembershipChanged,
    MembershipGuard,
    PolicyStore,
    RegistryChanged,
    ThingStore,
)
from overair.server.devices.tags import TagsService

KIND: Final = "thinggroup"
MEMBERS_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """What an operator says about a group; what is None stays as it is."""

    description: str | None = None
    attributes: Mapping[str, str] | None = None
    merge: bool = False


class ThingGroupsService:
    """Creates, changes and deletes groups, and puts things into them.

    Raises, everywhere: ``NotFound`` (subjects ``thing-group``, ``thing``), ``AlreadyExists(subject="thing-group")``,
    ``VersionConflict(subject="thing-group")``, ``InvalidRequest(subject="thing-group")``.
    """

    def __init__(
        self,
        *,
        store: GroupStore,
        things: ThingStore,
        policies: PolicyStore,
        tags: TagsService,
        access_changed: AccessChanged,
        clock: Clock,
        ids: IdSource,
        limits: RegistryLimits = GENEROUS,
    ) -> None:
        self._store = store
        self._things = things
        self._policies = policies
        self._tags = tags
        self._access_changed = access_changed
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._watchers: list[MembershipChanged] = []
        self._guards: list[MembershipGuard] = []
        self._indexers: list[RegistryChanged] = []
        tags.accept(KIND, lambda tx, account, name: store.find(tx, account, GroupName(name)) is not None)

    def watched_by(self, watcher: MembershipChanged) -> None:
        """Register, at composition, a room above that must know who comes and goes."""
        self._watchers.append(watcher)

    def guarded_by(self, guard: MembershipGuard) -> None:
        """Register, at composition, a room above that may refuse what an operator does to a group."""
        self._guards.append(guard)

    def indexed_by(self, indexer: RegistryChanged) -> None:
        """Register, at composition, a room above that keeps what the registry says."""
        self._indexers.append(indexer)

    # Groups ---------------------------------------------------------------------------------------------------------------

    def create(
        self,
        tx: Tx,
        place: Place,
        name: GroupName,
        *,
        parent: GroupName | None = None,
        settings: GroupSettings | None = None,
        tags: Mapping[str, str] | None = None,
        dynamic: DynamicQuery | None = None,
    ) -> ThingGroup:
        """Create a group; an identical repeat gives the one that is there."""
        settings = settings or GroupSettings()
        wanted = ThingGroup(
            account=place.account,
            name=name,
            id=self._ids.uuid(),
            parent=parent,
            description=settings.description or "",
            attributes=self._attributes({}, settings),
            version=1,
            created_at=self._clock.now(),
            dynamic=dynamic,
        )
        standing = self._store.find(tx, place.account, name)
        if standing is not None:
            if standing.same_settings(wanted):
                return standing
            raise AlreadyExists(
                f"Thing group {name} already exists in account with a different parent or different properties.",
                subject="thing-group",
                details={"resourceId": name, "resourceArn": place.iot(KIND, name)},
            )
        if parent is not None:
            self._check_parent(tx, place.account, parent)
        if dynamic is not None and len(self._store.dynamic_groups(tx, place.account)) >= self._limits.dynamic_groups_max:
            raise LimitExceeded(
                f"An account has at most {self._limits.dynamic_groups_max} dynamic groups.", subject="thing-group"
            )
        self._store.insert(tx, wanted)
        self._tags.set_new(tx, place, place.iot(KIND, name), tags)
        for indexer in self._indexers:
            indexer.group_changed(tx, place.account, name)
        return wanted

    def find(self, tx: Tx, account: AccountId, name: GroupName) -> ThingGroup:
        """A group by name."""
        found = self._store.find(tx, account, name)
        if found is None:
            raise NotFound(f"Thing group {name} not found.", subject="thing-group")
        return found

    def has(self, tx: Tx, account: AccountId, name: GroupName) -> bool:
        """Whether there is such a group."""
        return self._store.find(tx, account, name) is not None

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> GroupName:
        """A group's name, said by name or by UUID; the name is asked first."""
        if self._store.find(tx, account, GroupName(name_or_id)) is not None:
            return GroupName(name_or_id)
        found = self._store.name_of(tx, account, name_or_id)
        if found is None:
            raise NotFound(f"Thing group {name_or_id[:128]} not found.", subject="thing-group")
        return found

    def ancestors(self, tx: Tx, account: AccountId, name: GroupName) -> Sequence[GroupName]:
        """The groups above, from the root down to the parent."""
        return self._store.ancestors(tx, account, name)

    def update(
        self,
        tx: Tx,
        account: AccountId,
        name: GroupName,
        settings: GroupSettings,
        *,
        expected_version: int | None,
        dynamic: DynamicQuery | None = None,
    ) -> ThingGroup:
        """Change description and attributes, and the query of a dynamic group; the version rises by 1."""
        group = self.find(tx, account, name)
        _refuse_other_kind(group, wants_dynamic=dynamic is not None, instead="UpdateThingGroup")
        _expect(group, expected_version)
        changed = replace(
            group,
            description=group.description if settings.description is None else settings.description,
            attributes=self._attributes(group.attributes, settings),
            version=group.version + 1,
            dynamic=dynamic,
        )
        self._store.update(tx, changed)
        for indexer in self._indexers:
            indexer.group_changed(tx, account, name)
        return changed

    def delete(
        self, tx: Tx, place: Place, name: GroupName, *, expected_version: int | None = None, dynamic: bool = False
    ) -> None:
        """Delete a group without child groups; its members leave it and its policies go. One that isn't there is fine."""
        account = place.account
        group = self._store.find(tx, account, name)
        if group is None:
            return
        _refuse_other_kind(group, wants_dynamic=dynamic, instead="DeleteThingGroup")
        _expect(group, expected_version)
        if self._store.count_children(tx, account, name):
            raise InvalidRequest(
                f"Cannot delete thing group {name} when there are still child groups attached to it.", subject="thing-group"
            )
        while members := self._store.members(tx, account, name, nested=False, after=None, limit=MEMBERS_AT_ONCE):
            for thing in members:
                self._take_out(tx, account, name, thing, tell_indexers=not dynamic)
        target = PolicyTarget(kind=TargetKind.GROUP, name=name)
        self._policies.detach_all(tx, account, target)
        self._store.delete(tx, account, name)
        self._tags.forget(tx, place, place.iot(KIND, name))
        for indexer in self._indexers:
            indexer.group_deleted(tx, account, name)

    def page(self, tx: Tx, account: AccountId, query: GroupQuery, *, after: str | None, limit: int) -> Sequence[GroupName]:
        """Groups by name, as the query selects."""
        if query.parent is not None:
            self.find(tx, account, query.parent)
        return self._store.page(tx, account, query, after=after, limit=limit)

    # Members --------------------------------------------------------------------------------------------------------------

    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName, *, guarded: bool = False) -> None:
        """Put a thing into a group; again is fine. ``guarded``: an operator does it, who can be told why not."""
        self._require_both(tx, account, group, thing)
        most = self._limits.groups_of_thing_max
        direct = self._store.direct_groups(tx, account, thing, limit=most + self._limits.dynamic_groups_max)
        if group in direct:
            return
        if len(direct) >= most:
            # Dynamic groups don't count: whoever changes an attribute mustn't shut a thing out of a group.
            dynamic = {each.name for each in self._store.dynamic_groups(tx, account)}
            if (count := sum(name not in dynamic for name in direct)) >= most:
                raise InvalidRequest(
                    f"A thing is in at most {most} groups, dynamic ones not counted; {thing} is in {count}.",
                    subject="thing-group",
                )
        self._change_membership(tx, account, thing, lambda: self._store.add(tx, account, group, thing), guarded=guarded)

    def remove(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None:
        """Take a thing out of a group; one that isn't in there is fine."""
        self._require_both(tx, account, group, thing)
        self._take_out(tx, account, group, thing)

    def regroup(
        self, tx: Tx, account: AccountId, thing: ThingName, *, add: Sequence[GroupName], remove: Sequence[GroupName]
    ) -> None:
        """Leave and enter several groups at once (UpdateThingGroupsForThing), as an operator does."""
        if set(add) & set(remove):
            raise InvalidRequest("A group can't be both added and removed in one request.", subject="thing-group")
        for group in remove:
            self.remove(tx, account, group, thing)
        for group in add:
            self.add(tx, account, group, thing, guarded=True)

    def members(
        self, tx: Tx, account: AccountId, name: GroupName, *, nested: bool, after: str | None, limit: int
    ) -> Sequence[ThingName]:
        """Things in a group, by name; ``nested``: and in all below it, each once. None for a group that isn't there."""
        return self._store.members(tx, account, name, nested=nested, after=after, limit=limit)

    def groups_of(
        self, tx: Tx, account: AccountId, thing: ThingName, *, after: str | None = None, limit: int
    ) -> Sequence[GroupName]:
        """Groups that a thing was put into, by name."""
        self._require_thing(tx, account, thing)
        return self._store.direct_groups(tx, account, thing, after=after, limit=limit)

    def all_groups_of(self, tx: Tx, account: AccountId, thing: ThingName) -> frozenset[GroupName]:
        """Those, and every group above one of them."""
        return self._store.all_groups(tx, account, thing)

    # Signing rules --------------------------------------------------------------------------------------------------------

    def signing_rule_over_group(self, tx: Tx, account: AccountId, name: GroupName) -> GroupName | None:
        """A group with a signing rule that some member of this one is, or would be, under."""
        kin = self._store.ruled_kin(tx, account, name)
        if kin is not None:
            return kin
        member = self._store.ruled_member(tx, account, name)
        return None if member is None else self.signing_rule_over_thing(tx, account, member)

    def signing_rule_over_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> GroupName | None:
        """The first group with a signing rule that covers the thing."""
        return next(iter(self._store.ruled_groups_of(tx, account, thing)), None)

    def under_signing_rule(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some things that a group with a signing rule covers."""
        return self._store.ruled_among(tx, account, things)

    # Dynamic groups -------------------------------------------------------------------------------------------------------

    def dynamic_groups(self, tx: Tx, account: AccountId) -> Sequence[ThingGroup]:
        """By name. Whoever reads them in a unit that writes has them stand still until its commit."""
        return self._store.dynamic_groups(tx, account)

    def set_query(self, tx: Tx, account: AccountId, name: GroupName, dynamic: DynamicQuery) -> None:
        """Write how far a dynamic group has come; its version stays."""
        self._store.update(tx, replace(self.find(tx, account, name), dynamic=dynamic))

    def settle(
        self, tx: Tx, account: AccountId, thing: ThingName, *, joins: Collection[GroupName], leaves: Collection[GroupName]
    ) -> None:
        """A thing belongs to these dynamic groups now, and no longer to those. Told as any other membership."""
        most = self._limits.groups_of_thing_max + self._limits.dynamic_groups_max
        standing = set(self._store.direct_groups(tx, account, thing, limit=most))
        joins, leaves = set(joins) - standing, set(leaves) & standing
        if not joins and not leaves:
            return

        def change() -> None:
            for group in sorted(leaves):
                self._store.remove(tx, account, group, thing)
            for group in sorted(joins):
                self._store.add(tx, account, group, thing)

        self._change_membership(tx, account, thing, change, tell_indexers=False)

    def forget_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is being deleted: take it out of every group and tell whoever watches."""
        while groups := self._store.direct_groups(tx, account, thing, limit=MEMBERS_AT_ONCE):
            for group in groups:
                self._store.remove(tx, account, group, thing)
        for watcher in self._watchers:
            watcher.thing_deleted(tx, account, thing)
        for indexer in self._indexers:
            indexer.thing_deleted(tx, account, thing)

    def _take_out(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName, *, tell_indexers: bool = True) -> None:
        self._change_membership(
            tx, account, thing, lambda: self._store.remove(tx, account, group, thing), tell_indexers=tell_indexers
        )

    def _change_membership(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        change: Callable[[], object],
        *,
        tell_indexers: bool = True,
        guarded: bool = False,
    ) -> None:
        """Do it, and tell what came of it: through a child group one is a member of all above it too."""
        before = self._store.all_groups(tx, account, thing)
        change()
        after = self._store.all_groups(tx, account, thing)
        if guarded:
            for guard in self._guards:
                guard.require_may_join(tx, account, thing, after - before)
        for watcher in self._watchers:
            for group in sorted(before - after):
                watcher.left(tx, account, thing, group)
            for group in sorted(after - before):
                watcher.joined(tx, account, thing, group)
        touched = [PolicyTarget(kind=TargetKind.GROUP, name=group) for group in before ^ after]
        if self._policies.has_any(tx, account, touched):
            certificates = self._things.principals(tx, account, thing, limit=MEMBERS_AT_ONCE)
            self._access_changed.certificates(tx, account, [attached.certificate for attached in certificates])
        if tell_indexers and before != after:
            for indexer in self._indexers:
                indexer.thing_changed(tx, account, thing)

    def _require_both(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None:
        if self.find(tx, account, group).dynamic is not None:
            raise InvalidRequest(
                f"{group} is a dynamic thing group: its query decides who is in it. Change the thing, or the query with "
                "UpdateDynamicThingGroup.",
                subject="thing-group",
            )
        self._require_thing(tx, account, thing)

    def _require_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        if self._things.find(tx, account, thing) is None:
            raise NotFound(f"Thing {thing} not found.", subject="thing")

    def _check_parent(self, tx: Tx, account: AccountId, parent: GroupName) -> None:
        if self.find(tx, account, parent).dynamic is not None:
            raise InvalidRequest(f"{parent} is a dynamic thing group and has no groups below it.", subject="thing-group")
        depth = len(self._store.ancestors(tx, account, parent)) + 2
        if depth > self._limits.group_depth_max:
            raise InvalidRequest(
                f"Groups lie at most {self._limits.group_depth_max} deep; below {parent} it would be {depth}.",
                subject="thing-group",
            )
        if self._store.count_children(tx, account, parent) >= self._limits.child_groups_max:
            raise InvalidRequest(
                f"A group has at most {self._limits.child_groups_max} direct child groups.", subject="thing-group"
            )

    def _attributes(self, standing: Mapping[str, str], settings: GroupSettings) -> Mapping[str, str]:
        if settings.attributes is None:
            return standing
        merged = {**(standing if settings.merge else {}), **settings.attributes}
        kept = {attribute: value for attribute, value in merged.items() if value}
        if len(kept) > self._limits.group_attributes_max:
            raise InvalidRequest(f"A group has at most {self._limits.group_attributes_max} attributes.", subject="thing-group")
        if kept.get(SIGNING_RULE_ATTRIBUTE, OFFLINE_SIGNED) != OFFLINE_SIGNED:
            raise InvalidRequest(
                f"{SIGNING_RULE_ATTRIBUTE} is {OFFLINE_SIGNED!r} or isn't there: a rule that is misspelt would protect nobody.",
                subject="thing-group",
            )
        return kept


def _refuse_other_kind(group: ThingGroup, *, wants_dynamic: bool, instead: str) -> None:
    """``instead`` is the operation for static groups; the one for dynamic groups is called alike."""
    if (group.dynamic is not None) is not wants_dynamic:
        other = instead.replace("Thing", "DynamicThing") if group.dynamic is not None else instead
        kind = "dynamic" if group.dynamic is not None else "static"
        raise InvalidRequest(f"{group.name} is a {kind} thing group: use {other}.", subject="thing-group")


def _expect(group: ThingGroup, expected_version: int | None) -> None:
    if expected_version is not None and expected_version != group.version:
        raise VersionConflict(
            f"The thing group {group.name} has version {group.version}, not the expected {expected_version}. "
            "Read it and try again.",
            subject="thing-group",
        )
