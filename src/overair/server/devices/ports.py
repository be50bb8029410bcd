"""What the registry asks of its records, and whom it tells of changes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, GroupName, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.model import (
    DevicePolicyRecord,
    GroupQuery,
    PolicyTarget,
    PolicyVersion,
    Thing,
    ThingGroup,
    ThingPrincipal,
    ThingPrincipalType,
    ThingQuery,
    ThingType,
)


class MembershipChanged(Protocol):
    """Who must know, in the same transaction, that a thing came into a group or left one. Implemented above, by jobs.

    ``group`` is every group whose members (nested ones included) the thing now is among, or no longer is: entering a child
    group enters its parents too, unless the thing was among theirs already.
    """

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None: ...

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None: ...

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...


class MembershipGuard(Protocol):
    """Who may refuse, in the same transaction, that an operator puts a thing into groups. Implemented above, by jobs."""

    def require_may_join(self, tx: Tx, account: AccountId, thing: ThingName, groups: Collection[GroupName]) -> None:
        """``groups``: those whose members the thing is among now, and wasn't before. Raises InvalidRequest."""
        ...


class KeysDeclared(Protocol):
    """Who must know, in the same transaction, that a thing has said something new of its decryption keys. Implemented above, by
    jobs."""

    def keys_declared(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...


class ProvisionedAgain(Protocol):
    """Who must know, in the same transaction, that a thing which had no valid certificate left was given a new one: it isn't
    the device that it was. Implemented above, by jobs."""

    def provisioned_again(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...


class RegistryChanged(Protocol):
    """Who must know, in the same transaction, what the registry says now. Implemented above, by the fleet index.

    Told after ``MembershipChanged``; not of changes in dynamic groups, which are its own.
    """

    def thing_changed(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """A thing was made, or its type, its attributes or its static groups have changed."""
        ...

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...

    def group_changed(self, tx: Tx, account: AccountId, group: GroupName) -> None:
        """A group was made, or its description or its attributes have changed."""
        ...

    def group_deleted(self, tx: Tx, account: AccountId, group: GroupName) -> None: ...


class AccessChanged(Protocol):
    """Whoever judges live connections. Each call takes effect after the commit of its unit."""

    def certificates(self, tx: Tx, account: AccountId, certificates: Collection[CertificateId]) -> None:
        """What these certificates may do has changed, or whom they speak for."""
        ...

    def everything(self, tx: Tx, account: AccountId) -> None:
        """Something changed whose reach isn't worth finding out: judge the whole account again."""
        ...


class ThingStore(Protocol):
    """Rows of things and of the certificates attached to them."""

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Thing | None: ...

    def among(self, tx: Tx, account: AccountId, names: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some names that are things."""
        ...

    def name_of(self, tx: Tx, account: AccountId, thing_id: str) -> ThingName | None:
        """Of the thing with this UUID."""
        ...

    def insert(self, tx: Tx, thing: Thing) -> None: ...

    def update(self, tx: Tx, thing: Thing) -> None: ...

    def delete(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...

    def count(self, tx: Tx, account: AccountId) -> int: ...

    def page(self, tx: Tx, account: AccountId, query: ThingQuery, *, after: str | None, limit: int) -> Sequence[Thing]: ...

    def attach(self, tx: Tx, account: AccountId, attachment: ThingPrincipal) -> None:
        """Insert, or change the type of one that is there."""
        ...

    def detach(self, tx: Tx, account: AccountId, thing: ThingName, certificate: CertificateId) -> bool:
        """Whether it was there."""
        ...

    def principals(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        """Certificates of a thing, by id."""
        ...

    def things_of(
        self,
        tx: Tx,
        account: AccountId,
        certificate: CertificateId,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        """Things of a certificate, by name."""
        ...


class TypeStore(Protocol):
    """Rows of thing types."""

    def find(self, tx: Tx, account: AccountId, name: ThingTypeName) -> ThingType | None: ...

    def put(self, tx: Tx, thing_type: ThingType) -> None:
        """Insert, or replace the one with the same name."""
        ...

    def delete(self, tx: Tx, account: AccountId, name: ThingTypeName) -> None: ...

    def is_used(self, tx: Tx, account: AccountId, name: ThingTypeName) -> bool:
        """Whether a thing is of this type."""
        ...

    def page(
        self, tx: Tx, account: AccountId, *, name: ThingTypeName | None, after: str | None, limit: int
    ) -> Sequence[ThingType]: ...


class GroupStore(Protocol):
    """Rows of groups, of who is in them, and of which lies in which."""

    def name_of(self, tx: Tx, account: AccountId, group_id: str) -> GroupName | None:
        """Of the group with this UUID."""
        ...

    def find(self, tx: Tx, account: AccountId, group: GroupName) -> ThingGroup | None: ...

    def insert(self, tx: Tx, group: ThingGroup) -> None:
        """With its place below its parent."""
        ...

    def update(self, tx: Tx, group: ThingGroup) -> None: ...

    def delete(self, tx: Tx, account: AccountId, group: GroupName) -> None: ...

    def dynamic_groups(self, tx: Tx, account: AccountId) -> Sequence[ThingGroup]:
        """By name. Their queries don't change before this unit's commit."""
        ...

    def ancestors(self, tx: Tx, account: AccountId, group: GroupName) -> Sequence[GroupName]:
        """From the root down to the parent."""
        ...

    def count_children(self, tx: Tx, account: AccountId, group: GroupName) -> int: ...

    def page(self, tx: Tx, account: AccountId, query: GroupQuery, *, after: str | None, limit: int) -> Sequence[GroupName]: ...

    def add(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> None: ...

    def remove(self, tx: Tx, account: AccountId, group: GroupName, thing: ThingName) -> bool:
        """Whether it was in there."""
        ...

    def direct_groups(
        self, tx: Tx, account: AccountId, thing: ThingName, *, after: str | None = None, limit: int
    ) -> Sequence[GroupName]:
        """Groups that the thing was put into, by name."""
        ...

    def all_groups(self, tx: Tx, account: AccountId, thing: ThingName) -> frozenset[GroupName]:
        """Those and all above them."""
        ...

    def ruled_kin(self, tx: Tx, account: AccountId, group: GroupName) -> GroupName | None:
        """A group with a signing rule that is this one, or lies above or below it."""
        ...

    def ruled_member(self, tx: Tx, account: AccountId, group: GroupName) -> ThingName | None:
        """A thing in this group or below it that a group with a signing rule covers too."""
        ...

    def ruled_groups_of(self, tx: Tx, account: AccountId, thing: ThingName) -> Sequence[GroupName]:
        """Groups with a signing rule that cover the thing, by name."""
        ...

    def ruled_among(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some things that a group with a signing rule covers."""
        ...

    def members(
        self, tx: Tx, account: AccountId, group: GroupName, *, nested: bool, after: str | None, limit: int
    ) -> Sequence[ThingName]:
        """Things in the group, by name; ``nested``: in the groups below it too, each once."""
        ...


class PolicyStore(Protocol):
    """Rows of device policies, their versions and what they are attached to."""

    def find(self, tx: Tx, account: AccountId, policy: PolicyName) -> DevicePolicyRecord | None: ...

    def insert(self, tx: Tx, policy: DevicePolicyRecord) -> None:
        """With its first version."""
        ...

    def update(self, tx: Tx, policy: DevicePolicyRecord) -> None:
        """Write default version, last version and modification time."""
        ...

    def delete(self, tx: Tx, account: AccountId, policy: PolicyName) -> None:
        """With all its versions."""
        ...

    def page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[Instant, PolicyName]]:
        """By (creation time, name)."""
        ...

    def insert_version(self, tx: Tx, account: AccountId, version: PolicyVersion) -> None: ...

    def find_version(self, tx: Tx, account: AccountId, policy: PolicyName, version: int) -> PolicyVersion | None: ...

    def versions(self, tx: Tx, account: AccountId, policy: PolicyName) -> Sequence[PolicyVersion]:
        """Newest first."""
        ...

    def delete_version(self, tx: Tx, account: AccountId, policy: PolicyName, version: int) -> None: ...

    def attach(self, tx: Tx, account: AccountId, policy: PolicyName, target: PolicyTarget) -> None:
        """Nothing happens where it is attached already."""
        ...

    def detach(self, tx: Tx, account: AccountId, policy: PolicyName, target: PolicyTarget) -> bool:
        """Whether it was attached."""
        ...

    def detach_all(self, tx: Tx, account: AccountId, target: PolicyTarget) -> None: ...

    def attached(
        self, tx: Tx, account: AccountId, targets: Sequence[PolicyTarget], *, after: str | None = None, limit: int
    ) -> Sequence[PolicyName]:
        """Policies of any of these targets, by name, each once."""
        ...

    def has_any(self, tx: Tx, account: AccountId, targets: Sequence[PolicyTarget]) -> bool:
        """Whether one of these targets has a policy."""
        ...

    def targets(
        self, tx: Tx, account: AccountId, policy: PolicyName, *, after: tuple[str, str] | None = None, limit: int
    ) -> Sequence[PolicyTarget]:
        """What a policy is attached to, by (kind, name)."""
        ...


class TagStore(Protocol):
    """Rows of tags, by the ARN of what carries them."""

    def tags(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]: ...

    def set(self, tx: Tx, account: AccountId, arn: str, tags: Mapping[str, str]) -> None:
        """Make these the resource's only tags."""
        ...
