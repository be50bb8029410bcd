"""Taking over the repositories of another server: both root chains, what the Image repository listed, and the roots that hand
them over, in one unit of work. Before it an account is what it was; after it, devices of the other server follow to this one.

Nothing is half published: as long as the old root keys haven't signed the next roots, all of it can be rehearsed and none of
it stays. Uptane reference §9.4; docs/migration.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.imported_documents import follow, signed_targets
from overair.server.image_repository.model import (
    KEPT_VERSIONS,
    TARGETS,
    TargetFormat,
    TargetStatus,
)
from overair.server.image_repository.ports import DocumentStore, TargetStore
from overair.server.image_repository.pushing import Documents, Push, Pushes
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.image_repository.standing import Standing, checksum_of, meets_root
from overair.server.image_repository.validation import FINDINGS_MAX, Known, Signed, examine_targets, names_in
from overair.server.roots.findings import Findings, errors_json
from overair.server.roots.importing import ChainImports, ChainStanding, ImportedChain, examine_chain
from overair.server.roots.model import Finding
from overair.server.roots.service import Rehearsed, RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Root, TargetFile

_TOLERATED: Final = frozenset({"key_id_mismatch", "not_printable_ascii", "target_outside_of_delegation"})
"""What we refuse of new documents, and what clients put up with in those that are there."""
_ASKED_ELSEWHERE: Final = frozenset({"binary_missing", "tuf_flavour_missing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryImport:
    """What comes over."""

    image: ImportedChain
    director: ImportedChain
    documents: Mapping[str, Documents]
    """Of the Image repository, as the other server served them last: ``targets``, ``snapshot``, ``timestamp``, delegations."""
    next_roots: Mapping[Repository, Documents] = field(default_factory=dict)
    """The roots that hand over, signed by the old root keys; the server adds signatures of its own keys."""
    next_targets: Documents = field(default_factory=dict)
    """Targets signed anew by keys that stay elsewhere. Without, and with those keys elsewhere, the old ones go on."""
    may_lack_images: bool = False
    """Targets without bytes or an address come over all the same."""
    dry_run: bool = False

    @property
    def chains(self) -> tuple[ImportedChain, ImportedChain]:
        return self.image, self.director


class ImportState(StrEnum):
    NEEDS_ROOTS = "needs-roots"
    """All is well but for the roots that hand over: somebody must sign them."""
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What it came to."""

    state: ImportState
    was_there: bool = False
    """An earlier import has done it."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Of the Image repository, by role, root and delegations included."""
    director_root: int = 0
    checksum: str = ""
    missing: Sequence[str] = ()
    """Targets without bytes or an address."""
    warnings: Sequence[Finding] = ()


