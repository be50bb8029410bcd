"""PKCS #11 tokens: smart cards, HSMs, SoftHSM (ADR 0013, 0022). Keys are found, made and used there, and don't leave.

The words that ``overair sign`` and the server's keyring share; where the PIN comes from is theirs. python-pkcs11 is an extra,
and is imported when a token is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from overair.basics.errors import Conflict
from overair.basics.redacted import Redacted
from overair.server.keyring.keys import PSS_SALT_SIZE_BYTES, PublicKey, hash_of
from overair.server.keyring.model import KeyKind, SignatureAlgorithm

SCHEME: Final = "pkcs11:"
ED25519_OID_DER: Final = bytes.fromhex("06032b6570")
"""1.3.101.112, as CKA_EC_PARAMS of an Edwards key."""
DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
}
"""What stands before the digest in PKCS #1 v1.5 (RFC 8017 §9.2, note 1)."""
_CURVES: Final = {KeyKind.EC_P256: "secp256r1", KeyKind.EC_P384: "secp384r1", KeyKind.EC_P521: "secp521r1"}


class Why(Enum):
    """What a token's refusal is about, for whoever has a code for each."""

    NAME = "name"
    """The URI names no key, or shows a PIN."""
    LIBRARY = "library"
    PIN = "pin"
    ABSENT = "absent"
    NO_KEY = "no-key"
    OTHER = "other"


class TokenRefused(Conflict):
    """A token can't be used as was asked. Never a fault of ours: the message says what to look at."""

    def __init__(self, why: Why, message: str) -> None:
        super().__init__(message, subject="key-holder")
        self.why = why


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """Where a key lies, by RFC 7512."""

    token: str
    object: str
    module: str = ""
    """``module-path``; empty where the URI doesn't say."""
    pin_source: str | None = None
    """A file's path."""


def parse_token_uri(uri: str) -> TokenUri:
    """Read a ``pkcs11:`` URI.

    Raises:
        TokenRefused: NAME: token or object is missing, or a PIN stands in it.
    """
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    parts = {name: unquote(value) for name, _, value in (part.partition("=") for part in path.split(";"))}
    options = {name: unquote(value) for name, _, value in (part.partition("=") for part in query.split("&"))}
    if "pin-value" in parts or "pin-value" in options:
        raise TokenRefused(Why.NAME, "A PIN never stands in a URI, which others can read. Keep it in a file.")
    missing = [name for name in ("token", "object") if not parts.get(name)]
    if missing:
        raise TokenRefused(
            Why.NAME, f"{uri[:200]!r} names no key: pkcs11:token=LABEL;object=NAME (missing: {', '.join(missing)})."
        )
    source = options.get("pin-source")
    return TokenUri(
        token=parts["token"],
        object=parts["object"],
        module=options.get("module-path", ""),
        pin_source=source.removeprefix("file:") if source else None,
    )


def library() -> Any:
    """python-pkcs11.

    Raises:
        TokenRefused: LIBRARY: it isn't installed.
    """
    try:
        import pkcs11
        import pkcs11.exceptions
    except ImportError:
        raise TokenRefused(Why.LIBRARY, 'Keys on tokens need python-pkcs11: pip install "overair[pkcs11]".') from None
    return pkcs11


@contextmanager
def told_plainly(where: TokenUri) -> Iterator[None]:
    """What the token and its library raise becomes a refusal in words."""
    pkcs11 = library()
    try:
        yield
    except TokenRefused:
        raise
    except (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinLenRange, pkcs11.exceptions.PinInvalid):
        raise TokenRefused(
            Why.PIN, f"The PIN of the token {where.token!r} is another one. Tokens lock themselves after a few wrong tries."
        ) from None
    except pkcs11.exceptions.PinLocked:
        raise TokenRefused(
            Why.PIN,
            f"The token {where.token!r} has locked its PIN after too many wrong tries. Its security officer unlocks it.",
        ) from None
    except (pkcs11.exceptions.NoSuchToken, pkcs11.exceptions.TokenNotPresent, pkcs11.exceptions.DeviceRemoved):
        raise TokenRefused(Why.ABSENT, f"No token is called {where.token!r}. Is it plugged in?") from None
    except pkcs11.exceptions.PKCS11Error as error:
        raise TokenRefused(
            Why.OTHER, f"The token {where.token!r} refused ({type(error).__name__}): {error}".rstrip(": ")
        ) from None


def open_session(where: TokenUri, pin: Redacted[str], *, writes: bool) -> Any:
    """A session that is logged in, to be closed by the caller; a context manager as well.

    Raises:
        TokenRefused: LIBRARY, PIN, ABSENT, OTHER.
    """
    pkcs11 = library()
    try:
        loaded = pkcs11.lib(where.module)
    except RuntimeError as error:
        raise TokenRefused(Why.LIBRARY, f"The PKCS #11 library {where.module} can't be loaded: {error}") from None
    with told_plainly(where):
        token = loaded.get_token(token_label=where.token)
        try:
            return token.open(user_pin=pin.reveal(), rw=writes)
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            # Whoever logs in does so for the whole process: another session of ours stands open.
            return token.open(rw=writes)


