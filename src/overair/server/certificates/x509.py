"""Reading and issuing X.509 certificates.

Everything from outside is measured before it is parsed, and raises only ``InvalidRequest``. Issuing takes the moment, the
serial number's random bytes and the signing key as arguments.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.ids import CertificateId

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
IssuerKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SigningRequest = x509.CertificateSigningRequest

CERTIFICATE_PEM_SIZE_BYTES_MAX: Final = 65_536
"""One certificate as text, white space included (iot model, ``CertificatePem``)."""
SIGNING_REQUEST_SIZE_BYTES_MAX: Final = 4_096
"""A PKCS#10 request as text (iot model, ``CertificateSigningRequest``)."""
CHAIN_CERTIFICATES_MAX: Final = 5
"""Certificates above a leaf, root included: deeper chains are refused everywhere."""
RSA_KEY_SIZE_BITS_MIN: Final = 2_048
RSA_KEY_SIZE_BITS_MAX: Final = 8_192
"""Larger ones would only buy whoever sends them our processor time."""
SERIAL_NUMBER_SIZE_BYTES: Final = 16
DEVICE_CERTIFICATE_NOT_AFTER: Final = Instant(2_524_607_999_000)
"""2049-12-31T23:59:59Z: the last moment that X.509 writes as UTCTime, and the end of every certificate AWS IoT issues."""
HOST_NAME_LENGTH_MAX: Final = 253
HOSTS_MAX: Final = 100

UNREADABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises, sooner or later, for certificates that aren't well made."""

_BACKDATED = timedelta(minutes=5)
"""How much a certificate's validity begins before its issue, so that a peer whose clock lags a little accepts it."""
_PEM_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_HOST_NAME = re.compile(r"(?:\*\.)?(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def certificate_from_pem(text: bytes, *, size_bytes_max: int = CERTIFICATE_PEM_SIZE_BYTES_MAX) -> x509.Certificate:
    """The one certificate in a PEM text.

    Raises:
        InvalidRequest: too long, not PEM, not X.509, or more than one certificate. Subject ``certificate``.
    """
    certificates = certificates_from_pem(text, size_bytes_max=size_bytes_max, count_max=1)
    return certificates[0]


def certificates_from_pem(
    text: bytes, *, size_bytes_max: int, count_max: int, field: str = "certificate"
) -> list[x509.Certificate]:
    """Every certificate of a PEM text, in its order: at least one, at most ``count_max``.

    Raises:
        InvalidRequest: as :func:`certificate_from_pem`. Subject ``certificate``.
    """
    if len(text) > size_bytes_max:
        raise InvalidRequest(
            f"The {field} is {len(text)} bytes long; at most {size_bytes_max} bytes are accepted.", subject="certificate"
        )
    blocks = _PEM_CERTIFICATE.findall(text)
    if not blocks:
        raise InvalidRequest(
            f"The {field} is not in PEM form. Send text that begins with -----BEGIN CERTIFICATE----- .", subject="certificate"
        )
    if len(blocks) > count_max:
        raise InvalidRequest(
            f"The {field} field contains more than one certificate. You can specify only one certificate in this field."
            if count_max == 1
            else f"The {field} field contains {len(blocks)} certificates; at most {count_max} are accepted.",
            subject="certificate",
        )
    try:
        certificates = [x509.load_pem_x509_certificate(block) for block in blocks]
        for certificate in certificates:
            _ = certificate.extensions  # read now, so that a malformed extension is refused here and nowhere later
            _ = certificate.subject, certificate.issuer, certificate.serial_number
    except UNREADABLE as broken:
        raise InvalidRequest(
            f"The {field} is not a readable X.509 certificate: {_brief(broken)}", subject="certificate"
        ) from None
    return certificates


def anchors_from_pem(text: str) -> list[x509.Certificate]:
    """Every certificate of a text that the server wrote itself."""
    return x509.load_pem_x509_certificates(text.encode("ascii"))


def certificate_from_der(der: bytes) -> x509.Certificate:
    """A certificate from DER, as a TLS peer presents it.

    Raises:
        InvalidRequest: too long or not X.509. Subject ``certificate``.
    """
    if len(der) > CERTIFICATE_PEM_SIZE_BYTES_MAX:
        raise InvalidRequest("The certificate is longer than 64 KiB.", subject="certificate")
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE as broken:
        raise InvalidRequest(f"Not a readable X.509 certificate: {_brief(broken)}", subject="certificate") from None


def fingerprint_of_der(der: bytes) -> CertificateId:
    """The certificate id: SHA-256 of the DER, 64 lower-case hexadecimal digits (wire reference §9.4)."""
    return CertificateId(hashlib.sha256(der).hexdigest())


def fingerprint(certificate: x509.Certificate) -> CertificateId:
    """The certificate id of a parsed certificate."""
    return fingerprint_of_der(der_of(certificate))


def der_of(certificate: x509.Certificate) -> bytes:
    """The certificate's DER, byte for byte as it came."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem_of(certificate: x509.Certificate) -> str:
    """The certificate as PEM text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def not_before(certificate: x509.Certificate) -> Instant:
    """When the certificate begins to hold."""
    return from_datetime(certificate.not_valid_before_utc)


def not_after(certificate: x509.Certificate) -> Instant:
    """The last moment at which the certificate holds."""
    return from_datetime(certificate.not_valid_after_utc)


def accepted_public_key(certificate: x509.Certificate | x509.CertificateSigningRequest, *, field: str) -> PublicKey:
    """The public key, if it is of a kind that devices may use: RSA of 2048 bits or more, or ECDSA P-256, P-384, P-521.

    Raises:
        InvalidRequest: another algorithm, curve or size. Subject ``certificate-validation``.
    """
    try:
        key = certificate.public_key()
    except UNREADABLE as broken:
        raise InvalidRequest(
            f"The public key in the {field} can't be used: {_brief(broken)}", subject="certificate-validation"
        ) from None
    if isinstance(key, rsa.RSAPublicKey) and RSA_KEY_SIZE_BITS_MIN <= key.key_size <= RSA_KEY_SIZE_BITS_MAX:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise InvalidRequest(
        f"The public key in the {field} is of a kind that isn't accepted. Use RSA of at least {RSA_KEY_SIZE_BITS_MIN} bits, "
        "or ECDSA on P-256, P-384 or P-521.",
        subject="certificate-validation",
    )


def refuse_broken_hash(certificate: x509.Certificate) -> None:
    """No certificate gets into the registry whose issuer signed over a hash that can be forged.

    Raises:
        InvalidRequest: MD5, SHA-1 or what the library doesn't know. Subject ``certificate-validation``.
    """
    try:
        digest = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        named = "a hash that isn't known here"
    else:
        if not isinstance(digest, (hashes.MD5, hashes.SHA1)):
            return
        named = {"md5": "MD5", "sha1": "SHA-1"}[digest.name]
    raise InvalidRequest(
        f"The certificate is signed over {named}, which anybody may forge. Have it signed over SHA-256, SHA-384 or SHA-512.",
        subject="certificate-validation",
    )


def signing_request_from_pem(text: str) -> x509.CertificateSigningRequest:
    """A PKCS#10 request whose own signature holds and whose key is of an accepted kind.

    Raises:
        InvalidRequest: anything else. Subject ``certificate-signing-request`` or ``certificate-validation``.
    """
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > SIGNING_REQUEST_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"The certificate signing request is longer than {SIGNING_REQUEST_SIZE_BYTES_MAX} bytes.",
            subject="certificate-signing-request",
        )
    return _signing_request(lambda: x509.load_pem_x509_csr(encoded))


