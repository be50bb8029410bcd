"""Keys on PKCS #11 tokens, for ``overair sign`` (docs/adr/0013): what ``server.keyring.tokens`` knows, with the exits of these
commands.

A key is named as RFC 7512 says: ``pkcs11:token=LABEL;object=NAME?module-path=/usr/lib/softhsm/libsofthsm2.so``. The PIN comes
from ``pin-source=file:/…`` in the URI, from the passphrase file of the command, or from a prompt; never from the URI itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.redacted import Redacted
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.holders import Passphrase
from overair.cli.sign.key_records import NEW_TYPES, KeyRecord
from overair.server.keyring import tokens
from overair.server.keyring.keys import PublicKey as HeldPublicKey
from overair.server.keyring.model import KeyKind, SignatureAlgorithm
from overair.server.keyring.tokens import TokenRefused, TokenUri, Why
from overair.wire.uptane.keys import KeyType, PublicKey, public_key_of
from overair.wire.uptane.refusals import MetadataRefused

PIN_SIZE_BYTES_MAX: Final = 1024
_EXITS: Final = {
    Why.NAME: SignExit.USAGE,
    Why.LIBRARY: SignExit.USAGE,
    Why.PIN: SignExit.USAGE,
    Why.ABSENT: SignExit.USAGE,
    Why.NO_KEY: SignExit.SIGNATURE_MISSING,
    Why.OTHER: SignExit.REFUSED,
}


def parse(uri: str) -> TokenUri:
    """Read a ``pkcs11:`` URI.

    Raises:
        SignEnded: USAGE: a part is missing, or a PIN stands in it.
    """
    with _ending():
        where = tokens.parse_token_uri(uri)
    if not where.module:
        raise usage(
            f"{uri!r} names no key: pkcs11:token=LABEL;object=NAME?module-path=/path/of/the/library.so (missing: module-path)."
        )
    return where


def make_or_find(uri: str, kind: str, pin: Passphrase) -> tuple[PublicKey, bool]:
    """The key that the URI names, made on the token if it isn't there. Whether it was made.

    Raises:
        SignEnded: USAGE, REFUSED (the token can't, the key is of another kind).
    """
    where = parse(uri)
    if kind not in NEW_TYPES:
        raise refused("A new RSA key has at least 3072 bits: --type ed25519, rsa-3072 or rsa-4096.")
    with token_session(where, pin, writes=True) as session:
        found = tokens.find_public(session, where)
        if found is not None:
            return _public_key(found, where), False
        tokens.generate(session, where, KeyKind(kind))
        made = tokens.find_public(session, where)
        if made is None:
            raise refused(f"The token {where.token!r} made a key and doesn't show its public half.")
        return _public_key(made, where), True


def open_key(record: KeyRecord, pin: Passphrase) -> TokenSigner:
    """A signer that logs in for each signature: nothing of a session stays open while people talk."""
    return TokenSigner(parse(record.holder), record.key, pin)


class TokenSigner:
    """A private key on a token."""

    def __init__(self, where: TokenUri, key: PublicKey, pin: Passphrase) -> None:
        self._where = where
        self._pin = pin
        self.public_key = key

    def sign(self, data: bytes) -> bytes:
        is_ed25519 = self.public_key.type is KeyType.ED25519
        algorithm = SignatureAlgorithm.ED25519 if is_ed25519 else SignatureAlgorithm.RSA_PSS_SHA256
        with token_session(self._where, self._pin, writes=False) as session:
            return tokens.sign(session, self._where, data, algorithm=algorithm)


def _public_key(found: HeldPublicKey, where: TokenUri) -> PublicKey:
    if isinstance(found, ec.EllipticCurvePublicKey):
        raise refused(f"The key {where.object!r} on {where.token!r} is neither Ed25519 nor RSA.")
    try:
        return public_key_of(found)
    except MetadataRefused as error:
        raise refused(f"The key {where.object!r} on {where.token!r} can't be used: {error}") from None


@contextmanager
def token_session(where: TokenUri, pin: Passphrase, *, writes: bool) -> Iterator[Any]:
    """A session that is logged in. What the token and its library raise becomes an end of the command."""
    with _ending():
        tokens.library()
        secret = _pin_of(where, pin)
        with tokens.open_session(where, secret, writes=writes) as session:
            yield session


@contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except TokenRefused as end:
        raise SignEnded(_EXITS[end.why], end.message) from end


def _pin_of(where: TokenUri, pin: Passphrase) -> Redacted[str]:
    if where.pin_source is None:
        return pin(f"PIN of the token {where.token}")
    try:
        with Path(where.pin_source).open("rb") as file:
            return Redacted(file.read(PIN_SIZE_BYTES_MAX).rstrip(b"\r\n").decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"The PIN file {where.pin_source} can't be read: {error}.") from None
