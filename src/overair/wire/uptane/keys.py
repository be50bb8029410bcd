"""Public keys of roles and ECUs: how they are written in both flavours, what they are called, what they have signed.

Uptane reference §4.2, §7.1. A key id is an opaque label to every client; ours is the SHA-256 of the SubjectPublicKeyInfo.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from overair.wire.uptane.refusals import MetadataRefused, Reason

RSA_SIZES_BITS: Final = frozenset({2048, 3072, 4096})
"""Other sizes are silently unusable to aktualizr."""
RSA_SIZE_BITS_NEW_MIN: Final = 3072
PSS_SALT_SIZE_BYTES: Final = 32
KEYS_LOADED_MAX: Final = 4096
PEM_SIZE_BYTES_MAX: Final = 4096
KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_ED25519_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_P: Final = 2**255 - 19
_OF_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_OF_SMALL_ORDER: Final = frozenset({0, 1, _P - 1, _OF_ORDER_8, _P - _OF_ORDER_8})
"""The y of the eight points whose order divides eight. As a key each of them "has signed" one message in eight at least."""


class Flavour(StrEnum):
    """For whom a document is written: the same state, two spellings (Uptane reference §7)."""

    UPTANE = "uptane"
    """aktualizr and OTA Connect's tools: ``_type`` with a capital, Base64 signatures with a method, escaped canonical form."""
    TUF = "tuf"
    """TUF's clients: small ``_type``, hexadecimal signatures, a scheme in each key, OLPC canonical form."""


class KeyType(StrEnum):
    RSA = "RSA"
    ED25519 = "ED25519"
    ECDSA = "ECDSA"
    """Only in the TUF flavour: one such key makes aktualizr refuse the whole document."""


METHODS: Final[Mapping[KeyType, frozenset[str]]] = {
    KeyType.RSA: frozenset({"rsassa-pss-sha256", "rsassa-pss"}),
    KeyType.ED25519: frozenset({"ed25519"}),
}
METHOD: Final[Mapping[KeyType, str]] = {KeyType.RSA: "rsassa-pss-sha256", KeyType.ED25519: "ed25519"}
"""What we write; ``METHODS`` is what we read (in lower case)."""
_SCHEMES: Final[Mapping[KeyType, frozenset[str]]] = {
    KeyType.RSA: frozenset({"rsassa-pss-sha256"}),
    KeyType.ED25519: frozenset({"ed25519"}),
    KeyType.ECDSA: frozenset({"ecdsa-sha2-nistp256"}),
}
_TUF_KEY_TYPES: Final[Mapping[str, KeyType]] = {
    "rsa": KeyType.RSA,
    "ed25519": KeyType.ED25519,
    "ecdsa": KeyType.ECDSA,
    "ecdsa-sha2-nistp256": KeyType.ECDSA,
}

CryptographyKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey


