"""Signed documents, read from bytes.

``check_signatures`` is the one place where a threshold is counted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, cast

from overair.wire.uptane.canonical import VERSION_MAX, CanonicalForm, canonical, read
from overair.wire.uptane.fields import array_at, hashes_at, integer_at, object_at, read_expires, texts_at
from overair.wire.uptane.keys import METHODS, Flavour, PublicKey, UnknownKey, read_public_key
from overair.wire.uptane.metadata import (
    SIGNATURES_MAX,
    TARGETS_SIZE_BYTES_MAX,
    THRESHOLD_MAX,
    Delegation,
    Document,
    MetaFile,
    Role,
    RoleKeys,
    Root,
    Signature,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
    form_of,
)
from overair.wire.uptane.refusals import MetadataRefused, Reason

_TUF_SIGNATURE_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


def read_document(
    data: bytes,
    role: Role,
    *,
    flavour: Flavour = Flavour.UPTANE,
    form: CanonicalForm | None = None,
    size_bytes_max: int = TARGETS_SIZE_BYTES_MAX,
) -> Document:
    """Read a document that must be of this role.

    Raises:
        MetadataRefused: OVERSIZED, INVALID_METADATA, WRONG_TYPE, UNSUPPORTED_METHOD, NON_UNIQUE_SIGNATURES.
    """
    envelope = read(data, size_bytes_max=size_bytes_max)
    signed = envelope.get("signed")
    if not isinstance(signed, dict):
        raise MetadataRefused(Reason.INVALID_METADATA, "A document has an object `signed`.", field="signed")
    _check_type(signed.get("_type"), role, flavour)
    if flavour is Flavour.TUF:
        _check_spec_version(signed.get("spec_version"))
    return Document(
        role=role,
        flavour=flavour,
        signed=signed,
        signed_bytes=canonical(signed, form or form_of(flavour), checked=True),
        signatures=_signatures(envelope.get("signatures"), flavour),
        version=integer_at(signed.get("version"), "signed.version", minimum=1, maximum=VERSION_MAX),
        expires=read_expires(signed.get("expires"), field="signed.expires"),
        raw=data,
        hashed_bytes=data if flavour is Flavour.TUF else canonical(envelope, form or form_of(flavour), checked=True),
    )


def check_signatures(document: Document, keys: Mapping[str, PublicKey], role_keys: RoleKeys) -> None:
    """Enough different keys of the role have signed this document.

    Keys count by what they are, not by their label: the same key under two ids counts once (Uptane Standard 5.4.4.3).

    Raises:
        MetadataRefused: ILLEGAL_THRESHOLD, BAD_KEY_ID, UNMET_THRESHOLD, UNSUPPORTED_METHOD (it doesn't fit its key).
    """
    threshold = role_keys.threshold
    if not 1 <= threshold <= THRESHOLD_MAX:
        raise MetadataRefused(Reason.ILLEGAL_THRESHOLD, f"The threshold {threshold} is not 1 to {THRESHOLD_MAX}.")
    allowed = set(role_keys.key_ids)
    valid: set[PublicKey] = set()
    for signature in document.signatures:
        key = keys.get(signature.key_id) if signature.key_id in allowed else None
        if key is None:
            continue
        if document.flavour is Flavour.UPTANE and (signature.method or "").lower() not in METHODS[key.type]:
            raise MetadataRefused(
                Reason.UNSUPPORTED_METHOD,
                f"The signature of {signature.key_id[:16]}… names the method {signature.method!r}, which isn't its key's.",
                field="signatures",
            )
        if key.verifies(signature.value, document.signed_bytes):
            valid.add(key)
    if len(valid) >= threshold:
        return
    if not valid and len(document.signatures) == 1:
        raise MetadataRefused(
            Reason.BAD_KEY_ID,
            f"The only signature of {document.role} version {document.version}, by {document.signatures[0].key_id[:16]}…, "
            "is not one of this role's keys over these bytes.",
            field="signatures",
        )
    raise MetadataRefused(
        Reason.UNMET_THRESHOLD,
        f"{document.role} version {document.version} has {len(valid)} valid signatures of different keys of its role; "
        f"{threshold} are needed.",
        field="signatures",
    )


def read_root(document: Document, *, roles_needed: Collection[Role] = tuple(Role)) -> Root:
    """What a root says. ``roles_needed``: a client that asks for the Director's targets alone needs no keys for the rest.

    Raises:
        MetadataRefused: INVALID_METADATA, UNSUPPORTED_METHOD (Uptane flavour), ILLEGAL_THRESHOLD.
    """
    signed = document.signed
    keys: dict[str, PublicKey] = {}
    for key_id, value in object_at(signed.get("keys"), "signed.keys").items():
        try:
            keys[key_id] = read_public_key(value, document.flavour, field=f"signed.keys.{key_id[:64]}")
        except UnknownKey:
            if document.flavour is Flavour.UPTANE:
                raise  # aktualizr refuses the whole document
    roles = {
        name: _role_keys(value, f"signed.roles.{name[:64]}")
        for name, value in object_at(signed.get("roles"), "signed.roles").items()
        if name in set(Role) or isinstance(value, Mapping)
    }
    for role in roles_needed:
        if role.value not in roles:
            raise MetadataRefused(Reason.INVALID_METADATA, f"The root names no keys for {role}.", field=f"signed.roles.{role}")
    consistent = signed.get("consistent_snapshot", False)
    if not isinstance(consistent, bool):
        raise MetadataRefused(
            Reason.INVALID_METADATA, "consistent_snapshot is true or false.", field="signed.consistent_snapshot"
        )
    return Root(version=document.version, expires=document.expires, keys=keys, roles=roles, consistent_snapshot=consistent)


def read_targets(document: Document) -> Targets:
    """What a targets document says, the Director's or the Image repository's, delegated or not.

    Raises:
        MetadataRefused: INVALID_METADATA, UNSUPPORTED_METHOD, ILLEGAL_THRESHOLD.
    """
    signed = document.signed
    targets = {
        name: _target(name, value, f"signed.targets.{name[:64]}")
        for name, value in object_at(signed.get("targets"), "signed.targets").items()
    }
    custom = signed.get("custom")
    named = signed.get("delegations")
    keys: dict[str, PublicKey] = {}
    delegations: list[Delegation] = []
    if named is not None:
        block = object_at(named, "signed.delegations")
        for key_id, value in object_at(block.get("keys", {}), "signed.delegations.keys").items():
            try:
                keys[key_id] = read_public_key(value, document.flavour, field=f"signed.delegations.keys.{key_id[:64]}")
            except UnknownKey:
                if document.flavour is Flavour.UPTANE:
                    raise
        for number, value in enumerate(array_at(block.get("roles", []), "signed.delegations.roles")):
            delegations.append(_delegation(value, f"signed.delegations.roles[{number}]"))
        if len({delegation.name for delegation in delegations}) != len(delegations):
            raise MetadataRefused(Reason.INVALID_METADATA, "Two delegations have one name.", field="signed.delegations.roles")
    return Targets(
        version=document.version,
        expires=document.expires,
        targets=targets,
        delegation_keys=keys,
        delegations=tuple(delegations),
        has_delegations=named is not None,
        custom=cast("Mapping[str, Any]", custom) if isinstance(custom, Mapping) else {},
    )


def read_snapshot(document: Document) -> Snapshot:
    """What a snapshot says.

    Raises:
        MetadataRefused: INVALID_METADATA.
    """
    meta = {
        name: _meta_file(value, f"signed.meta.{name[:64]}")
        for name, value in object_at(document.signed.get("meta"), "signed.meta").items()
    }
    if "targets.json" not in meta:
        raise MetadataRefused(Reason.INVALID_METADATA, "A snapshot names targets.json.", field="signed.meta")
    return Snapshot(version=document.version, expires=document.expires, meta=meta)


def read_timestamp(document: Document) -> Timestamp:
    """What a timestamp says. The Uptane flavour must have length and at least one hash (Uptane reference §4.6).

    Raises:
        MetadataRefused: INVALID_METADATA.
    """
    value = object_at(document.signed.get("meta"), "signed.meta").get("snapshot.json")
    snapshot = _meta_file(value, "signed.meta.snapshot.json")
    if document.flavour is Flavour.UPTANE and (snapshot.length is None or not snapshot.hashes):
        raise MetadataRefused(
            Reason.INVALID_METADATA, "A timestamp gives the snapshot's length and hash.", field="signed.meta.snapshot.json"
        )
    return Timestamp(version=document.version, expires=document.expires, snapshot=snapshot)


def _check_type(value: object, role: Role, flavour: Flavour) -> None:
    accepted = {role.value} if flavour is Flavour.TUF else {role.type_name}
    if role is Role.ROOT and flavour is Flavour.UPTANE:
        accepted.add(role.value)  # aktualizr takes a small letter for root alone
    if not isinstance(value, str) or value not in accepted:
        raise MetadataRefused(
            Reason.WRONG_TYPE,
            f"The document is of type {str(value)[:40]!r}, not {sorted(accepted)[0]!r}.",
            field="signed._type",
        )


def _check_spec_version(value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"1(\.\d{1,6}){1,2}", value):
        raise MetadataRefused(
            Reason.INVALID_METADATA, f"The TUF specification {str(value)[:40]!r} isn't 1.x.", field="signed.spec_version"
        )


def _signatures(value: object, flavour: Flavour) -> tuple[Signature, ...]:
    rows = array_at(value, "signatures")
    if len(rows) > SIGNATURES_MAX:
        raise MetadataRefused(
            Reason.INVALID_METADATA, f"A document has at most {SIGNATURES_MAX} signatures.", field="signatures"
        )
    found: list[Signature] = []
    for number, row in enumerate(rows):
        path = f"signatures[{number}]"
        members = object_at(row, path)
        key_id, text = members.get("keyid"), members.get("sig")
        if not isinstance(key_id, str) or not isinstance(text, str):
            raise MetadataRefused(Reason.INVALID_METADATA, "A signature has keyid and sig, both strings.", field=path)
        found.append(_signature(key_id, text, members.get("method"), flavour, path))
    if len({signature.key_id for signature in found}) != len(found):
        raise MetadataRefused(Reason.NON_UNIQUE_SIGNATURES, "Two signatures have one key id.", field="signatures")
    return tuple(found)


def _signature(key_id: str, text: str, method: object, flavour: Flavour, path: str) -> Signature:
    if flavour is Flavour.TUF:
        # An empty one stands for a signature still to come.
        if not _TUF_SIGNATURE_HEX.fullmatch(text):
            raise MetadataRefused(Reason.INVALID_METADATA, "A signature is hexadecimal.", field=f"{path}.sig")
        return Signature(key_id=key_id, value=binascii.unhexlify(text))
    if not isinstance(method, str) or not any(method.lower() in methods for methods in METHODS.values()):
        raise MetadataRefused(
            Reason.UNSUPPORTED_METHOD, f"The signature method {str(method)[:40]!r} isn't known.", field=f"{path}.method"
        )
    try:
        return Signature(key_id=key_id, value=base64.b64decode(text, validate=True), method=method)
    except (ValueError, binascii.Error):
        raise MetadataRefused(Reason.INVALID_METADATA, "A signature is Base64.", field=f"{path}.sig") from None


def _role_keys(value: object, path: str) -> RoleKeys:
    members = object_at(value, path)
    key_ids = array_at(members.get("keyids"), f"{path}.keyids")
    if not all(isinstance(key_id, str) for key_id in key_ids):
        raise MetadataRefused(Reason.INVALID_METADATA, "Key ids are strings.", field=f"{path}.keyids")
    if len(set(cast("Sequence[str]", key_ids))) != len(key_ids):
        raise MetadataRefused(Reason.INVALID_METADATA, "A role names one key id twice.", field=f"{path}.keyids")
    threshold = members.get("threshold")
    if not isinstance(threshold, int) or isinstance(threshold, bool) or not 1 <= threshold <= THRESHOLD_MAX:
        raise MetadataRefused(Reason.ILLEGAL_THRESHOLD, f"A threshold is 1 to {THRESHOLD_MAX}.", field=f"{path}.threshold")
    return RoleKeys(key_ids=tuple(cast("Sequence[str]", key_ids)), threshold=threshold)


def _meta_file(value: object, path: str) -> MetaFile:
    members = object_at(value, path)
    length = members.get("length")
    return MetaFile(
        version=integer_at(members.get("version"), f"{path}.version", minimum=1, maximum=VERSION_MAX),
        length=None if length is None else integer_at(length, f"{path}.length", minimum=0, maximum=2**53 - 1),
        hashes=hashes_at(members.get("hashes"), f"{path}.hashes", required=False),
    )


def _target(name: str, value: object, path: str) -> TargetFile:
    members = object_at(value, path)
    custom = members.get("custom")
    if custom is not None and not isinstance(custom, Mapping):
        raise MetadataRefused(Reason.INVALID_METADATA, "custom must be an object.", field=f"{path}.custom")
    return TargetFile(
        name=name,
        length=integer_at(members.get("length"), f"{path}.length", minimum=0, maximum=2**53 - 1),
        hashes=hashes_at(members.get("hashes"), f"{path}.hashes", required=True),
        custom=cast("Mapping[str, Any]", custom or {}),
    )


def _delegation(value: object, path: str) -> Delegation:
    members = object_at(value, path)
    name = members.get("name")
    if not isinstance(name, str) or not name or name in set(Role):
        raise MetadataRefused(
            Reason.INVALID_METADATA, "A delegation has a name, and not that of a role of the root.", field=f"{path}.name"
        )
    terminating = members.get("terminating", False)
    if not isinstance(terminating, bool):
        raise MetadataRefused(Reason.INVALID_METADATA, "terminating is true or false.", field=f"{path}.terminating")
    paths = texts_at(members.get("paths", []), f"{path}.paths")
    prefixes = texts_at(members.get("path_hash_prefixes", []), f"{path}.path_hash_prefixes")
    if paths and prefixes:
        raise MetadataRefused(
            Reason.INVALID_METADATA, "A delegation goes by paths or by path_hash_prefixes, never by both.", field=path
        )
    return Delegation(
        name=name, keys=_role_keys(members, path), paths=paths, terminating=terminating, path_hash_prefixes=prefixes
    )
