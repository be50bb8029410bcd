"""Who holds a private key: a URI's scheme picks the holder, so that a file, a token and a cloud's key service are one line
each.

Every signature is checked with the key's public half before anybody sees it: a token that was swapped, or a fault while
computing, never leaves this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.cli.sign import sealed_box
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.key_records import NEW_TYPES, KeyRecord, PrivateKey
from overair.wire.uptane.keys import PSS_SALT_SIZE_BYTES, PublicKey, public_key_of
from overair.wire.uptane.metadata_writing import MetadataSigner

PURPOSE: Final = "signing key"

Passphrase = Callable[[str], Redacted[str]]
"""Asks for the passphrase of what is named, or takes it from the file that was named for it."""


@dataclass(frozen=True, slots=True)
class CheckedSigner:
    """A holder whose signatures were looked at before they are believed."""

    inner: MetadataSigner
    name: str

    @property
    def public_key(self) -> PublicKey:
        return self.inner.public_key

    def sign(self, data: bytes) -> bytes:
        """Raises:
        SignEnded: REFUSED: what the holder made isn't a signature of its key.
        """
        signature = self.inner.sign(data)
        if not self.public_key.verifies(signature, data):
            raise refused(f"The holder of {self.name} made a signature that its public key doesn't verify. Nothing was used.")
        return signature


class MemoryKey:
    """A private key in this process: opened from its sealed file, or handed out by the server for one ceremony."""

    __slots__ = ("_key", "public_key")

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.public_key: PublicKey = public_key_of(key.public_key())

    def __repr__(self) -> str:
        return f"MemoryKey({self.public_key.id[:16]}…)"

    def sign(self, data: bytes) -> bytes:
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_SIZE_BYTES)
        return self._key.sign(data, pss, hashes.SHA256())


def generate(kind: str) -> PrivateKey:
    """A new key of one of ``NEW_TYPES``.

    Raises:
        SignEnded: REFUSED for RSA that is too short, USAGE for another kind.
    """
    if kind in {"rsa-2048", "rsa-1024"}:
        raise refused("A new RSA key has at least 3072 bits: rsa-3072 or rsa-4096.")
    if kind not in NEW_TYPES:
        raise usage(f"--type is one of {', '.join(NEW_TYPES)}.")
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else rsa.generate_private_key(65537, NEW_TYPES[kind])


def seal_key(key: PrivateKey, record: KeyRecord, passphrase: Redacted[str], *, ids: IdSource) -> bytes:
    """The content of ``keys/NAME.key``."""
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    about = {"name": record.name, "key_id": record.id, "type": record.kind}
    return sealed_box.seal(Redacted(der), passphrase, purpose=PURPOSE, about=about, ids=ids)


def open_key(box: bytes, record: KeyRecord, passphrase: Redacted[str], *, path: str) -> MetadataSigner:
    """The key of a sealed file.

    Raises:
        SignEnded: USAGE: it doesn't open, or isn't the key of this record.
    """
    der = sealed_box.open_box(box, passphrase, purpose=PURPOSE, name=path)
    loaded = serialization.load_der_private_key(der.reveal(), None)
    assert isinstance(loaded, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey)
    key = MemoryKey(loaded)
    if key.public_key != record.key:
        raise usage(f"{path} holds another key than the one that {record.name} is recorded to be.")
    return CheckedSigner(key, record.name)


def open_elsewhere(record: KeyRecord, pin: Passphrase) -> MetadataSigner:
    """The key of a record whose holder isn't a file.

    Raises:
        SignEnded: SIGNATURE_MISSING: nobody here holds it; USAGE: unknown scheme, a library that isn't installed; REFUSED: the
            holder holds another key.
    """
    from overair.cli.sign import kms_holder, pkcs11_holder

    scheme = record.holder.partition(":")[0]
    if not record.holder:
        raise SignEnded(SignExit.SIGNATURE_MISSING, f"{record.name} is a public key only: its private half isn't held here.")
    if scheme == "pkcs11":
        signer: MetadataSigner = pkcs11_holder.open_key(record, pin)
    else:
        signer = kms_holder.open_key(record)
    if signer.public_key != record.key:
        raise refused(f"{record.holder} holds another key than the one that {record.name} is recorded to be.")
    return CheckedSigner(signer, record.name)
