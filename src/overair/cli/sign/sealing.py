"""From a draft to documents that can be signed: versions and ends are given once, and every signer signs the same bytes. Pure.

A sealed set is what one push publishes: root, targets and delegated targets, each in both flavours. What a client would refuse
is refused here, before anybody signs it, by running the client's own verification on it (``rehearse``).
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from overair.basics.clock import Instant
from overair.cli.sign import items
from overair.cli.sign.draft import Draft
from overair.cli.sign.edits import OFFLINE_ROLES
from overair.cli.sign.ends import refused, usage
from overair.cli.sign.items import ROOT, TARGETS, Body
from overair.cli.sign.known import Known, check_root_step
from overair.wire.uptane.canonical import VERSION_MAX
from overair.wire.uptane.keys import Flavour, KeyType, PublicKey
from overair.wire.uptane.metadata import (
    ROOT_SIZE_BYTES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    MetadataSigner,
    Repository,
    Role,
    RoleKeys,
    Root,
    Signature,
    Targets,
    assemble,
    bytes_to_sign,
    check_signatures,
    meta_of,
    payload,
    read_document,
    sign_payload,
    signature_by,
)
from overair.wire.uptane.metadata import Snapshot as SnapshotBody
from overair.wire.uptane.metadata import Timestamp as TimestampBody
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import Refused, TrustedSet

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
    """Keys that the server will sign with when this is pushed: those that it is about to be given a role for."""

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
                        server_signs=sealed.server_signs if signer is root else frozenset(),
                    )
                )
        elif document.name == TARGETS:
            why = f"targets keys of root {root.version}"
            found.append(Requirement(document=TARGETS, why=why, keys=root.keys, role_keys=root.role_keys(Role.TARGETS)))
        else:
            parents = [targets, *(_delegated(sealed, known))]
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


def _delegated(sealed: Sealed, known: Known) -> list[Targets]:
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


# What a client would refuse -----------------------------------------------------------------------------------------------


def check_content(sealed: Sealed, known: Known, *, now: Instant) -> None:
    """All that can be known before anybody signs; every problem in one refusal.

    Raises:
        SignEnded: REFUSED.
    """
    problems: list[str] = []
    for document in sealed.documents:
        if not now < document.body.expires <= now + DAYS_MAX * DAY_MS:
            problems.append(f"{document.name}: it would end in the past, or later than {DAYS_MAX} days from now")
        if document.body.version != known.version(document.name) + 1 or document.body.version > VERSION_MAX:
            problems.append(f"{document.name}: version {document.body.version} doesn't follow {known.version(document.name)}")
        if document.name == ROOT:
            problems += _root_problems(items.as_root(document.body), known)
        else:
            problems += _targets_problems(document.name, items.as_targets(document.body), sealed, known)
    if not problems:
        problems += rehearse(sealed, known, now=now)
    if problems:
        raise refused(
            "A client would refuse this, so nobody signs it:\n  " + "\n  ".join(problems), details={"problems": problems}
        )


def check_signed(sealed: Sealed, known: Known) -> None:
    """The thresholds, counted as a client counts them, over the bytes that will be served, in both flavours.

    Raises:
        SignEnded: REFUSED.
    """
    problems = []
    for requirement in requirements(sealed, known):
        document = sealed.document(requirement.document)
        assert document is not None
        if requirement.server_signs & set(requirement.role_keys.key_ids):
            continue  # looked at when it was read back
        role = Role.ROOT if document.name == ROOT else Role.TARGETS
        size_max = ROOT_SIZE_BYTES_MAX if role is Role.ROOT else TARGETS_SIZE_BYTES_MAX
        for flavour in Flavour:
            try:
                read = read_document(document.assembled(flavour), role, flavour=flavour, size_bytes_max=size_max)
                check_signatures(read, requirement.keys, requirement.role_keys)
                if role is Role.ROOT and not sealed.server_signs:
                    check_root_step(known.root, document.assembled(flavour), flavour)
            except MetadataRefused as error:
                problems.append(f"{document.name} ({flavour}): {error.message}")
    root = sealed.document(ROOT)
    if root is not None and not problems and not sealed.server_signs:
        trusted = TrustedSet.begin(known.root_bytes, repository=known.repository)
        verdict = trusted.update_root(root.assembled(Flavour.UPTANE))
        problems += [f"root: {verdict.message}"] if isinstance(verdict, Refused) else []
    if problems:
        raise refused("A client would refuse this:\n  " + "\n  ".join(problems), details={"problems": problems})


class _RehearsalKey:
    """Signs for snapshot and timestamp in a rehearsal, where the server's keys aren't at hand."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519

        from overair.wire.uptane.keys import public_key_of

        self._key = ed25519.Ed25519PrivateKey.generate()
        self.public_key: PublicKey = public_key_of(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def rehearse(sealed: Sealed, known: Known, *, now: Instant) -> list[str]:
    """Play the publication through the client's own verification, both flavours, with stand-in keys for all roles: what is
    wrong with content, versions, names or the set as a whole comes out before a real key has signed anything."""
    targets = effective_targets(sealed, known)
    if targets is None:
        return []
    delegated = dict(known.delegations)
    delegated |= {each.name: items.as_targets(each.body) for each in sealed.documents if each.name not in {ROOT, TARGETS}}
    key = _RehearsalKey()
    one = RoleKeys(key_ids=(key.public_key.id,), threshold=1)
    end = Instant(now + DAY_MS)
    problems: list[str] = []
    for flavour in Flavour:
        roles = {role.value: one for role in Role}
        root = Root(version=1, expires=end, keys={key.public_key.id: key.public_key}, roles=roles)
        stand_in = _standing_in(targets, key.public_key, end)
        documents = {"targets.json": sign_payload(payload(stand_in, flavour), [key], flavour)}
        versions = {"targets.json": targets.version}
        for name, body in delegated.items():
            documents[f"{name}.json"] = sign_payload(payload(_standing_in(body, key.public_key, end), flavour), [key], flavour)
            versions[f"{name}.json"] = body.version
        meta = {name: meta_of(data, versions[name]) for name, data in documents.items()}
        snapshot = sign_payload(payload(SnapshotBody(version=1, expires=end, meta=meta), flavour), [key], flavour)
        timestamp = TimestampBody(version=1, expires=end, snapshot=meta_of(snapshot, 1))
        try:
            trusted = TrustedSet.begin(
                sign_payload(payload(root, flavour), [key], flavour), repository=known.repository, flavour=flavour
            )
            verdicts = [
                ("timestamp", trusted.update_timestamp(sign_payload(payload(timestamp, flavour), [key], flavour), now=now)),
                ("snapshot", trusted.update_snapshot(snapshot, now=now)),
                (TARGETS, trusted.update_targets(documents["targets.json"], now=now)),
            ]
            for name, by in _top_down(targets, delegated):
                verdicts.append((name, trusted.update_delegation(name, documents[f"{name}.json"], now=now, by=by)))
        except MetadataRefused as error:
            problems.append(f"{flavour}: {error.message}")
            continue
        problems += [f"{name} ({flavour}): {each.message}" for name, each in verdicts if isinstance(each, Refused)]
    return problems


def _standing_in(body: Targets, key: PublicKey, end: Instant) -> Targets:
    one = RoleKeys(key_ids=(key.id,), threshold=1)
    delegations = tuple(replace(each, keys=one) for each in body.delegations)
    return replace(body, expires=end, delegations=delegations, delegation_keys={key.id: key} if delegations else {})


def _top_down(targets: Targets, delegated: Mapping[str, Targets]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    waiting = [(each.name, TARGETS) for each in targets.delegations]
    while waiting:
        name, by = waiting.pop(0)
        if name in delegated and name not in dict(found):
            found.append((name, by))
            waiting += [(each.name, name) for each in delegated[name].delegations]
    return found


def _root_problems(root: Root, known: Known) -> list[str]:
    problems: list[str] = []
    seen: dict[str, str] = {}
    for role, keys in root.roles.items():
        absent = [key_id for key_id in keys.key_ids if key_id not in root.keys]
        problems += [f"root: {role} names the key {key_id[:16]}…, which isn't there" for key_id in absent]
        if not 1 <= keys.threshold <= len(keys.key_ids):
            problems.append(f"root: {role} asks for {keys.threshold} signatures of {len(keys.key_ids)} keys")
        for key_id in keys.key_ids:
            if key_id in seen:
                problems.append(f"root: the key {key_id[:16]}… signs for {seen[key_id]} and {role}")
            seen[key_id] = role
    problems += [f"root: the key {each.id[:16]}… is ECDSA" for each in root.keys.values() if each.type is KeyType.ECDSA]
    for role in set(Role) - set(OFFLINE_ROLES[known.repository]):
        if root.role_keys(role) != known.root.role_keys(role):
            problems.append(f"root: {role} belongs to the server, and its keys or threshold would change")
    return problems


def _targets_problems(name: str, targets: Targets, sealed: Sealed, known: Known) -> list[str]:
    problems: list[str] = []
    before = known.body(name)
    old = before.targets if isinstance(before, Targets) else {}
    for target in targets.targets.values():
        if not target.sha256:
            problems.append(f"{name}: {target.name} has no sha256")
        present = old.get(target.name)
        if present is not None and (present.length, present.hashes) != (target.length, target.hashes):
            problems.append(f"{name}: {target.name} would stand for other bytes than before")
        if not target.hardware_ids:
            problems.append(f"{name}: {target.name} names no hardware")
    problems += [f"{name}: {text[:64]!r} isn't printable ASCII" for text in _unprintable(payload(targets))]
    for delegation in targets.delegations:
        if not 1 <= delegation.keys.threshold <= len(delegation.keys.key_ids):
            problems.append(
                f"{name}: {delegation.name} asks for {delegation.keys.threshold} of {len(delegation.keys.key_ids)} keys"
            )
    if name != TARGETS:
        problems += _outside(name, targets, [effective_targets(sealed, known), *_delegated(sealed, known)])
    return problems


def _outside(name: str, targets: Targets, parents: Iterable[Targets | None]) -> list[str]:
    patterns = [
        pattern
        for parent in parents
        if parent is not None
        for each in parent.delegations
        if each.name == name
        for pattern in each.paths
    ]
    return [
        f"{name}: {target} lies outside of what is delegated ({', '.join(patterns)})"
        for target in targets.targets
        if not any(fnmatch.fnmatchcase(target, pattern) for pattern in patterns)
    ]


def _unprintable(value: Any) -> list[str]:
    match value:
        case str():
            # A PEM has line ends, and nothing else has.
            plain = value.replace("\n", "") if value.startswith("-----BEGIN ") else value
            return [] if all(" " <= character <= "~" for character in plain) else [value]
        case dict():
            return [text for each in (*value, *value.values()) for text in _unprintable(each)]
        case list():
            return [text for each in value for text in _unprintable(each)]
        case _:
            return []
