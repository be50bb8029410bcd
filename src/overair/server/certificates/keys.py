"""A key that can only sign: the keyring holds its private half."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.server.keyring.model import KeyKind, SignatureAlgorithm
from overair.server.keyring.service import Signer

AUTHORITY_KEY_KIND: Final = KeyKind.EC_P256


class HeldKey(ec.EllipticCurvePrivateKey):
    """A P-256 key whose private half stays with its holder: the X.509 builder sees a key and gets signatures."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, holder: Signer) -> None:
        self._public_key = public_key
        self._holder = holder

    @classmethod
    def behind(cls, public_key: object, holder: Signer) -> HeldKey:
        """The key that ``holder`` holds, whose public half is ``public_key``."""
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise TypeError("The keyring made a key of another kind than was asked for.")
        return cls(public_key, holder)

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over SHA-256 and nothing else, as DER."""
        algorithm = signature_algorithm.algorithm
        if not isinstance(algorithm, hashes.SHA256):
            raise TypeError("A held key signs with ECDSA over SHA-256 only.")
        return self._holder.sign(bytes(data), algorithm=SignatureAlgorithm.ECDSA_SHA256)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        """P-256."""
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self._public_key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not with a key that only signs."""
        raise RuntimeError("A held key only signs.")

    def private_numbers(self) -> NoReturn:
        """Not with a key that only signs."""
        raise RuntimeError("A held key never leaves its holder.")

    def private_bytes(self, encoding: object, format: object, encryption_algorithm: object) -> NoReturn:
        """Not with a key that only signs."""
        raise RuntimeError("A held key never leaves its holder.")

    def __copy__(self) -> HeldKey:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldKey:
        return self
