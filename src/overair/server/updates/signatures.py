"""Custom signatures: freed of the Base64 that clients put around them, named, and checked. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from overair.basics.errors import InvalidRequest
from overair.wire.image_signature import (
    MODERN_ALGORITHMS,
    SIGNATURE_SIZE_BYTES_MAX,
    BadSignerCertificate,
    SignatureAlgorithm,
    digest_is_signed,
    load_signer_certificate,
)

BASE64_LAYERS_MAX: Final = 2
RSA_SIGNATURE_SIZES_BYTES: Final = frozenset({256, 384})
"""RSA-2048 and RSA-3072: what agents have room for."""
_HASHES: Final = {"SHA256": "sha256", "SHA1": "sha1"}
_ENCRYPTIONS: Final = {"ECDSA": "ecdsa", "RSA": "rsa"}


def signature_algorithm(hash_algorithm: str | None, encryption_algorithm: str | None) -> SignatureAlgorithm:
    """``SHA256`` and ``ECDSA``, the defaults, give ``sig-sha256-ecdsa``. A hyphen and the case don't matter.

    Raises:
        InvalidRequest: a word that no agent verifies by.
    """
    hash_name = _HASHES.get((hash_algorithm or "SHA256").upper().replace("-", ""))
    encryption = _ENCRYPTIONS.get((encryption_algorithm or "ECDSA").upper())
    if hash_name is None or encryption is None:
        raise InvalidRequest(
            f"Agents verify SHA256 or SHA1 with ECDSA or RSA, not {str(hash_algorithm)[:40]!r} with "
            f"{str(encryption_algorithm)[:40]!r}.",
            subject="customCodeSigning",
        )
    return SignatureAlgorithm(f"sig-{hash_name}-{encryption}")


def signature_bytes(given: bytes, algorithm: SignatureAlgorithm) -> bytes:
    """The signature in what came over the wire, already freed of the wire's own Base64.

    The guide asks for Base64 text; some clients encode what they are given, some decode it first. So DER bytes, Base64 of them
    and Base64 of that all arrive (wire reference §5.2). What is no signature under any layer is taken as it is.

    Raises:
        InvalidRequest: nothing at all, or more than agents have room for.
    """
    candidate = given
    for _ in range(BASE64_LAYERS_MAX):
        if looks_like_signature(candidate, algorithm):
            break
        try:
            candidate = base64.b64decode(b"".join(candidate.split()), validate=True)
        except (binascii.Error, ValueError):
            candidate = given
            break
    if not looks_like_signature(candidate, algorithm):
        candidate = given
    if not 1 <= len(candidate) <= SIGNATURE_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"The signature has {len(candidate)} bytes; agents take 1 to {SIGNATURE_SIZE_BYTES_MAX}. Sign with ECDSA P-256 or "
            "an RSA key of at most 3072 bits.",
            subject="customCodeSigning",
        )
    return candidate


def looks_like_signature(data: bytes, algorithm: SignatureAlgorithm) -> bool:
    """Whether the bytes have the shape of such a signature: DER of two numbers, or the length of an RSA modulus."""
    if algorithm in (SignatureAlgorithm.RSA_SHA256, SignatureAlgorithm.RSA_SHA1):
        return len(data) in RSA_SIGNATURE_SIZES_BYTES
    try:
        decode_dss_signature(data)
    except ValueError:
        return False
    return True


def check_inline_certificate(certificate_pem: str) -> None:
    """Raises:
    InvalidRequest: the certificate can't check a signature.
    """
    try:
        load_signer_certificate(certificate_pem.encode())
    except BadSignerCertificate as error:
        raise InvalidRequest(
            f"customCodeSigning.certificateChain.inlineDocument can't check the signature: {error} "
            "Give the signer's certificate in PEM, or leave inlineDocument out.",
            subject="customCodeSigning",
        ) from error


def check_signature(digest: bytes, *, signature: bytes, algorithm: SignatureAlgorithm, certificate_pem: str, name: str) -> None:
    """Refuse an update whose signature isn't the given certificate's over the file's bytes.

    Args:
        digest: Of the file, by the algorithm's own hash.

    Raises:
        InvalidRequest: it doesn't verify.
    """
    key = load_signer_certificate(certificate_pem.encode()).public_key
    if not digest_is_signed(key, digest=digest, signature=signature, algorithm=algorithm):
        raise InvalidRequest(
            f"The signature of {name!r} doesn't verify with the certificate given beside it: {algorithm.value} over the file's "
            "bytes as stored. Sign exactly this version of the file with that certificate's key.",
            subject="customCodeSigning",
        )


def hash_name(algorithm: SignatureAlgorithm) -> str:
    """``sha256`` or ``sha1``."""
    return "sha256" if algorithm in MODERN_ALGORITHMS else "sha1"
