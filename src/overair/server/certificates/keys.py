"""What this room asks of whoever holds private keys, and a key that can only sign."""

from __future__ import annotations

from typing import Any, Final, NoReturn, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.ids import AccountId, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import Tx

AUTHORITY_KEY_KIND: Final = "ec-p256"
SIGNATURE_ALGORITHM: Final = "ecdsa-sha256"


class Signs(Protocol):
    """A private key behind a name, ready to sign."""

    def sign(self, data: bytes, *, algorithm: str) -> bytes:
        """The signature over ``data``; ``ecdsa-sha256`` gives DER."""
        ...


class Keys(Protocol):
    """Whoever holds private keys (the keyring)."""

    def create(self, tx: Tx, account: AccountId, kind: str, purpose: str) -> KeyId:
        """A new key of a kind: ``ec-p256``, ``rsa-2048``, …"""
        ...

    def import_pem(self, tx: Tx, account: AccountId, pem: Redacted[bytes], purpose: str) -> KeyId:
        """Take in an unencrypted private key."""
        ...

    def public_key_pem(self, tx: Tx, account: AccountId, key_id: KeyId) -> bytes:
        """The public half as SubjectPublicKeyInfo PEM."""
        ...

    def signer(self, tx: Tx, account: AccountId, key_id: KeyId) -> Signs:
        """The key, ready to sign outside the unit of work too."""
        ...

    def export_pem(self, tx: Tx, account: AccountId, key_id: KeyId) -> Redacted[bytes]:
        """The private key itself, PKCS#8 PEM: only for our own TLS server keys, which the TLS engine must hold."""
        ...

    def delete(self, tx: Tx, account: AccountId, key_id: KeyId) -> None:
        """Forget the key."""
        ...


class HeldKey(ec.EllipticCurvePrivateKey):
    """A P-256 key whose private half stays with its holder: the X.509 builder sees a key and gets signatures."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, holder: Signs) -> None:
        self._public_key = public_key
        self._holder = holder

    @classmethod
    def behind(cls, public_key: object, holder: Signs) -> HeldKey:
        """The key that ``holder`` holds, whose public half is ``public_key``."""
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise TypeError("The keyring made a key of another kind than was asked for.")
        return cls(public_key, holder)

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over SHA-256 and nothing else, as DER."""
        algorithm = signature_algorithm.algorithm
        if not isinstance(algorithm, hashes.SHA256):
            raise TypeError("A held key signs with ECDSA over SHA-256 only.")
        return self._holder.sign(bytes(data), algorithm=SIGNATURE_ALGORITHM)

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
