from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from overair.basics.clock import from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.signing.code_signing_certificate import CodeSigner, check_code_signing_certificate
from overair.server.signing.model import Encryption, SignedBy
from tests.support.code_signing import BORN, Credential, credential, version_1_certificate_pem

NOW = from_datetime(BORN + timedelta(days=30))


def check(certificate: Credential | bytes, *, chain_pem: bytes = b"") -> CodeSigner:
    pem = certificate if isinstance(certificate, bytes) else certificate.certificate_pem
    return check_code_signing_certificate(pem, chain_pem, name="arn:of:it", now=NOW)


@pytest.mark.parametrize(
    ("kind", "encryption"), [("ec", Encryption.ECDSA), ("rsa-2048", Encryption.RSA), ("rsa-3072", Encryption.RSA)]
)
def test_a_self_signed_certificate_by_the_guides_recipe_is_fit_and_known_as_self_signed(
    kind: str, encryption: Encryption
) -> None:
    signer = credential(kind=kind)
    ends = from_datetime(signer.certificate.not_valid_after_utc)
    signed_by = SignedBy(sha256=signer.certificate.fingerprint(hashes.SHA256()).hex(), not_after=ends)
    assert check(signer) == CodeSigner(
        encryption=encryption, self_signed=True, public_key_der=signer.public_key_der, signed_by=signed_by
    )


def test_a_leaf_that_an_authority_issued_is_fit_with_its_chain_and_not_self_signed() -> None:
    leaf = credential(issuer=credential(name="Root", authority=True))
    assert check(leaf, chain_pem=leaf.chain_pem).self_signed is False


def test_a_chain_that_belongs_to_another_certificate_is_refused() -> None:
    leaf = credential(issuer=credential(name="Root", authority=True))
    stranger = credential(name="Root", authority=True)
    with pytest.raises(InvalidRequest, match="first certificate of its chain didn't issue it"):
        check(leaf, chain_pem=stranger.certificate_pem)


def test_a_certificate_that_only_carries_its_issuers_name_is_not_self_signed() -> None:
    impostor = credential(name="Same", issuer=credential(name="Same", authority=True))
    assert check(impostor).self_signed is False


def test_version_1_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="version 1"):
        check(version_1_certificate_pem(credential()))


def test_no_key_usage_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no KeyUsage"):
        check(credential(digital_signature=None))


def test_a_key_usage_without_digital_signature_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="doesn't contain digitalSignature"):
        check(credential(digital_signature=False))


def test_no_extended_key_usage_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no ExtendedKeyUsage"):
        check(credential(purposes=None))


def test_an_extended_key_usage_for_something_else_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="doesn't contain codeSigning"):
        check(credential(purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)))


def test_an_expired_certificate_is_refused_with_the_day() -> None:
    with pytest.raises(InvalidRequest, match="expired on 2026-01-21"):
        check(credential(days=20))


def test_a_certificate_of_the_future_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="isn't valid before 2026-03-02"):
        check(credential(born=BORN + timedelta(days=60)))


@pytest.mark.parametrize("kind", ["ec-p384", "rsa-1024", "rsa-4096"])
def test_a_key_that_agents_cannot_verify_is_refused(kind: str) -> None:
    with pytest.raises(InvalidRequest, match="neither ECDSA P-256 nor RSA"):
        check(credential(kind=kind))


@pytest.mark.parametrize("garbage", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused_without_a_stack_trace(garbage: bytes) -> None:
    with pytest.raises(InvalidRequest, match="can't be read"):
        check(garbage)
