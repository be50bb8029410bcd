"""Whether pushed targets may follow the current ones: every rule asked, all answers together (Uptane reference §9.4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, OverairError, VersionConflict
from overair.server.image_repository.model import (
    StoredTarget,
    TargetStatus,
    custom_faults,
    matches,
    name_fault,
)
from overair.server.roots.findings import (
    Findings,
    check_expiry,
    check_keys,
    check_role_keys,
    check_written_keys,
    errors_json,
    field_prefix,
    unprintable,
)
from overair.wire.uptane.canonical import CanonicalForm, canonical, read
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import (
    DELEGATION_NAME,
    TARGET_NAME_LENGTH_MAX,
    TARGETS_SIZE_BYTES_MAX,
    Delegation,
    Document,
    Role,
    RoleKeys,
    TargetFile,
    Targets,
)
from overair.wire.uptane.metadata_reading import check_signatures, read_document, read_targets
from overair.wire.uptane.refusals import MetadataRefused

FINDINGS_MAX: Final = 200
"""Of single targets. A document of thousands that are all wrong the same way is told so far."""


@dataclass(slots=True, kw_only=True)
class ExaminedTargets:
    """What a push comes to. ``targets`` is there when nothing is wrong."""

    findings: Findings = field(default_factory=Findings)
    targets: Targets | None = None
    readable: Targets | None = None
    """What the Uptane flavour says, right or wrong: what depends on it is examined all the same."""
    documents: Mapping[Flavour, bytes] = field(default_factory=dict)
    """In canonical form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who has to have signed a targets document."""

    keys: Mapping[str, PublicKey]
    role_keys: RoleKeys
    patterns: tuple[str, ...] | None = None
    """Of a delegation: what it may name. None: anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the repository says now."""

    version: int
    """Of the document that this one follows; 0: there is none."""
    targets: Targets | None
    catalogue: Mapping[str, StoredTarget]
    """What is known of the names that the new document has."""
    may_jump: bool = False
    """After a restore, the next version may be any higher one."""
    now: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    document: Document
    targets: Targets
    canonical: bytes


def names_in(documents: Mapping[Flavour, bytes]) -> set[str]:
    """The target names of documents that can be read, for asking what is known of them."""
    names: set[str] = set()
    for data in documents.values():
        try:
            signed = read(data, size_bytes_max=TARGETS_SIZE_BYTES_MAX).get("signed")
        except MetadataRefused:
            continue
        targets = signed.get("targets") if isinstance(signed, dict) else None
        if isinstance(targets, dict):
            names.update(targets)
    return names


def examine_targets(
    documents: Mapping[Flavour, bytes], signed: Signed, known: Known, *, role: str = Role.TARGETS.value
) -> ExaminedTargets:
    """Ask every rule of the flavours that were pushed. ``role``: the name of a delegation for its document."""
    examined = ExaminedTargets()
    findings = examined.findings
    readings: dict[Flavour, _Reading] = {}
    for flavour in sorted(documents, reverse=True):
        reading = _read(documents[flavour], flavour, findings)
        if reading is not None:
            readings[flavour] = reading
            _examine(reading, signed, known, findings)
    if Flavour.UPTANE not in documents:
        findings.error("uptane_flavour_missing", "uptane", f"{role} is pushed in the Uptane flavour, with or without TUF's.")
    elif Flavour.TUF not in documents:
        findings.warning(
            "tuf_flavour_missing",
            "tuf",
            f"Without the TUF flavour of {role}, what TUF's clients read at /tuf/ stays as it is until it expires.",
            "Push both flavours in one step.",
        )
    if len(readings) > 1:
        _compare(readings[Flavour.UPTANE].targets, readings[Flavour.TUF].targets, findings)
    if Flavour.UPTANE in readings:
        examined.readable = readings[Flavour.UPTANE].targets
    if not findings.errors:
        examined.targets = examined.readable
        examined.documents = {flavour: reading.canonical for flavour, reading in readings.items()}
    return examined


def check_in_use(in_use: Mapping[str, str], examined: ExaminedTargets) -> None:
    """What vehicles need of the images that would go: name → words."""
    for name, words in sorted(in_use.items()):
        examined.targets = None
        examined.findings.error(
            "target_in_use",
            f"signed.targets.{name[:80]}",
            f"With this document nothing would list {name} any more, which is {words}.",
            "Keep it, or say force=true.",
        )


def examine_late_targets(data: bytes, signed: Signed, current: Targets) -> ExaminedTargets:
    """The TUF flavour of targets whose Uptane flavour is published already: it must say the same, and be signed as well."""
    examined = ExaminedTargets()
    reading = _read(data, Flavour.TUF, examined.findings)
    if reading is None:
        return examined
    _compare(current, reading.targets, examined.findings)
    _signatures(reading.document, signed, examined.findings)
    if not examined.findings.errors:
        examined.targets = current
        examined.documents = {Flavour.TUF: reading.canonical}
    return examined


def check_delegations(targets: Targets, before: Targets | None, prefix: str, findings: Findings) -> None:
    """The delegation block: names, keys, thresholds, paths (Uptane reference §4.5)."""
    named = {key_id for delegation in targets.delegations for key_id in delegation.keys.key_ids}
    path = f"{prefix}signed.delegations"
    check_keys(targets.delegation_keys, before.delegation_keys if before else {}, named, f"{path}.keys", findings)
    seen: set[str] = set()
    for number, delegation in enumerate(targets.delegations):
        place = f"{path}.roles[{number}]"
        if not DELEGATION_NAME.fullmatch(delegation.name):
            findings.error(
                "invalid_delegation_name",
                f"{place}.name",
                "A delegation's name has 1 to 50 letters, digits, hyphens, dots and underscores, and doesn't begin with a dot.",
            )
        if delegation.name in seen:
            findings.error("delegation_twice", f"{place}.name", f"The delegation {delegation.name} stands there twice.")
        seen.add(delegation.name)
        check_role_keys(delegation.keys, targets.delegation_keys, place, findings)
        _paths(delegation, place, findings)


def _paths(delegation: Delegation, place: str, findings: Findings) -> None:
    if delegation.path_hash_prefixes:
        findings.error(
            "path_hash_prefixes_unsupported",
            f"{place}.path_hash_prefixes",
            "aktualizr knows paths and no hash prefixes.",
            "Name paths.",
        )
    elif not delegation.paths:
        findings.error("paths_missing", f"{place}.paths", "The delegation covers no paths: it could never name a target.")
    for pattern in delegation.paths:
        if not 1 <= len(pattern) <= TARGET_NAME_LENGTH_MAX or ".." in pattern:
            findings.error(
                "invalid_delegation_path",
                f"{place}.paths",
                f"A path has 1 to {TARGET_NAME_LENGTH_MAX} characters and no '..'; {pattern[:80]!r} isn't one.",
            )


def _read(data: bytes, flavour: Flavour, findings: Findings) -> _Reading | None:
    prefix = field_prefix(flavour)
    try:
        envelope = read(data, size_bytes_max=TARGETS_SIZE_BYTES_MAX)
        canonical_bytes = canonical(envelope, CanonicalForm.ESCAPED)
    except MetadataRefused as refusal:
        findings.refused(prefix, refusal)
        return None
    for path in unprintable(envelope, prefix.rstrip(".")):
        findings.error(
            "not_printable_ascii",
            path.lstrip("."),
            "The text has characters outside of printable ASCII, which clients hash in different ways.",
            "Use letters, digits and signs of ASCII only.",
        )
    signed = envelope.get("signed")
    delegations = signed.get("delegations") if isinstance(signed, Mapping) else None
    if isinstance(delegations, Mapping):
        check_written_keys(delegations.get("keys"), f"{prefix}signed.delegations.keys", flavour, findings)
    document = None
    try:
        document = read_document(canonical_bytes, Role.TARGETS, flavour=flavour)
        return _Reading(document=document, targets=read_targets(document), canonical=canonical_bytes)
    except MetadataRefused as refusal:
        findings.refused(prefix, refusal)
        if document is not None:
            _each_target(document, findings)
        return None


def _each_target(document: Document, findings: Findings) -> None:
    """What the typed reader says of each target by itself, where it stopped at the first."""
    targets = document.signed.get("targets")
    if not isinstance(targets, Mapping):
        return
    for name, value in targets.items():
        if len(findings.errors) >= FINDINGS_MAX:
            return
        alone = {member: each for member, each in document.signed.items() if member != "delegations"}
        try:
            read_targets(replace(document, signed={**alone, "targets": {name: value}}))
        except MetadataRefused as refusal:
            findings.refused(field_prefix(document.flavour), refusal)


def _examine(reading: _Reading, signed: Signed, known: Known, findings: Findings) -> None:
    prefix, targets = field_prefix(reading.document.flavour), reading.targets
    _version(targets.version, known, prefix, findings)
    _signatures(reading.document, signed, findings)
    check_expiry(targets.expires, known.now, prefix, findings, is_root=False)
    check_delegations(targets, known.targets, prefix, findings)
    for target in targets.targets.values():
        if len(findings.errors) >= FINDINGS_MAX:
            break
        _target(target, signed, known, f"{prefix}signed.targets.{target.name[:80]}", findings)


def _version(version: int, known: Known, prefix: str, findings: Findings) -> None:
    if version == known.version + 1 or (version > known.version and (known.may_jump or known.version == 0)):
        return
    findings.error(
        "invalid_version_bump",
        f"{prefix}signed.version",
        f"The document has version {version}; the one after version {known.version} is {known.version + 1}.",
        "Pull the current document, make your change in it and sign again. After a restore from a backup, say "
        "afterRestore=true: then any higher version may follow.",
    )


def _signatures(document: Document, signed: Signed, findings: Findings) -> None:
    try:
        check_signatures(document, signed.keys, signed.role_keys)
    except MetadataRefused as refusal:
        findings.refused(field_prefix(document.flavour), refusal, "Sign with the keys that the document above names for it.")


def _target(target: TargetFile, signed: Signed, known: Known, path: str, findings: Findings) -> None:
    fault = name_fault(target.name)
    if fault is not None:
        findings.error("invalid_target_name", path, fault)
    if signed.patterns is not None and not matches(target.name, signed.patterns):
        findings.error(
            "target_outside_of_delegation",
            path,
            f"The delegation covers {', '.join(signed.patterns)}, not {target.name[:80]}.",
        )
    standing = known.targets.targets.get(target.name) if known.targets is not None else None
    if standing != target:
        for member, words in custom_faults(target.custom):
            findings.error("invalid_custom", f"{path}.custom.{member}", words)
    if not target.sha256 or len(target.sha256) != 64:
        findings.error("sha256_missing", f"{path}.hashes", "A target gives its SHA-256: 64 hexadecimal digits.")
    _content(target, known.catalogue.get(target.name), path, findings)


def _content(target: TargetFile, stored: StoredTarget | None, path: str, findings: Findings) -> None:
    if stored is None or stored.content_id is None:
        if target.custom.get("cliUploaded") is True:
            findings.error(
                "binary_missing", path, "The target says that its binary was uploaded, and it wasn't.", "Upload it first."
            )
        elif target.uri is None and target.custom.get("targetFormat", "BINARY") == "BINARY":
            findings.warning(
                "binary_missing", path, "The binary isn't here and the target names no URI: devices couldn't fetch it."
            )
    if stored is None:
        return
    differing = [
        algorithm
        for algorithm in stored.hashes.keys() & target.hashes.keys()
        if stored.hashes[algorithm] != target.hashes[algorithm]
    ]
    if differing or stored.length != target.length:
        what = "was uploaded with" if stored.status is TargetStatus.UPLOADED else "stands for"
        findings.error(
            "target_content_changed",
            path,
            f"{target.name[:80]} {what} other bytes: {stored.length} of them, with SHA-256 {stored.sha256}.",
            "Devices refuse new bytes under a name that they have installed. Give the image a name of its own.",
        )


def _compare(uptane: Targets, tuf: Targets, findings: Findings) -> None:
    differing = {
        "version": uptane.version != tuf.version,
        "expires": uptane.expires != tuf.expires,
        "targets": dict(uptane.targets) != dict(tuf.targets),
        "delegations": (uptane.delegations, dict(uptane.delegation_keys)) != (tuf.delegations, dict(tuf.delegation_keys)),
        "custom": dict(uptane.custom) != dict(tuf.custom),
    }
    for member, differs in differing.items():
        if differs:
            findings.error(
                "flavours_differ",
                f"tuf.signed.{member}",
                f"The two flavours differ in {member}.",
                "Make both from one description and sign them in one step.",
            )


def refused_targets(examined: ExaminedTargets, role: str = Role.TARGETS.value) -> OverairError:
    """Every broken rule in one refusal; a version alone has a kind of its own."""
    errors = examined.findings.errors
    if {each.code for each in errors} == {"invalid_version_bump"}:
        return VersionConflict(
            errors[0].message,
            subject="version-bump",
            details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
        )
    subject = "offline-targets"
    if role != Role.TARGETS.value:
        by_signature = {"unmet_threshold", "bad_key_id", "unsupported_method"}
        subject = "payload-signature" if any(each.code in by_signature for each in errors) else "delegated-target"
    return InvalidRequest(
        f"{role} was refused; nothing was changed. {errors[0].message}",
        subject=subject,
        details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
    )


def refused_delegations(findings: Findings) -> InvalidRequest:
    """Every fault of a delegation block in one refusal."""
    errors = findings.errors
    return InvalidRequest(
        f"The delegations were refused; nothing was changed. {errors[0].message}",
        subject="delegations",
        details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
    )
