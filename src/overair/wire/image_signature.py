"""Is this image the one that was signed? The one path on which that is decided, for devices and server alike.

``verify_image_signature``, and ``uptane.matching`` for what two repositories vouch for, are the only ways to a
``VerifiedImage``; what installs an image takes one and nothing else, so that no code path can install bytes that weren't
verified. The device's anchor is a pinned certificate: its key is what counts; its dates aren't looked at, since a device has no
clock it could trust (the C platform layers do the same).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from overair.wire.proof import VERIFIED

SIGNATURE_SIZE_BYTES_MAX: Final = 384
"""What the agents have room for: an RSA-3072 signature (wire reference §5.1)."""
CERTIFICATE_SIZE_BYTES_MAX: Final = 16 * 1024
RSA_KEY_SIZE_BITS_MIN: Final = 2048
RSA_KEY_SIZE_BITS_MAX: Final = 8 * SIGNATURE_SIZE_BYTES_MAX

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class SignatureAlgorithm(StrEnum):
    """How an image is signed; the value is the signature's key in a job document (wire reference §5.1)."""

    ECDSA_SHA256 = "sig-sha256-ecdsa"
    RSA_SHA256 = "sig-sha256-rsa"
    ECDSA_SHA1 = "sig-sha1-ecdsa"
    RSA_SHA1 = "sig-sha1-rsa"


MODERN_ALGORITHMS: Final = frozenset({SignatureAlgorithm.ECDSA_SHA256, SignatureAlgorithm.RSA_SHA256})
"""What is accepted unless a caller names more: SHA-1 no longer resists collisions."""

_KEY_KINDS: Final[dict[SignatureAlgorithm, type[ec.EllipticCurvePublicKey] | type[rsa.RSAPublicKey]]] = {
    SignatureAlgorithm.ECDSA_SHA256: ec.EllipticCurvePublicKey,
    SignatureAlgorithm.ECDSA_SHA1: ec.EllipticCurvePublicKey,
    SignatureAlgorithm.RSA_SHA256: rsa.RSAPublicKey,
    SignatureAlgorithm.RSA_SHA1: rsa.RSAPublicKey,
}


class SignatureCheckFailed(Exception):
    """The image isn't what this signer signed with this algorithm."""


class BadSignerCertificate(Exception):
    """The certificate can't be used to check an image: unreadable, or a key that no agent verifies with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerCertificate:
    """A signer that is trusted: its certificate's fingerprint and key."""

    fingerprint: str
    """SHA-256 of the DER: 64 lower-case hexadecimal digits."""
    public_key: PublicKey


class VerifiedImage:
    """Proof that bytes of this digest and size were vouched for: by a signer, or by Uptane metadata. Only verifiers make it."""

    __slots__ = ("_algorithm", "_sha256", "_signer_fingerprint", "_size_bytes")

    def __init__(
        self,
        seal: object,
        *,
        sha256: str,
        size_bytes: int,
        algorithm: SignatureAlgorithm | None = None,
        signer_fingerprint: str = "",
    ) -> None:
        if seal is not VERIFIED:
            raise RuntimeError("Only a verifier makes a VerifiedImage.")
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._algorithm = algorithm
        self._signer_fingerprint = signer_fingerprint

    @property
    def sha256(self) -> str:
        """Of the image's bytes: 64 lower-case hexadecimal digits."""
        return self._sha256

    @property
    def size_bytes(self) -> int:
        """How many bytes were verified."""
        return self._size_bytes

    @property
    def algorithm(self) -> SignatureAlgorithm | None:
        """How it was signed; None where Uptane metadata vouches for its hashes."""
        return self._algorithm

    @property
    def signer_fingerprint(self) -> str:
        """Who signed it: SHA-256 of the certificate. Empty where Uptane metadata vouches."""
        return self._signer_fingerprint

    def __repr__(self) -> str:
        how = self._algorithm.value if self._algorithm else "uptane"
        return f"VerifiedImage(sha256={self._sha256}, size_bytes={self._size_bytes}, algorithm={how})"


def load_signer_certificate(pem: bytes) -> SignerCertificate:
    """Read a signer's certificate: the first in the text.

    Raises:
        BadSignerCertificate: no PEM certificate, or a key other than EC P-256 or RSA of 2048 to 3072 bits.
    """
    if len(pem) > CERTIFICATE_SIZE_BYTES_MAX:
        raise BadSignerCertificate(f"A signer's certificate has at most {CERTIFICATE_SIZE_BYTES_MAX} bytes of PEM.")
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadSignerCertificate(f"Not a readable PEM certificate: {error}") from None
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise BadSignerCertificate("The certificate's key is neither EC P-256 nor RSA; agents verify nothing else.")
    check_public_key(key)
    fingerprint = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return SignerCertificate(fingerprint=fingerprint, public_key=key)


