"""Whether a pushed root may follow the current one: every rule asked, all answers in one list (Uptane reference §9.4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.roots.findings import (
    Findings,
    check_expiry,
    check_keys,
    check_role_keys,
    check_written_keys,
    code_of,
    errors_json,
    field_prefix,
    unprintable,
)
from overair.server.roots.model import ALWAYS_ONLINE, StoredRoot
from overair.wire.uptane.canonical import CanonicalForm, canonical, read
from overair.wire.uptane.keys import (
    Flavour,
    PublicKey,
)
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, THRESHOLD_MAX, Document, Repository, Role, Root
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_root
from overair.wire.uptane.refusals import MetadataRefused, Reason


@dataclass(slots=True, kw_only=True)
class Examined:
    """What a push comes to. ``root`` is there when nothing is wrong."""

    findings: Findings = field(default_factory=Findings)
    root: Root | None = None
    readable: Root | None = None
    """What the Uptane flavour says, right or wrong: what depends on it is examined all the same."""
    documents: Mapping[Flavour, bytes] = field(default_factory=dict)
    """In canonical form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    document: Document
    root: Root
    canonical: bytes


def examine_root(
    documents: Mapping[Flavour, bytes],
    *,
    repository: Repository,
    current: StoredRoot,
    owned: Mapping[str, Role],
    has_tuf_chain: bool,
    now: Instant,
) -> Examined:
    """Ask every rule of the flavours that were pushed.

    Args:
        has_tuf_chain: Whether there is any root in the TUF flavour; a chain taken over from elsewhere may begin to have them.
        current: The newest accepted root; what is pushed must be the version after it.
        owned: Key id → role of the private keys that the server holds for this repository.
    """
    examined = Examined()
    findings = examined.findings
    readings: dict[Flavour, _Reading] = {}
    for flavour in sorted(documents, reverse=True):
        reading = _read(documents[flavour], flavour, findings)
        if reading is not None:
            readings[flavour] = reading
            _examine(reading, current, repository, owned, now, findings)
        else:
            _examine_unread(documents[flavour], flavour, current, now, findings)
    if Flavour.UPTANE not in documents:
        findings.error(
            "uptane_flavour_missing", "uptane", "A root is pushed in the Uptane flavour, with or without the TUF flavour."
        )
    elif Flavour.TUF not in documents:
        findings.warning(
            "tuf_flavour_missing",
            "tuf",
            "Without the TUF flavour of this root, what TUF's clients read at /tuf/ stays as it is until it expires.",
            "Push both flavours in one step.",
        )
    elif has_tuf_chain and Flavour.TUF not in current.documents:
        findings.error(
            "tuf_chain_behind",
            "tuf",
            f"The TUF flavour of root version {current.version} was never pushed, so its next version can't be followed.",
            f"Push the TUF flavour of version {current.version} first.",
        )
    if len(readings) > 1:
        compare_roots(readings[Flavour.UPTANE].root, readings[Flavour.TUF].root, findings)
    if Flavour.UPTANE in readings:
        examined.readable = readings[Flavour.UPTANE].root
    if not findings.errors:
        examined.root = examined.readable
        examined.documents = {flavour: reading.canonical for flavour, reading in readings.items()}
    return examined


def examine_late_flavour(data: bytes, *, stored: StoredRoot, before: StoredRoot | None) -> Examined:
    """The TUF flavour of a root whose Uptane flavour is stored already: it must say the same, and be signed as well.

    Args:
        before: The version before; None for the first one.
    """
    examined = Examined()
    findings = examined.findings
    reading = _read(data, Flavour.TUF, findings)
    if reading is None:
        return examined
    compare_roots(stored.root, reading.root, findings)
    _signatures(reading, stored.root if before is None else before.root, findings)
    if not findings.errors:
        examined.root = stored.root
        examined.documents = {Flavour.TUF: reading.canonical}
    return examined


