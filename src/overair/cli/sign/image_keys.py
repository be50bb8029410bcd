"""Keys that sign images for devices of the AWS family: EC P-256 or RSA, in a PEM file or on a PKCS #11 token.

They are others than the keys of root and targets (``holders.py``): agents verify ECDSA and PKCS #1 v1.5, Uptane clients Ed25519
and PSS. Each signs a digest, so that an image of any size is read once and never sent to a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from overair.basics.redacted import Redacted
from overair.cli.sign import pkcs11_holder
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.key_records import KEY_FILE_SIZE_BYTES_MAX
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.tree import read_file
from overair.wire.image_signature import PublicKey

SHA256_DIGEST_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
"""What stands before the digest in PKCS #1 v1.5 (RFC 8017 §9.2, note 1)."""


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

    def __init__(self, where: pkcs11_holder.TokenUri, public: PublicKey, secrets: Secrets) -> None:
        self._where = where
        self._public = public
        self._secrets = secrets

    def sign_digest(self, digest: bytes) -> bytes:
        """Raises:
        SignEnded: SIGNATURE_MISSING: the token has no such key; USAGE: its PIN, its library; REFUSED: by the token.
        """
        with pkcs11_holder.token_session(self._where, self._secrets.pin, writes=False) as session:
            private = self._private(session)
            pkcs11 = pkcs11_holder.library()
            if isinstance(self._public, rsa.RSAPublicKey):
                return bytes(private.sign(SHA256_DIGEST_INFO + digest, mechanism=pkcs11.Mechanism.RSA_PKCS))
            pair = bytes(private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
            half = len(pair) // 2
            return encode_dss_signature(int.from_bytes(pair[:half], "big"), int.from_bytes(pair[half:], "big"))

    def _private(self, session: Any) -> Any:
        pkcs11 = pkcs11_holder.library()
        kind = pkcs11.KeyType.RSA if isinstance(self._public, rsa.RSAPublicKey) else pkcs11.KeyType.EC
        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
            pkcs11.Attribute.LABEL: self._where.object,
            pkcs11.Attribute.KEY_TYPE: kind,
        }
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise refused(
                f"The token {self._where.token!r} holds {len(found)} keys called {self._where.object!r}: give them names of "
                "their own."
            )
        if not found:
            raise SignEnded(
                SignExit.SIGNATURE_MISSING,
                f"The token {self._where.token!r} holds no {kind.name} key {self._where.object!r}, as the certificate's is.",
            )
        return found[0]


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
