"""Signatures carried by file over an air gap: a request goes out, signature files come back. Pure.

A request holds the very bytes to be signed, both flavours, and what they replace with the chain of roots that vouches for it,
so that the signer's own tool, on a machine without a network, tells what would change. The words in the file are for whoever
opens it in an editor; nobody signs on their account.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from overair.basics.clock import Instant
from overair.cli.sign import items
from overair.cli.sign.ends import refused, usage
from overair.cli.sign.items import TARGETS
from overair.cli.sign.known import Known, Served
from overair.cli.sign.sealing import Sealed, SealedDocument, requirements, wanted_keys, with_signature
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Signature
from overair.wire.uptane.metadata_writing import MetadataSigner, payload, signature_by
from overair.wire.uptane.refusals import MetadataRefused

REQUEST_FORMAT: Final = "overair-signing-request/1"
SIGNATURE_FORMAT: Final = "overair-signature/1"
REQUEST_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024
SIGNATURE_SIZE_BYTES_MAX: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody is asked to sign."""

    sealed: Sealed
    served: Served
    """What it replaces, with the chain of roots that vouches for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """Signatures of one key holder over one request."""

    request: str
    signatures: tuple[tuple[str, Flavour, Signature], ...]
    """Document, flavour, signature."""


def write_request(sealed: Sealed, known: Known, summary: Iterable[str], *, names: Mapping[str, str]) -> bytes:
    """The request file."""
    wanted = requirements(sealed, known)
    document = {
        "format": REQUEST_FORMAT,
        "id": sealed.id,
        "repository": sealed.repository.value,
        "summary": list(summary),
        "signers": [
            {
                "document": each.document,
                "why": each.why,
                "threshold": each.role_keys.threshold,
                "keys": [{"key_id": key_id, "name": names.get(key_id, "")} for key_id in each.role_keys.key_ids],
                "signed_by": sorted(_signed_by(sealed, each.document) & set(each.role_keys.key_ids)),
            }
            for each in wanted
        ],
        "documents": [
            {"name": each.name, **{flavour.value: each.to_sign(flavour).decode("utf-8") for flavour in Flavour}}
            for each in sealed.documents
        ],
        "server_signs": sorted(sealed.server_signs),
        "moves": sealed.moves,
        "replaces": served_to_json(known.served),
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def read_request(data: bytes) -> Request:
    """A request, whoever wrote it: bytes that aren't canonical, or flavours that say different things, are refused here.

    Raises:
        SignEnded: USAGE: no request; REFUSED: one that can't be meant honestly.
    """
    try:
        document: dict[str, Any] = decode_object(data, size_bytes_max=REQUEST_SIZE_BYTES_MAX, depth_max=16)
        if document["format"] != REQUEST_FORMAT:
            raise ValueError
        documents = tuple(_read_document(each) for each in document["documents"])
        served = served_from_json(document["replaces"])
        sealed = Sealed(
            repository=Repository(document["repository"]),
            built_on={},
            checksum=served.checksum,
            documents=documents,
            server_signs=frozenset(document["server_signs"]),
            moves=document.get("moves", False) is True,
        )
    except (MalformedJson, KeyError, TypeError, ValueError, AttributeError):
        raise usage("This is no signing request that this tool wrote.") from None
    except MetadataRefused as error:
        raise refused(f"The request asks to sign what can't be read: {error.message} ({error.field})") from None
    if sealed.id != document["id"] or len({each.name for each in documents}) != len(documents) or not documents:
        raise refused("The request's id isn't that of the bytes in it: it was changed after it was written.")
    return Request(sealed=sealed, served=served)


def _read_document(document: Mapping[str, Any]) -> SealedDocument:
    name = document["name"]
    signed = decode_object(document[Flavour.UPTANE.value].encode("utf-8"), size_bytes_max=REQUEST_SIZE_BYTES_MAX)
    sealed = SealedDocument(name=name, body=items.body_of(signed, name))
    for flavour in Flavour:
        if sealed.to_sign(flavour) != document[flavour.value].encode("utf-8"):
            raise refused(
                f"The {flavour} bytes of {name} aren't the canonical form of what the request says: there is something in "
                "them that "
                "this tool wouldn't write, or the two flavours differ."
            )
    return sealed


def sign_request(request: Request, known: Known, signers: Iterable[MetadataSigner]) -> Detached:
    """These signers' signatures over all that asks for them."""
    wanted = wanted_keys(request.sealed, known)
    found: list[tuple[str, Flavour, Signature]] = []
    for document in request.sealed.documents:
        for signer in signers:
            if signer.public_key.id in wanted[document.name]:
                for flavour in Flavour:
                    found.append((document.name, flavour, signature_by(signer, document.to_sign(flavour), flavour)))
    return Detached(request=request.sealed.id, signatures=tuple(found))


def write_signatures(detached: Detached) -> bytes:
    document = {"format": SIGNATURE_FORMAT, "request": detached.request, "signatures": signatures_to_json(detached.signatures)}
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def read_signatures(data: bytes, *, path: str) -> Detached:
    """Raises:
    SignEnded: USAGE.
    """
    try:
        document: dict[str, Any] = decode_object(data, size_bytes_max=SIGNATURE_SIZE_BYTES_MAX, depth_max=8)
        if document["format"] != SIGNATURE_FORMAT:
            raise ValueError
        return Detached(request=str(document["request"]), signatures=signatures_from_json(document["signatures"]))
    except (MalformedJson, KeyError, TypeError, ValueError):
        raise usage(f"{path} is no signature file that this tool wrote.") from None


