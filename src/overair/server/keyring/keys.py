"""Private keys in memory: made, read, and held where they can sign but not leave."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

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
    return PreparedKey(kind=_kind_of(key), public_key_der=public_key_der(key.public_key()), private_key_der=Redacted(der))


def _kind_of(key: PrivateKey) -> KeyKind:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeyKind.ED25519
    kind = _CURVES.get(key.curve.name) if isinstance(key, ec.EllipticCurvePrivateKey) else _RSA_SIZES.get(key.key_size)
    if kind is None:
        raise _unsupported_kind()
    return kind


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


class Signer:
    """A private key that signs outside transactions and on any thread. It can't be copied, printed or serialised."""

    __slots__ = ("_key", "kind")

    def __init__(self, kind: KeyKind, private_key_der: Redacted[bytes]) -> None:
        # Checked when it came in: checking an RSA key takes longer than signing with it.
        key = serialization.load_der_private_key(private_key_der.reveal(), None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey))
        self.kind = kind
        self._key: PrivateKey = key

    def __repr__(self) -> str:
        return f"Signer({self.kind.value})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer is never serialised.")

    def public_key(self) -> PublicKey:
        return self._key.public_key()

    def sign(self, data: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """Sign ``data`` (hashed here).

        Raises:
            InvalidRequest: with subject ``signature-algorithm``: the key can't make such a signature.
        """
        if algorithm not in MAY_SIGN[self.kind]:
            raise InvalidRequest(
                f"A key of kind {self.kind.value} can't make {str(algorithm)[:64]!r} signatures. "
                f"It makes {', '.join(sorted(MAY_SIGN[self.kind]))}.",
                subject="signature-algorithm",
            )
        digest = hashes.SHA1() if algorithm.endswith("-sha1") else hashes.SHA256()  # noqa: S303 (devices of 2018 verify it)
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return self._key.sign(data, ec.ECDSA(digest))
        if isinstance(self._key, rsa.RSAPrivateKey):
            if algorithm == SignatureAlgorithm.RSA_PSS_SHA256:
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), PSS_SALT_SIZE_BYTES)
                return self._key.sign(data, pss, hashes.SHA256())
            return self._key.sign(data, padding.PKCS1v15(), digest)
        return self._key.sign(data)

    def certificate_key(self) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
        """The same key in the shape that ``cryptography.x509`` builders sign with; it signs and does nothing else.

        An Ed25519 key has no such shape: none of our devices verifies it in X.509.
        """
        if isinstance(self._key, ec.EllipticCurvePrivateKey):
            return _EllipticCurveBuilderKey(self._key)
        if isinstance(self._key, rsa.RSAPrivateKey):
            return _RsaBuilderKey(self._key)
        raise InvalidRequest("Certificates are signed with ECDSA or RSA keys.", subject="signature-algorithm")


def _never(*_arguments: Any, **_named: Any) -> NoReturn:
    raise TypeError("A key of the keyring signs and does nothing else.")


class _EllipticCurveBuilderKey(ec.EllipticCurvePrivateKey):
    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        return self._key.sign(data, signature_algorithm)

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _never


class _RsaBuilderKey(rsa.RSAPrivateKey):
    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._key.public_key()

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        return self._key.sign(data, padding, algorithm)

    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _never
