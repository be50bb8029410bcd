"""Keys that sign images for devices of the AWS family: EC P-256 or RSA, in a PEM file or on a PKCS #11 token.

They are others than the keys of root and targets (``holders.py``): agents verify ECDSA and PKCS #1 v1.5, Uptane clients Ed25519
and PSS. Each signs a digest, so that an image of any size is read once and never sent to a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from overair.basics.redacted import Redacted
from overair.cli.sign import pkcs11_holder
from overair.cli.sign.ends import refused, usage
from overair.cli.sign.key_records import KEY_FILE_SIZE_BYTES_MAX
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.tree import read_file
from overair.server.keyring import tokens
from overair.server.keyring.model import SignatureAlgorithm
from overair.server.keyring.tokens import TokenUri
from overair.wire.image_signature import PublicKey


class ImageKey(Protocol):
    """Whoever holds the private key."""

    def sign_digest(self, digest: bytes) -> bytes:
        """The signature over what has this SHA-256: DER for ECDSA, PKCS #1 v1.5 for RSA."""
        ...


def image_key(key: str, public: PublicKey, secrets: Secrets) -> ImageKey:
    """The key that a command names: a ``pkcs11:`` URI, or a file.

    Raises:
        SignEnded: USAGE, REFUSED.
    """
    if key.startswith("pkcs11:"):
        return TokenImageKey(pkcs11_holder.parse(key), public, secrets)
    return _from_file(Path(key), secrets)


class FileImageKey:
    """A private key in this process, for one signature."""

    __slots__ = ("_key",)

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key

    def sign_digest(self, digest: bytes) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        return self._key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))


class TokenImageKey:
    """A private key on a token, found by its label and its kind."""

    def __init__(self, where: TokenUri, public: PublicKey, secrets: Secrets) -> None:
        self._where = where
        self._public = public
        self._secrets = secrets

    def sign_digest(self, digest: bytes) -> bytes:
        """Raises:
        SignEnded: SIGNATURE_MISSING: the token has no such key; USAGE: its PIN, its library; REFUSED: by the token.
        """
        is_rsa = isinstance(self._public, rsa.RSAPublicKey)
        algorithm = SignatureAlgorithm.RSA_PKCS1_SHA256 if is_rsa else SignatureAlgorithm.ECDSA_SHA256
        with pkcs11_holder.token_session(self._where, self._secrets.pin, writes=False) as session:
            return tokens.sign_digest(session, self._where, digest, algorithm=algorithm)


def _from_file(path: Path, secrets: Secrets) -> FileImageKey:
    """A PEM file, encrypted with a passphrase or not."""
    # What the library says could quote the key, so nothing of it is passed on.
    unreadable = usage(f"{path} holds no private key that can be read: PEM, best encrypted with a passphrase.")
    data = Redacted(read_file(path, KEY_FILE_SIZE_BYTES_MAX))
    try:
        try:
            loaded: object = serialization.load_pem_private_key(data.reveal(), password=None)
        except TypeError:  # it is encrypted
            passphrase = secrets.passphrase(str(path)).reveal().encode("utf-8")
            try:
                loaded = serialization.load_pem_private_key(data.reveal(), password=passphrase)
            except ValueError:
                raise usage(f"{path} doesn't open: the passphrase is another one, or the file was changed.") from None
    except (ValueError, UnsupportedAlgorithm):
        raise unreadable from None
    if not isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise refused(f"The key in {path} is neither EC P-256 nor RSA; agents verify nothing else.")
    return FileImageKey(loaded)
