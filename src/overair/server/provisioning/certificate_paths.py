"""From a device's certificate up to an authority that an operator trusts: small, strict, and bounded in what it costs.

What isn't understood is refused: a critical extension without a rule here, name constraints, SHA-1, version 1. Every refusal
has a name of its own (``gateway.authority.RefusalCode``).
Reference: RFC 5280 §6.1; Uptane reference §12.1, §12.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from overair.basics.clock import Instant, as_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.ids import ThingName
from overair.server.certificates import x509 as certificates_x509
from overair.server.certificates.x509 import CHAIN_CERTIFICATES_MAX, UNREADABLE, directly_issued, not_after, not_before
from overair.server.gateway.authority import RefusalCode
from overair.server.provisioning.model import THING_NAME, AuthorityId

SENT_CERTIFICATES_MAX: Final = 10
"""Certificates that a peer may send beside its own. More than a good chain needs, so that a deep one is called deep."""
SERIAL_NUMBER_BITS_MAX: Final = 160
"""Twenty octets (RFC 5280 §4.1.2.2), the sign's bit among them, which a conforming number leaves clear."""
SIGNATURES_CHECKED_MAX: Final = 32
"""Of one chain: whoever sends many issuers of one name makes us work this much and no more."""
PEM_SIZE_BYTES_MAX: Final = 512 * 1024

