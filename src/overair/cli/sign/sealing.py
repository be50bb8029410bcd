"""From a draft to documents that can be signed: versions and ends are given once, and every signer signs the same bytes. Pure.

A sealed set is what one push publishes: root, targets and delegated targets, each in both flavours. What a client would refuse
is refused in ``acceptance.py`` before anybody signs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from overair.basics.clock import Instant
from overair.cli.sign import items
from overair.cli.sign.draft import Draft
from overair.cli.sign.ends import refused, usage
from overair.cli.sign.items import ROOT, TARGETS, Body
from overair.cli.sign.known import Known
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root, Signature, Targets
from overair.wire.uptane.metadata_reading import check_signatures, read_document
from overair.wire.uptane.metadata_writing import MetadataSigner, assemble, bytes_to_sign, payload, signature_by
from overair.wire.uptane.refusals import MetadataRefused

DAY_MS: Final = 24 * 3600 * 1000
DAYS: Final[Mapping[str, int]] = {ROOT: 365, TARGETS: 90}
"""How long a document counts unless somebody says otherwise. Delegated targets count as long as targets."""
DAYS_MAX: Final = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDocument:
    """One document whose bytes are settled."""

    name: str
    body: Body
    signatures: Mapping[Flavour, tuple[Signature, ...]] = field(default_factory=dict)

    def to_sign(self, flavour: Flavour) -> bytes:
        return bytes_to_sign(payload(self.body, flavour), flavour)

    def assembled(self, flavour: Flavour) -> bytes:
        return assemble(payload(self.body, flavour), self.signatures.get(flavour, ()), flavour)

    def signed_by(self) -> frozenset[str]:
        """Keys that have signed both flavours."""
        found = [{signature.key_id for signature in self.signatures.get(flavour, ())} for flavour in Flavour]
        return frozenset(set.intersection(*found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What one push publishes."""

    repository: Repository
    built_on: Mapping[str, int]
    """Versions that it follows."""
    checksum: str | None
    documents: tuple[SealedDocument, ...]
    forced: frozenset[str] = frozenset()
    server_signs: frozenset[str] = frozenset()
    """Keys that the server will sign with when this is pushed: those that it is about to be given a role for, or the root keys
    that are about to be taken from it."""
    moves: bool = False
    """The repository moves to another server, whose keys the root names (``overair migrate import``)."""

    @property
    def id(self) -> str:
        """What is asked of signers: the hash of all that they sign."""
        digest = hashlib.sha256()
        for document in self.documents:
            for flavour in Flavour:
                data = document.to_sign(flavour)
                digest.update(f"{document.name}/{flavour}/{len(data)}:".encode())
                digest.update(data)
        return digest.hexdigest()

    def document(self, name: str) -> SealedDocument | None:
        return next((document for document in self.documents if document.name == name), None)

    def fits(self, known: Known) -> bool:
        """Whether it still follows what the server serves."""
        return self.checksum == known.served.checksum and all(
            known.version(name) == version for name, version in self.built_on.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One threshold that a document must meet."""

    document: str
    why: str
    keys: Mapping[str, PublicKey]
    role_keys: RoleKeys

    server_signs: frozenset[str] = frozenset()

    def missing(self, document: SealedDocument) -> int:
        signers = document.signed_by() | self.server_signs
        have = len({self.keys[key_id] for key_id in signers if key_id in self.role_keys.key_ids})
        return max(0, self.role_keys.threshold - have)


def seal(draft: Draft, known: Known, *, now: Instant) -> Sealed | None:
    """Give what is wanted its versions and ends; None when nothing is.

    Raises:
        SignEnded: USAGE: a life time out of bounds.
    """
    names = _to_publish(draft, known)
    documents = []
    for name in names:
        days = draft.days if draft.days is not None else DAYS.get(name, DAYS[TARGETS])
        if not 1 <= days <= DAYS_MAX:
            raise usage(f"A document counts for 1 to {DAYS_MAX} days.")
        end = Instant((now // 1000) * 1000 + days * DAY_MS)
        body = replace(draft.body(name, known), version=known.version(name) + 1, expires=end)
        documents.append(SealedDocument(name=name, body=body))
    if not documents:
        return None
    return Sealed(
        repository=known.repository,
        built_on={name: known.version(name) for name in (ROOT, TARGETS, *(n for n in names if n not in {ROOT, TARGETS}))},
        checksum=known.served.checksum,
        documents=tuple(documents),
        forced=draft.forced,
        server_signs=draft.server_signs,
    )


def _to_publish(draft: Draft, known: Known) -> list[str]:
    """What must be signed anew: what changes, what is to be renewed, and what its new keys don't vouch for yet."""
    chosen = {
        name for name, wanted in draft.wanted.items() if known.body(name) is None or not items.same(known.body(name), wanted)
    }
    chosen |= {name for name in draft.renew if known.body(name) is not None}
    if ROOT in chosen and known.repository is Repository.IMAGE and known.served.targets is not None:
        root = draft.root(known)
        by_server = draft.server_signs & set(root.role_keys(Role.TARGETS).key_ids)
        if not by_server and not _vouched(known.served.targets, Role.TARGETS, root.keys, root.role_keys(Role.TARGETS)):
            chosen.add(TARGETS)
    if TARGETS in chosen:
        parent = draft.targets(known)
        for delegation in parent.delegations:
            raw = known.served.delegations.get(delegation.name)
            if raw is not None and not _vouched(raw, Role.TARGETS, parent.delegation_keys, delegation.keys):
                chosen.add(delegation.name)
    return sorted(chosen, key=lambda name: ({ROOT: 0, TARGETS: 1}.get(name, 2), name))


def _vouched(raw: bytes, role: Role, keys: Mapping[str, PublicKey], role_keys: RoleKeys) -> bool:
    try:
        check_signatures(read_document(raw, role), keys, role_keys)
    except MetadataRefused:
        return False
    return True


def effective_root(sealed: Sealed, known: Known) -> Root:
    """The root that will count once this is published."""
    document = sealed.document(ROOT)
    return known.root if document is None else items.as_root(document.body)


def effective_targets(sealed: Sealed, known: Known) -> Targets | None:
    document = sealed.document(TARGETS)
    return known.targets if document is None else items.as_targets(document.body)


def requirements(sealed: Sealed, known: Known) -> list[Requirement]:
    """Every threshold that must be met.

    Raises:
        SignEnded: REFUSED: a delegated document that nobody delegates to.
    """
    found: list[Requirement] = []
    root, targets = effective_root(sealed, known), effective_targets(sealed, known)
    for document in sealed.documents:
        if document.name == ROOT:
            for signer, why in ((known.root, f"keys of root {known.root.version}"), (root, f"keys of root {root.version}")):
                found.append(
                    Requirement(
                        document=ROOT,
                        why=why,
                        keys=signer.keys,
                        role_keys=signer.role_keys(Role.ROOT),
                        server_signs=sealed.server_signs,
                    )
                )
        elif document.name == TARGETS:
            why = f"targets keys of root {root.version}"
            found.append(Requirement(document=TARGETS, why=why, keys=root.keys, role_keys=root.role_keys(Role.TARGETS)))
        else:
            parents = [targets, *(delegated_bodies(sealed, known))]
            asked = [
                Requirement(
                    document=document.name,
                    why=f"keys of delegation {each.name}",
                    keys=parent.delegation_keys,
                    role_keys=each.keys,
                )
                for parent in parents
                if parent is not None
                for each in parent.delegations
                if each.name == document.name
            ]
            if not asked:
                raise refused(f"Nobody delegates to {document.name!r}: use `sign delegate` first.")
            found += asked
    return found


def delegated_bodies(sealed: Sealed, known: Known) -> list[Targets]:
    current = dict(known.delegations)
    current |= {each.name: items.as_targets(each.body) for each in sealed.documents if each.name not in {ROOT, TARGETS}}
    return list(current.values())


def unmet(sealed: Sealed, known: Known) -> list[Requirement]:
    """The thresholds that signatures are missing for."""
    found = []
    for requirement in requirements(sealed, known):
        document = sealed.document(requirement.document)
        assert document is not None
        if requirement.missing(document):
            found.append(requirement)
    return found


def sign_with(sealed: Sealed, known: Known, signers: Iterable[MetadataSigner]) -> Sealed:
    """Every signer signs, in both flavours, each document that asks for its key."""
    wanted = wanted_keys(sealed, known)
    documents = {document.name: document for document in sealed.documents}
    for signer in signers:
        for name, document in documents.items():
            if signer.public_key.id in wanted[name] and signer.public_key.id not in document.signed_by():
                for flavour in Flavour:
                    document = with_signature(document, signature_by(signer, document.to_sign(flavour), flavour), flavour)
                documents[name] = document
    return replace(sealed, documents=tuple(documents.values()))


def wanted_keys(sealed: Sealed, known: Known) -> dict[str, dict[str, PublicKey]]:
    """Whose signature each document can use."""
    wanted: dict[str, dict[str, PublicKey]] = {document.name: {} for document in sealed.documents}
    for requirement in requirements(sealed, known):
        wanted[requirement.document] |= {key_id: requirement.keys[key_id] for key_id in requirement.role_keys.key_ids}
    return wanted


def with_signature(document: SealedDocument, signature: Signature, flavour: Flavour) -> SealedDocument:
    others = tuple(each for each in document.signatures.get(flavour, ()) if each.key_id != signature.key_id)
    return replace(document, signatures={**document.signatures, flavour: (*others, signature)})
