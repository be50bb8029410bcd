"""Things: created, changed, found, deleted, and attached to certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, InvalidRequest, NotFound, VersionConflict
from overair.basics.ids import AccountId, CertificateId, GroupName, IdSource, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.certificates.model import CertificateStatus
from overair.server.certificates.service import CertificatesService
from overair.server.devices.model import (
    GENEROUS,
    RegistryLimits,
    Thing,
    ThingPrincipal,
    ThingPrincipalType,
    ThingQuery,
    job_target,
    own_resource,
    principal_certificate,
)
from overair.server.devices.policies import PoliciesService
from overair.server.devices.ports import AccessChanged, MembershipChanged, ProvisionedAgain, RegistryChanged, ThingStore
from overair.server.devices.tags import TagsService
from overair.server.devices.thing_groups import ThingGroupsService
from overair.server.devices.thing_types import ThingTypesService

PRINCIPALS_LOOKED_AT_MAX: Final = 100
"""Certificates of one thing that are looked at when another one is attached."""

__all__ = [
    "AccessChanged",
    "DevicesService",
    "MembershipChanged",
    "PoliciesService",
    "ProvisionedAgain",
    "RegistryChanged",
    "TagsService",
    "ThingGroupsService",
    "ThingTypesService",
    "ThingUpdate",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingUpdate:
    """What UpdateThing asks for; what is None stays."""

    type_name: ThingTypeName | None = None
    remove_type: bool = False
    attributes: Mapping[str, str] | None = None
    merge: bool = False
    """False: ``attributes`` replaces them all. Either way an empty value takes its attribute away."""
    expected_version: int | None = None


class DevicesService:
    """The registry's things.

    Raises, everywhere: ``NotFound`` (subjects ``thing``, ``thing-type``, ``thing-group``, ``certificate``),
    ``AlreadyExists(subject="thing")``, ``VersionConflict(subject="thing")``, ``InvalidRequest`` (subjects ``thing``,
    ``principal``, ``thing-type``, ``attributes``, ``target``).
    """

    def __init__(
        self,
        *,
        store: ThingStore,
        types: ThingTypesService,
        groups: ThingGroupsService,
        certificates: CertificatesService,
        access_changed: AccessChanged,
        clock: Clock,
        ids: IdSource,
        limits: RegistryLimits = GENEROUS,
    ) -> None:
        self._store = store
        self._types = types
        self._groups = groups
        self._certificates = certificates
        self._access_changed = access_changed
        self._clock = clock
        self._ids = ids
        self._limits = limits
        self._provisioning_watcher: ProvisionedAgain | None = None
        self._indexers: list[RegistryChanged] = []

    def indexed_by(self, indexer: RegistryChanged) -> None:
        """Register, at composition, a room above that keeps what the registry says."""
        self._indexers.append(indexer)

    def provisioning_watched_by(self, watcher: ProvisionedAgain) -> None:
        """Register, at composition, the room above that must know of a thing that was provisioned again."""
        self._provisioning_watcher = watcher

    # Things ---------------------------------------------------------------------------------------------------------------

    def create(
        self,
        tx: Tx,
        place: Place,
        name: ThingName,
        *,
        type_name: ThingTypeName | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Thing:
        """Create a thing; an identical repeat gives the one that is there (wire reference §10.5)."""
        wanted = {attribute: value for attribute, value in (attributes or {}).items() if value}
        standing = self._store.find(tx, place.account, name)
        if standing is not None:
            if standing.type_name == type_name and dict(standing.attributes) == wanted:
                return standing
            raise AlreadyExists(
                f"Thing {name} already exists in account with a different type or different attributes.",
                subject="thing",
                details={"resourceId": name, "resourceArn": place.iot("thing", name)},
            )
        if type_name is not None:
            self._types.require_usable(tx, place.account, type_name)
        self._check_attributes(wanted, type_name)
        thing = Thing(
            account=place.account,
            name=name,
            id=self._ids.uuid(),
            type_name=type_name,
            attributes=wanted,
            version=1,
            created_at=self._clock.now(),
        )
        self._store.insert(tx, thing)
        self._tell_indexers(tx, place.account, name)
        return thing

    def find(self, tx: Tx, account: AccountId, name: ThingName) -> Thing:
        """A thing by name: one indexed read."""
        found = self._store.find(tx, account, name)
        if found is None:
            raise NotFound(f"Thing {name} not found.", subject="thing")
        return found

    def name_of(self, tx: Tx, account: AccountId, name_or_id: str) -> ThingName:
        """A thing's name, said by name or by UUID; the name is asked first.

        Raises:
            NotFound: neither.
        """
        if self._store.find(tx, account, ThingName(name_or_id)) is not None:
            return ThingName(name_or_id)
        found = self._store.name_of(tx, account, name_or_id)
        if found is None:
            raise NotFound(f"Thing {name_or_id[:128]} not found.", subject="thing")
        return found

    def has_thing(self, tx: Tx, account: AccountId, thing: ThingName) -> bool:
        """Whether there is such a thing."""
        return self._store.find(tx, account, thing) is not None

    def things_among(self, tx: Tx, account: AccountId, names: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some names, at most 1,000, that are things."""
        return self._store.among(tx, account, names)

    def update(self, tx: Tx, account: AccountId, name: ThingName, change: ThingUpdate) -> Thing:
        """Change type and attributes; the version rises by 1."""
        thing = self.find(tx, account, name)
        _expect(thing, change.expected_version)
        if change.remove_type and change.type_name is not None:
            raise InvalidRequest("Give either thingTypeName or removeThingType, not both.", subject="thing-type")
        type_name = None if change.remove_type else change.type_name or thing.type_name
        if type_name is not None and type_name != thing.type_name:
            self._types.require_usable(tx, account, type_name)
        attributes = dict(thing.attributes)
        if change.attributes is not None:
            attributes = {**(attributes if change.merge else {}), **change.attributes}
            attributes = {attribute: value for attribute, value in attributes.items() if value}
        self._check_attributes(attributes, type_name)
        changed = replace(thing, type_name=type_name, attributes=attributes, version=thing.version + 1)
        self._store.update(tx, changed)
        self._tell_thing(tx, account, name)
        self._tell_indexers(tx, account, name)
        return changed

    def delete(self, tx: Tx, account: AccountId, name: ThingName, *, expected_version: int | None = None) -> None:
        """Delete a thing with its memberships; deleting one that isn't there succeeds (wire reference §10.5)."""
        thing = self._store.find(tx, account, name)
        if thing is None:
            return
        _expect(thing, expected_version)
        if self._store.principals(tx, account, name, limit=1):
            raise InvalidRequest(
                f"Cannot delete. Thing {name} is still attached to one or more principals. "
                "Detach them with DetachThingPrincipal first.",
                subject="thing",
            )
        self._groups.forget_thing(tx, account, name)
        self._store.delete(tx, account, name)

    def count(self, tx: Tx, account: AccountId) -> int:
        """How many things the account has."""
        return self._store.count(tx, account)

    def page(self, tx: Tx, account: AccountId, query: ThingQuery, *, after: str | None, limit: int) -> Sequence[Thing]:
        """Things by name, from just after ``after``."""
        return self._store.page(tx, account, query, after=after, limit=limit)

    # Targets of jobs ------------------------------------------------------------------------------------------------------

    def require_target(self, tx: Tx, place: Place, target_arn: str) -> None:
        """See that an ARN names a thing or a group that is there.

        Raises:
            InvalidRequest: another kind of ARN, or of another region or account. Subject ``target``.
            NotFound: no such thing or group.
        """
        kind, name = own_resource(place, target_arn, "target", ("thing", "thinggroup"))
        if kind == "thing":
            self.find(tx, place.account, ThingName(name))
        else:
            self._groups.find(tx, place.account, GroupName(name))

    def members(
        self, tx: Tx, account: AccountId, target_arn: str, *, after: ThingName | None, limit: int
    ) -> Sequence[ThingName]:
        """The things that a target means, by name, from just after ``after``, at most ``limit``.

        A thing's ARN means that thing; a group's the things in it and in the groups below it, each once.

        Raises:
            InvalidRequest: the ARN names neither. Subject ``target``.
            NotFound: there is no such thing or group.
        """
        kind, name = job_target(target_arn)
        if kind == "thinggroup":
            self._groups.find(tx, account, GroupName(name))
            return self._groups.members(tx, account, GroupName(name), nested=True, after=after, limit=limit)
        self.find(tx, account, ThingName(name))
        return [ThingName(name)] if limit > 0 and (after is None or name > after) else []

    def signing_rule_over(self, tx: Tx, account: AccountId, target_arn: str) -> GroupName | None:
        """A group with a signing rule that some thing of a target is, or would be, under."""
        kind, name = job_target(target_arn)
        if kind == "thinggroup":
            return self._groups.signing_rule_over_group(tx, account, GroupName(name))
        return self._groups.signing_rule_over_thing(tx, account, ThingName(name))

    def under_signing_rule(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> frozenset[ThingName]:
        """Those of some things, at most 1,000, that a group's signing rule covers."""
        return self._groups.under_signing_rule(tx, account, things)

    def is_member(self, tx: Tx, account: AccountId, target_arn: str, thing: ThingName) -> bool:
        """Whether a target means this thing; false for a target that is gone."""
        kind, name = job_target(target_arn)
        if kind == "thinggroup":
            return GroupName(name) in self._groups.all_groups_of(tx, account, thing)
        return name == thing and self.has_thing(tx, account, thing)

    # Certificates of things -----------------------------------------------------------------------------------------------

    def attach(
        self,
        tx: Tx,
        place: Place,
        name: ThingName,
        principal_arn: str,
        type: ThingPrincipalType = ThingPrincipalType.NON_EXCLUSIVE_THING,
    ) -> None:
        """Attach a certificate to a thing; again is fine. An exclusive attachment suffers no other one of its certificate.

        A thing that no valid certificate is attached to any more is provisioned again by this; beside a valid one it is
        renewed.
        """
        certificate = principal_certificate(place, principal_arn)
        self.find(tx, place.account, name)
        self._certificates.require_attachable(tx, place, certificate)
        others = [
            attached for attached in self._store.things_of(tx, place.account, certificate, limit=2) if attached.thing != name
        ]
        if others and (type is ThingPrincipalType.EXCLUSIVE_THING or others[0].type is ThingPrincipalType.EXCLUSIVE_THING):
            raise InvalidRequest(
                f"The certificate is attached to thing {others[0].thing} already, and an exclusive attachment allows no other.",
                subject="principal",
            )
        watcher = self._provisioning_watcher
        is_first = watcher is not None and self._has_no_valid_certificate(tx, place.account, name, but=certificate)
        self._store.attach(tx, place.account, ThingPrincipal(thing=name, certificate=certificate, type=type))
        self._access_changed.certificates(tx, place.account, [certificate])
        if watcher is not None and is_first:
            watcher.provisioned_again(tx, place.account, name)

    def _has_no_valid_certificate(self, tx: Tx, account: AccountId, name: ThingName, *, but: CertificateId) -> bool:
        """Whether ``but`` would be the only one; not where it is attached already."""
        attached = self._store.principals(tx, account, name, type=None, after=None, limit=PRINCIPALS_LOOKED_AT_MAX)
        if any(each.certificate == but for each in attached):
            return False
        found = (self._certificates.find_anywhere(tx, each.certificate) for each in attached)
        return not any(certificate is not None and certificate.status is CertificateStatus.ACTIVE for certificate in found)

    def detach(self, tx: Tx, place: Place, name: ThingName, principal_arn: str) -> None:
        """Detach a certificate from a thing; one that isn't attached is fine."""
        certificate = principal_certificate(place, principal_arn)
        self.find(tx, place.account, name)
        if self._store.detach(tx, place.account, name, certificate):
            self._access_changed.certificates(tx, place.account, [certificate])

    def principals(
        self,
        tx: Tx,
        account: AccountId,
        name: ThingName,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        """Certificates of a thing, by id."""
        self.find(tx, account, name)
        return self._store.principals(tx, account, name, type=type, after=after, limit=limit)

    def things_of_principal(
        self,
        tx: Tx,
        place: Place,
        principal_arn: str,
        *,
        type: ThingPrincipalType | None = None,
        after: str | None = None,
        limit: int,
    ) -> Sequence[ThingPrincipal]:
        """Things that a certificate is attached to, by name."""
        certificate = principal_certificate(place, principal_arn)
        self._certificates.find(tx, place, certificate)
        return self._store.things_of(tx, place.account, certificate, type=type, after=after, limit=limit)

    def _tell_indexers(self, tx: Tx, account: AccountId, name: ThingName) -> None:
        for indexer in self._indexers:
            indexer.thing_changed(tx, account, name)

    def _tell_thing(self, tx: Tx, account: AccountId, name: ThingName) -> None:
        tell_certificates_of_thing(tx, account, name, self._store, self._access_changed)

    def _check_attributes(self, attributes: Mapping[str, str], type_name: ThingTypeName | None) -> None:
        limits = self._limits
        most = limits.attributes_without_type_max if type_name is None else limits.attributes_with_type_max
        if len(attributes) > most:
            raise InvalidRequest(
                f"A thing {'without' if type_name is None else 'with'} a thing type has at most {most} attributes; "
                f"this would have {len(attributes)}.",
                subject="attributes",
            )


CERTIFICATES_OF_THING_MAX = 100
"""Beyond so many certificates of one thing, the whole account is judged again instead of each of them."""


def tell_certificates_of_thing(
    tx: Tx, account: AccountId, name: ThingName, store: ThingStore, access_changed: AccessChanged
) -> None:
    """Have the connections that may speak for a thing judged again after the commit."""
    attached = store.principals(tx, account, name, limit=CERTIFICATES_OF_THING_MAX + 1)
    if len(attached) > CERTIFICATES_OF_THING_MAX:
        access_changed.everything(tx, account)
    else:
        access_changed.certificates(tx, account, [CertificateId(principal.certificate) for principal in attached])


def _expect(thing: Thing, expected_version: int | None) -> None:
    if expected_version is not None and expected_version != thing.version:
        raise VersionConflict(
            f"The thing {thing.name} has version {thing.version}, not the expected {expected_version}. Read it and try again.",
            subject="thing",
        )