def signing_request_from_der(der: bytes) -> x509.CertificateSigningRequest:
    """The same from DER.

    Raises:
        InvalidRequest: as :func:`signing_request_from_pem`.
    """
    if len(der) > SIGNING_REQUEST_SIZE_BYTES_MAX:
        raise InvalidRequest(
            f"The certificate signing request is longer than {SIGNING_REQUEST_SIZE_BYTES_MAX} bytes.",
            subject="certificate-signing-request",
        )
    return _signing_request(lambda: x509.load_der_x509_csr(der))


def _signing_request(load: Callable[[], x509.CertificateSigningRequest]) -> x509.CertificateSigningRequest:
    try:
        request = load()
        _ = request.subject
        accepted_public_key(request, field="certificate signing request")
        proved = request.is_signature_valid
    except (*UNREADABLE, InvalidSignature) as broken:
        raise InvalidRequest(
            f"The certificate signing request can't be read: {_brief(broken)}. Send a well-formed PKCS#10 request.",
            subject="certificate-signing-request",
        ) from None
    if not proved:
        raise InvalidRequest(
            "The certificate signing request isn't signed by the key that it names.", subject="certificate-signing-request"
        )
    return request


def new_device_key() -> rsa.RSAPrivateKey:
    """A fresh RSA-2048 key, the kind CreateKeysAndCertificate gives. Takes tens of milliseconds: not for the writer thread."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_key_pem(key: rsa.RSAPrivateKey) -> str:
    """The key as unencrypted PKCS#1 PEM, the form that the C agents' parsers and AWS's answer have."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode("ascii")


def public_key_pem(key: PublicKey) -> str:
    """The key as SubjectPublicKeyInfo PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode("ascii")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs: its name, its key (which may live elsewhere and only sign) and its certificate, None for a root to be."""

    subject: x509.Name
    key: IssuerKey
    certificate: x509.Certificate | None = None


