"""Certificate revocation lists, read: who signed one, whether it is whole, and which serial numbers it names.

What isn't understood is refused, so that no list is taken for more than it says. Reference: RFC 5280 §5, §6.3.3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.certificates.x509 import (
    CHAIN_CERTIFICATES_MAX,
    UNREADABLE,
    accepted_public_key,
    certificates_from_pem,
    directly_issued,
    not_after,
    not_before,
    pem_of,
)
from overair.server.provisioning.certificate_paths import authority_id, authority_shortcomings
from overair.server.provisioning.model import AuthorityId

REVOCATION_LIST_SIZE_BYTES_MAX: Final = 2 * 1024 * 1024
"""As PEM: some forty thousand certificates."""
ENTRIES_MAX: Final = 50_000
CLOCKS_DIFFER_MS: Final = 5 * 60_000
"""How far ahead of this server's clock an issuer's may be."""
NUMBER_BITS_MAX: Final = 160
SUBJECT: Final = "revocation-list"

_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----[A-Za-z0-9+/=\s]+-----END X509 CRL-----")
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """A list whose signature was found good."""

    issuer: AuthorityId
    """The key that signed it, named as authorities are."""
    issuer_pem: str
    number: int
    this_update: Instant
    next_update: Instant
    serial_numbers: frozenset[int]
    sha256: str
    """Of its DER: the same list again is told by it from another of the same number."""


def read_revocation_list(text: bytes, issuers: Sequence[x509.Certificate], *, now: Instant) -> RevocationList:
    """The one list in a PEM text, signed by one of ``issuers`` and current. Checks a signature: not for the event loop.

    Raises:
        InvalidRequest: subject ``revocation-list``; the message says which rule it breaks.
    """
    if len(text) > REVOCATION_LIST_SIZE_BYTES_MAX:
        raise _refused(f"has {len(text)} bytes; at most {REVOCATION_LIST_SIZE_BYTES_MAX} are read")
    blocks = _PEM.findall(text)
    if len(blocks) != 1:
        raise _refused(f"must be one PEM block that begins with -----BEGIN X509 CRL-----; there are {len(blocks)}")
    try:
        crl = x509.load_pem_x509_crl(blocks[0])
        der = crl.public_bytes(Encoding.DER)
        number = _number(crl)
        issuer = _issuer(crl, der, issuers)
        this_update, next_update = _dates(crl, now)
        serial_numbers = _serial_numbers(crl)
    except UNREADABLE as broken:
        raise _refused(f"can't be read: {' '.join(str(broken).split())[:200]}") from None
    return RevocationList(
        issuer=authority_id(issuer),
        issuer_pem=pem_of(issuer),
        number=number,
        this_update=this_update,
        next_update=next_update,
        serial_numbers=serial_numbers,
        sha256=hashlib.sha256(der).hexdigest(),
    )


def read_issuers(text: bytes, root: x509.Certificate, *, now: Instant) -> list[x509.Certificate]:
    """An authority, and those certificates of a PEM text that stand below it and may issue devices: whose lists it may be.

    Raises:
        InvalidRequest: a certificate of the text can't be read, or isn't such an authority's. Subjects ``certificate``,
            ``revocation-list``.
    """
    accepted = [root]
    if b"-----BEGIN CERTIFICATE-----" not in text:
        return accepted
    sent = certificates_from_pem(
        text, size_bytes_max=REVOCATION_LIST_SIZE_BYTES_MAX, count_max=CHAIN_CERTIFICATES_MAX, field="revocationListPem"
    )
    others = [each for each in sent if each != root]
    while others:
        found = [each for each in others if _is_below(each, accepted, now)]
        if not found:
            raise _refused(f"came with {others[0].subject.rfc4514_string()[:200]!r}, which is no authority below this one")
        accepted += found
        others = [each for each in others if each not in found]
    return accepted


def _is_below(certificate: x509.Certificate, accepted: Sequence[x509.Certificate], now: Instant) -> bool:
    return (
        not authority_shortcomings(certificate, is_anchor=False)
        and not_before(certificate) <= now <= not_after(certificate)
        and any(directly_issued(certificate, above) for above in accepted)
    )


def _number(crl: x509.CertificateRevocationList) -> int:
    """The list's number, once no extension of the list narrows what it says.

    Raises:
        InvalidRequest
    """
    extensions = crl.extensions
    for each in extensions:
        if isinstance(each.value, x509.IssuingDistributionPoint | x509.DeltaCRLIndicator):
            raise _refused("is a part of a list (a delta, or one distribution point's); send a whole one")
        if each.critical:
            raise _refused(f"has the critical extension {each.oid.dotted_string}, for which there is no rule here")
    try:
        number = extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        raise _refused("has no CRL number, by which a newer one is told from an older (RFC 5280 §5.2.3)") from None
    if number < 0 or number.bit_length() >= NUMBER_BITS_MAX:
        raise _refused("has a CRL number that is negative or longer than 20 octets")
    return number


def _issuer(crl: x509.CertificateRevocationList, der: bytes, issuers: Sequence[x509.Certificate]) -> x509.Certificate:
    """Which of these signed the list.

    Raises:
        InvalidRequest
    """
    named = [each for each in issuers if each.subject == crl.issuer]
    if not named:
        raise _refused(f"is of {crl.issuer.rfc4514_string()[:200]!r}, for which no certificate is here")
    if not isinstance(crl.signature_hash_algorithm, _HASHES):
        raise _refused("must be signed with SHA-256, SHA-384 or SHA-512")
    # The last octet before the signature says how many of its bits don't count: were it any other, two texts would be one list.
    is_whole = der.endswith(b"\0" + crl.signature)
    signers = [each for each in named if is_whole and _signed(crl, each)]
    if not signers:
        raise _refused("isn't signed by the authority that it names")
    for each in signers:
        try:
            usage = each.extensions.get_extension_for_class(x509.KeyUsage).value
        except x509.ExtensionNotFound:
            return each
        if usage.crl_sign:
            return each
    raise _refused("is signed by an authority that may not sign lists (key usage must contain cRLSign)")


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(accepted_public_key(issuer, field="certificate"))
    except (InvalidRequest, InvalidSignature, *UNREADABLE):
        return False


def _dates(crl: x509.CertificateRevocationList, now: Instant) -> tuple[Instant, Instant]:
    """From when the list holds, and when the next one is due.

    Raises:
        InvalidRequest
    """
    this_update, next_update = from_datetime(crl.last_update_utc), crl.next_update_utc
    if next_update is None:
        raise _refused("doesn't say when the next one is due (nextUpdate, RFC 5280 §5.1.2.5)")
    due = from_datetime(next_update)
    if this_update > now + CLOCKS_DIFFER_MS:
        raise _refused(f"holds from {as_datetime(this_update).isoformat()}, which is still to come")
    if due < now:
        raise _refused(f"is stale: the next one was due at {next_update.isoformat()}")
    return this_update, due


def _serial_numbers(crl: x509.CertificateRevocationList) -> frozenset[int]:
    """Raises InvalidRequest."""
    if len(crl) > ENTRIES_MAX:
        raise _refused(f"names {len(crl)} certificates; at most {ENTRIES_MAX} are read")
    serial_numbers = set()
    for entry in crl:
        for extension in entry.extensions:
            if extension.critical or isinstance(extension.value, x509.CertificateIssuer):
                raise _refused(
                    f"has an entry with the extension {extension.oid.dotted_string}, for which there is no rule here"
                )
        if entry.serial_number <= 0 or entry.serial_number.bit_length() >= NUMBER_BITS_MAX:
            raise _refused("names a serial number that isn't positive or has more than 20 octets")
        serial_numbers.add(entry.serial_number)
    return frozenset(serial_numbers)


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"The revocation list {why}. Nothing was stored.", subject=SUBJECT)
