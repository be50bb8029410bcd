"""Whom a device trusts to sign images under one name: a text with one or several certificates, shipped as a signed update.

::

    Overair-Trust: 1
    Name: signer
    Serial: 20261127
    -----BEGIN CERTIFICATE-----
    …

The certificates stand in PEM after the head, which PEM's readers pass by (RFC 7468 §2), so that a microcontroller can keep the
same file as its one certificate. The head is signed with the rest: a certificate that was signed for another purpose is no
trust document, one for another name isn't taken for this one, and an older one doesn't come back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.wire.image_signature import BadSignerCertificate, SignerCertificate, load_signer_certificate

TRUST_FILE_TYPE: Final = 254
"""``fileType`` of such a file in an OTA update; 0 is firmware, any other is stored. High, as operators count theirs from 0."""
TRUST_SIZE_BYTES_MAX: Final = 64 * 1024
SIGNERS_MAX: Final = 8
SERIAL_MAX: Final = 2**53 - 1
NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.|pem\Z)){0,63}")

_MARK: Final = b"Overair-Trust:"
_HEAD: Final = re.compile(rb"Overair-Trust: 1\nName: ([A-Za-z0-9._-]{1,64})\nSerial: ([1-9][0-9]{0,15})\n")
_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\r\n]+-----END CERTIFICATE-----\r?\n?")


class MalformedTrust(Exception):
    """No trust document, or one that breaks a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDocument:
    """Who may sign under a name, from this document on."""

    name: str
    """Of the trust anchor: what a job's ``certfile`` selects by its last segment, without ``.pem``."""
    serial: int
    """Rises with each document of the name."""
    signers: tuple[SignerCertificate, ...]


def build_trust(name: str, serial: int, certificates: Sequence[bytes]) -> bytes:
    """Write a document; each of ``certificates`` is the PEM of one certificate.

    Raises:
        MalformedTrust: a rule is broken; the document would be refused by devices.
    """
    parts = []
    for pem in certificates:
        found = _CERTIFICATE.search(pem)
        if found is None:
            raise MalformedTrust("A certificate isn't PEM: it has no -----BEGIN CERTIFICATE-----.")
        parts.append(found[0].replace(b"\r", b"").rstrip(b"\n") + b"\n")
    if NAME.fullmatch(name) is None:
        raise MalformedTrust(
            f"{name[:80]!r} can't name a trust anchor: 1 to 64 letters, digits, '.', '_' and '-', without .pem."
        )
    data = f"Overair-Trust: 1\nName: {name}\nSerial: {serial}\n".encode() + b"".join(parts)
    parse_trust(data)
    return data


def parse_trust(data: bytes) -> TrustDocument:
    """Read a document.

    Raises:
        MalformedTrust: it isn't one, or it breaks a rule.
    """
    if len(data) > TRUST_SIZE_BYTES_MAX:
        raise MalformedTrust(f"A trust document has at most {TRUST_SIZE_BYTES_MAX} bytes.")
    head = _HEAD.match(data)
    if head is None:
        raise MalformedTrust("It doesn't begin as a trust document does: Overair-Trust: 1, Name, Serial.")
    name, serial = head[1].decode("ascii"), int(head[2])
    if NAME.fullmatch(name) is None or serial > SERIAL_MAX:
        raise MalformedTrust("Its name or its serial breaks the rules.")
    return TrustDocument(name=name, serial=serial, signers=_signers(data[head.end() :]))


def trusted_in(data: bytes) -> tuple[int, tuple[SignerCertificate, ...]]:
    """What an anchor's file says: the serial of its document and all its signers. A file without a head has serial 0 and one
    signer, the first: what follows may be its chain, which signs no images.

    Raises:
        BadSignerCertificate: nothing in it can be used.
    """
    if not data.startswith(_MARK):
        return 0, (load_signer_certificate(data),)
    try:
        document = parse_trust(data)
    except MalformedTrust as error:
        raise BadSignerCertificate(str(error)) from None
    return document.serial, document.signers


def _signers(text: bytes) -> tuple[SignerCertificate, ...]:
    signers: list[SignerCertificate] = []
    at = 0
    while at < len(text):
        found = _CERTIFICATE.match(text, at)
        if found is None or len(signers) == SIGNERS_MAX:
            raise MalformedTrust(
                f"After its head a trust document has 1 to {SIGNERS_MAX} certificates in PEM and nothing else."
            )
        try:
            signers.append(load_signer_certificate(found[0]))
        except BadSignerCertificate as error:
            raise MalformedTrust(f"Certificate {len(signers) + 1} can't be used: {error}") from None
        at = found.end()
    if not signers:
        raise MalformedTrust("It names no certificate.")
    return tuple(signers)