def collect(sealed: Sealed, known: Known, detached: Detached, *, path: str) -> Sealed:
    """Add signatures, each looked at first; one bad one and nothing of the file counts.

    Raises:
        SignEnded: REFUSED: for another request, by a key that isn't asked, not a signature, or for one flavour only.
    """
    if detached.request != sealed.id:
        raise refused(
            f"{path} answers the request {detached.request[:16]}…, and the one that waits is {sealed.id[:16]}…. "
            "Something changed since: send the new request."
        )
    wanted = wanted_keys(sealed, known)
    documents = {document.name: document for document in sealed.documents}
    for name, flavour, signature in detached.signatures:
        key = wanted.get(name, {}).get(signature.key_id)
        if key is None:
            raise refused(f"{path}: nobody asks the key {signature.key_id[:16]}… to sign {name}.")
        if flavour is Flavour.UPTANE and signature.method != key.method:
            raise refused(f"{path}: the signature of {signature.key_id[:16]}… names another method than its key's.")
        if not key.verifies(signature.value, documents[name].to_sign(flavour)):
            raise refused(f"{path}: the signature of {signature.key_id[:16]}… over {name} ({flavour}) doesn't verify.")
        documents[name] = with_signature(documents[name], signature, flavour)
    signers = {(name, signature.key_id) for name, _, signature in detached.signatures}
    for name, key_id in signers:
        if key_id not in documents[name].signed_by():
            raise refused(f"{path}: the key {key_id[:16]}… has signed one flavour of {name} only.")
    if not signers:
        raise refused(f"{path} holds no signature.")
    return replace(sealed, documents=tuple(documents.values()))


def _signed_by(sealed: Sealed, name: str) -> frozenset[str]:
    document = sealed.document(name)
    return frozenset() if document is None else document.signed_by()


# As they lie on the disk --------------------------------------------------------------------------------------------------


def sealed_to_json(sealed: Sealed) -> dict[str, Any]:
    return {
        "repository": sealed.repository.value,
        "built_on": dict(sealed.built_on),
        "checksum": sealed.checksum,
        "forced": sorted(sealed.forced),
        "server_signs": sorted(sealed.server_signs),
        "moves": sealed.moves,
        "documents": [
            {
                "name": each.name,
                "signed": payload(each.body),
                "signatures": signatures_to_json(
                    (each.name, flavour, signature) for flavour in Flavour for signature in each.signatures.get(flavour, ())
                ),
            }
            for each in sealed.documents
        ],
    }


def sealed_from_json(document: Mapping[str, Any]) -> Sealed:
    """Raises:
    KeyError, TypeError, ValueError, MetadataRefused: not what ``sealed_to_json`` wrote.
    """
    documents = []
    for each in document["documents"]:
        sealed = SealedDocument(name=each["name"], body=items.body_of(each["signed"], each["name"]))
        for _, flavour, signature in signatures_from_json(each["signatures"]):
            sealed = with_signature(sealed, signature, flavour)
        documents.append(sealed)
    return Sealed(
        repository=Repository(document["repository"]),
        built_on=dict(document["built_on"]),
        checksum=document["checksum"],
        documents=tuple(documents),
        forced=frozenset(document["forced"]),
        server_signs=frozenset(document["server_signs"]),
        moves=document.get("moves", False) is True,
    )


def signatures_to_json(signatures: Iterable[tuple[str, Flavour, Signature]]) -> list[dict[str, str]]:
    return [
        {
            "document": name,
            "flavour": flavour.value,
            "key_id": signature.key_id,
            "method": signature.method or "",
            "value": base64.b64encode(signature.value).decode("ascii"),
        }
        for name, flavour, signature in signatures
    ]


def signatures_from_json(rows: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, Flavour, Signature], ...]:
    return tuple(
        (
            str(row["document"]),
            Flavour(row["flavour"]),
            Signature(
                key_id=str(row["key_id"]),
                value=base64.b64decode(row["value"], validate=True),
                method=str(row["method"]) if row["method"] else None,
            ),
        )
        for row in rows
    )


def served_to_json(served: Served) -> dict[str, Any]:
    def text(data: bytes | None) -> str | None:
        return None if data is None else data.decode("utf-8")

    return {
        "roots": [text(data) for data in served.roots],
        "timestamp": text(served.timestamp),
        "snapshot": text(served.snapshot),
        TARGETS: text(served.targets),
        "delegations": {name: text(data) for name, data in served.delegations.items()},
        "checksum": served.checksum,
        "online_key_ids": sorted(served.online_key_ids),
        "kept_keys": dict(served.kept_keys),
        "pulled_at": served.pulled_at,
    }


def served_from_json(document: Mapping[str, Any]) -> Served:
    def data(name: str) -> bytes | None:
        text = document[name]
        return None if text is None else cast("str", text).encode("utf-8")

    return Served(
        roots=tuple(text.encode("utf-8") for text in document["roots"]),
        timestamp=data("timestamp"),
        snapshot=data("snapshot"),
        targets=data(TARGETS),
        delegations={name: text.encode("utf-8") for name, text in document["delegations"].items()},
        checksum=document["checksum"],
        online_key_ids=frozenset(document["online_key_ids"]),
        kept_keys={str(key_id): str(until) for key_id, until in document.get("kept_keys", {}).items()},
        pulled_at=Instant(document["pulled_at"]),
    )
