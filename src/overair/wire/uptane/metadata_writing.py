"""Signed documents, written to bytes, and their signers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from overair.basics.clock import Instant, as_datetime
from overair.wire.uptane.canonical import CanonicalForm, canonical
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import (
    SPEC_VERSION,
    Body,
    Delegation,
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


class MetadataSigner(Protocol):
    """Who holds a private key of a role. Ed25519, or RSASSA-PSS with SHA-256 and a salt of 32 bytes."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, data: bytes) -> bytes: ...


def expires_text(moment: Instant) -> str:
    """The same moment, cut to the second, as documents write it."""
    return as_datetime(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


def payload(body: Body, flavour: Flavour = Flavour.UPTANE) -> dict[str, object]:
    """What is signed: ``signed`` of a document that says this."""
    match body:
        case Root():
            role, members = Role.ROOT, _root_members(body, flavour)
        case Targets():
            role, members = Role.TARGETS, _targets_members(body, flavour)
        case Snapshot():
            role, members = Role.SNAPSHOT, {"meta": {name: _meta_members(meta) for name, meta in body.meta.items()}}
        case Timestamp():
            role, members = Role.TIMESTAMP, {"meta": {"snapshot.json": _meta_members(body.snapshot)}}
    head: dict[str, object] = {
        "_type": role.type_name if flavour is Flavour.UPTANE else role.value,
        "version": body.version,
        "expires": expires_text(body.expires),
    }
    if flavour is Flavour.TUF:
        head["spec_version"] = SPEC_VERSION
    return {**head, **members}


def bytes_to_sign(signed: Mapping[str, object], flavour: Flavour = Flavour.UPTANE) -> bytes:
    """The canonical form that a signature of this flavour is over."""
    return canonical(signed, form_of(flavour))


def assemble(
    signed: Mapping[str, object], signatures: Sequence[Signature], flavour: Flavour = Flavour.UPTANE, *, checked: bool = False
) -> bytes:
    """The document's bytes as they are stored and served: canonical, so that hashing bytes and hashing meaning agree.
    ``checked``: the bytes to sign have been made of it already."""
    rows: list[dict[str, str]] = []
    for signature in signatures:
        if flavour is Flavour.UPTANE:
            value = base64.b64encode(signature.value).decode("ascii")
            rows.append({"keyid": signature.key_id, "method": signature.method or "", "sig": value})
        else:
            rows.append({"keyid": signature.key_id, "sig": signature.value.hex()})
    # Of the two forms only the escaped one is JSON for every string.
    return canonical({"signatures": rows, "signed": signed}, CanonicalForm.ESCAPED, checked=checked)


def sign_payload(signed: Mapping[str, object], signers: Sequence[MetadataSigner], flavour: Flavour = Flavour.UPTANE) -> bytes:
    """A whole document by these signers, in their order."""
    data = bytes_to_sign(signed, flavour)
    return assemble(signed, [signature_by(signer, data, flavour) for signer in signers], flavour, checked=True)


def signature_by(signer: MetadataSigner, data: bytes, flavour: Flavour = Flavour.UPTANE) -> Signature:
    """One signer's signature over canonical bytes."""
    key = signer.public_key
    method = key.method if flavour is Flavour.UPTANE else None
    return Signature(key_id=key.id, value=signer.sign(data), method=method)


def meta_of(document: bytes, version: int) -> MetaFile:
    """What snapshot or timestamp say of a document with these bytes."""
    return MetaFile(version=version, length=len(document), hashes={"sha256": hashlib.sha256(document).hexdigest()})


def _root_members(root: Root, flavour: Flavour) -> dict[str, object]:
    return {
        "consistent_snapshot": root.consistent_snapshot,
        "keys": {key_id: key.to_json(flavour) for key_id, key in root.keys.items()},
        "roles": {name: _role_keys_members(keys) for name, keys in root.roles.items()},
    }


def _targets_members(targets: Targets, flavour: Flavour) -> dict[str, object]:
    members: dict[str, object] = {"targets": {target.name: _target_members(target) for target in targets.targets.values()}}
    if targets.has_delegations or targets.delegations:
        members["delegations"] = {
            "keys": {key_id: key.to_json(flavour) for key_id, key in targets.delegation_keys.items()},
            "roles": [_delegation_members(delegation) for delegation in targets.delegations],
        }
    if targets.custom:
        members["custom"] = dict(targets.custom)
    return members


def _role_keys_members(keys: RoleKeys) -> dict[str, object]:
    return {"keyids": list(keys.key_ids), "threshold": keys.threshold}


def _target_members(target: TargetFile) -> dict[str, object]:
    members: dict[str, object] = {"length": target.length, "hashes": dict(target.hashes)}
    if target.custom:
        members["custom"] = dict(target.custom)
    return members


def _delegation_members(delegation: Delegation) -> dict[str, object]:
    members: dict[str, object] = {
        "name": delegation.name,
        **_role_keys_members(delegation.keys),
        "terminating": delegation.terminating,
    }
    # TUF allows one of the two, never both.
    if delegation.path_hash_prefixes:
        members["path_hash_prefixes"] = list(delegation.path_hash_prefixes)
    else:
        members["paths"] = list(delegation.paths)
    return members


def _meta_members(meta: MetaFile) -> dict[str, object]:
    members: dict[str, object] = {"version": meta.version}
    if meta.length is not None:
        members["length"] = meta.length
    if meta.hashes:
        members["hashes"] = dict(meta.hashes)
    return members
