"""Private keys in memory: made, read, and held where they can sign but not leave."""

from __future__ import annotations

from typing import Final, NoReturn, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from overair.basics.errors import InvalidRequest
from overair.basics.redacted import Redacted
from overair.server.keyring.model import MAY_SIGN, KeyKind, PreparedKey, SignatureAlgorithm

PEM_SIZE_BYTES_MAX: Final = 16 * 1024
"""A PKCS #8 RSA key of 4096 bits has 3.3 KB."""
PSS_SALT_SIZE_BYTES: Final = 32

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_CURVES: Final = {
    "secp256r1": KeyKind.EC_P256,
    "secp384r1": KeyKind.EC_P384,
    "secp521r1": KeyKind.EC_P521,
}
_RSA_SIZES: Final = {2048: KeyKind.RSA_2048, 3072: KeyKind.RSA_3072, 4096: KeyKind.RSA_4096}


def generate(kind: KeyKind) -> PreparedKey:
    """Make a private key with OpenSSL's generator. RSA takes a tenth of a second and more: never inside a transaction."""
    key: PrivateKey
    match kind:
        case KeyKind.EC_P256:
            key = ec.generate_private_key(ec.SECP256R1())
        case KeyKind.EC_P384:
            key = ec.generate_private_key(ec.SECP384R1())
        case KeyKind.EC_P521:
            key = ec.generate_private_key(ec.SECP521R1())
        case KeyKind.ED25519:
            key = ed25519.Ed25519PrivateKey.generate()
        case _:
            key = rsa.generate_private_key(65537, int(kind.value.removeprefix("rsa-")))
    return _prepared(key)


def read_pem(pem: Redacted[bytes]) -> PreparedKey:
    """Read an unencrypted private key in PEM (PKCS #8, PKCS #1 or SEC 1).

    Raises:
        InvalidRequest: with subject ``private-key``: not such a key, encrypted, too long, inconsistent, or of a kind or size
            that the keyring doesn't hold.
    """
    raw = pem.reveal()
    if len(raw) > PEM_SIZE_BYTES_MAX:
        raise InvalidRequest(f"A private key has at most {PEM_SIZE_BYTES_MAX} bytes of PEM.", subject="private-key")
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except TypeError:
        raise InvalidRequest(
            "The private key is encrypted. Send it unencrypted: the server wraps it itself.", subject="private-key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # The reason inside the library's message could quote the key.
        raise InvalidRequest(
            "The private key can't be read. Send one unencrypted PEM private key (PKCS #8, PKCS #1 or SEC 1).",
            subject="private-key",
        ) from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise _unsupported_kind()
    return _prepared(key)


def _prepared(key: PrivateKey) -> PreparedKey:
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return PreparedKey(
        kind=kind_of_public(key.public_key()), public_key_der=public_key_der(key.public_key()), private_key_der=Redacted(der)
    )


def _unsupported_kind() -> InvalidRequest:
    return InvalidRequest(
        f"The keyring doesn't hold keys of this kind. It holds {', '.join(kind.value for kind in KeyKind)}.",
        subject="private-key",
    )


def public_key_der(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def public_key_raw(key: PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 key."""
    assert isinstance(key, ed25519.Ed25519PublicKey)
    return key.public_bytes_raw()


def load_public_key(der: bytes) -> PublicKey:
    key = serialization.load_der_public_key(der)
    assert isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey))
    return key


def hash_of(algorithm: SignatureAlgorithm) -> hashes.SHA256 | hashes.SHA1:
    """What an algorithm hashes with; of those that hash at all."""
    return hashes.SHA1() if algorithm.endswith("-sha1") else hashes.SHA256()  # noqa: S303 (devices of 2018 verify it)


def kind_of_public(key: PublicKey) -> KeyKind:
    """Raises:
    InvalidRequest: with subject ``private-key``: of a kind or size that the keyring doesn't hold.
    """
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyKind.ED25519
    kind = _CURVES.get(key.curve.name) if isinstance(key, ec.EllipticCurvePublicKey) else _RSA_SIZES.get(key.key_size)
    if kind is None:
        raise _unsupported_kind()
    return kind


def check_may_sign(kind: KeyKind, algorithm: SignatureAlgorithm | str) -> SignatureAlgorithm:
    """Raises:
    InvalidRequest: with subject ``signature-algorithm``: a key of this kind can't make such a signature.
    """
    if algorithm not in MAY_SIGN[kind]:
        raise InvalidRequest(
            f"A key of kind {kind.value} can't make {str(algorithm)[:64]!r} signatures. "
            f"It makes {', '.join(sorted(MAY_SIGN[kind]))}.",
            subject="signature-algorithm",
        )
    return SignatureAlgorithm(algorithm)


def verifies(key: PublicKey, signature: bytes, data: bytes, *, algorithm: SignatureAlgorithm, is_digest: bool = False) -> bool:
    """Whether this key made this signature over ``data``, or over what has this digest."""
    digest: hashes.SHA256 | hashes.SHA1 | Prehashed = Prehashed(hash_of(algorithm)) if is_digest else hash_of(algorithm)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_SIZE_BYTES)
            key.verify(signature, data, pss if algorithm is SignatureAlgorithm.RSA_PSS_SHA256 else padding.PKCS1v15(), digest)
        else:
            key.verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


class Signer(Protocol):
    """A private key that signs outside transactions and on any thread, wherever it is held. It can't be copied, printed or
    serialised."""

    @property
    def kind(self) -> KeyKind: ...

    def public_key(self) -> PublicKey: ...

    def sign(self, data: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """Sign ``data``, which the holder hashes.

        Raises:
            InvalidRequest: with subject ``signature-algorithm``: the key can't make such a signature.
            Conflict: with subject ``key-holder``: who holds the key doesn't sign now, and why.
        """
        ...

    def sign_digest(self, digest: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """Sign what has this digest, so that it needn't be in memory: DER for ECDSA, PKCS #1 v1.5 for RSA.

        Raises:
            InvalidRequest, Conflict: see ``sign``.
        """
        ...


class MemorySigner:
    """A private key that was unwrapped in this process."""

    __slots__ = ("_key", "_kind")

    def __init__(self, kind: KeyKind, private_key_der: Redacted[bytes]) -> None:
        # Checked when it came in: checking an RSA key takes longer than signing with it.
        key = serialization.load_der_private_key(private_key_der.reveal(), None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey))
        self._kind = kind
        self._key: PrivateKey = key

    def __repr__(self) -> str:
        return f"MemorySigner({self._kind.value})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer is never serialised.")

    @property
    def kind(self) -> KeyKind:
        return self._kind

    def public_key(self) -> PublicKey:
        return self._key.public_key()

    def sign(self, data: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """See ``Signer``."""
        wanted = check_may_sign(self._kind, algorithm)
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._sign(data, wanted, hash_of(wanted))

    def sign_digest(self, digest: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """See ``Signer``."""
        wanted = check_may_sign(self._kind, algorithm)
        return self._sign(digest, wanted, Prehashed(hash_of(wanted)))

    def _sign(self, data: bytes, algorithm: SignatureAlgorithm, digest: hashes.SHA256 | hashes.SHA1 | Prehashed) -> bytes:
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(digest))
        assert isinstance(self._key, rsa.RSAPrivateKey)
        if algorithm is SignatureAlgorithm.RSA_PSS_SHA256:
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_SIZE_BYTES)
            return self._key.sign(data, pss, digest)
        return self._key.sign(data, padding.PKCS1v15(), digest)