def check_public_key(key: PublicKey) -> None:
    """Is this a key that agents can verify with?

    Raises:
        BadSignerCertificate: another curve than P-256, or RSA outside 2048 to 3072 bits.
    """
    if isinstance(key, rsa.RSAPublicKey):
        if not RSA_KEY_SIZE_BITS_MIN <= key.key_size <= RSA_KEY_SIZE_BITS_MAX:
            raise BadSignerCertificate(
                f"An RSA key of {key.key_size} bits can't sign images: {RSA_KEY_SIZE_BITS_MIN} to {RSA_KEY_SIZE_BITS_MAX} can, "
                f"since agents hold signatures of at most {SIGNATURE_SIZE_BYTES_MAX} bytes."
            )
    elif not isinstance(key.curve, ec.SECP256R1):
        raise BadSignerCertificate(f"The curve {key.curve.name} can't sign images: agents verify P-256 (secp256r1).")


def verify_image_signature(
    chunks: Iterable[bytes],
    *,
    signature: bytes,
    algorithm: SignatureAlgorithm,
    signer: SignerCertificate,
    accepted_algorithms: frozenset[SignatureAlgorithm] = MODERN_ALGORITHMS,
) -> VerifiedImage:
    """Check an image's bytes, read chunk by chunk, against a signature: DER for ECDSA, PKCS #1 v1.5 for RSA.

    Raises:
        SignatureCheckFailed: no signature, another key, another algorithm, a changed byte: all look the same on purpose
            but for the message.
    """
    return verify_image_signature_by_any(
        chunks, signature=signature, algorithm=algorithm, signers=(signer,), accepted_algorithms=accepted_algorithms
    )


def verify_image_signature_by_any(
    chunks: Iterable[bytes],
    *,
    signature: bytes,
    algorithm: SignatureAlgorithm,
    signers: Sequence[SignerCertificate],
    accepted_algorithms: frozenset[SignatureAlgorithm] = MODERN_ALGORITHMS,
) -> VerifiedImage:
    """The same where several signers are trusted at once, as while a new certificate takes an old one's place.

    Raises:
        SignatureCheckFailed: see ``verify_image_signature``.
    """
    if algorithm not in accepted_algorithms:
        raise SignatureCheckFailed(f"Images signed as {algorithm.value} are not accepted here.")
    if not signature:
        raise SignatureCheckFailed("The image has no signature.")
    if len(signature) > SIGNATURE_SIZE_BYTES_MAX:
        raise SignatureCheckFailed(f"The signature has {len(signature)} bytes; at most {SIGNATURE_SIZE_BYTES_MAX} are read.")
    identity = hashlib.sha256()
    legacy = hashlib.sha1(usedforsecurity=False) if algorithm not in MODERN_ALGORITHMS else None
    size = 0
    for chunk in chunks:
        identity.update(chunk)
        if legacy is not None:
            legacy.update(chunk)
        size += len(chunk)
    digest = (legacy or identity).digest()
    for signer in signers:
        if digest_is_signed(signer.public_key, digest=digest, signature=signature, algorithm=algorithm):
            break
    else:
        raise SignatureCheckFailed(f"The signature {algorithm.value} isn't this signer's over these bytes.")
    return VerifiedImage(
        VERIFIED, sha256=identity.hexdigest(), size_bytes=size, algorithm=algorithm, signer_fingerprint=signer.fingerprint
    )


def digest_is_signed(key: PublicKey, *, digest: bytes, signature: bytes, algorithm: SignatureAlgorithm) -> bool:
    """Whether ``signature`` is this key's over a message with this digest. Never raises for bad input.

    Strict where the standards left room: ECDSA signatures are DER alone, and RSA's digest info has its NULL (RFC 8017 §9.2).
    """
    digest_algorithm = hashes.SHA256() if algorithm in MODERN_ALGORITHMS else hashes.SHA1()  # noqa: S303
    if not isinstance(key, _KEY_KINDS[algorithm]) or len(digest) != digest_algorithm.digest_size:
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(Prehashed(digest_algorithm)))
        else:
            key.verify(signature, digest, padding.PKCS1v15(), Prehashed(digest_algorithm))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True
