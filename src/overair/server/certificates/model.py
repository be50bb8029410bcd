"""Certificates as the server knows them: devices' registrations, imported code-signing certificates, our own authorities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, CertificateId, KeyId


class CertificateStatus(Enum):
    """Of a registered device certificate (iot model, ``CertificateStatus``). Only ACTIVE ones connect."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"
    PENDING_TRANSFER = "PENDING_TRANSFER"
    REGISTER_INACTIVE = "REGISTER_INACTIVE"
    PENDING_ACTIVATION = "PENDING_ACTIVATION"


OPERATOR_MAY_SET: Final[Mapping[CertificateStatus, frozenset[CertificateStatus]]] = {
    CertificateStatus.ACTIVE: frozenset({CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED}),
    CertificateStatus.INACTIVE: frozenset({CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED}),
    CertificateStatus.PENDING_ACTIVATION: frozenset(
        {CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED}
    ),
    # A revocation is final: whoever revoked must be able to rely on it (wire reference §9.4 leaves it open).
    CertificateStatus.REVOKED: frozenset({CertificateStatus.REVOKED}),
}
"""What UpdateCertificate may make of a status; a status that is absent allows nothing."""

OPERATOR_MAY_NAME: Final = frozenset({CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED})
"""What an operator may ask for at all; the PENDING ones are only ever set by a process of the server's own."""

MAY_BE_DELETED: Final = frozenset({CertificateStatus.INACTIVE, CertificateStatus.REVOKED, CertificateStatus.PENDING_ACTIVATION})


class CertificateMode(Enum):
    """How a certificate was registered: by a known issuer, or alone (iot model, ``CertificateMode``)."""

    DEFAULT = "DEFAULT"
    SNI_ONLY = "SNI_ONLY"


