"""What a client would refuse is refused here, before anybody signs it and before it is sent: the client's own verification,
run on a publication that doesn't exist yet. Pure, but for the stand-in key of a rehearsal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from overair.basics.clock import Instant
from overair.cli.sign import items
from overair.cli.sign.edits import OFFLINE_ROLES
from overair.cli.sign.ends import refused
from overair.cli.sign.items import ROOT, TARGETS
from overair.cli.sign.known import Known, check_root_step
from overair.cli.sign.sealing import (
    DAY_MS,
    DAYS_MAX,
    Sealed,
    delegated_bodies,
    effective_targets,
    requirements,
)
from overair.wire.uptane.canonical import VERSION_MAX
from overair.wire.uptane.keys import Flavour, KeyType, PublicKey, public_key_of
from overair.wire.uptane.metadata import (
    ROOT_SIZE_BYTES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    Role,
    RoleKeys,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)
from overair.wire.uptane.metadata_reading import check_signatures, read_document
from overair.wire.uptane.metadata_writing import meta_of, payload, sign_payload
from overair.wire.uptane.patterns import delegates
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import Refused, TrustedSet


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
            problems += _root_problems(items.as_root(document.body), known, moves=sealed.moves)
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
        snapshot = sign_payload(payload(Snapshot(version=1, expires=end, meta=meta), flavour), [key], flavour)
        timestamp = Timestamp(version=1, expires=end, snapshot=meta_of(snapshot, 1))
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


def _root_problems(root: Root, known: Known, *, moves: bool) -> list[str]:
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
        if not moves and root.role_keys(role) != known.root.role_keys(role):
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
        problems += _outside(name, targets, [effective_targets(sealed, known), *delegated_bodies(sealed, known)])
    return problems


def _outside(name: str, targets: Targets, parents: Iterable[Targets | None]) -> list[str]:
    made = [each for parent in parents if parent is not None for each in parent.delegations if each.name == name]
    patterns = ", ".join(pattern for each in made for pattern in each.paths)
    return [
        f"{name}: {target} lies outside of what is delegated ({patterns})"
        for target in targets.targets
        if not any(delegates(each, target, Flavour.UPTANE) for each in made)
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