def compare_roots(uptane: Root, tuf: Root, findings: Findings) -> None:
    """Both flavours say the same: version, end, keys, roles, thresholds."""
    differing = {
        "version": uptane.version != tuf.version,
        "expires": uptane.expires != tuf.expires,
        "keys": dict(uptane.keys) != dict(tuf.keys),
        "roles": _by_role(uptane) != _by_role(tuf),
        "consistent_snapshot": uptane.consistent_snapshot != tuf.consistent_snapshot,
    }
    for member, differs in differing.items():
        if differs:
            findings.error(
                "flavours_differ",
                f"tuf.signed.{member}",
                f"The two flavours differ in {member}.",
                "Make both from one description and sign them in one step.",
            )


def _by_role(root: Root) -> dict[str, tuple[frozenset[str], int]]:
    return {name: (frozenset(keys.key_ids), keys.threshold) for name, keys in root.roles.items()}


def _read(data: bytes, flavour: Flavour, findings: Findings) -> _Reading | None:
    """The document, if it can be read at all; what can be told of one that can't is told member by member."""
    prefix = field_prefix(flavour)
    try:
        envelope = read(data, size_bytes_max=ROOT_SIZE_BYTES_MAX)
        canonical_bytes = canonical(envelope, CanonicalForm.ESCAPED)
    except MetadataRefused as refusal:
        findings.refused(prefix, refusal)
        return None
    signed = envelope.get("signed")
    for path in unprintable(envelope, prefix.rstrip(".")):
        findings.error(
            "not_printable_ascii",
            path.lstrip("."),
            "The text has characters outside of printable ASCII, which clients hash in different ways.",
            "Use letters, digits and signs of ASCII only.",
        )
    if isinstance(signed, Mapping):
        _members(signed, flavour, findings)
    try:
        document = read_document(canonical_bytes, Role.ROOT, flavour=flavour, size_bytes_max=ROOT_SIZE_BYTES_MAX)
        return _Reading(document=document, root=read_root(document), canonical=canonical_bytes)
    except MetadataRefused as refusal:
        findings.refused(prefix, refusal)
        return None


def _members(signed: Mapping[str, object], flavour: Flavour, findings: Findings) -> None:
    """Each key and each role by itself: the typed reader would stop at the first that is wrong."""
    prefix = field_prefix(flavour)
    check_written_keys(signed.get("keys"), f"{prefix}signed.keys", flavour, findings)
    roles = signed.get("roles")
    if isinstance(roles, Mapping):
        for name, value in roles.items():
            threshold = value.get("threshold") if isinstance(value, Mapping) else None
            if isinstance(threshold, int) and not isinstance(threshold, bool) and not 1 <= threshold <= THRESHOLD_MAX:
                findings.error(
                    code_of(Reason.ILLEGAL_THRESHOLD),
                    f"{prefix}signed.roles.{name[:64]}.threshold",
                    f"A threshold is 1 to {THRESHOLD_MAX}.",
                )


def _examine(
    reading: _Reading,
    current: StoredRoot,
    repository: Repository,
    owned: Mapping[str, Role],
    now: Instant,
    findings: Findings,
) -> None:
    prefix, root = field_prefix(reading.document.flavour), reading.root
    _version(root.version, current, prefix, findings)
    _signatures(reading, current.root, findings)
    _keys(root, current.root, prefix, findings)
    _roles(root, prefix, findings)
    _owned(root, repository, owned, prefix, findings)
    check_expiry(root.expires, now, prefix, findings, is_root=True)


def _examine_unread(data: bytes, flavour: Flavour, current: StoredRoot, now: Instant, findings: Findings) -> None:
    """What can be told even of a document that breaks the typed reader's rules."""
    prefix = field_prefix(flavour)
    try:
        document = read_document(data, Role.ROOT, flavour=flavour, size_bytes_max=ROOT_SIZE_BYTES_MAX)
    except MetadataRefused:
        return
    _version(document.version, current, prefix, findings)
    check_expiry(document.expires, now, prefix, findings, is_root=True)
    try:
        check_signatures(document, current.root.keys, current.root.role_keys(Role.ROOT))
    except MetadataRefused as refusal:
        _not_by_current(prefix, refusal, findings)


