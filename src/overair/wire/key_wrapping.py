"""A content key, wrapped for a reader's P-256 key: COSE's ECDH-ES + A256KW (RFC 9052 §8.5.5, RFC 9053 §5.2, §6.4).

The key agreement is between a fresh key pair and the reader's; HKDF with SHA-256 makes a wrapping key of it, in the context
that COSE lays down; AES Key Wrap (RFC 3394) wraps the content key with that. Pure: whoever wraps brings the fresh key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

KEY_ID_SIZE_BYTES: Final = 32
PUBLIC_KEY_SIZE_BYTES_MAX: Final = 4 * 1024
"""Of a public key in PEM or DER as it is read; P-256 needs 178."""
_COORDINATE_SIZE_BYTES: Final = 32
_WRAPPING_KEY_SIZE_BYTES: Final = 32
_WRAPPED_SIZES_BYTES: Final = frozenset({24, 32, 40})
"""Content keys of 128, 192 and 256 bits, with the eight bytes that wrapping adds."""

_ALG, _KEY_ID, _EPHEMERAL_KEY = 1, 4, -1
_KTY, _CRV, _X, _Y = 1, -1, -2, -3
_EC2, _P256 = 2, 1
_A256KW: Final = -5
_ECDH_ES_A256KW: Final = -31
_PROTECTED: Final = cbor2.dumps({_ALG: _ECDH_ES_A256KW})
_CONTEXT: Final = cbor2.dumps(
    [_A256KW, [None, None, None], [None, None, None], [8 * _WRAPPING_KEY_SIZE_BYTES, _PROTECTED]], canonical=True
)
"""COSE_KDF_Context: nothing is said of either party."""


class MalformedRecipient(ValueError):
    """It is no recipient as we write them; the message says why."""


class NotUnwrapped(Exception):
    """The private key isn't the recipient's, or what was wrapped was changed."""


class UnsuitableKey(ValueError):
    """It is no key that something can be encrypted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrappedKey:
    """A content key that one reader can unwrap."""

    key_id: bytes
    """SHA-256 of the reader's public key (SubjectPublicKeyInfo in DER)."""
    ephemeral_x: bytes
    ephemeral_y: bytes
    wrapped: bytes

    def to_cose(self) -> list[Any]:
        """COSE_recipient."""
        ephemeral = {_KTY: _EC2, _CRV: _P256, _X: self.ephemeral_x, _Y: self.ephemeral_y}
        return [_PROTECTED, {_EPHEMERAL_KEY: ephemeral, _KEY_ID: self.key_id}, self.wrapped]


def key_id_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """By which name everybody knows a public key."""
    return hashlib.sha256(public_key_der(key)).digest()


def public_key_der(key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_public_key(data: bytes) -> ec.EllipticCurvePublicKey:
    """Read a public key in PEM, or in DER.

    Raises:
        UnsuitableKey: anything else, or another kind than EC P-256.
    """
    if len(data) > PUBLIC_KEY_SIZE_BYTES_MAX:
        raise UnsuitableKey(f"A public key has at most {PUBLIC_KEY_SIZE_BYTES_MAX} bytes.")
    is_pem = data.lstrip().startswith(b"-----BEGIN ")
    try:
        key = serialization.load_pem_public_key(data) if is_pem else serialization.load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnsuitableKey(f"Not a readable public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnsuitableKey("Images are encrypted to EC P-256 keys alone.")
    return key


def wrap(content_key: bytes, reader: ec.EllipticCurvePublicKey, ephemeral: ec.EllipticCurvePrivateKey) -> WrappedKey:
    """Wrap a content key for one reader. ``ephemeral`` was made for this alone and is forgotten after it."""
    numbers = ephemeral.public_key().public_numbers()
    return WrappedKey(
        key_id=key_id_of(reader),
        ephemeral_x=numbers.x.to_bytes(_COORDINATE_SIZE_BYTES, "big"),
        ephemeral_y=numbers.y.to_bytes(_COORDINATE_SIZE_BYTES, "big"),
        wrapped=aes_key_wrap(_wrapping_key(ephemeral.exchange(ec.ECDH(), reader)), content_key),
    )


def unwrap(wrapped: WrappedKey, private: ec.EllipticCurvePrivateKey) -> bytes:
    """The content key.

    Raises:
        NotUnwrapped: the ephemeral key is no point of the curve, or the wrapping doesn't open.
    """
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(wrapped.ephemeral_x, "big"), int.from_bytes(wrapped.ephemeral_y, "big"), ec.SECP256R1()
    )
    try:
        # Refuses what isn't on the curve: an ephemeral key that somebody chose tells nothing of ours.
        ephemeral = numbers.public_key()
        return aes_key_unwrap(_wrapping_key(private.exchange(ec.ECDH(), ephemeral)), wrapped.wrapped)
    except (ValueError, InvalidUnwrap) as error:
        raise NotUnwrapped(f"The content key can't be unwrapped: {error}") from None


def read_recipient(value: object) -> WrappedKey:
    """Read a COSE_recipient as ``to_cose`` writes it. Its key's name may be of any length up to 64 bytes.

    Raises:
        MalformedRecipient: another algorithm, another shape, a length that can't be.
    """
    if not isinstance(value, list) or len(value) != 3:
        raise MalformedRecipient("A recipient has three members: it is for nobody else's sake.")
    protected, unprotected, wrapped = value
    if protected != _PROTECTED:
        raise MalformedRecipient("A recipient's algorithm is ECDH-ES + A256KW, and nothing else is protected in it.")
    if not isinstance(unprotected, dict) or set(unprotected) != {_EPHEMERAL_KEY, _KEY_ID}:
        raise MalformedRecipient("A recipient says its ephemeral key and its key's name, and nothing else.")
    ephemeral, key_id = unprotected[_EPHEMERAL_KEY], unprotected[_KEY_ID]
    if not isinstance(ephemeral, dict) or set(ephemeral) != {_KTY, _CRV, _X, _Y}:
        raise MalformedRecipient("An ephemeral key has its kind, its curve, x and y.")
    if (ephemeral[_KTY], ephemeral[_CRV]) != (_EC2, _P256):
        raise MalformedRecipient("An ephemeral key is of the curve P-256.")
    if not isinstance(key_id, bytes) or not 1 <= len(key_id) <= 64:
        raise MalformedRecipient("The name of a recipient's key has 1 to 64 bytes.")
    if not isinstance(wrapped, bytes) or len(wrapped) not in _WRAPPED_SIZES_BYTES:
        raise MalformedRecipient("A wrapped content key has 24, 32 or 40 bytes.")
    return WrappedKey(
        key_id=key_id,
        ephemeral_x=_coordinate(ephemeral[_X]),
        ephemeral_y=_coordinate(ephemeral[_Y]),
        wrapped=wrapped,
    )


def _coordinate(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != _COORDINATE_SIZE_BYTES:
        raise MalformedRecipient(f"A coordinate has {_COORDINATE_SIZE_BYTES} bytes.")
    return value


def _wrapping_key(agreed: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=_WRAPPING_KEY_SIZE_BYTES, salt=None, info=_CONTEXT).derive(agreed)
