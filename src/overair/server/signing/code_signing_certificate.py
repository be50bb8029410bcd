"""Is this certificate fit to sign code? Pure: bytes and a moment in, a verdict out (wire reference §6.7)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.signing.model import Encryption, SignedBy

RSA_BITS_MIN = 2048
RSA_BITS_MAX = 3072
"""Agents take a signature of at most 384 bytes: one by RSA-4096 fails the job (wire reference §5.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSigner:
    """A certificate that passed every check below."""

    encryption: Encryption
    self_signed: bool
    public_key_der: bytes
    """SubjectPublicKeyInfo."""
    signed_by: SignedBy
    """What is kept of it beside a signature."""


def check_code_signing_certificate(certificate_pem: bytes, chain_pem: bytes, *, name: str, now: Instant) -> CodeSigner:
    """Check what a signing profile and a signing job demand of their certificate.

    X.509 version 3; KeyUsage with digitalSignature; ExtendedKeyUsage with codeSigning; ``now`` within its dates; ECDSA P-256
    or RSA of 2048 to 3072 bits; where a chain is given, its first certificate issued this one.

    Raises:
        InvalidRequest: subject ``certificate``; the message names the first rule that is broken.
    """

    def refuse(reason: str) -> InvalidRequest:
        return InvalidRequest(f"Certificate {name} can't sign code: {reason}", subject="certificate")

    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        version = certificate.version
        extensions = certificate.extensions
        key = certificate.public_key()
        chain = x509.load_pem_x509_certificates(chain_pem) if chain_pem.strip() else []
    except ValueError as error:
        raise refuse(f"it can't be read ({error}).") from error
    except Exception as error:  # cryptography raises its own kinds for unsupported versions, keys and doubled extensions
        if type(error).__module__.partition(".")[0] != "cryptography":
            raise
        raise refuse(f"it can't be read ({error}). It must be an X.509 version 3 certificate.") from error

    if version is not x509.Version.v3:
        raise refuse("it is X.509 version 1. Issue a version 3 certificate with KeyUsage and ExtendedKeyUsage.")
    try:
        key_usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise refuse("it has no KeyUsage. Issue one with keyUsage = digitalSignature.") from None
    if not key_usage.digital_signature:
        raise refuse("its KeyUsage doesn't contain digitalSignature.")
    try:
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise refuse("it has no ExtendedKeyUsage. Issue one with extendedKeyUsage = codeSigning.") from None
    if ExtendedKeyUsageOID.CODE_SIGNING not in purposes:
        raise refuse("its ExtendedKeyUsage doesn't contain codeSigning.")

    moment = as_datetime(now)
    if moment > certificate.not_valid_after_utc:
        raise refuse(f"it expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC. Import a renewed one.")
    if moment < certificate.not_valid_before_utc:
        raise refuse(f"it isn't valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC.")

    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        encryption = Encryption.ECDSA
    elif isinstance(key, rsa.RSAPublicKey) and RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        encryption = Encryption.RSA
    else:
        raise refuse(f"its key is neither ECDSA P-256 nor RSA of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits.")

    if chain:
        try:
            certificate.verify_directly_issued_by(chain[0])
        except (ValueError, TypeError, InvalidSignature) as error:
            raise refuse("the first certificate of its chain didn't issue it. Give the chain from the issuer up.") from error

    return CodeSigner(
        encryption=encryption,
        self_signed=_is_self_signed(certificate),
        public_key_der=key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        signed_by=SignedBy(
            sha256=certificate.fingerprint(hashes.SHA256()).hex(), not_after=from_datetime(certificate.not_valid_after_utc)
        ),
    )


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
