"""Code-signing certificates of every kind for tests, fit and unfit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
BORN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A certificate with its private key."""

    key: PrivateKey
    certificate: x509.Certificate
    chain_pem: bytes = b""

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def public_key_der(self) -> bytes:
        return self.key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _key_usage(*, digital_signature: bool = True, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=not digital_signature,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def new_key(kind: str = "ec") -> PrivateKey:
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ec-p384":
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa-")))


def credential(
    *,
    kind: str = "ec",
    key: PrivateKey | None = None,
    name: str = "Test signer",
    digital_signature: bool | None = True,
    purposes: tuple[x509.ObjectIdentifier, ...] | None = (ExtendedKeyUsageOID.CODE_SIGNING,),
    born: datetime = BORN,
    days: int = 3650,
    issuer: Credential | None = None,
    authority: bool = False,
) -> Credential:
    """A certificate, fit to sign code unless told otherwise: None leaves an extension out."""
    key = key or new_key(kind)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(born)
        .not_valid_after(born + timedelta(days=days))
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if digital_signature is not None:
        usage = _key_usage(digital_signature=digital_signature, key_cert_sign=authority)
        builder = builder.add_extension(usage, critical=True)
    if purposes is not None and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    chain = issuer.certificate_pem if issuer else b""
    return Credential(key=key, certificate=certificate, chain_pem=chain)


def version_1_certificate_pem(like: Credential) -> bytes:
    """The same certificate taken down to X.509 version 1: no version field, no extensions, signed again.

    The builder of ``cryptography`` makes version 3 only, so the few DER pieces are put together here.
    """
    body = _children(like.certificate.tbs_certificate_bytes)
    assert body[0][0] == 0xA0
    kept = b"".join(b for b in body if b[0] not in (0xA0, 0xA3))
    tbs = _tagged(0x30, kept)
    assert isinstance(like.key, ec.EllipticCurvePrivateKey)
    signature = like.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = body[2]
    der = _tagged(0x30, tbs + algorithm + _tagged(0x03, b"\x00" + signature))
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.version is x509.Version.v1
    return certificate.public_bytes(serialization.Encoding.PEM)


def _tagged(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + content


def _children(der: bytes) -> list[bytes]:
    """The elements directly inside a DER SEQUENCE, each with its own tag and length."""

    def split(data: bytes) -> tuple[bytes, bytes]:
        first, start = data[1], 2
        if first & 0x80:
            start += first & 0x7F
            length = int.from_bytes(data[2:start], "big")
        else:
            length = first
        return data[: start + length], data[start + length :]

    header = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    rest, elements = der[header:], []
    while rest:
        element, rest = split(rest)
        elements.append(element)
    return elements
