"""What may be done with the Image repository."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.catalogue import check_custom
from overair.server.image_repository.model import (
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Changed,
    Current,
    StoredDocument,
    StoredTarget,
    TargetPlan,
    TargetStatus,
    moment_text,
)
from overair.server.image_repository.ports import InUse
from overair.server.image_repository.publication import Change
from overair.server.image_repository.standing import Standing, checksum_of, targets_body
from overair.server.image_repository.upkeep import Upkeep
from overair.server.image_repository.validation import check_delegations, refused_delegations
from overair.server.objects.model import ContentId
from overair.server.roots.findings import Findings
from overair.server.roots.lifetimes import LIFETIMES, PUSHED_EXPIRY_MAX_MS, alarm_days
from overair.server.roots.model import RoleExpiry
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Delegation, Repository, Role


class ImageRepositoryService(Upkeep):
    """The catalogue and the signed documents of the Image repository, of one account at a time."""

    def used_by(self, in_use: InUse) -> None:
        """Who knows which images vehicles need; told once, while the server is composed."""
        self.catalogue.in_use = in_use

    # Reading ----------------------------------------------------------------------------------------------------------

    def find_target(self, tx: Tx, account: AccountId, name: str) -> StoredTarget | None:
        """An image that a signed document lists: what devices may be told to install."""
        found = self._targets.find(tx, account, name)
        return found if found is not None and found.status is TargetStatus.LISTED else None

    def targets_for(self, tx: Tx, account: AccountId, hardware_id: str) -> Sequence[StoredTarget]:
        """The listed images for a kind of ECU, by name."""
        return self._targets.for_hardware(tx, account, hardware_id)

    def current(self, tx: Tx, account: AccountId) -> Current:
        """What is served now.

        Raises:
            NotFound: with subject ``repository``: the account has no Image repository.
        """
        standing = self._publisher.standing(tx, account)
        document = standing.targets_document()
        root = self._roots.current(tx, account, Repository.IMAGE)
        return Current(
            versions={Role.ROOT.value: root.version, **standing.versions()},
            targets=targets_body(document.document, Flavour.UPTANE),
            checksum=checksum_of(document.document),
        )

    def checksum(self, tx: Tx, account: AccountId) -> str:
        """SHA-256 of the current targets document in the Uptane flavour, as ``x-ats-role-checksum`` carries it."""
        document = self._documents.current(tx, account, TARGETS, Flavour.UPTANE)
        return "" if document is None else checksum_of(document.document)

    def document(self, tx: Tx, account: AccountId, role: str, flavour: Flavour, version: int | None = None) -> StoredDocument:
        """One signed document; ``version`` None: the newest.

        Raises:
            NotFound: with subject ``role``.
        """
        if version is None:
            found = self._documents.current(tx, account, role, flavour)
        else:
            found = self._documents.version(tx, account, role, flavour, version)
        if found is None:
            which = f"{role}.json" if version is None else f"version {version} of {role}.json"
            raise NotFound(f"The Image repository has no {which}.", subject="role")
        return found

    def standing(self, tx: Tx, account: AccountId) -> Standing:
        """The newest version of each document."""
        return self._publisher.standing(tx, account)

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        statuses: Collection[TargetStatus],
        name_contains: str = "",
        offset: int,
        limit: int,
    ) -> tuple[Sequence[StoredTarget], int]:
        """One page of the catalogue by name, and how many there are in all."""
        return self._targets.page(tx, account, statuses=statuses, name_contains=name_contains, offset=offset, limit=limit)

    def expiries(self, tx: Tx, account: AccountId) -> Sequence[RoleExpiry]:
        """Until when each document of this repository counts; the root's comes first."""
        found = [self._roots.expiry(tx, account, Repository.IMAGE)]
        targets_online = self._roots.is_online(tx, account, Repository.IMAGE, Role.TARGETS)
        online = {TARGETS: targets_online, SNAPSHOT: True, TIMESTAMP: True}
        standing = self._publisher.standing(tx, account)
        delegated = standing.delegations_in_force()
        for (role, flavour), each in sorted(standing.documents.items()):
            if flavour is not Flavour.UPTANE or (role not in online and role not in delegated):
                continue
            is_online = online.get(role, False)
            lifetime = LIFETIMES[Repository.IMAGE, Role(role)] if is_online else None
            alarm = alarm_days(each.expires, self._clock.now(), lifetime=lifetime)
            found.append(
                RoleExpiry(
                    repository=Repository.IMAGE,
                    role=role,
                    version=each.version,
                    expires=each.expires,
                    is_online=is_online,
                    alarm_days=alarm,
                )
            )
        return found

    def tuf_stands_still_since(self, tx: Tx, account: AccountId) -> int | None:
        """The targets version that TUF's clients are left with, where later ones were pushed in the Uptane flavour alone."""
        standing = self._publisher.standing(tx, account)
        uptane, tuf = standing.get(TARGETS), standing.get(SNAPSHOT, Flavour.TUF)
        ours = standing.get(SNAPSHOT)
        if uptane is None or ours is None or tuf is None or tuf.version == ours.version:
            return None
        last = standing.get(TARGETS, Flavour.TUF)
        return None if last is None else last.version

    # Adding and taking away --------------------------------------------------------------------------------------------

    def uploaded(self, tx: Tx, place: Place, name: str, *, sha256: str, length: int, content_id: ContentId) -> StoredTarget:
        """See ``catalogue.Catalogue.uploaded``: bytes that nobody has described yet."""
        return self.catalogue.uploaded(
            tx, place.account, name, sha256=sha256, length=length, content_id=content_id, now=self._clock.now()
        )

    def add_target(self, tx: Tx, place: Place, plan: TargetPlan) -> Changed:
        """List an image: signed and published at once, or pending where the targets keys are offline. The same plan again
        changes nothing.

        Raises:
            InvalidRequest: with subject ``target-name`` or ``target``.
            AlreadyExists: with subject ``target``: the name stands for other bytes.
        """
        account, now = place.account, self._clock.now()
        target = self.catalogue.planned(tx, account, plan, now=now)
        self.catalogue.put(tx, account, target)
        if target.status is TargetStatus.LISTED:
            return Changed(target=target)
        if not self.is_online(tx, account):
            return Changed(target=target, unsigned=self.unsigned(tx, account))
        published = self.publish_signed(tx, place, self.body(tx, account))
        return Changed(target=self.catalogue.find(tx, account, plan.name), published=published)

    def delete_target(self, tx: Tx, place: Place, name: str, *, force: bool = False) -> Changed:
        """Take an image away, with its bytes. With offline keys, what to sign comes back instead; images that no signed
        document lists go at once.

        Raises:
            NotFound: with subject ``target``.
            Conflict: with subject ``target-in-use``, or ``target-delegated`` where a delegation lists it.
        """
        account, now = place.account, self._clock.now()
        target = self.catalogue.find(tx, account, name)
        if target.status is not TargetStatus.LISTED:
            self.catalogue.drop(tx, account, target, now=now)
            return Changed(target=target)
        self._check_own(target)
        if not force:
            self.catalogue.check_not_in_use(tx, account, [name])
        body = self.body(tx, account)
        without = replace(body, targets={each: file for each, file in body.targets.items() if each != name})
        return self.change(tx, place, target, without)

    def edit_target(self, tx: Tx, place: Place, name: str, members: Mapping[str, Any], *, own: bool = False) -> Changed:
        """Change what is said of an image: members of ``custom``, merged into what is there; None takes one away.

        Args:
            own: Only members of the operator's own may be changed.

        Raises:
            NotFound: with subject ``target``.
            InvalidRequest: with subject ``target``.
            Conflict: with subject ``target-delegated``.
        """
        account, now = place.account, self._clock.now()
        target = self.catalogue.find(tx, account, name)
        if target.status is TargetStatus.UPLOADED:
            raise Conflict(f"Nobody has said yet what {name} is: list it first.", subject="target-pending")
        merged = _merged(target.custom, members)
        merged["updatedAt"] = moment_text(now)
        check_custom(merged, extra=members if own else ())
        uri = merged.get("uri")
        edited = replace(target, custom=merged, uri=uri if isinstance(uri, str) else None, updated_at=now)
        if target.status is TargetStatus.PENDING:
            self.catalogue.put(tx, account, edited)
            return Changed(target=edited, unsigned=self.unsigned(tx, account))
        self._check_own(target)
        body = self.body(tx, account)
        return self.change(tx, place, target, replace(body, targets={**body.targets, name: edited.file}))

    def set_delegations(
        self,
        tx: Tx,
        place: Place,
        *,
        keys: Mapping[str, PublicKey] | None = None,
        delegations: Sequence[Delegation] | None = None,
        force: bool = False,
    ) -> Changed:
        """Put the keys, or the delegations, that targets trust in place of those that are there.

        Raises:
            InvalidRequest: with subject ``delegations`` and every fault.
            Conflict: with subject ``target-in-use``: vehicles need what a delegation lists that would go.
        """
        body = self.body(tx, place.account)
        changed = replace(
            body,
            delegation_keys=body.delegation_keys if keys is None else keys,
            delegations=body.delegations if delegations is None else tuple(delegations),
            has_delegations=True,
        )
        findings = Findings()
        check_delegations(changed, body, "", findings)
        if findings.errors:
            raise refused_delegations(findings)
        if not force:
            lost = self._publisher.standing(tx, place.account).lost_with(changed)
            self.catalogue.check_not_in_use(tx, place.account, lost)
        return self.change(tx, place, None, changed)

    def expire_not_before(self, tx: Tx, place: Place, moment: Instant) -> None:
        """What the server signs from now on counts until then, at least.

        Raises:
            InvalidRequest: that is further away than two years.
        """
        if moment - self._clock.now() > PUSHED_EXPIRY_MAX_MS:
            raise InvalidRequest("No document counts for longer than two years.", details={"field": "expireAt"})
        self._documents.set_not_before(tx, place.account, moment)
        standing = self._publisher.standing(tx, place.account)
        short = {role for (role, _), each in standing.documents.items() if each.expires < moment}
        if TARGETS in short and self.is_online(tx, place.account):
            self.publish_signed(tx, place, self.body(tx, place.account))
        elif short & {SNAPSHOT, TIMESTAMP}:
            self._publisher.publish(tx, place, Change())

    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _check_own(target: StoredTarget) -> None:
        if target.role != TARGETS:
            raise Conflict(
                f"The delegation {target.role} lists {target.name}: push its document, signed by its keys, with the change.",
                subject="target-delegated",
            )


def _merged(custom: Mapping[str, Any], members: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(custom)
    for name, value in members.items():
        standing = merged.get(name)
        if value is None and name != "uri":
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(standing, Mapping):
            merged[name] = _merged(standing, value)
        else:
            merged[name] = value
    return merged
