"""What a device or a factory is handed: a key, its certificate and whom to trust, in one PKCS #12."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from overair.basics.redacted import Redacted
from overair.server.provisioning.minting import DeviceKey


def pkcs12_of(name: str, key: DeviceKey, certificate: x509.Certificate, others: Sequence[x509.Certificate]) -> Redacted[bytes]:
    """DER with an empty password and an unencrypted container: what known clients open (Uptane reference §3.2). TLS or the
    file's mode protects it. It carries a MAC, which older OpenSSL insists on. Takes milliseconds: not for the event loop."""
    return Redacted(
        pkcs12.serialize_key_and_certificates(
            name.encode("ascii"), key, certificate, list(others), serialization.NoEncryption()
        )
    )
