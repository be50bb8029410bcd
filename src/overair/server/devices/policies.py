"""Device policies: named documents in versions, attached to certificates and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import AccountId, CertificateId, GroupName, IdSource, PolicyName, ThingName
from overair.basics.work import Tx
from overair.server.certificates.service import CertificatesService
from overair.server.devices.model import (
    GENEROUS,
    POLICY_VERSIONS_MAX,
    DevicePolicyRecord,
    PolicyTarget,
    PolicyVersion,
    RegistryLimits,
    TargetKind,
    policy_target,
)
from overair.server.devices.ports import AccessChanged, GroupStore, PolicyStore, ThingStore
from overair.server.devices.tags import TagsService
from overair.server.policy_language.document import Kind, parse_policy

KIND: Final = "policy"
TARGETS_TOLD_MAX: Final = 100
"""Beyond so many certificates with a changed policy, the whole account is judged again instead of each of them."""
THINGS_LOOKED_AT_MAX: Final = 1_000


class PoliciesService:
    """Keeps device policies and what they are attached to. A change is in force once it is committed.

    Raises, everywhere: ``NotFound`` (subjects ``policy``, ``policy-version``, ``certificate``, ``thing-group``),
    ``AlreadyExists(subject="policy")``, ``Conflict(subject="delete")``, ``LimitExceeded`` (subjects ``policy-versions``,
    ``policy-attachments``), ``InvalidRequest`` (subjects ``policy`` for a malformed document, ``target``).
    """

    def __init__(
        self,
        *,
        store: PolicyStore,
        groups: GroupStore,
        things: ThingStore,
        certificates: CertificatesService,
        tags: TagsService,
        access_changed: AccessChanged,
        clock: Clock,
        ids: IdSource,
        limits: RegistryLimits = GENEROUS,
    ) -> None:
        self._store = store
        self._groups = groups
        self._things = things
        self._certificates = certificates
        self._tags = tags
        self._access_changed = access_changed
        self._clock = clock
        self._ids = ids
        self._limits = limits
        tags.accept(KIND, lambda tx, account, name: store.find(tx, account, PolicyName(name)) is not None)

    # Policies and versions ------------------------------------------------------------------------------------------------

    def create(
        self, tx: Tx, place: Place, name: PolicyName, document: str, tags: Mapping[str, str] | None = None
    ) -> DevicePolicyRecord:
        """Create a policy with version 1 as its default."""
        parse_policy(document, Kind.DEVICE)
        if self._store.find(tx, place.account, name) is not None:
            raise AlreadyExists(
                f"Policy cannot be created - name already exists (name={name}).",
                subject="policy",
                details={"resourceId": name, "resourceArn": place.iot(KIND, name)},
            )
        now = self._clock.now()
        policy = DevicePolicyRecord(
            account=place.account,
            name=name,
            default_version=1,
            last_version=1,
            document=document,
            created_at=now,
            modified_at=now,
            generation_id=self._ids.uuid(),
        )
        self._store.insert(tx, policy)
        self._tags.set_new(tx, place, place.iot(KIND, name), tags)
        return policy

    def find(self, tx: Tx, account: AccountId, name: PolicyName) -> DevicePolicyRecord:
        """A policy with its operative document."""
        found = self._store.find(tx, account, name)
        if found is None:
            raise NotFound(f"Policy not found (name={name}).", subject="policy")
        return found

    def delete(self, tx: Tx, place: Place, name: PolicyName) -> None:
        """Delete a policy that is attached to nothing and has no version beside its default."""
        policy = self.find(tx, place.account, name)
        if self._store.targets(tx, place.account, name, limit=1):
            raise Conflict(
                f"The policy cannot be deleted as the policy is attached to one or more principals (name={name}). "
                "Detach it first.",
                subject="delete",
            )
        if len(self._store.versions(tx, place.account, name)) > 1:
            raise Conflict(
                f"Cannot delete the policy because it has one or more policy versions attached to it (name={name}). "
                f"Delete all but version {policy.default_version} first.",
                subject="delete",
            )
        self._store.delete(tx, place.account, name)
        self._tags.forget(tx, place, place.iot(KIND, name))

    def page(
        self, tx: Tx, account: AccountId, *, after: tuple[int, str] | None, limit: int, ascending: bool
    ) -> Sequence[tuple[Instant, PolicyName]]:
        """Policies by creation time, newest first unless ``ascending``."""
        return self._store.page(tx, account, after=after, limit=limit, ascending=ascending)

    def create_version(self, tx: Tx, account: AccountId, name: PolicyName, document: str, *, as_default: bool) -> PolicyVersion:
        """Add a version; numbers rise and are never given twice. A policy has at most five."""
        parse_policy(document, Kind.DEVICE)
        policy = self.find(tx, account, name)
        if len(self._store.versions(tx, account, name)) >= POLICY_VERSIONS_MAX:
            raise LimitExceeded(
                f"The policy already has {POLICY_VERSIONS_MAX} versions (name={name}). Delete one before adding another.",
                subject="policy-versions",
            )
        now = self._clock.now()
        version = PolicyVersion(
            policy=name, version=policy.last_version + 1, document=document, created_at=now, is_default=as_default
        )
        self._store.insert_version(tx, account, version)
        self._store.update(
            tx,
            replace(
                policy,
                last_version=version.version,
                default_version=version.version if as_default else policy.default_version,
                modified_at=now,
            ),
        )
        if as_default:
            self._tell_targets(tx, account, name)
        return version

    def version(self, tx: Tx, account: AccountId, name: PolicyName, version: int) -> PolicyVersion:
        """One version."""
        self.find(tx, account, name)
        found = self._store.find_version(tx, account, name, version)
        if found is None:
            raise NotFound(f"Policy version not found (name={name}, version={version}).", subject="policy-version")
        return found

    def versions(self, tx: Tx, account: AccountId, name: PolicyName) -> Sequence[PolicyVersion]:
        """All versions, newest first."""
        self.find(tx, account, name)
        return self._store.versions(tx, account, name)

    def delete_version(self, tx: Tx, account: AccountId, name: PolicyName, version: int) -> None:
        """Delete a version that isn't the default."""
        if self.version(tx, account, name, version).is_default:
            raise Conflict(
                f"Cannot delete the default version of a policy (name={name}, version={version}). "
                "Make another one the default first, or delete the policy.",
                subject="delete",
            )
        self._store.delete_version(tx, account, name, version)

    def set_default(self, tx: Tx, account: AccountId, name: PolicyName, version: int) -> None:
        """Put a version in force, for live connections too."""
        self.version(tx, account, name, version)
        policy = self.find(tx, account, name)
        if policy.default_version != version:
            self._store.update(tx, replace(policy, default_version=version, modified_at=self._clock.now()))
            self._tell_targets(tx, account, name)

    # Attachments ----------------------------------------------------------------------------------------------------------

    def attach(self, tx: Tx, place: Place, name: PolicyName, target_arn: str) -> None:
        """Attach a policy to a certificate or a group; again is fine."""
        target = self._target(tx, place, target_arn)
        if target.kind is TargetKind.CERTIFICATE:
            self._certificates.require_attachable(tx, place, CertificateId(target.name))
        self.find(tx, place.account, name)
        most = self._limits.policies_of_target_max
        standing = self._store.attached(tx, place.account, [target], limit=most + 1)
        if name in standing:
            return
        if len(standing) >= most:
            raise LimitExceeded(
                f"At most {most} policies can be attached to one target ({target_arn}).", subject="policy-attachments"
            )
        self._store.attach(tx, place.account, name, target)
        self._tell(tx, place.account, target)

    def detach(self, tx: Tx, place: Place, name: PolicyName, target_arn: str) -> None:
        """Detach a policy; one that isn't attached is fine."""
        target = policy_target(place, target_arn)
        self.find(tx, place.account, name)
        if self._store.detach(tx, place.account, name, target):
            self._tell(tx, place.account, target)

    def attached(
        self, tx: Tx, place: Place, target_arn: str, *, recursive: bool, after: str | None = None, limit: int
    ) -> Sequence[PolicyName]:
        """Policies of a target by name; ``recursive``: of the groups it lies in, too."""
        target = self._target(tx, place, target_arn)
        targets = [target]
        if recursive:
            targets += [
                PolicyTarget(kind=TargetKind.GROUP, name=group) for group in self._groups_around(tx, place.account, target)
            ]
        return self._store.attached(tx, place.account, targets, after=after, limit=limit)

    def targets(
        self, tx: Tx, account: AccountId, name: PolicyName, *, after: tuple[str, str] | None = None, limit: int
    ) -> Sequence[PolicyTarget]:
        """What a policy is attached to."""
        self.find(tx, account, name)
        return self._store.targets(tx, account, name, after=after, limit=limit)

    def effective(
        self, tx: Tx, place: Place, principal_arn: str | None, thing: ThingName | None
    ) -> Sequence[DevicePolicyRecord]:
        """The policies in force for a certificate or group, a thing's groups, or both (GetEffectivePolicies)."""
        if principal_arn is None and thing is None:
            raise InvalidRequest("Give a principal, a thingName, or both.", subject="principal")
        targets: list[PolicyTarget] = []
        if principal_arn is not None:
            target = self._target(tx, place, principal_arn)
            targets.append(target)
            if target.kind is TargetKind.GROUP:
                targets += _as_targets(self._groups.ancestors(tx, place.account, GroupName(target.name)))
        if thing is not None:
            if self._things.find(tx, place.account, thing) is None:
                raise NotFound(f"Thing {thing} not found.", subject="thing")
            targets += _as_targets(sorted(self._groups.all_groups(tx, place.account, thing)))
        names = self._store.attached(tx, place.account, targets, limit=THINGS_LOOKED_AT_MAX)
        return [self.find(tx, place.account, name) for name in names]

    def _target(self, tx: Tx, place: Place, arn: str) -> PolicyTarget:
        """A target that is there."""
        target = policy_target(place, arn)
        if target.kind is TargetKind.CERTIFICATE:
            self._certificates.find(tx, place, CertificateId(target.name))
        elif self._groups.find(tx, place.account, GroupName(target.name)) is None:
            raise NotFound(f"Thing group {target.name} not found.", subject="thing-group")
        return target

    def _groups_around(self, tx: Tx, account: AccountId, target: PolicyTarget) -> Sequence[GroupName]:
        if target.kind is TargetKind.GROUP:
            return self._groups.ancestors(tx, account, GroupName(target.name))
        things = self._things.things_of(tx, account, CertificateId(target.name), limit=THINGS_LOOKED_AT_MAX)
        return sorted({group for attached in things for group in self._groups.all_groups(tx, account, attached.thing)})

    def _tell(self, tx: Tx, account: AccountId, target: PolicyTarget) -> None:
        if target.kind is TargetKind.CERTIFICATE:
            self._access_changed.certificates(tx, account, [CertificateId(target.name)])
        elif self._groups.members(tx, account, GroupName(target.name), nested=True, after=None, limit=1):
            self._access_changed.everything(tx, account)

    def _tell_targets(self, tx: Tx, account: AccountId, name: PolicyName) -> None:
        targets = self._store.targets(tx, account, name, limit=TARGETS_TOLD_MAX + 1)
        if len(targets) > TARGETS_TOLD_MAX or any(target.kind is TargetKind.GROUP for target in targets):
            self._access_changed.everything(tx, account)
        else:
            self._access_changed.certificates(tx, account, [CertificateId(target.name) for target in targets])


class CertificateLinks:
    """What hangs on a certificate, as the registry of certificates asks (``certificates.service.CertificateUses``)."""

    def __init__(self, *, policies: PolicyStore, things: ThingStore, access_changed: AccessChanged) -> None:
        self._policies = policies
        self._things = things
        self._access_changed = access_changed

    def has_things(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        return bool(self._things.things_of(tx, account, certificate, limit=1))

    def has_policies(self, tx: Tx, account: AccountId, certificate: CertificateId) -> bool:
        return bool(self._policies.attached(tx, account, [_certificate(certificate)], limit=1))

    def detach_policies(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        self._policies.detach_all(tx, account, _certificate(certificate))

    def changed(self, tx: Tx, account: AccountId, certificate: CertificateId) -> None:
        self._access_changed.certificates(tx, account, [certificate])


def _certificate(certificate: CertificateId) -> PolicyTarget:
    return PolicyTarget(kind=TargetKind.CERTIFICATE, name=certificate)


def _as_targets(groups: Sequence[GroupName]) -> list[PolicyTarget]:
    return [PolicyTarget(kind=TargetKind.GROUP, name=group) for group in groups]
