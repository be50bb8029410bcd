"""What a certificate says about itself, in ACM's words."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from overair.server.certificates.model import CodeSigningFacts
from overair.server.certificates.x509 import is_self_signed

__all__ = [
    "code_signing_facts",
    "dns_names",
    "first_common_name",
    "key_algorithm",
    "key_family",
    "printable",
    "serial",
    "signature_algorithm",
    "signature_family",
]

_CURVE_NAMES: Final = {"secp256r1": "EC_prime256v1", "secp384r1": "EC_secp384r1", "secp521r1": "EC_secp521r1"}

_EXTENDED_KEY_USAGES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "TLS_WEB_SERVER_AUTHENTICATION",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS_WEB_CLIENT_AUTHENTICATION",
    ExtendedKeyUsageOID.CODE_SIGNING: "CODE_SIGNING",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "EMAIL_PROTECTION",
    ExtendedKeyUsageOID.TIME_STAMPING: "TIME_STAMPING",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSP_SIGNING",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "ANY",
}


def code_signing_facts(certificate: x509.Certificate) -> CodeSigningFacts:
    """Version, usages, key and issuer."""
    return CodeSigningFacts(
        version=certificate.version.value + 1,
        key_usages=_key_usages(certificate),
        extended_key_usages=_extended_key_usages(certificate),
        key_algorithm=key_algorithm(certificate),
        self_signed=is_self_signed(certificate),
    )


def key_algorithm(certificate: x509.Certificate) -> str:
    """ACM's name of the key's kind and size; ``UNSUPPORTED`` for one that ACM doesn't know."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "UNSUPPORTED"
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA_{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVE_NAMES.get(key.curve.name, "UNSUPPORTED")
    return "UNSUPPORTED"


def key_family(certificate: x509.Certificate) -> str:
    """``RSA`` or ``ECDSA``, by the certificate's own key; empty for others."""
    name = key_algorithm(certificate)
    return "RSA" if name.startswith("RSA_") else "ECDSA" if name.startswith("EC_") else ""


def signature_family(certificate: x509.Certificate) -> str:
    """``RSA`` or ``ECDSA``, by the signature of whoever issued it; empty for others."""
    name = signature_algorithm(certificate)
    return "RSA" if name.endswith("RSA") else "ECDSA" if name.endswith("ECDSA") else ""


def signature_algorithm(certificate: x509.Certificate) -> str:
    """Such as ``SHA256WITHRSA``; the dotted identifier where there is no such name."""
    oid = certificate.signature_algorithm_oid
    # The library spells them "sha256WithRSAEncryption" and "ecdsa-with-SHA256".
    spelt = oid._name.upper()
    if spelt.startswith("ECDSA-WITH-"):
        return f"{spelt.removeprefix('ECDSA-WITH-')}WITHECDSA"
    if "WITHRSA" in spelt:
        return spelt.removesuffix("ENCRYPTION")
    return oid.dotted_string


def serial(certificate: x509.Certificate) -> str:
    """The serial number as colon-separated hexadecimal bytes."""
    number = abs(certificate.serial_number)
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex(":")


def first_common_name(certificate: x509.Certificate) -> str:
    """The subject's first common name; empty where it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return printable(str(names[0].value)) if names else ""


def printable(text: str) -> str:
    """The text without control characters, which a certificate may carry and a record or a log may not."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names among the subject's alternative names."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(printable(name) for name in names.get_values_for_type(x509.DNSName))


def _key_usages(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    said = {
        "DIGITAL_SIGNATURE": usage.digital_signature,
        "NON_REPUDIATION": usage.content_commitment,
        "KEY_ENCIPHERMENT": usage.key_encipherment,
        "DATA_ENCIPHERMENT": usage.data_encipherment,
        "KEY_AGREEMENT": usage.key_agreement,
        "CERTIFICATE_SIGNING": usage.key_cert_sign,
        "CRL_SIGNING": usage.crl_sign,
        "ENCIPHER_ONLY": usage.key_agreement and usage.encipher_only,
        "DECIPHER_ONLY": usage.key_agreement and usage.decipher_only,
    }
    return tuple(name for name, present in said.items() if present)


def _extended_key_usages(certificate: x509.Certificate) -> tuple[tuple[str, str], ...]:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ()
    return tuple((_EXTENDED_KEY_USAGES.get(usage, "CUSTOM"), usage.dotted_string) for usage in usages)
