"""Certificates as fleets' own authorities make them, and as they shouldn't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BORN = datetime(2025, 1, 1, tzinfo=UTC)
DIES = datetime(2045, 1, 1, tzinfo=UTC)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(size_bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, size_bits)


@dataclass(frozen=True)
class Held:
    """A certificate with its key and the one above it."""

    certificate: x509.Certificate
    key: Key
    issuer: Held | None = None

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def intermediates(self) -> list[Held]:
        """What stands between this one and the root, from below."""
        above = self.issuer
        return [] if above is None or above.issuer is None else [above, *above.intermediates]

    @property
    def chain_der(self) -> tuple[bytes, ...]:
        """What a well-behaved peer sends beside its own certificate."""
        return tuple(each.der for each in self.intermediates)

    @property
    def chain_pem(self) -> str:
        return "".join(each.pem for each in (self, *self.intermediates))


def names(*common_names: str, organisation: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names]
    if organisation is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool | None = None) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign if crl_sign is None else crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def certificate(
    subject: x509.Name,
    issuer: Held | None,
    key: Key,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    *,
    born: datetime = BORN,
    dies: datetime = DIES,
    digest: Any = None,
    serial: int | None = None,
) -> Held:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(born)
        .not_valid_after(dies)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Held(builder.sign(key if issuer is None else issuer.key, digest or hashes.SHA256()), key, issuer)


def authority(
    name: str = "Fleet root",
    issuer: Held | None = None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    key_usage: x509.KeyUsage | None = usage(key_cert_sign=True),
    purposes: Sequence[x509.ObjectIdentifier] = (),
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: Key | None = None,
    **dates: Any,
) -> Held:
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca=ca, path_length=path_length), True)]
    if key_usage is not None:
        extensions.append((key_usage, True))
    if purposes:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    return certificate(names(name), issuer, key or new_key(), [*extensions, *more], **dates)


def device(
    issuer: Held | None,
    name: str | x509.Name = "vin-1",
    *,
    purposes: Sequence[x509.ObjectIdentifier] = CLIENT,
    key_usage: x509.KeyUsage | None = usage(digital_signature=True),
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: Key | None = None,
    **dates: Any,
) -> Held:
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if key_usage is not None:
        extensions.append((key_usage, True))
    if purposes:
        extensions.append((x509.ExtendedKeyUsage(purposes), False))
    subject = names(name) if isinstance(name, str) else name
    return certificate(subject, issuer, key or new_key(), [*extensions, *more], **dates)


def deep(depth: int) -> tuple[Held, Held]:
    """A root, and the authority that issues to devices so that ``depth`` certificates stand above them."""
    root = authority()
    lowest = root
    for level in range(1, depth):
        lowest = authority(f"Intermediate {level}", lowest)
    return root, lowest


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def respelled(leaf: Held) -> Held:
    """The same certificate written in another way, as whoever has it can: with the other signature that ECDSA allows.
    Everything in it is the same and verifies; its fingerprint is another."""
    r, s = utils.decode_dss_signature(leaf.certificate.signature)
    return with_signature(leaf, utils.encode_dss_signature(r, P256_ORDER - s))


def with_signature(leaf: Held, signature: bytes) -> Held:
    """The same certificate with another signature in its place."""
    own = leaf.certificate
    algorithm = leaf.der[leaf.der.index(own.tbs_certificate_bytes) + len(own.tbs_certificate_bytes) :]
    algorithm = algorithm[: 2 + algorithm[1]]
    body = own.tbs_certificate_bytes + algorithm + _tlv(0x03, b"\0" + signature)
    return Held(x509.load_der_x509_certificate(_tlv(0x30, body)), leaf.key, leaf.issuer)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big") if size > 255 else bytes([0x81, size])
    return bytes([tag]) + length + content


def revocation_list(
    issuer: Held,
    *revoked: Held,
    number: int | None = 1,
    this_update: datetime = BORN,
    next_update: datetime = DIES,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    entry_more: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digest: Any = None,
    signed_by: Held | None = None,
) -> str:
    """A list of an authority's as PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical=critical)
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(this_update)
        for extension, critical in entry_more:
            entry = entry.add_extension(extension, critical=critical)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign((signed_by or issuer).key, digest or hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


_RSA_SIGNATURES = {"sha1": ("2a864886f70d010105", hashes.SHA1()), "md5": ("2a864886f70d010104", hashes.MD5())}


def weakly_signed(leaf: Held, digest: str) -> Held:
    """The same certificate, of an RSA issuer, over a hash that is broken: named in both places, and well signed with it."""
    assert leaf.issuer is not None
    assert isinstance(leaf.issuer.key, rsa.RSAPrivateKey)
    weak, algorithm = _RSA_SIGNATURES[digest]
    strong_oid, weak_oid = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex(weak)
    own = leaf.certificate
    signature = leaf.issuer.key.sign(own.tbs_certificate_bytes.replace(strong_oid, weak_oid), padding.PKCS1v15(), algorithm)
    der = leaf.der.replace(strong_oid, weak_oid).replace(own.signature, signature)
    return Held(x509.load_der_x509_certificate(der), leaf.key, leaf.issuer)