class RepositoryImports:
    """Of one account at a time."""

    def __init__(
        self,
        *,
        roots: RootsService,
        chains: ChainImports,
        images: ImageRepositoryService,
        pushes: Pushes,
        documents: DocumentStore,
        targets: TargetStore,
        clock: Clock,
    ) -> None:
        self._roots = roots
        self._chains = chains
        self._images = images
        self._pushes = pushes
        self._documents = documents
        self._targets = targets
        self._clock = clock

    def take_over(self, tx: Tx, place: Place, asked: RepositoryImport) -> Imported:
        """Examine everything, then put it in the place of what the account began with. The same again changes nothing.

        Raises:
            Conflict: with subject ``import``: the account has a life of its own already.
            InvalidRequest: with subject ``import`` and every broken rule in ``details["errors"]``.
            Rehearsed: at the end of a dry run; ``outcome`` is an ``Imported``.
        """
        account = place.account
        standings = {self._chains.standing(tx, account, chain) for chain in asked.chains}
        if standings == {ChainStanding.TAKEN_OVER}:
            return self._told(tx, account, was_there=True)
        self._check_unused(tx, account, standings)
        findings = Findings()
        newest = {chain.repository: examine_chain(chain, findings) for chain in asked.chains}
        standing = self._examine_documents(tx, account, asked, newest[Repository.IMAGE], findings)
        missing = self._missing_images(tx, account, asked, standing, findings)
        if None not in newest.values():
            self._adopt(tx, place, asked, standing)
            self._examine_handover(tx, account, asked, standing, findings)
        if findings.errors:
            raise refused_import(findings)
        if not asked.next_roots:
            raise Rehearsed(Imported(state=ImportState.NEEDS_ROOTS, missing=missing, warnings=tuple(findings.warnings)))
        self._publish(tx, place, asked, standing)
        imported = replace(self._told(tx, account), missing=missing, warnings=tuple(findings.warnings))
        if asked.dry_run:
            raise Rehearsed(imported)
        return imported

    # Examining ------------------------------------------------------------------------------------------------------------

    def _check_unused(self, tx: Tx, account: AccountId, standings: set[ChainStanding]) -> None:
        if ChainStanding.OCCUPIED in standings or ChainStanding.TAKEN_OVER in standings:
            raise Conflict(
                "Devices may follow the root chains that this account has, or they have gone on, so others can't take their "
                "place. Take the other server over in a new account.",
                subject="import",
            )
        counts = {status: self._targets.count(tx, account, status) for status in (TargetStatus.LISTED, TargetStatus.PENDING)}
        if any(counts.values()):
            raise Conflict(
                f"This account's Image repository has {sum(counts.values())} images of its own, which would be lost. Take the "
                "other server over in a new account, or delete them first.",
                subject="import",
            )

    def _examine_documents(
        self, tx: Tx, account: AccountId, asked: RepositoryImport, root: Root | None, findings: Findings
    ) -> Standing:
        """What the old Image repository says, followed as a client follows it, then asked by our own rules."""
        if root is None:
            return Standing({})
        standing = Standing({})
        for flavour in Flavour:
            if flavour is Flavour.TUF and not any(Flavour.TUF in each for each in asked.documents.values()):
                continue
            standing = standing.with_(follow(asked.image, asked.documents, flavour, findings, now=self._clock.now()))
        for role, body, signed in signed_targets(standing, root):
            document = standing.get(role)
            assert document is not None
            flavours = {of: each.document for (name, of), each in standing.documents.items() if name == role}
            known = Known(
                version=body.version - 1,
                targets=body,
                catalogue=self._targets.find_all(tx, account, body.targets.keys()),
                now=Instant(document.expires - 1),
            )
            _take(findings, role, examine_targets(flavours, signed, known, role=role).findings)
        return standing

    def _missing_images(
        self, tx: Tx, account: AccountId, asked: RepositoryImport, standing: Standing, findings: Findings
    ) -> list[str]:
        files = {name: file for name, (_, file) in standing.listing().items()}
        there = self._targets.find_all(tx, account, files.keys())
        missing = [
            name
            for name, file in sorted(files.items())
            if _needs_bytes(file) and (name not in there or there[name].content_id is None)
        ]
        tell = findings.warning if asked.may_lack_images else findings.error
        for name in missing[:FINDINGS_MAX]:
            tell(
                "binary_missing",
                f"targets.signed.targets.{name[:80]}",
                f"The bytes of {name[:80]} aren't here, and it has no address: devices couldn't fetch it.",
                "Upload them (PUT uploads/NAME), or say that images may be missing.",
            )
        return missing

    def _examine_handover(
        self, tx: Tx, account: AccountId, asked: RepositoryImport, standing: Standing, findings: Findings
    ) -> None:
        """The next roots, by the rules of every pushed root; and whether what goes on fits them."""
        if not asked.next_roots:
            if not asked.dry_run:
                findings.error(
                    "next_root_missing",
                    "image.next",
                    "The roots that hand over to this server's keys are missing.",
                    "Have the next roots signed by the old root keys; a dry run needs none.",
                )
            return
        for chain in asked.chains:
            documents = asked.next_roots.get(chain.repository, {})
            examined = self._roots.examine(tx, account, chain.repository, documents, cosign=True)
            _take(findings, f"{chain.repository}.next", examined.findings, keep=frozenset())
            if chain.repository is not Repository.IMAGE or examined.readable is None:
                continue
            if asked.next_targets:
                self._examine_next_targets(tx, account, asked, examined.readable, standing, findings)
            else:
                self._check_goes_on(tx, account, examined.readable, standing, findings)

    def _check_goes_on(self, tx: Tx, account: AccountId, root: Root, standing: Standing, findings: Findings) -> None:
        """Targets whose keys are elsewhere go on as they are: they must fit the next root, and not have ended."""
        targets = standing.get(TARGETS)
        keys = root.role_keys(Role.TARGETS)
        if targets is None or len(self._roots.keys.signers_among(tx, account, Repository.IMAGE, keys, root.keys)) >= (
            keys.threshold
        ):
            return
        if not meets_root(targets.document, Flavour.UPTANE, root):
            findings.error(
                "targets_not_vouched_for",
                "image.next.signed.roles.targets",
                "The next root names targets keys that have not signed the targets.",
                "Leave the old targets keys in the root, or sign the targets anew with the new ones.",
            )
        elif targets.expires <= self._clock.now():
            findings.error(
                "expired_metadata",
                "targets.signed.expires",
                "The targets have ended, and their keys stay elsewhere: devices would refuse them.",
                "Have them signed anew together with the root.",
            )

    def _examine_next_targets(
        self, tx: Tx, account: AccountId, asked: RepositoryImport, root: Root, standing: Standing, findings: Findings
    ) -> None:
        body = standing.targets()
        if body is None:
            return
        known = Known(
            version=body.version,
            targets=body,
            catalogue=self._targets.find_all(tx, account, names_in(asked.next_targets)),
            now=self._clock.now(),
        )
        signed = Signed(keys=root.keys, role_keys=root.role_keys(Role.TARGETS))
        _take(findings, "targets.next", examine_targets(asked.next_targets, signed, known).findings)

    # Publishing -----------------------------------------------------------------------------------------------------------

    def _adopt(self, tx: Tx, place: Place, asked: RepositoryImport, standing: Standing) -> None:
        """Put chains and documents there, as if this server had published them."""
        for chain in asked.chains:
            self._roots.adopt_chain(tx, place, chain.repository, chain.documents)
        self._documents.clear(tx, place.account)
        for document in standing.documents.values():
            self._documents.add(tx, place.account, document, keep_versions=KEPT_VERSIONS)

    def _publish(self, tx: Tx, place: Place, asked: RepositoryImport, standing: Standing) -> None:
        account = place.account
        checksum = checksum_of(standing.targets_document().document) if asked.next_targets else None
        push = Push(root=asked.next_roots[Repository.IMAGE], targets=asked.next_targets, checksum=checksum, cosign=True)
        published = self._pushes.push(tx, place, push)
        assert published.waiting_root is None, "examined: what goes on fits the root"
        self._roots.push(tx, place, Repository.DIRECTOR, asked.next_roots[Repository.DIRECTOR], cosign=True)
        self._images.reconcile(tx, account, self._images.standing(tx, account))

    def _told(self, tx: Tx, account: AccountId, *, was_there: bool = False) -> Imported:
        current = self._images.current(tx, account)
        return Imported(
            state=ImportState.PUBLISHED,
            was_there=was_there,
            versions=current.versions,
            director_root=self._roots.current(tx, account, Repository.DIRECTOR).version,
            checksum=current.checksum,
        )


def _take(findings: Findings, document: str, found: Findings, *, keep: frozenset[str] = _TOLERATED) -> None:
    """What was found of one document, under its name; ``keep``: what is told and put up with."""
    for error in found.errors:
        if error.code not in _ASKED_ELSEWHERE:
            tell = findings.warning if error.code in keep else findings.error
            tell(error.code, f"{document}.{error.field}", error.message, error.hint)
    for warning in found.warnings:
        if warning.code not in _ASKED_ELSEWHERE or not keep:
            findings.warning(warning.code, f"{document}.{warning.field}", warning.message, warning.hint)


def _needs_bytes(file: TargetFile) -> bool:
    return file.uri is None and file.custom.get("targetFormat", TargetFormat.BINARY) == TargetFormat.BINARY


def refused_import(findings: Findings) -> InvalidRequest:
    """Every broken rule in one refusal."""
    errors = findings.errors
    return InvalidRequest(
        f"The import was refused; nothing was changed. {errors[0].message}",
        subject="import",
        details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
    )