def _version(version: int, current: StoredRoot, prefix: str, findings: Findings) -> None:
    if version != current.version + 1:
        findings.error(
            "invalid_version_bump",
            f"{prefix}signed.version",
            f"The root has version {version}; the one after version {current.version} is {current.version + 1}.",
            "Pull the current root, make your change in it and sign again.",
        )


def _not_by_current(prefix: str, refusal: MetadataRefused, findings: Findings) -> None:
    findings.error(
        "current_root_threshold_unmet",
        f"{prefix}signatures",
        f"The keys of the current root don't vouch for this one: {refusal.message}",
        "Sign the new root with the old root keys as well.",
    )


def _signatures(reading: _Reading, before: Root, findings: Findings) -> None:
    prefix = field_prefix(reading.document.flavour)
    try:
        check_signatures(reading.document, before.keys, before.role_keys(Role.ROOT))
    except MetadataRefused as refusal:
        _not_by_current(prefix, refusal, findings)
    try:
        check_signatures(reading.document, reading.root.keys, reading.root.role_keys(Role.ROOT))
    except MetadataRefused as refusal:
        findings.error(
            "new_root_threshold_unmet",
            f"{prefix}signatures",
            f"The keys that the new root names don't vouch for it: {refusal.message}",
            "Sign the new root with the new root keys as well.",
        )


def _keys(root: Root, current: Root, prefix: str, findings: Findings) -> None:
    named = {key_id for keys in root.roles.values() for key_id in keys.key_ids}
    check_keys(root.keys, current.keys, named, f"{prefix}signed.keys", findings)


def _roles(root: Root, prefix: str, findings: Findings) -> None:
    used: dict[PublicKey, str] = {}
    for name, keys in root.roles.items():
        path = f"{prefix}signed.roles.{name[:64]}"
        known = check_role_keys(keys, root.keys, path, findings)
        for key in known:
            if used.setdefault(key, name) != name:
                findings.warning(
                    "key_in_two_roles",
                    f"{path}.keyids",
                    f"The key {key.id[:16]}… stands in the roles {used[key]} and {name}: whoever steals it has both.",
                    "Give each role keys of its own.",
                )
    if root.role_keys(Role.ROOT).threshold == 1 and len(root.role_keys(Role.ROOT).key_ids) == 1:
        findings.warning(
            "single_root_key",
            f"{prefix}signed.roles.root.keyids",
            "Only one key can ever sign the next root: without it, the fleet can never change its keys.",
            "Add a second root key and keep it elsewhere.",
        )


def _owned(root: Root, repository: Repository, owned: Mapping[str, Role], prefix: str, findings: Findings) -> None:
    for role in ALWAYS_ONLINE[repository]:
        foreign = [key_id for key_id in root.role_keys(role).key_ids if owned.get(key_id) is not role]
        if foreign:
            findings.error(
                "not_the_servers_key",
                f"{prefix}signed.roles.{role}.keyids",
                f"The server signs {role} itself and doesn't own the key {foreign[0][:64]}.",
                "Take the keys of this role from the unsigned root that the server offers (GET root).",
            )
    for name, keys in root.roles.items():
        strayed = [key_id for key_id in keys.key_ids if key_id in owned and owned[key_id].value != name]
        if strayed:
            findings.error(
                "key_of_another_role",
                f"{prefix}signed.roles.{name[:64]}.keyids",
                f"The key {strayed[0][:64]} is the server's own for {owned[strayed[0]]}.",
                "Give each role keys of its own.",
            )


def refused_root(examined: Examined) -> InvalidRequest:
    """Every broken rule in one refusal."""
    errors = examined.findings.errors
    return InvalidRequest(
        f"The root was refused; nothing was changed. {errors[0].message}",
        subject="root-role",
        details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
    )
