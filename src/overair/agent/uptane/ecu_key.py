"""The key that an ECU signs its reports with. It is made on the ECU and never leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from overair.agent.durable import Disk
from overair.agent.uptane.settings import KeyKind
from overair.wire.uptane.keys import PSS_SALT_SIZE_BYTES, PublicKey, public_key_of
from overair.wire.uptane.refusals import MetadataRefused

KEY_SIZE_BYTES_MAX: Final = 16 * 1024
_RSA_SIZES_BITS: Final = {KeyKind.RSA2048: 2048, KeyKind.RSA3072: 3072, KeyKind.RSA4096: 4096}


class BadEcuKey(Exception):
    """The key's file can't be used. A new key would have to be registered, so none is made in its place."""


class EcuKey:
    """Implements ``MetadataSigner``."""

    def __init__(self, key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key
        self._public_key = public_key_of(key.public_key())

    @property
    def public_key(self) -> PublicKey:
        return self._public_key

    def sign(self, data: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_SIZE_BYTES), hashes.SHA256())


def load_or_make(path: Path, kind: KeyKind, disk: Disk) -> EcuKey:
    """The ECU's key; the first time it is made, whatever ``kind`` says later.

    Raises:
        BadEcuKey
    """
    try:
        with path.open("rb") as file:
            pem = file.read(KEY_SIZE_BYTES_MAX)
    except FileNotFoundError:
        return _make(path, kind, disk)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadEcuKey(f"{path} holds no key that can be read: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise BadEcuKey(f"{path} holds neither an Ed25519 nor an RSA key.")
    try:
        return EcuKey(key)
    except MetadataRefused as error:
        raise BadEcuKey(f"{path}: {error.message}") from None


def _make(path: Path, kind: KeyKind, disk: Disk) -> EcuKey:
    key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    if kind is KeyKind.ED25519:
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_SIZES_BITS[kind])
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    disk.write_whole(path, pem)
    return EcuKey(key)