def find_public(session: Any, where: TokenUri) -> PublicKey | None:
    """The public half of the key that the URI names, or None where the token holds none of that name.

    Raises:
        TokenRefused: OTHER: several of one name, or a key of a kind that isn't used here.
    """
    pkcs11 = library()
    wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, pkcs11.Attribute.LABEL: where.object}
    with told_plainly(where):
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise _several(where, len(found))
        return _public_key(found[0], where) if found else None


def generate(session: Any, where: TokenUri, kind: KeyKind) -> None:
    """Make a key pair of this name on the token. The session writes."""
    pkcs11 = library()
    with told_plainly(where):
        if kind.value.startswith("rsa-"):
            size_bits = int(kind.value.removeprefix("rsa-"))
            session.generate_keypair(pkcs11.KeyType.RSA, size_bits, store=True, label=where.object)
            return
        if kind is KeyKind.ED25519:
            parameters = session.create_domain_parameters(
                pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: ED25519_OID_DER}, local=True
            )
            mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
        else:
            from pkcs11.util.ec import encode_named_curve_parameters

            curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVES[kind])}
            parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
            mechanism = pkcs11.Mechanism.EC_KEY_PAIR_GEN
        parameters.generate_keypair(mechanism=mechanism, store=True, label=where.object)


def sign(session: Any, where: TokenUri, data: bytes, *, algorithm: SignatureAlgorithm) -> bytes:
    """Sign ``data`` on the token, which hashes where the algorithm is one that takes data.

    Raises:
        TokenRefused: NO_KEY, OTHER.
    """
    pkcs11 = library()
    if algorithm not in (SignatureAlgorithm.ED25519, SignatureAlgorithm.RSA_PSS_SHA256):
        digest = hashes.Hash(hash_of(algorithm))
        digest.update(data)
        return sign_digest(session, where, digest.finalize(), algorithm=algorithm)
    with told_plainly(where):
        if algorithm is SignatureAlgorithm.ED25519:
            private = _private(session, where, pkcs11.KeyType.EC_EDWARDS)
            return bytes(private.sign(data, mechanism=pkcs11.Mechanism.EDDSA))
        parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, PSS_SALT_SIZE_BYTES)
        private = _private(session, where, pkcs11.KeyType.RSA)
        return bytes(private.sign(data, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=parameters))


def sign_digest(session: Any, where: TokenUri, digest: bytes, *, algorithm: SignatureAlgorithm) -> bytes:
    """Sign what has this digest: DER for ECDSA, PKCS #1 v1.5 for RSA. An image of any size is never sent to a token.

    Raises:
        TokenRefused: NO_KEY, OTHER.
    """
    pkcs11 = library()
    with told_plainly(where):
        if algorithm in (SignatureAlgorithm.RSA_PKCS1_SHA256, SignatureAlgorithm.RSA_PKCS1_SHA1):
            info = DIGEST_INFO[hash_of(algorithm).name]
            private = _private(session, where, pkcs11.KeyType.RSA)
            return bytes(private.sign(info + digest, mechanism=pkcs11.Mechanism.RSA_PKCS))
        pair = bytes(_private(session, where, pkcs11.KeyType.EC).sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
        half = len(pair) // 2
        return encode_dss_signature(int.from_bytes(pair[:half], "big"), int.from_bytes(pair[half:], "big"))


def _private(session: Any, where: TokenUri, kind: Any) -> Any:
    pkcs11 = library()
    wanted = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
        pkcs11.Attribute.LABEL: where.object,
        pkcs11.Attribute.KEY_TYPE: kind,
    }
    found = list(session.get_objects(wanted))
    if len(found) > 1:
        raise _several(where, len(found))
    if not found:
        raise TokenRefused(Why.NO_KEY, f"The token {where.token!r} holds no private key {where.object!r} of kind {kind.name}.")
    return found[0]


def _several(where: TokenUri, count: int) -> TokenRefused:
    return TokenRefused(
        Why.OTHER, f"The token {where.token!r} holds {count} keys called {where.object!r}: give them names of their own."
    )


def _public_key(found: Any, where: TokenUri) -> PublicKey:
    pkcs11 = library()
    try:
        if found.key_type == pkcs11.KeyType.RSA:
            modulus = int.from_bytes(found[pkcs11.Attribute.MODULUS], "big")
            exponent = int.from_bytes(found[pkcs11.Attribute.PUBLIC_EXPONENT], "big")
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        if found.key_type == pkcs11.KeyType.EC_EDWARDS:
            # An OCTET STRING round the 32 bytes, or the bytes alone: tokens differ.
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes(found[pkcs11.Attribute.EC_POINT])[-32:])
        if found.key_type == pkcs11.KeyType.EC:
            from pkcs11.util.ec import encode_ec_public_key

            key = serialization.load_der_public_key(encode_ec_public_key(found))
            assert isinstance(key, ec.EllipticCurvePublicKey)
            return key
    except ValueError as error:
        raise TokenRefused(Why.OTHER, f"The key {where.object!r} on {where.token!r} can't be used: {error}") from None
    raise TokenRefused(Why.OTHER, f"The key {where.object!r} on {where.token!r} is neither Ed25519, RSA nor EC.")