_UNDERSTOOD_CRITICAL: Final = frozenset(
    {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE}
)
_LEAF_CRITICAL: Final = _UNDERSTOOD_CRITICAL | {ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_PRIVATE_KEY: Final = re.compile(rb"PRIVATE\s*KEY", re.IGNORECASE)

E = TypeVar("E", bound=x509.ExtensionType)


class PathRefused(Exception):
    """Why a chain isn't believed. The message is for the operator's log."""

    def __init__(self, code: RefusalCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Anchor:
    """An authority that an operator trusts."""

    id: AuthorityId
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Link:
    """Who issued a certificate of a path, and under which number: what a revocation list is asked for."""

    issuer: AuthorityId
    serial_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedPath:
    """A chain that was found good, and until when it is."""

    authority: AuthorityId
    depth: int
    """Certificates above the device's own, the authority's included."""
    not_after: Instant
    """When the first certificate on it ends."""
    links: tuple[Link, ...]
    """Of each certificate below the authority's own, the device's first."""


@dataclass(frozen=True, slots=True)
class PresentedChain:
    """What a peer sent: its own certificate, and whatever came with it."""

    leaf: x509.Certificate
    others: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, leaf_der: bytes, others_der: Sequence[bytes]) -> PresentedChain:
        """Read DER.

        Raises:
            PathRefused: CERTIFICATE_UNREADABLE, CHAIN_TOO_DEEP.
        """
        if len(others_der) > SENT_CERTIFICATES_MAX:
            raise PathRefused(RefusalCode.CHAIN_TOO_DEEP, f"{len(others_der)} certificates came beside the device's own")
        try:
            certificates = [certificates_x509.certificate_from_der(der) for der in (leaf_der, *others_der)]
            for certificate in certificates:
                _ = certificate.extensions, certificate.subject, certificate.issuer
        except (InvalidRequest, *UNREADABLE) as broken:
            raise PathRefused(RefusalCode.CERTIFICATE_UNREADABLE, f"a certificate can't be read: {str(broken)[:200]}") from None
        return cls(certificates[0], tuple(certificates[1:]))

    @property
    def issuer_hashes(self) -> frozenset[str]:
        """By these names an authority is looked for."""
        return frozenset(name_hash(certificate.issuer) for certificate in (self.leaf, *self.others))


def name_hash(name: x509.Name) -> str:
    """SHA-256 of a name's DER."""
    return hashlib.sha256(name.public_bytes()).hexdigest()


def authority_id(certificate: x509.Certificate) -> AuthorityId:
    """The identity of an authority: its public key's hash."""
    return AuthorityId(certificates_x509.key_fingerprint(certificate))


# Chains ---------------------------------------------------------------------------------------------------------------------


def verify_path(
    chain: PresentedChain,
    anchors: Sequence[Anchor],
    *,
    now: Instant,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> TrustedPath:
    """Find a good path from the chain's leaf to one of the anchors. Checks signatures: not for the event loop.

    Devices are clients; others' test vectors judge the same rules for servers, and say so in ``purpose``.

    Raises:
        PathRefused: with what was wrong with the path that came nearest.
    """
    nearest: PathRefused | None = None
    for anchor, path in _paths(chain, anchors):
        try:
            return _judged(anchor, path, now, purpose)
        except PathRefused as refused:
            nearest = nearest or refused
    raise nearest or PathRefused(
        RefusalCode.FOREIGN_AUTHORITY,
        f"no path leads from {chain.leaf.issuer.rfc4514_string()[:200]!r} to an authority that is trusted here",
    )


def verify_issued(leaf: x509.Certificate, anchors: Sequence[Anchor], *, now: Instant) -> AuthorityId:
    """Which of these authorities has issued a certificate itself: the rule of AWS's CA certificates, whose fleets are made with
    plain openssl. A leaf needs no extended key usage, and an authority no key usage; what stands there counts.

    Checks signatures: not for the event loop.

    Raises:
        PathRefused
    """
    for anchor in anchors:
        issuer = anchor.certificate
        if leaf.issuer == issuer.subject and isinstance(_hash_of(leaf), _HASHES) and directly_issued(leaf, issuer):
            if not not_before(issuer) <= now <= not_after(issuer):
                raise PathRefused(RefusalCode.AUTHORITY_EXPIRED, f"the authority {_subject(issuer)} doesn't hold now")
            if now < not_before(leaf):
                raise PathRefused(RefusalCode.NOT_YET_VALID, f"it holds from {_moment(not_before(leaf))}")
            if now > not_after(leaf):
                raise PathRefused(RefusalCode.EXPIRED, f"it held until {_moment(not_after(leaf))}")
            _check_leaf(leaf, ExtendedKeyUsageOID.CLIENT_AUTH, needs_purpose=False)
            return anchor.id
    raise PathRefused(RefusalCode.FOREIGN_AUTHORITY, f"no CA certificate has issued it itself: {_subject(leaf)}")


def ca_shortcomings(certificate: x509.Certificate, *, now: Instant) -> tuple[str, ...]:
    """Why a certificate can be no CA certificate as AWS has it, each reason as the end of a sentence."""
    found = list(authority_shortcomings(certificate, is_anchor=True))
    if _extension(certificate, x509.KeyUsage) is None:
        found = [each for each in found if not each.startswith("may not sign certificates")]
    if not not_before(certificate) <= now <= not_after(certificate):
        found.append("doesn't hold now")
    return tuple(found)


def device_name(leaf: x509.Certificate) -> ThingName:
    """The device id in a certificate: its one common name, which must be a thing's name.

    Raises:
        PathRefused: NO_COMMON_NAME, SEVERAL_COMMON_NAMES, COMMON_NAME_INVALID.
    """
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names:
        raise PathRefused(RefusalCode.NO_COMMON_NAME, "the subject has no common name")
    if len(names) > 1:
        raise PathRefused(RefusalCode.SEVERAL_COMMON_NAMES, f"the subject has {len(names)} common names")
    value = names[0].value
    if not isinstance(value, str) or not THING_NAME.fullmatch(value):
        raise PathRefused(RefusalCode.COMMON_NAME_INVALID, f"the common name {value!r:.150} is no thing's name")
    return ThingName(value)


def _paths(chain: PresentedChain, anchors: Sequence[Anchor]) -> Iterator[tuple[Anchor, tuple[x509.Certificate, ...]]]:
    """Every path whose names and signatures fit: the leaf, then its issuers up to the anchor's own certificate."""
    anchor_keys = {anchor.id for anchor in anchors}
    others = [each for each in chain.others if _key_id(each) not in anchor_keys]
    budget = [SIGNATURES_CHECKED_MAX]

    def issued(below: x509.Certificate, above: x509.Certificate) -> bool:
        if below.issuer != above.subject or budget[0] == 0 or not _key_is_accepted(above):
            return False
        budget[0] -= 1
        return isinstance(_hash_of(below), _HASHES) and directly_issued(below, above)

    def upwards(path: tuple[x509.Certificate, ...]) -> Iterator[tuple[Anchor, tuple[x509.Certificate, ...]]]:
        top = path[-1]
        for anchor in anchors:
            if issued(top, anchor.certificate):
                yield anchor, (*path, anchor.certificate)
        for other in others:
            if other not in path and issued(top, other):
                yield from upwards((*path, other))

    yield from upwards((chain.leaf,))


def _judged(anchor: Anchor, path: tuple[x509.Certificate, ...], now: Instant, purpose: x509.ObjectIdentifier) -> TrustedPath:
    """Everything about a path but its signatures.

    Raises:
        PathRefused
    """
    leaf, *issuers = path
    if len(issuers) > CHAIN_CERTIFICATES_MAX:
        raise PathRefused(
            RefusalCode.CHAIN_TOO_DEEP,
            f"{len(issuers)} certificates stand above the device's own, at most {CHAIN_CERTIFICATES_MAX} may",
        )
    if now < not_before(leaf):
        raise PathRefused(RefusalCode.NOT_YET_VALID, f"it holds from {_moment(not_before(leaf))}")
    if now > not_after(leaf):
        raise PathRefused(RefusalCode.EXPIRED, f"it held until {_moment(not_after(leaf))}")
    _check_leaf(leaf, purpose)
    authorities_below = 0
    """Intermediates between the issuer at hand and the leaf, those that issued themselves not counted."""
    for issuer in issuers:
        if not not_before(issuer) <= now <= not_after(issuer):
            raise PathRefused(
                RefusalCode.AUTHORITY_EXPIRED,
                f"the authority {_subject(issuer)} holds from {_moment(not_before(issuer))} to {_moment(not_after(issuer))}",
            )
        shortcomings = authority_shortcomings(issuer, is_anchor=issuer is anchor.certificate, purpose=purpose)
        constraints = _extension(issuer, x509.BasicConstraints)
        if constraints is not None and constraints.path_length is not None and authorities_below > constraints.path_length:
            allowed = f"allows {constraints.path_length} authorities below it, and there are {authorities_below}"
            shortcomings = (*shortcomings, allowed)
        if shortcomings:
            raise PathRefused(RefusalCode.CHAIN_INVALID, f"the authority {_subject(issuer)} {'; '.join(shortcomings)}")
        if issuer.subject != issuer.issuer:
            authorities_below += 1
    links = tuple(Link(authority_id(above), below.serial_number) for below, above in pairwise(path))
    if not all(link.serial_number > 0 and link.serial_number.bit_length() < SERIAL_NUMBER_BITS_MAX for link in links):
        raise PathRefused(RefusalCode.CHAIN_INVALID, "a serial number on it isn't positive or has more than 20 octets")
    until = Instant(min(not_after(each) for each in path))
    return TrustedPath(authority=anchor.id, depth=len(issuers), not_after=until, links=links)


def _check_leaf(leaf: x509.Certificate, purpose: x509.ObjectIdentifier, *, needs_purpose: bool = True) -> None:
    """A device's certificate is for client authentication, by name, and can't issue others.

    Raises:
        PathRefused: WRONG_PURPOSE, CHAIN_INVALID.
    """
    constraints, usage = _extension(leaf, x509.BasicConstraints), _extension(leaf, x509.KeyUsage)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if constraints is not None and constraints.ca:
        raise PathRefused(RefusalCode.WRONG_PURPOSE, "it is an authority's certificate (basic constraints)")
    if usage is not None and not usage.digital_signature:
        raise PathRefused(RefusalCode.WRONG_PURPOSE, "its key usage lacks digitalSignature")
    if (needs_purpose or purposes is not None) and (purposes is None or purpose not in purposes):
        raise PathRefused(RefusalCode.WRONG_PURPOSE, f"its extended key usage lacks {_purpose(purpose)}")
    if leaf.version is not x509.Version.v3 or not certificates_x509.is_canonical(leaf):
        raise PathRefused(RefusalCode.CHAIN_INVALID, "it is no X.509 version 3 certificate in DER")
    try:
        certificates_x509.accepted_public_key(leaf, field="certificate")
    except InvalidRequest as weak:
        raise PathRefused(RefusalCode.CHAIN_INVALID, weak.message) from None
    unknown = _not_understood(leaf, _LEAF_CRITICAL)
    if unknown:
        raise PathRefused(RefusalCode.CHAIN_INVALID, f"it has critical extensions without a rule here: {', '.join(unknown)}")


def authority_shortcomings(
    certificate: x509.Certificate, *, is_anchor: bool, purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH
) -> tuple[str, ...]:
    """Why a certificate can be no authority, each reason as the end of a sentence; its dates apart.

    An anchor is trusted for what the operator uploaded it for, so its own extended key usage isn't asked: those of the
    product's instructions differ (Uptane reference §12.1).
    """
    found = []
    constraints, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    if certificate.version is not x509.Version.v3:
        found.append("is no X.509 version 3 certificate")
    if constraints is None or not constraints.ca:
        found.append("isn't an authority's (basic constraints must say CA:TRUE)")
    if usage is None or not usage.key_cert_sign:
        found.append("may not sign certificates (key usage must contain keyCertSign)")
    if not _key_is_accepted(certificate):
        found.append("has a key that isn't accepted (RSA of at least 2048 bits, or ECDSA on P-256, P-384 or P-521)")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if not is_anchor and purposes is not None and {purpose, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.isdisjoint(purposes):
        found.append(f"isn't for {_purpose(purpose)} (extended key usage)")
    if _extension(certificate, x509.NameConstraints) is not None:
        found.append("has name constraints, for which there is no rule here")
    unknown = _not_understood(certificate, _UNDERSTOOD_CRITICAL | {ExtensionOID.NAME_CONSTRAINTS})
    if unknown:
        found.append(f"has critical extensions without a rule here: {', '.join(unknown)}")
    return tuple(found)


# Authorities, as operators upload them --------------------------------------------------------------------------------------


def read_authorities(text: bytes, *, count_max: int, now: Instant) -> list[x509.Certificate]:
    """The certificates of an upload, each of them fit to be an authority; otherwise none, with everything that is wrong.

    Raises:
        InvalidRequest: subjects ``private-key-sent``, ``certificate``, ``fleet-authority``.
    """
    refuse_private_keys(text, field="certificatePem")
    certificates = certificates_x509.certificates_from_pem(
        text, size_bytes_max=PEM_SIZE_BYTES_MAX, count_max=count_max, field="certificatePem"
    )
    found = []
    for number, certificate in enumerate(certificates, start=1):
        shortcomings = list(authority_shortcomings(certificate, is_anchor=True))
        if now > not_after(certificate):
            shortcomings.append(f"expired at {_moment(not_after(certificate))}")
        if shortcomings:
            found.append(f"Certificate {number}, {_subject(certificate)}, {'; '.join(shortcomings)}.")
    if found:
        raise InvalidRequest(
            " ".join([*found, "Nothing was stored."]), subject="fleet-authority", details={"field": "certificatePem"}
        )
    return certificates


def refuse_private_keys(text: bytes, *, field: str) -> None:
    """Raises InvalidRequest, subject ``private-key-sent``, where a text that should hold certificates holds a private key."""
    if _PRIVATE_KEY.search(text):
        raise InvalidRequest(
            "There is a PRIVATE KEY in this text. Nothing was stored, and such a key never belongs here: an authority's stays "
            "in your own PKI, a device's on the device. Treat this key as exposed from now on, and send the certificate alone.",
            subject="private-key-sent",
            details={"field": field},
        )


# What certificates say ------------------------------------------------------------------------------------------------------


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _not_understood(certificate: x509.Certificate, understood: frozenset[x509.ObjectIdentifier]) -> list[str]:
    return [each.oid.dotted_string for each in certificate.extensions if each.critical and each.oid not in understood]


def _key_is_accepted(certificate: x509.Certificate) -> bool:
    return _or_none(lambda: certificates_x509.accepted_public_key(certificate, field="certificate")) is not None


def _key_id(certificate: x509.Certificate) -> AuthorityId | None:
    return _or_none(lambda: authority_id(certificate))


def _hash_of(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    return _or_none(lambda: certificate.signature_hash_algorithm)


R = TypeVar("R")


def _or_none(read: Callable[[], R | None]) -> R | None:
    """None for what can't be read: whoever asks treats it as not fit."""
    try:
        return read()
    except (InvalidRequest, *UNREADABLE):
        return None


def _purpose(purpose: x509.ObjectIdentifier) -> str:
    return "clientAuth" if purpose == ExtendedKeyUsageOID.CLIENT_AUTH else purpose.dotted_string


def _subject(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string()[:200])


def _moment(instant: Instant) -> str:
    return as_datetime(instant).isoformat()