CREDENTIAL_ORIGIN: Final = "credential/"
"""Begins the origin of what was issued to whoever showed a shared provisioning credential; its id follows."""
FLEET_ORIGIN: Final = "fleet-authority/"
"""Begins the origin of what came with a certificate chain to an operator's own fleet authority; its id follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificate:
    """One row of the registry. ``id`` is the SHA-256 of the DER and is unique on the server: it names the account."""

    account: AccountId
    id: CertificateId
    pem: str
    status: CertificateStatus
    mode: CertificateMode
    not_before: Instant
    not_after: Instant
    created_at: Instant
    modified_at: Instant
    version: int
    """Starts at 1 and counts the changes of status."""
    generation_id: str
    origin: str = ""
    """Who vouched for it where that matters later: ``CREDENTIAL_ORIGIN`` or ``FLEET_ORIGIN`` with an id; empty for what an
    operator registered by himself."""
    key_sha256: str | None = None
    """Of the public key (SubjectPublicKeyInfo): one certificate can be written in several ways, each with an id of its own, but
    not for another key. None for a registration of an older version of Overair."""
    replaces: CertificateId | None = None
    """The certificate that this one was issued to follow."""
    replaced_by: CertificateId | None = None
    first_used_at: Instant | None = None
    """When one that replaces another first let its device in; kept for those alone."""
    retires_at: Instant | None = None
    """Another one replaces it, and from this moment on it may be retired, once that one was used."""
    retired_at: Instant | None = None
    trusts: CertificateId | None = None
    """The newest server authority that its device is known to have stored."""

    @property
    def awaits_first_use(self) -> bool:
        """Whether its predecessor is kept for its sake."""
        return self.replaces is not None and self.first_used_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateTransfer:
    """A certificate on its way from one account into another, or what became of that. One stands at most."""

    account: AccountId
    """Who has the certificate: its source until the target has accepted, its target then."""
    certificate_id: CertificateId
    source: AccountId
    target: AccountId
    message: str | None
    transferred_at: Instant
    accepted_at: Instant | None = None
    rejected_at: Instant | None = None
    reject_reason: str | None = None

    @property
    def is_pending(self) -> bool:
        """Neither accepted nor rejected; one that is cancelled is gone."""
        return self.accepted_at is None and self.rejected_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSummary:
    """What a page of a list shows of a registration."""

    id: CertificateId
    status: CertificateStatus
    mode: CertificateMode
    created_at: Instant


class AuthorityPurpose(Enum):
    """What one of our own certificates is for. One of each in an account."""

    DEVICE_AUTHORITY = "device-authority"
    FLEET_AUTHORITY = "fleet-authority"
    """Issues devices' certificates to whoever shows a shared provisioning credential; destroyed with its key when shared
    provisioning is switched off."""
    CREDENTIAL_AUTHORITY = "credential-authority"
    """Issues the shared provisioning credentials themselves; destroyed with the former."""
    SERVER_AUTHORITY = "server-authority"
    NEXT_SERVER_AUTHORITY = "server-authority-next"
    """Made ahead, so that devices trust it before anything that it vouches for is shown to them."""
    FORMER_SERVER_AUTHORITY = "server-authority-former"
    """Vouches for nothing new; still trusted until it is retired."""
    SERVER = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCertificate:
    """A certificate whose private key the keyring holds for us."""

    account: AccountId
    purpose: AuthorityPurpose
    pem: str
    key_id: KeyId
    hosts: Sequence[str]
    """For ``SERVER``: what it names, in order. Else empty."""
    not_after: Instant
    created_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSigningFacts:
    """What a certificate says about itself, as far as a Signer profile asks."""

    version: int
    """1 or 3, as people count; X.509 itself writes 0 or 2."""
    key_usages: tuple[str, ...]
    """ACM's names, such as DIGITAL_SIGNATURE; empty where the extension is absent."""
    extended_key_usages: tuple[tuple[str, str], ...]
    """(ACM's name, dotted object identifier), such as (CODE_SIGNING, 1.3.6.1.5.5.7.3.3)."""
    key_algorithm: str
    """ACM's name: ``EC_prime256v1``, ``RSA_2048``, …"""
    self_signed: bool

    @property
    def shortcomings(self) -> tuple[str, ...]:
        """Why this can't be a code-signing certificate, each reason as a sentence; empty when it can.

        Reference: AWS Signer's demands for AWS IoT, wire reference §6.7: v3, KeyUsage digitalSignature, ExtendedKeyUsage
        codeSigning, ECDSA P-256 or RSA of 2048 bits or more.
        """
        found = []
        if self.version != 3:
            found.append(f"It is an X.509 version {self.version} certificate; version 3 is required.")
        if "DIGITAL_SIGNATURE" not in self.key_usages:
            found.append("Its key usage doesn't contain digitalSignature.")
        if "CODE_SIGNING" not in {name for name, _ in self.extended_key_usages}:
            found.append("Its extended key usage doesn't contain codeSigning (1.3.6.1.5.5.7.3.3).")
        if self.key_algorithm not in SIGNING_KEY_ALGORITHMS:
            found.append(f"Its key is {self.key_algorithm}; ECDSA P-256 or RSA of at least 2048 bits is required.")
        return tuple(found)


SIGNING_KEY_ALGORITHMS: Final = frozenset({"EC_prime256v1", "RSA_2048", "RSA_3072", "RSA_4096"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmCertificate:
    """A certificate imported into ACM; the keyring holds its private key, which never comes out again."""

    account: AccountId
    id: str
    """A UUID: the last part of the ARN."""
    arn: str
    pem: str
    chain_pem: str
    """The issuers above it, nearest first; empty where none were given."""
    key_id: KeyId
    facts: CodeSigningFacts
    serial: str
    subject: str
    issuer: str
    domain_name: str
    alternative_names: tuple[str, ...]
    signature_algorithm: str
    not_before: Instant
    not_after: Instant
    created_at: Instant
    imported_at: Instant
    tags: Mapping[str, str]

    @property
    def testing_only(self) -> bool:
        """A self-signed certificate proves nothing about who made it: it shows as "testing only" wherever it signs."""
        return self.facts.self_signed

    def status(self, now: Instant) -> str:
        """ISSUED, or EXPIRED once its validity has passed."""
        return "EXPIRED" if now > self.not_after else "ISSUED"