def common_name(text: str) -> x509.Name:
    """A subject that has nothing but a common name of at most 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def issue_root(
    name: str, key: IssuerKey, *, now: Instant, serial: bytes, purpose: x509.ObjectIdentifier | None = None
) -> x509.Certificate:
    """A self-signed authority that may issue leaves only, valid until the end of 2049.

    With a ``purpose`` its leaves are good for nothing else: a device that is handed the authority of its own certificate as
    one more anchor must not believe a server that it vouches for.
    """
    issuer = Issuer(common_name(name), key)
    builder = _builder(issuer, issuer.subject, key.public_key(), now=now, until=DEVICE_CERTIFICATE_NOT_AFTER, serial=serial)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    return _signed(
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(
            _key_usage(key_cert_sign=True, crl_sign=True), critical=True
        ),
        issuer,
    )


def issue_device(
    issuer: Issuer,
    subject: x509.Name,
    public_key: PublicKey,
    *,
    now: Instant,
    serial: bytes,
    until: Instant = DEVICE_CERTIFICATE_NOT_AFTER,
) -> x509.Certificate:
    """A device's leaf for client authentication, valid until 2049-12-31T23:59:59Z unless said otherwise (wire reference
    §9.4)."""
    builder = _builder(issuer, subject, public_key, now=now, until=until, serial=serial)
    return _signed(_leaf(builder, ExtendedKeyUsageOID.CLIENT_AUTH), issuer)


def issue_server(
    issuer: Issuer, hosts: Sequence[str], public_key: PublicKey, *, now: Instant, until: Instant, serial: bytes
) -> x509.Certificate:
    """A server's leaf for these host names and IP addresses, all of them as subject alternative names.

    Raises:
        InvalidRequest: no host, too many, or one that is neither a name nor an address. Subject ``host``.
    """
    names = [general_name(host) for host in hosts]
    if not 1 <= len(names) <= HOSTS_MAX:
        raise InvalidRequest(f"A server certificate names between 1 and {HOSTS_MAX} hosts.", subject="host")
    builder = _builder(issuer, common_name(hosts[0][:64]), public_key, now=now, until=until, serial=serial)
    return _signed(
        _leaf(builder, ExtendedKeyUsageOID.SERVER_AUTH).add_extension(x509.SubjectAlternativeName(names), critical=False),
        issuer,
    )


def issue_code_signing(name: str, key: IssuerKey, *, now: Instant, until: Instant, serial: bytes) -> x509.Certificate:
    """A self-signed v3 certificate with exactly what a Signer profile demands (wire reference §6.7)."""
    issuer = Issuer(common_name(name), key)
    builder = _builder(issuer, issuer.subject, key.public_key(), now=now, until=until, serial=serial)
    return _signed(_leaf(builder, ExtendedKeyUsageOID.CODE_SIGNING), issuer)


def general_name(host: str) -> x509.GeneralName:
    """A host as a subject alternative name: an IP address where it reads as one, else a DNS name.

    Raises:
        InvalidRequest: it is neither. Subject ``host``.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if len(host) > HOST_NAME_LENGTH_MAX or not _HOST_NAME.fullmatch(host):
        raise InvalidRequest(
            f"{host[:260]!r} is neither a host name nor an IP address. Write names without scheme, port or path.",
            subject="host",
        )
    return x509.DNSName(host)


def directly_issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer``'s name and key stand behind ``leaf``'s issuer and signature."""
    try:
        leaf.verify_directly_issued_by(issuer)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _builder(
    issuer: Issuer, subject: x509.Name, public_key: PublicKey, *, now: Instant, until: Instant, serial: bytes
) -> x509.CertificateBuilder:
    """What every certificate has: names, key, dates, serial number and the two key identifiers."""
    # The top bit stays clear and the next one set: positive, never zero, always of the same length (RFC 5280 §4.1.2.2).
    number = int.from_bytes(serial, "big") & ((1 << (len(serial) * 8 - 1)) - 1) | (1 << (len(serial) * 8 - 2))
    begin = as_datetime(now) - _BACKDATED
    authority_key = (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        if issuer.certificate is None
        else x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(number)
        .not_valid_before(begin.replace(microsecond=0))
        .not_valid_after(as_datetime(until).replace(microsecond=0))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(authority_key, critical=False)
    )


def _leaf(builder: x509.CertificateBuilder, purpose: x509.ObjectIdentifier) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, issuer: Issuer) -> x509.Certificate:
    return builder.sign(issuer.key, hashes.SHA256())


def _brief(broken: BaseException) -> str:
    """A library's own complaint, short and on one line."""
    return " ".join(str(broken).split())[:200] or type(broken).__name__


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether the certificate is its own issuer, signature checked."""
    return certificate.subject == certificate.issuer and directly_issued(certificate, certificate)


def public_key_der(certificate: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """The certificate's or request's public key as SubjectPublicKeyInfo.

    Raises:
        InvalidRequest: a key of an algorithm that nobody here knows. Subject ``certificate``.
    """
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except UNREADABLE as broken:
        raise InvalidRequest(f"The certificate's public key can't be used: {_brief(broken)}", subject="certificate") from None


def key_fingerprint(certificate: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """SHA-256 of the public key (SubjectPublicKeyInfo), 64 lower-case hexadecimal digits.

    Raises:
        InvalidRequest: as :func:`public_key_der`.
    """
    return hashlib.sha256(public_key_der(certificate)).hexdigest()


def is_canonical(certificate: x509.Certificate) -> bool:
    """Whether the signature ends on a whole byte, as DER wants it: otherwise one certificate could be written in several ways
    that all verify, each with another id."""
    return der_of(certificate).endswith(b"\0" + certificate.signature)
