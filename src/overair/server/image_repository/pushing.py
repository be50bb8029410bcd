"""Signed documents that come from outside: root, targets, delegations, one by one or all at once.

Everything that came is examined before anything is changed, and every broken rule is told in one answer. A dry run does all of
it, publication and the client's verification included, and is undone as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest, OverairError, PreconditionFailed
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.model import TARGETS, Published, StoredDocument
from overair.server.image_repository.ports import TargetStore
from overair.server.image_repository.publication import Change, Publisher
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.standing import Standing, checksum_of, targets_body
from overair.server.image_repository.validation import (
    ExaminedTargets,
    Known,
    Signed,
    check_in_use,
    examine_late_targets,
    examine_targets,
    names_in,
    refused_targets,
)
from overair.server.roots.findings import errors_json
from overair.server.roots.model import Finding, StoredRoot
from overair.server.roots.service import Rehearsed, RootsService
from overair.server.roots.validation import Examined, refused_root
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation, Repository, Role, Root, Targets

Documents = Mapping[Flavour, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What came, each in one flavour or in both."""

    root: Documents = field(default_factory=dict)
    targets: Documents = field(default_factory=dict)
    delegations: Mapping[str, Documents] = field(default_factory=dict)
    checksum: str | None = None
    """Of the targets document that the pusher started from."""
    force: bool = False
    """Images go though vehicles need them."""
    after_restore: bool = False
    """The server was restored from a backup and is behind: versions may jump."""
    cosign: bool = False
    """Add the signatures of those root keys that the server holds."""
    keep_keys: bool = False
    """Private keys that the new root doesn't name wait for their DELETE (``RootsService.publish``)."""
    dry_run: bool = False


@dataclass(slots=True)
class _Examination:
    root: Examined | None = None
    targets: ExaminedTargets | None = None
    delegations: dict[str, ExaminedTargets] = field(default_factory=dict)

    def parts(self) -> list[tuple[str, Sequence[Finding], Sequence[Finding]]]:
        found: list[tuple[str, Sequence[Finding], Sequence[Finding]]] = []
        if self.root is not None:
            found.append((Role.ROOT.value, self.root.findings.errors, self.root.findings.warnings))
        if self.targets is not None:
            found.append((TARGETS, self.targets.findings.errors, self.targets.findings.warnings))
        found += [(name, each.findings.errors, each.findings.warnings) for name, each in self.delegations.items()]
        return found

    def refusal(self) -> OverairError | None:
        """Of one document in the words for its kind; of several, each member's path begins with its document."""
        parts = self.parts()
        if not any(errors for _, errors, _ in parts):
            return None
        if len(parts) == 1:
            if self.root is not None:
                return refused_root(self.root)
            name, only = next(iter(self.delegations.items()), (TARGETS, self.targets))
            assert only is not None
            return refused_targets(only, name)
        errors = [replace(each, field=f"{name}.{each.field}") for name, errors, _ in parts for each in errors]
        return InvalidRequest(
            f"The publication was refused; nothing was changed. {errors[0].message}",
            subject="publication",
            details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
        )

    def warnings(self) -> list[Finding]:
        parts = self.parts()
        if len(parts) == 1:
            return list(parts[0][2])
        return [replace(each, field=f"{name}.{each.field}") for name, _, warnings in parts for each in warnings]


