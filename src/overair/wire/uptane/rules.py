"""Rules that a document is held to by the root, by the document above it, and by the one before it.

Standard 5.4.4.3 to 5.4.4.6 (Uptane reference §8.6). Each raises ``MetadataRefused`` with its own reason; ``trust.py`` says in
which order they are asked.
"""

from __future__ import annotations

from collections.abc import Mapping

from overair.basics.clock import Instant
from overair.wire.uptane.hashing import differing_hash, known_hashes
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Delegation, Document, MetaFile, Role, Root, Snapshot, Targets
from overair.wire.uptane.metadata_reading import check_signatures
from overair.wire.uptane.metadata_writing import expires_text
from overair.wire.uptane.refusals import MetadataRefused, Reason


def check_unexpired(document: Document, now: Instant) -> None:
    """EXPIRED_METADATA: a document counts until its moment, not at it."""
    if document.has_expired(now):
        raise MetadataRefused(
            Reason.EXPIRED_METADATA,
            f"{document.role} version {document.version} expired at {expires_text(document.expires)}; "
            f"now it is {expires_text(now)}.",
            field="signed.expires",
        )


def check_is(document: Document, meta: MetaFile, reason: Reason = Reason.HASH_MISMATCH) -> None:
    """These bytes are the ones that the document above means (``reason`` otherwise). Their version is another question:
    ``check_version``, once the signature is known."""
    if document.flavour is Flavour.TUF and meta.length is not None and len(document.raw) != meta.length:
        raise MetadataRefused(
            reason, f"The document has {len(document.raw)} bytes; the one above it says {meta.length}.", field="length"
        )
    if meta.hashes and not known_hashes(meta.hashes):
        raise MetadataRefused(reason, "The document above gives no hash of a kind that is known.", field="hashes")
    differing = differing_hash(meta.hashes, document.hashed_bytes)
    if differing is not None:
        raise MetadataRefused(
            reason,
            f"The {differing} of {document.role} version {document.version} isn't the one that the document above it gives.",
            field=f"hashes.{differing}",
        )


def is_meant(document: Document, meta: MetaFile) -> bool:
    """Whether this is the document that the one above means, by version and by bytes."""
    try:
        check_is(document, meta)
    except MetadataRefused:
        return False
    return document.version == meta.version


def check_version(document: Document, meta: MetaFile) -> None:
    """VERSION_MISMATCH."""
    if document.version != meta.version:
        raise MetadataRefused(
            Reason.VERSION_MISMATCH,
            f"The {document.role} document has version {document.version}; the one above it names version {meta.version}.",
            field="signed.version",
        )


def check_not_lower(what: str, new: int, old: int) -> None:
    """ROLLBACK."""
    if new < old:
        raise MetadataRefused(
            Reason.ROLLBACK, f"{what} would go back from version {old} to version {new}.", field="signed.version"
        )


def check_follows(new: Document, old: Document) -> None:
    """ROLLBACK: an older version; and in the Uptane flavour the same version when it says something else. Signed anew, the same
    words may come again."""
    check_not_lower(f"The {old.role} document", new.version, old.version)
    if new.flavour is Flavour.UPTANE and new.version == old.version and new.signed_bytes != old.signed_bytes:
        raise MetadataRefused(
            Reason.ROLLBACK,
            f"Version {new.version} of {new.role} is trusted already and says something else: what changes gets a new version.",
            field="signed.version",
        )


def check_snapshot_follows(new: Snapshot, old: Snapshot) -> None:
    """ROLLBACK: a targets file has vanished or went back (Standard 5.4.4.5). The root's own chain protects the root."""
    for name, meta in old.meta.items():
        if name == "root.json":
            continue
        found = new.meta.get(name)
        if found is None:
            raise MetadataRefused(
                Reason.ROLLBACK,
                f"The snapshot no longer names {name}: once named, a targets file may not vanish.",
                field="signed.meta",
            )
        check_not_lower(name, found.version, meta.version)


def keys_of(root: Root, role: Role) -> set[PublicKey]:
    """The role's keys by what they are."""
    found = (root.keys.get(key_id) for key_id in root.role_keys(role).key_ids)
    return {key for key in found if key is not None}


def check_signed_by_root(document: Document, root: Root, role: Role, *, whose: str = "") -> None:
    """A threshold of the role's keys has signed. ``whose``: put before the message where two roots are asked.

    Raises:
        MetadataRefused: as ``check_signatures``.
    """
    try:
        check_signatures(document, root.keys, root.role_keys(role))
    except MetadataRefused as error:
        raise MetadataRefused(error.reason, f"{whose}{error.message}", field=error.field) from None


def meets(document: Document, keys: Mapping[str, PublicKey], delegation: Delegation) -> bool:
    """Whether these keys of a delegation have signed."""
    try:
        check_signatures(document, keys, delegation.keys)
    except MetadataRefused:
        return False
    return True


def delegation_named(delegator: Targets, name: str) -> Delegation | None:
    """What this targets document delegates to a role, if anything."""
    return next((delegation for delegation in delegator.delegations if delegation.name == name), None)


def check_director_form(targets: Targets, vehicle: str | None) -> None:
    """INVALID_METADATA, BAD_ECU_ID: Standard 5.4.4.6, in what needs no knowledge of the vehicle's ECUs. ``vehicle``: targets
    that name another one (``custom.deviceId``) are refused."""
    if targets.has_delegations:
        raise MetadataRefused(Reason.INVALID_METADATA, "The Director never delegates.", field="signed.delegations")
    named = targets.custom.get("deviceId")
    if vehicle is not None and named is not None and named != vehicle:
        raise MetadataRefused(
            Reason.BAD_ECU_ID,
            f"These targets are for the vehicle {str(named)[:64]!r}; this one is {vehicle!r}.",
            field="signed.custom.deviceId",
        )
    seen: set[str] = set()
    for target in targets.targets.values():
        field = f"signed.targets.{target.name[:64]}.custom.ecuIdentifiers"
        ecus = target.custom.get("ecuIdentifiers")
        if not isinstance(ecus, Mapping) or not ecus:
            raise MetadataRefused(
                Reason.INVALID_METADATA, "A target of the Director names the ECUs that it is for.", field=field
            )
        for serial, ecu in ecus.items():
            if not isinstance(ecu, Mapping) or not isinstance(ecu.get("hardwareId"), str):
                raise MetadataRefused(
                    Reason.INVALID_METADATA, "Each ECU of a target has a hardwareId.", field=f"{field}.{serial[:64]}"
                )
            if serial in seen:
                raise MetadataRefused(
                    Reason.INVALID_METADATA, f"The ECU {serial[:64]!r} is named twice.", field=f"{field}.{serial[:64]}"
                )
            seen.add(serial)
