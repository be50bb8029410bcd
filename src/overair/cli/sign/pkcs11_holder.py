"""Keys on PKCS #11 tokens: smart cards, HSMs, SoftHSM (docs/adr/0013). They sign there and don't leave.

A key is named as RFC 7512 says: ``pkcs11:token=LABEL;object=NAME?module-path=/usr/lib/softhsm/libsofthsm2.so``. The PIN comes
from ``pin-source=file:/…`` in the URI, from the passphrase file of the command, or from a prompt; never from the URI itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from overair.basics.redacted import Redacted
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.holders import Passphrase
from overair.cli.sign.key_records import NEW_TYPES, KeyRecord
from overair.wire.uptane.keys import PSS_SALT_SIZE_BYTES, KeyType, PublicKey, public_key_of
from overair.wire.uptane.refusals import MetadataRefused

ED25519_OID_DER: Final = bytes.fromhex("06032b6570")
"""1.3.101.112, as CKA_EC_PARAMS of an Edwards key."""
PIN_SIZE_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUri:
    """Where a key lies, by RFC 7512."""

    token: str
    object: str
    module: str
    pin_source: str | None


def parse(uri: str) -> TokenUri:
    """Read a ``pkcs11:`` URI.

    Raises:
        SignEnded: USAGE: a part is missing, or a PIN stands in it.
    """
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    parts = {name: unquote(value) for name, _, value in (part.partition("=") for part in path.split(";"))}
    options = {name: unquote(value) for name, _, value in (part.partition("=") for part in query.split("&"))}
    if "pin-value" in parts or "pin-value" in options:
        raise usage(
            "A PIN in a URI is seen by every process of this machine. Use pin-source=file:/…, --pin-file or the prompt."
        )
    missing = [name for name in ("token", "object") if not parts.get(name)]
    if missing or not options.get("module-path"):
        raise usage(
            f"{uri!r} names no key: pkcs11:token=LABEL;object=NAME?module-path=/path/of/the/library.so "
            f"(missing: {', '.join([*missing, *([] if options.get('module-path') else ['module-path'])])})."
        )
    source = options.get("pin-source")
    return TokenUri(
        token=parts["token"],
        object=parts["object"],
        module=options["module-path"],
        pin_source=source.removeprefix("file:") if source else None,
    )


def make_or_find(uri: str, kind: str, pin: Passphrase) -> tuple[PublicKey, bool]:
    """The key that the URI names, made on the token if it isn't there. Whether it was made.

    Raises:
        SignEnded: USAGE, REFUSED (the token can't, the key is of another kind).
    """
    where = parse(uri)
    if kind not in NEW_TYPES:
        raise refused("A new RSA key has at least 3072 bits: --type ed25519, rsa-3072 or rsa-4096.")
    with token_session(where, pin, writes=True) as session:
        found = _find_public(session, where)
        if found is not None:
            return _public_key(found, where), False
        _generate(session, where, kind)
        made = _find_public(session, where)
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
        pkcs11 = library()
        with token_session(self._where, self._pin, writes=False) as session:
            private = next(
                iter(
                    session.get_objects(
                        {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.LABEL: self._where.object}
                    )
                ),
                None,
            )
            if private is None:
                raise SignEnded(
                    SignExit.SIGNATURE_MISSING,
                    f"The token {self._where.token!r} holds no private key {self._where.object!r}.",
                )
            if self.public_key.type is KeyType.ED25519:
                return bytes(private.sign(data, mechanism=pkcs11.Mechanism.EDDSA))
            parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, PSS_SALT_SIZE_BYTES)
            return bytes(private.sign(data, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=parameters))


def _generate(session: Any, where: TokenUri, kind: str) -> None:
    pkcs11 = library()
    if kind == "ed25519":
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: ED25519_OID_DER}, local=True
        )
        parameters.generate_keypair(mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=where.object)
    else:
        session.generate_keypair(pkcs11.KeyType.RSA, NEW_TYPES[kind], store=True, label=where.object)


def _find_public(session: Any, where: TokenUri) -> Any:
    pkcs11 = library()
    wanted = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, pkcs11.Attribute.LABEL: where.object}
    found = list(session.get_objects(wanted))
    if len(found) > 1:
        raise refused(
            f"The token {where.token!r} holds {len(found)} keys called {where.object!r}: give them names of their own."
        )
    return found[0] if found else None


def _public_key(found: Any, where: TokenUri) -> PublicKey:
    pkcs11 = library()
    try:
        if found.key_type == pkcs11.KeyType.RSA:
            modulus = int.from_bytes(found[pkcs11.Attribute.MODULUS], "big")
            exponent = int.from_bytes(found[pkcs11.Attribute.PUBLIC_EXPONENT], "big")
            return public_key_of(rsa.RSAPublicNumbers(exponent, modulus).public_key())
        if found.key_type == pkcs11.KeyType.EC_EDWARDS:
            # An OCTET STRING round the 32 bytes, or the bytes alone: tokens differ.
            return public_key_of(ed25519.Ed25519PublicKey.from_public_bytes(bytes(found[pkcs11.Attribute.EC_POINT])[-32:]))
    except (MetadataRefused, ValueError) as error:
        raise refused(f"The key {where.object!r} on {where.token!r} can't be used: {error}") from None
    raise refused(f"The key {where.object!r} on {where.token!r} is neither Ed25519 nor RSA.")


@contextmanager
def token_session(where: TokenUri, pin: Passphrase, *, writes: bool) -> Iterator[Any]:
    """A session that is logged in. What the token and its library raise becomes an end of the command."""
    pkcs11 = library()
    secret = _pin_of(where, pin)
    try:
        token = pkcs11.lib(where.module).get_token(token_label=where.token)
        with token.open(user_pin=secret.reveal(), rw=writes) as session:
            yield session
    except pkcs11.exceptions.PinIncorrect:
        raise usage(
            f"The PIN of the token {where.token!r} is another one. Tokens lock themselves after a few wrong tries."
        ) from None
    except pkcs11.exceptions.NoSuchToken:
        raise usage(f"No token is called {where.token!r}. Is it plugged in?") from None
    except RuntimeError as error:
        raise usage(f"The PKCS #11 library {where.module} can't be loaded: {error}") from None
    except pkcs11.exceptions.PKCS11Error as error:
        raise refused(f"The token {where.token!r} refused ({type(error).__name__}): {error}".rstrip(": ")) from None


def _pin_of(where: TokenUri, pin: Passphrase) -> Redacted[str]:
    if where.pin_source is None:
        return pin(f"PIN of the token {where.token}")
    try:
        with Path(where.pin_source).open("rb") as file:
            return Redacted(file.read(PIN_SIZE_BYTES_MAX).rstrip(b"\r\n").decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"The PIN file {where.pin_source} can't be read: {error}.") from None


def library() -> Any:
    """python-pkcs11, which an extra brings. Raises SignEnded: USAGE."""
    try:
        import pkcs11
        import pkcs11.exceptions
    except ImportError:
        raise usage('Keys on tokens need python-pkcs11: pip install "overair[pkcs11]".') from None
    return pkcs11