class Pushes:
    """Takes what was signed elsewhere."""

    def __init__(
        self,
        *,
        roots: RootsService,
        images: ImageRepositoryService,
        publisher: Publisher,
        targets: TargetStore,
        clock: Clock,
    ) -> None:
        self._roots = roots
        self._images = images
        self._publisher = publisher
        self._targets = targets
        self._clock = clock

    def push(self, tx: Tx, place: Place, push: Push) -> Published:
        """Examine, publish, and bring the catalogue in step.

        Raises:
            PreconditionFailed: with subject ``role-checksum-missing`` or ``role-checksum``: targets have changed meanwhile.
            VersionConflict: with subject ``version-bump``: the version alone is wrong.
            InvalidRequest: with subject ``root-role``, ``offline-targets``, ``payload-signature``, ``delegated-target``,
                ``delegations-not-defined``, ``publication``, ``client-refuses``: ``details["errors"]`` has every broken rule.
            Rehearsed: at the end of a dry run; ``outcome`` is what would have been published.
        """
        if not (push.root or push.targets or push.delegations):
            raise InvalidRequest("Nothing was pushed: neither a root nor targets nor a delegation.", subject="publication")
        account = place.account
        standing = self._publisher.standing(tx, account)
        if push.targets:
            self._check_checksum(standing, push.checksum)
        if set(push.root) == {Flavour.TUF} or set(push.targets) == {Flavour.TUF}:
            published = self._push_late(tx, place, push, standing)
        else:
            published = self._push(tx, place, push, standing)
        if push.dry_run:
            raise Rehearsed(published)
        return published

    # Both flavours, or Uptane's -----------------------------------------------------------------------------------------

    def _push(self, tx: Tx, place: Place, push: Push, standing: Standing) -> Published:
        account, now = place.account, self._roots.signing_instant(tx, place.account, Repository.IMAGE)
        examination = _Examination()
        root = self._roots.accepted(tx, account, Repository.IMAGE).root
        if push.root:
            examination.root = self._roots.examine(tx, account, Repository.IMAGE, push.root, cosign=push.cosign)
            root = examination.root.readable or root
        body = standing.targets()
        if push.targets:
            examination.targets = self._examine_targets(tx, account, push, root, standing, now)
            body = examination.targets.readable or body
        self._examine_delegations(tx, account, push, standing, body, now, examination)
        refusal = examination.refusal()
        if refusal is not None:
            raise refusal
        after, stored = self._publish(tx, place, examination, now, keep_keys=push.keep_keys)
        return Published(
            versions={Role.ROOT.value: stored.version, **after.versions()},
            checksum=checksum_of(after.targets_document().document),
            warnings=tuple(examination.warnings()),
            waiting_root=None if stored.is_published else stored.version,
        )

    def _publish(
        self, tx: Tx, place: Place, examination: _Examination, now: Instant, *, keep_keys: bool
    ) -> tuple[Standing, StoredRoot]:
        account = place.account
        pushed: list[StoredDocument] = []
        if examination.targets is not None:
            pushed += _stored(TARGETS, examination.targets, now)
        for name, examined in examination.delegations.items():
            pushed += _stored(name, examined, now)
        if examination.root is not None and examination.targets is None:
            stored = self._roots.accept(tx, place, Repository.IMAGE, examination.root, keep_keys=keep_keys)
        else:
            if examination.root is not None:
                self._roots.store_examined(tx, place, Repository.IMAGE, examination.root)
            stored = self._roots.accepted(tx, account, Repository.IMAGE)
        if examination.targets is not None and not stored.is_published:
            # These targets fit the root that waited for them. TUF's flavour of it follows where its targets do.
            stored = self._roots.publish(tx, place, Repository.IMAGE, [Flavour.UPTANE], keep_keys=keep_keys)
        if pushed:
            after = self._publisher.publish(tx, place, Change(pushed=pushed))
            self._images.reconcile(tx, account, after)
        return self._publisher.standing(tx, account), stored

    def _examine_targets(
        self, tx: Tx, account: AccountId, push: Push, root: Root, standing: Standing, now: Instant
    ) -> ExaminedTargets:
        signed = Signed(keys=root.keys, role_keys=root.role_keys(Role.TARGETS))
        current = standing.get(TARGETS)
        known = Known(
            version=0 if current is None else current.version,
            targets=standing.targets(),
            catalogue=self._targets.find_all(tx, account, names_in(push.targets)),
            may_jump=push.after_restore,
            now=now,
        )
        examined = examine_targets(push.targets, signed, known)
        if examined.readable is not None and not push.force:
            # Neither targets lists it any more, nor a delegation that they still make.
            kept = {name for documents in push.delegations.values() for name in names_in(documents)}
            self._check_in_use(tx, account, standing.lost_with(examined.readable) - kept, examined)
        return examined

    def _check_in_use(self, tx: Tx, account: AccountId, going: Collection[str], examined: ExaminedTargets) -> None:
        if going:
            check_in_use(self._images.catalogue.in_use.targets_in_use(tx, account, going), examined)

    def _examine_delegations(
        self,
        tx: Tx,
        account: AccountId,
        push: Push,
        standing: Standing,
        body: Targets | None,
        now: Instant,
        examination: _Examination,
    ) -> None:
        """Each document by the role that delegates to it, be it one that came along."""
        bodies: dict[str, Targets] = {}
        waiting = dict(push.delegations)
        while waiting:
            found = [
                (name, delegator, delegation)
                for name in waiting
                if (made := _delegation(name, body, bodies, standing)) is not None
                for delegator, delegation in [made]
            ]
            if not found:
                missing = sorted(waiting)[0]
                raise InvalidRequest(
                    f"No targets document delegates anything to {missing[:64]}. Push targets that do first, or both together.",
                    subject="delegations-not-defined",
                    details={"field": f"delegations.{missing[:64]}"},
                )
            for name, delegator, delegation in found:
                documents = waiting.pop(name)
                examined = self._examine_delegation(tx, account, push, name, documents, delegator, delegation, standing, now)
                examination.delegations[name] = examined
                if examined.readable is not None:
                    bodies[name] = examined.readable

    def _examine_delegation(
        self,
        tx: Tx,
        account: AccountId,
        push: Push,
        name: str,
        documents: Documents,
        delegator: Targets,
        delegation: Delegation,
        standing: Standing,
        now: Instant,
    ) -> ExaminedTargets:
        current = standing.get(name)
        before = standing.body(name)
        signed = Signed(keys=delegator.delegation_keys, role_keys=delegation.keys, patterns=delegation.paths)
        known = Known(
            version=0 if current is None else current.version,
            targets=before,
            catalogue=self._targets.find_all(tx, account, names_in(documents)),
            may_jump=push.after_restore,
            now=now,
        )
        examined = examine_targets(documents, signed, known, role=name)
        if before is not None and examined.readable is not None and not push.force:
            elsewhere = {each for each, (role, _) in standing.listing().items() if role != name}
            going = before.targets.keys() - examined.readable.targets.keys() - elsewhere
            self._check_in_use(tx, account, going, examined)
        return examined

    # TUF's flavour alone --------------------------------------------------------------------------------------------------

    def _push_late(self, tx: Tx, place: Place, push: Push, standing: Standing) -> Published:
        """The TUF flavour of what is there in Uptane's already."""
        account = place.account
        if set(push.root) - {Flavour.TUF} or set(push.targets) - {Flavour.TUF} or push.delegations:
            raise InvalidRequest(
                "The TUF flavour alone is pushed for what stands there in the Uptane flavour: root, targets or both.",
                subject="publication",
            )
        warnings: list[Finding] = []
        if push.root:
            warnings += self._roots.push(tx, place, Repository.IMAGE, push.root).warnings
        if push.targets:
            current = standing.targets_document()
            root = self._roots.accepted(tx, account, Repository.IMAGE).root
            examined = examine_late_targets(
                push.targets[Flavour.TUF],
                Signed(keys=root.keys, role_keys=root.role_keys(Role.TARGETS)),
                targets_body(current.document, Flavour.UPTANE),
            )
            if examined.findings.errors:
                raise refused_targets(examined)
            now = self._roots.signing_instant(tx, account, Repository.IMAGE)
            late = _stored(TARGETS, examined, now)
            last = standing.get(TARGETS, Flavour.TUF)
            if last is None or last.version < current.version:
                self._publisher.publish(tx, place, Change(pushed=late))
            warnings += examined.findings.warnings
        after = self._publisher.standing(tx, account)
        return replace(after.published(), warnings=tuple(warnings))

    # ------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _check_checksum(standing: Standing, given: str | None) -> None:
        current = standing.get(TARGETS)
        if current is None:
            return
        expected = checksum_of(current.document)
        if given is None:
            raise PreconditionFailed(
                "A push of targets names the checksum of the document that it started from, in x-ats-role-checksum: otherwise "
                "it could undo somebody else's. GET targets.json answers it.",
                subject="role-checksum-missing",
                details={"field": "x-ats-role-checksum"},
            )
        if given.strip().lower() != expected:
            raise PreconditionFailed(
                f"Targets have changed since they were pulled: they are at version {current.version} now. Pull them, make your "
                "change again and push.",
                subject="role-checksum",
                details={"field": "x-ats-role-checksum", "version": current.version, "checksum": expected},
            )


def _stored(role: str, examined: ExaminedTargets, now: Instant) -> list[StoredDocument]:
    assert examined.targets is not None
    return [
        StoredDocument(
            role=role,
            flavour=flavour,
            version=examined.targets.version,
            document=document,
            expires=examined.targets.expires,
            signed_at=now,
            body=examined.targets,
        )
        for flavour, document in examined.documents.items()
    ]


def _delegation(
    name: str, body: Targets | None, bodies: Mapping[str, Targets], standing: Standing
) -> tuple[Targets, Delegation] | None:
    """Who delegates to ``name``, among what came and what stands."""
    for delegator in [*([] if body is None else [body]), *bodies.values()]:
        for delegation in delegator.delegations:
            if delegation.name == name:
                return delegator, delegation
    return None if body is None else next((made for made in standing.delegators(body) if made[1].name == name), None)
