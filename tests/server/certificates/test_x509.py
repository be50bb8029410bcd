"""Reading and issuing certificates."""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
from pathlib import Path

import pytest
from cryptography import x509 as pyca
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.certificates import x509
from tests.support.vectors import vectors

NOW = Instant(1_767_225_600_000)
KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = x509.issue_root("root", KEY, now=NOW, serial=b"\x01" * 16)
ISSUER = x509.Issuer(ROOT.subject, KEY, ROOT)
LEAF = x509.issue_device(ISSUER, x509.common_name("AWS IoT Certificate"), KEY.public_key(), now=NOW, serial=bytes(16))
LEAF_PEM = x509.pem_of(LEAF).encode()


def signing_request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = pyca.CertificateSigningRequestBuilder().subject_name(x509.common_name("dev-1")).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM)


def test_a_certificate_id_is_the_sha_256_of_the_der() -> None:
    assert x509.fingerprint(LEAF) == LEAF.fingerprint(hashes.SHA256()).hex()
    assert x509.fingerprint_of_der(x509.der_of(LEAF)) == x509.fingerprint(LEAF)
    assert x509.fingerprint(x509.certificate_from_pem(LEAF_PEM)) == x509.fingerprint(LEAF)


def test_a_device_certificate_has_what_the_cloud_gives() -> None:
    assert LEAF.not_valid_after_utc.isoformat() == "2049-12-31T23:59:59+00:00"
    assert LEAF.serial_number.bit_length() == 127
    assert LEAF.extensions.get_extension_for_class(pyca.BasicConstraints).value == pyca.BasicConstraints(False, None)
    assert x509.directly_issued(LEAF, ROOT)
    assert not x509.directly_issued(ROOT, LEAF)
    assert x509.is_self_signed(ROOT)
    assert not x509.is_self_signed(LEAF)


def test_openssl_accepts_our_authority_and_server_certificate_under_its_strict_rules() -> None:
    server = x509.issue_server(
        ISSUER,
        ["localhost", "127.0.0.1", "::1"],
        KEY.public_key(),
        now=Instant(1_735_689_600_000),
        until=Instant(4_000_000_000_000),
        serial=b"\x02" * 16,
    )
    root = x509.issue_root("root", KEY, now=Instant(1_735_689_600_000), serial=b"\x03" * 16)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    trusting.load_verify_locations(cadata=x509.pem_of(root))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    loaded_from(serving, x509.pem_of(server))
    for host in ("localhost", "127.0.0.1", "::1"):
        shake_hands(trusting, serving, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(trusting, serving, "elsewhere.example")


def loaded_from(context: ssl.SSLContext, certificate_pem: str) -> None:
    key_pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        path.write_bytes(certificate_pem.encode() + key_pem)
        context.load_cert_chain(path)


def shake_hands(trusting: ssl.SSLContext, serving: ssl.SSLContext, host: str) -> None:
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(back, there, server_hostname=host)
    server = serving.wrap_bio(there, back, server_side=True)
    done = {id(client): False, id(server): False}
    while not all(done.values()):
        for side in (client, server):
            try:
                side.do_handshake()
                done[id(side)] = True
            except ssl.SSLWantReadError:
                pass


@pytest.mark.parametrize("host", ["", "a b", "-x", "x-", "http://x", "x:1", "ü.example", "x" * 254, "a..b", "999.1.1.1/8"])
def test_a_host_that_is_no_name_is_refused(host: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        x509.general_name(host)
    assert refused.value.subject == "host"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        LEAF_PEM[:-40],
        x509.der_of(LEAF),
        b"x" * 70_000,
        LEAF_PEM + b" " * 70_000,
    ],
)
def test_what_is_no_certificate_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        x509.certificate_from_pem(text)
    assert refused.value.subject == "certificate"


def test_two_certificates_where_one_belongs_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="more than one certificate"):
        x509.certificate_from_pem(LEAF_PEM * 2)
    assert len(x509.certificates_from_pem(LEAF_PEM * 3, size_bytes_max=10_000, count_max=3)) == 3


def test_text_around_a_certificate_is_passed_over() -> None:
    assert x509.certificate_from_pem(b"Bag Attributes\r\n x: y\r\n" + LEAF_PEM.replace(b"\n", b"\r\n") + b"\n\n") == LEAF


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_our_own_error(noise: bytes) -> None:
    framed = b"-----BEGIN CERTIFICATE-----\n" + noise + b"\n-----END CERTIFICATE-----"
    for text in (noise, framed):
        with pytest.raises(InvalidRequest):
            x509.certificate_from_pem(text)
        with pytest.raises(InvalidRequest):
            x509.signing_request_from_pem(text.decode("latin-1"))
    with pytest.raises(InvalidRequest):
        x509.certificate_from_der(noise)


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive", "ignore:The parsed certificate contained")
@settings(max_examples=500)
@given(position=st.integers(0, len(x509.der_of(LEAF)) - 1), value=st.integers(0, 255))
def test_a_certificate_with_one_byte_changed_is_read_or_refused(position: int, value: int) -> None:
    der = bytearray(x509.der_of(LEAF))
    der[position] = value
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(bytes(der)) + b"\n-----END CERTIFICATE-----"
    try:
        read = x509.certificate_from_pem(text)
        x509.accepted_public_key(read, field="certificate")
        x509.public_key_der(read)
    except InvalidRequest:
        return
    x509.directly_issued(read, ROOT)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["rsa-2048", "p-256", "p-384", "p-521"],
)
def test_a_signing_request_of_an_accepted_kind_is_read(key: ec.EllipticCurvePrivateKey) -> None:
    request = x509.signing_request_from_pem(signing_request(key).decode())
    assert request.subject == x509.common_name("dev-1")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa-1024", "secp256k1", "ed25519"],
)
def test_a_signing_request_of_another_kind_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(InvalidRequest) as refused:
        x509.signing_request_from_pem(signing_request(key).decode())
    assert refused.value.subject == "certificate-validation"


def test_a_signing_request_whose_signature_does_not_hold_is_refused() -> None:
    der = bytearray(base64.b64decode(b"".join(signing_request(KEY).splitlines()[1:-1])))
    der[-1] ^= 1
    text = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.b64encode(bytes(der)) + b"\n-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(InvalidRequest) as refused:
        x509.signing_request_from_pem(text.decode())
    assert refused.value.subject == "certificate-signing-request"


@pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")
def test_others_certificates_are_read_or_refused_with_our_own_error() -> None:
    """x509-limbo's certificates, good and bad: none raises anything but our own error."""
    folder = vectors("x509-limbo")
    read = refused = 0
    for path in sorted(folder.rglob("*.json")):
        for case in json.loads(path.read_text()).get("testcases", []):
            for pem in (case["peer_certificate"], *case["untrusted_intermediates"], *case["trusted_certs"]):
                try:
                    certificate = x509.certificate_from_pem(pem.encode())
                    x509.accepted_public_key(certificate, field="certificate")
                    x509.is_self_signed(certificate)
                    read += 1
                except InvalidRequest:
                    refused += 1
    assert (read, refused) > (100, 0)
