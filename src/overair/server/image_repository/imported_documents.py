"""What another server's Image repository said, followed as a client follows it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from overair.basics.clock import Instant
from overair.server.image_repository.model import SNAPSHOT, TARGETS, TIMESTAMP, StoredDocument
from overair.server.image_repository.standing import Standing, targets_body
from overair.server.image_repository.validation import Signed
from overair.server.roots.findings import Findings, code_of
from overair.server.roots.importing import ImportedChain
from overair.wire.uptane.canonical import VERSION_MAX, canonical, read
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import TARGETS_SIZE_BYTES_MAX, Repository, Role, Root, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import TrustedSet
from overair.wire.uptane.verdicts import Refused, Verdict

Documents = Mapping[Flavour, bytes]
BEFORE_ALL: Final = Instant(0)
"""A moment at which nothing has expired: what the other server signed is followed, however old it is."""
VERSION_LEFT_MIN: Final = 1_000_000
"""So many version numbers must be left above the old server's."""


def follow(
    chain: ImportedChain, documents: Mapping[str, Documents], flavour: Flavour, findings: Findings, *, now: Instant
) -> list[StoredDocument]:
    """Documents that a client of the old server believes. Canonical, so that their hashes are those of their bytes."""
    roots = [each[flavour] for each in chain.documents if flavour in each]
    prefix = "" if flavour is Flavour.UPTANE else "tuf."
    if not roots:
        findings.error("root_missing", f"{prefix}image.roots", f"There are documents in the {flavour} flavour, and no roots.")
        return []
    trusted = TrustedSet.begin(roots[0], repository=Repository.IMAGE, flavour=flavour)
    for root in roots[1:]:
        trusted.update_root(root)
    found: list[StoredDocument] = []

    def take(role: str, by: str = TARGETS) -> bool:
        data = documents.get(role, {}).get(flavour)
        if data is None:
            findings.error("document_missing", f"{prefix}{role}", f"{role}.json of the {flavour} flavour is missing.")
            return False
        try:
            data = canonical(read(data, size_bytes_max=TARGETS_SIZE_BYTES_MAX))
            verdict = _updated(trusted, role, data, by)
        except MetadataRefused as error:
            verdict = Refused(error.reason, error.message, error.field)
        if isinstance(verdict, Refused):
            _refused(findings, f"{prefix}{role}", verdict)
            return False
        if verdict.document.version > VERSION_MAX - VERSION_LEFT_MIN:
            text = f"Version {verdict.document.version} of {role} leaves no numbers for the versions that are to follow."
            findings.error("version_too_high", f"{prefix}{role}.signed.version", text)
        version, expires = verdict.document.version, verdict.document.expires
        found.append(StoredDocument(role=role, flavour=flavour, version=version, document=data, expires=expires, signed_at=now))
        return True

    if take(TIMESTAMP) and take(SNAPSHOT) and take(TARGETS):
        waiting = [(TARGETS, trusted.targets)]
        seen: set[str] = set()
        while waiting:
            by, body = waiting.pop(0)
            for delegation in body.delegations if body is not None else ():
                is_said = trusted.snapshot is not None and f"{delegation.name}.json" in trusted.snapshot.meta
                if delegation.name not in seen and is_said:
                    seen.add(delegation.name)
                    if take(delegation.name, by):
                        waiting.append((delegation.name, trusted.delegations.get(delegation.name)))
    return found


def _updated(trusted: TrustedSet, role: str, data: bytes, by: str) -> Verdict:
    match role:
        case "timestamp":
            return trusted.update_timestamp(data, now=BEFORE_ALL)
        case "snapshot":
            return trusted.update_snapshot(data, now=BEFORE_ALL)
        case "targets":
            return trusted.update_targets(data, now=BEFORE_ALL)
        case _:
            return trusted.update_delegation(role, data, now=BEFORE_ALL, by=by)


def _refused(findings: Findings, place: str, refusal: Refused) -> None:
    hint = ""
    if refusal.reason in (Reason.HASH_MISMATCH, Reason.DELEGATION_HASH_MISMATCH, Reason.VERSION_MISMATCH):
        hint = "The documents are of different moments: export them again."
    field_ = f"{place}.{refusal.field}" if refusal.field else place
    findings.error(code_of(refusal.reason), field_, f"Clients wouldn't believe {place}.json: {refusal.message}", hint)


def signed_targets(standing: Standing, root: Root) -> Iterator[tuple[str, Targets, Signed]]:
    """Every targets document in force, with who has to have signed it."""
    body = standing.targets()
    if body is None:
        return
    yield TARGETS, body, Signed(keys=root.keys, role_keys=root.role_keys(Role.TARGETS))
    for delegator, delegation in standing.delegators():
        document = standing.get(delegation.name)
        if document is not None:
            signed = Signed(keys=delegator.delegation_keys, role_keys=delegation.keys, patterns=delegation.paths)
            yield delegation.name, targets_body(document.document, Flavour.UPTANE), signed
