"""Certificates, signing requests, lists and keys in PEM and DER, as strangers send them.

Held: each is read or refused with ``InvalidRequest``; what is read is the same whether it came as PEM or as DER, and its
fingerprint is the hash of what came; what a registration asks of it never fails in another way.
"""

from __future__ import annotations

from base64 import encodebytes
from hashlib import sha256

from overair.agent.uptane.identity import BadIdentity, new_private_key
from overair.agent.uptane.renewal import chain_in
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest, OverairError
from overair.server.certificates import x509
from overair.server.policy_language.device_variables import certificate_values
from overair.server.provisioning.certificate_paths import PathRefused, PresentedChain, verify_path
from overair.server.provisioning.revocation_lists import read_revocation_list
from overair.server.signing.code_signing_certificate import check_code_signing_certificate
from overair.wire.image_signature import BadSignerCertificate, load_signer_certificate
from tests.fuzz.refusals import says_why

NOW = Instant(1_767_225_600_000)
OURS = new_private_key()[0].public_key()


def fuzz_one(data: bytes) -> None:
    read_pem(data)
    read_der(data)
    try:
        read_revocation_list(data, [], now=NOW)
    except InvalidRequest as refused:
        says_why(refused)
    try:
        load_signer_certificate(data)
    except BadSignerCertificate as refused_here:
        says_why(refused_here)
    try:
        chain_in(data, OURS)
    except BadIdentity as refused_answer:
        says_why(refused_answer)
    try:
        check_code_signing_certificate(data, data, name="c", now=NOW)
    except InvalidRequest as refused_signer:
        says_why(refused_signer)
    try:
        chain = PresentedChain.read(data, ())
        verify_path(chain, [], now=NOW)
    except (PathRefused, OverairError) as refused_path:
        says_why(refused_path)
    else:
        raise AssertionError("a path that leads nowhere was taken")


def read_pem(data: bytes) -> None:
    try:
        certificates = x509.certificates_from_pem(data, size_bytes_max=65_536, count_max=5)
    except InvalidRequest as refused:
        says_why(refused)
    else:
        for certificate in certificates:
            look_at(x509.der_of(certificate))
    try:
        request = x509.signing_request_from_pem(data.decode("utf-8", "replace"))
    except InvalidRequest as refused:
        says_why(refused)
    else:
        assert x509.accepted_public_key(request, field="request")


def read_der(data: bytes) -> None:
    try:
        certificate = x509.certificate_from_der(data)
    except InvalidRequest as refused:
        says_why(refused)
    else:
        assert x509.fingerprint(certificate) == sha256(data).hexdigest()
        look_at(data)
    pem = b"-----BEGIN CERTIFICATE REQUEST-----\n" + encodebytes(data) + b"-----END CERTIFICATE REQUEST-----\n"
    if len(pem) <= x509.SIGNING_REQUEST_SIZE_BYTES_MAX:
        assert accepts_request(lambda: x509.signing_request_from_der(data)) == accepts_request(
            lambda: x509.signing_request_from_pem(pem.decode("ascii"))
        )


def accepts_request(read: object) -> bool:
    try:
        read()  # type: ignore[operator]
    except InvalidRequest:
        return False
    return True


def look_at(der: bytes) -> None:
    """What a registration and a connection ask of a certificate."""
    certificate = x509.certificate_from_der(der)
    try:
        x509.accepted_public_key(certificate, field="certificate")
        x509.refuse_broken_hash(certificate)
        assert x509.fingerprint(x509.certificate_from_pem(x509.pem_of(certificate).encode())) == x509.fingerprint_of_der(der)
        assert x509.not_before(certificate) is not None
        assert x509.not_after(certificate) is not None
        values = certificate_values(certificate, "0" * 64)
        assert all(isinstance(name, str) for name in values)
    except InvalidRequest as refused:
        says_why(refused)