class UnknownKey(MetadataRefused):
    """A kind of key that isn't known. TUF's clients skip it; aktualizr refuses the document."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that verifies. Equal when type and key are; the label that a document gives it isn't part of it."""

    type: KeyType
    spki_der: bytes
    """SubjectPublicKeyInfo."""

    @property
    def id(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo: 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self.spki_der).hexdigest()

    @property
    def method(self) -> str:
        """How signatures of this key are named in the Uptane flavour."""
        return METHOD[self.type]

    @property
    def size_bits(self) -> int:
        """Of RSA: the modulus; else 256."""
        key = self.cryptography_key()
        return key.key_size if isinstance(key, rsa.RSAPublicKey) else 256

    def cryptography_key(self) -> CryptographyKey:
        """The same key as the library holds it; parsed once for each key in use."""
        return _load(self.spki_der)

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed ``data``: RSASSA-PSS with SHA-256 and a salt of any length, Ed25519, or ECDSA with SHA-256.
        Never raises for bad input."""
        key = self.cryptography_key()
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, data, padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256())
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, data)
            else:
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            return False
        return True

    def to_json(self, flavour: Flavour = Flavour.UPTANE) -> dict[str, object]:
        """As it stands in ``keys``: PEM with a final line end for RSA and ECDSA, hexadecimal for Ed25519."""
        key = self.cryptography_key()
        if isinstance(key, ed25519.Ed25519PublicKey):
            public = key.public_bytes_raw().hex()
        else:
            public = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(
                "ascii"
            )
        if flavour is Flavour.UPTANE:
            return {"keytype": self.type.value, "keyval": {"public": public}}
        scheme = next(iter(_SCHEMES[self.type]))
        return {"keytype": self.type.value.lower(), "scheme": scheme, "keyval": {"public": public}}


@lru_cache(maxsize=KEYS_LOADED_MAX)
def _load(spki_der: bytes) -> CryptographyKey:
    key = serialization.load_der_public_key(spki_der)
    assert isinstance(key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey)
    return key


def public_key_of(key: CryptographyKey) -> PublicKey:
    """Any supported key of the ``cryptography`` library.

    Raises:
        MetadataRefused: UNSUPPORTED_METHOD: RSA of another size than 2048, 3072 or 4096 bits, another curve than P-256, or a
            point of Ed25519 that is nobody's key.
    """
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_SIZES_BITS:
            raise MetadataRefused(
                Reason.UNSUPPORTED_METHOD, f"An RSA key of {key.key_size} bits can't be used: 2048, 3072 or 4096 can."
            )
        return PublicKey(KeyType.RSA, der)
    if isinstance(key, ed25519.Ed25519PublicKey):
        # The top bit is the sign of x; a y beyond the field is another spelling of the same.
        if (int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)) % _P in _OF_SMALL_ORDER:
            raise MetadataRefused(
                Reason.UNSUPPORTED_METHOD, "An Ed25519 key of small order can't be used: anybody can sign for it."
            )
        return PublicKey(KeyType.ED25519, der)
    if not isinstance(key.curve, ec.SECP256R1):
        raise MetadataRefused(Reason.UNSUPPORTED_METHOD, f"The curve {key.curve.name} can't be used: P-256 can.")
    return PublicKey(KeyType.ECDSA, der)


def read_public_key(value: object, flavour: Flavour = Flavour.UPTANE, *, field: str = "key") -> PublicKey:
    """Read ``{"keytype", "keyval": {"public"}}`` (with ``scheme`` in the TUF flavour). The type's case doesn't matter, nor the
    case of hexadecimal digits, nor white space round a PEM.

    Raises:
        UnknownKey: UNSUPPORTED_METHOD: a kind of key, scheme or size that we don't know.
        MetadataRefused: INVALID_METADATA: a member is missing or can't be read.
    """
    if not isinstance(value, Mapping):
        raise MetadataRefused(Reason.INVALID_METADATA, "A key is an object with keytype and keyval.", field=field)
    kind, keyval = value.get("keytype"), value.get("keyval")
    public = keyval.get("public") if isinstance(keyval, Mapping) else None
    if not isinstance(kind, str) or not isinstance(public, str):
        raise MetadataRefused(Reason.INVALID_METADATA, "A key has a keytype and keyval.public, both strings.", field=field)
    key_type = _TUF_KEY_TYPES.get(kind.lower())
    if key_type is None or (flavour is Flavour.UPTANE and key_type is KeyType.ECDSA):
        raise UnknownKey(
            Reason.UNSUPPORTED_METHOD,
            f"Keys of type {kind[:40]!r} can't be used here: RSA and ED25519 can.",
            field=f"{field}.keytype",
        )
    scheme = value.get("scheme")
    if flavour is Flavour.TUF and not (isinstance(scheme, str) and scheme in _SCHEMES[key_type]):
        raise UnknownKey(Reason.UNSUPPORTED_METHOD, f"The scheme {str(scheme)[:40]!r} isn't known.", field=f"{field}.scheme")
    if key_type is KeyType.ED25519:
        if not _ED25519_HEX.fullmatch(public):
            raise MetadataRefused(
                Reason.INVALID_METADATA, "An Ed25519 key is 64 hexadecimal digits.", field=f"{field}.keyval.public"
            )
        return _known(ed25519.Ed25519PublicKey.from_public_bytes(binascii.unhexlify(public)), field=f"{field}.keyval.public")
    return _read_pem(public, key_type, field=f"{field}.keyval.public")


def _read_pem(text: str, key_type: KeyType, *, field: str) -> PublicKey:
    try:
        if len(text) > PEM_SIZE_BYTES_MAX:
            raise ValueError("too long")
        key = serialization.load_pem_public_key(text.strip().encode("ascii") + b"\n")
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MetadataRefused(
            Reason.INVALID_METADATA, "The key is no PEM SubjectPublicKeyInfo that can be read.", field=field
        ) from None
    expected = rsa.RSAPublicKey if key_type is KeyType.RSA else ec.EllipticCurvePublicKey
    if not isinstance(key, expected):
        raise MetadataRefused(Reason.INVALID_METADATA, f"The PEM holds no {key_type.value} key.", field=field)
    return _known(key, field=field)


def _known(key: CryptographyKey, *, field: str) -> PublicKey:
    try:
        return public_key_of(key)
    except MetadataRefused as error:
        raise UnknownKey(error.reason, error.message, field=field) from None
