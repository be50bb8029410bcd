"""Kinds of private key, and what each can sign."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, KeyId
from overair.basics.redacted import Redacted


class KeyKind(StrEnum):
    """What the keyring can make. Other sizes of RSA (2048 to 4096 bits) and curves (P-384, P-521) may be imported."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    ED25519 = "ed25519"


class SignatureAlgorithm(StrEnum):
    """ECDSA signatures are DER; RSA is PKCS #1 version 1.5, as AWS's devices verify it, or PSS for Uptane's roles."""

    ECDSA_SHA256 = "ecdsa-sha256"
    ECDSA_SHA1 = "ecdsa-sha1"
    RSA_PKCS1_SHA256 = "rsa-pkcs1-sha256"
    RSA_PKCS1_SHA1 = "rsa-pkcs1-sha1"
    RSA_PSS_SHA256 = "rsa-pss-sha256"
    """With MGF1 over SHA-256 and a salt of 32 bytes (Uptane reference §4.2)."""
    ED25519 = "ed25519"


_ECDSA: Final = frozenset({SignatureAlgorithm.ECDSA_SHA256, SignatureAlgorithm.ECDSA_SHA1})
_RSA: Final = frozenset(
    {SignatureAlgorithm.RSA_PKCS1_SHA256, SignatureAlgorithm.RSA_PKCS1_SHA1, SignatureAlgorithm.RSA_PSS_SHA256}
)

MAY_SIGN: Final[dict[KeyKind, frozenset[SignatureAlgorithm]]] = {
    KeyKind.EC_P256: _ECDSA,
    KeyKind.EC_P384: _ECDSA,
    KeyKind.EC_P521: _ECDSA,
    KeyKind.RSA_2048: _RSA,
    KeyKind.RSA_3072: _RSA,
    KeyKind.RSA_4096: _RSA,
    KeyKind.ED25519: frozenset({SignatureAlgorithm.ED25519}),
}


FILE: Final = "file:"
"""The holder of a key that rests in the records, wrapped."""
HOLDER_LENGTH_MAX: Final = 1024
OFFLINE: Final = "offline:"
"""Begins the holder of a key that somebody keeps away from here; who it is follows, percent-encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A key as it rests: its public half in the open, and the private half sealed or the name of who holds it."""

    account: AccountId
    key_id: KeyId
    kind: KeyKind
    purpose: str
    """For people and for status: ``device-ca``, ``server-tls``, ``acm``, …"""
    created: Instant
    public_key_der: bytes
    """SubjectPublicKeyInfo."""
    sealed: bytes
    """PKCS #8 DER under the wrapping key, bound to account and key id; empty where it is held elsewhere."""
    holder: str = FILE
    """A URI: ``FILE``, ``pkcs11:…``, ``offline:…``, or a key service's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedKey:
    """A new key that no record holds yet. Made outside a transaction, since RSA and other holders take their time."""

    kind: KeyKind
    public_key_der: bytes
    private_key_der: Redacted[bytes]
    """Empty where it is held elsewhere."""
    holder: str = FILE
