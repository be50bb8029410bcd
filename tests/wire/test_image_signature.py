from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from overair.wire.image_signature import (
    MODERN_ALGORITHMS,
    BadSignerCertificate,
    SignatureAlgorithm,
    SignatureCheckFailed,
    VerifiedImage,
    load_signer_certificate,
    verify_image_signature,
)

IMAGE = [b"firm", b"ware"]


def certificate_pem(key: Any, signing_hash: hashes.HashAlgorithm | None = hashes.SHA256()) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2021, 1, 1, tzinfo=UTC))
    return builder.sign(key, signing_hash).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_SIGNER = load_signer_certificate(certificate_pem(EC_KEY))
RSA_SIGNER = load_signer_certificate(certificate_pem(RSA_KEY))
EC_SIGNATURE = EC_KEY.sign(b"firmware", ec.ECDSA(hashes.SHA256()))
RSA_SIGNATURE = RSA_KEY.sign(b"firmware", padding.PKCS1v15(), hashes.SHA256())


def test_an_image_signed_with_ecdsa_is_verified_however_it_is_cut() -> None:
    verified = verify_image_signature(
        IMAGE, signature=EC_SIGNATURE, algorithm=SignatureAlgorithm.ECDSA_SHA256, signer=EC_SIGNER
    )
    assert verified.sha256 == hashlib.sha256(b"firmware").hexdigest()
    assert (verified.size_bytes, verified.signer_fingerprint) == (8, EC_SIGNER.fingerprint)


def test_an_image_signed_with_rsa_is_verified() -> None:
    verify_image_signature(IMAGE, signature=RSA_SIGNATURE, algorithm=SignatureAlgorithm.RSA_SHA256, signer=RSA_SIGNER)


@pytest.mark.parametrize(
    ("chunks", "signature", "algorithm", "signer"),
    [
        ([b"firm", b"warE"], EC_SIGNATURE, SignatureAlgorithm.ECDSA_SHA256, EC_SIGNER),
        (IMAGE, b"", SignatureAlgorithm.ECDSA_SHA256, EC_SIGNER),
        (IMAGE, EC_SIGNATURE + b"\x00", SignatureAlgorithm.ECDSA_SHA256, EC_SIGNER),
        (IMAGE, RSA_SIGNATURE, SignatureAlgorithm.ECDSA_SHA256, EC_SIGNER),
        (IMAGE, EC_SIGNATURE, SignatureAlgorithm.RSA_SHA256, EC_SIGNER),
        (IMAGE, RSA_SIGNATURE, SignatureAlgorithm.ECDSA_SHA256, RSA_SIGNER),
        (IMAGE, bytes(385), SignatureAlgorithm.RSA_SHA256, RSA_SIGNER),
    ],
    ids=["another-image", "empty", "longer", "another-kind", "another-algorithm", "another-key", "too-long"],
)
def test_anything_else_fails_the_check(
    chunks: list[bytes], signature: bytes, algorithm: SignatureAlgorithm, signer: Any
) -> None:
    with pytest.raises(SignatureCheckFailed):
        verify_image_signature(chunks, signature=signature, algorithm=algorithm, signer=signer)


def test_sha1_is_accepted_only_where_it_is_named() -> None:
    signature = RSA_KEY.sign(b"firmware", padding.PKCS1v15(), hashes.SHA1())
    with pytest.raises(SignatureCheckFailed, match="not accepted"):
        verify_image_signature(IMAGE, signature=signature, algorithm=SignatureAlgorithm.RSA_SHA1, signer=RSA_SIGNER)
    verify_image_signature(
        IMAGE,
        signature=signature,
        algorithm=SignatureAlgorithm.RSA_SHA1,
        signer=RSA_SIGNER,
        accepted_algorithms=MODERN_ALGORITHMS | {SignatureAlgorithm.RSA_SHA1},
    )


def test_nobody_but_the_verifier_makes_a_verified_image() -> None:
    with pytest.raises(RuntimeError):
        VerifiedImage(
            object(), sha256="0" * 64, size_bytes=1, algorithm=SignatureAlgorithm.RSA_SHA256, signer_fingerprint="0" * 64
        )


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"x" * 20_000,
        certificate_pem(ec.generate_private_key(ec.SECP384R1())),
        certificate_pem(rsa.generate_private_key(65537, 1024)),
        certificate_pem(ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["empty", "broken", "huge", "p384", "rsa-1024", "ed25519"],
)
def test_a_certificate_that_no_agent_verifies_with_is_refused(pem: bytes) -> None:
    with pytest.raises(BadSignerCertificate):
        load_signer_certificate(pem)
