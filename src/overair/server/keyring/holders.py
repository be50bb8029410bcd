"""Who holds a private key that doesn't rest in the records: a URI's scheme picks the holder (ADR 0022).

Which library is loaded, where its PIN lies and which keys of a key service are meant for us is said by whoever starts the
server: a URI that comes over the wire only picks among them. Every signature is checked with the recorded public half before
anybody sees it, so that a token that was swapped, another version of a cloud's key or a computing fault ends here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

from overair.basics.errors import Conflict, InvalidRequest, LimitExceeded
from overair.basics.ids import AccountId
from overair.basics.redacted import Redacted
from overair.server.keyring import key_services, tokens
from overair.server.keyring.keys import PublicKey, check_may_sign, kind_of_public, verifies
from overair.server.keyring.model import HOLDER_LENGTH_MAX, OFFLINE, KeyKind, SignatureAlgorithm
from overair.server.keyring.tokens import TokenRefused, TokenUri, Why

T = TypeVar("T")

PIN_SIZE_BYTES_MAX: Final = 1024
WHO_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderSettings:
    """What the server's owner allows."""

    pkcs11_module: Path | None = None
    pkcs11_pin_file: Path | None = None
    key_services: Sequence[str] = ()
    """Beginnings of URIs."""
    home: AccountId | None = None
    """The server's first account, which may name every key; another one may name token objects that begin with its number and
    a hyphen, and nothing of a key service."""


class KeyHolders:
    """Opens keys by their URIs. Any thread may sign; a token is asked by one at a time."""

    def __init__(self, settings: HolderSettings | None = None) -> None:
        self._settings = settings or HolderSettings()
        self._tokens: dict[str, _Token] = {}
        self._gate = threading.Lock()

    def find(self, account: AccountId, uri: str, *, make: KeyKind | None = None) -> PublicKey:
        """The public half of the key that a URI names. With ``make``, a key that isn't on the token is made there.

        Raises:
            InvalidRequest: with subject ``key-holder``: no such holder, or one that isn't allowed here.
            Conflict: with subject ``key-holder``: the holder doesn't answer, or holds no such key.
        """
        self._check(account, uri)
        if not uri.startswith(tokens.SCHEME):
            found = key_services.public_key(uri)
            if found is None:
                raise InvalidRequest(
                    f"{uri.partition(':')[0]}: can't be asked for its public key, so its keys can't be used by the server.",
                    subject="key-holder",
                )
            return found
        where = self._where(uri)
        found = self._token(where).use(lambda session: tokens.find_public(session, where), where)
        if found is None and make is not None:
            self._token(where).make(make, where)
            found = self._token(where).use(lambda session: tokens.find_public(session, where), where)
        if found is None:
            raise TokenRefused(Why.NO_KEY, f"The token {where.token!r} holds no key {where.object!r}.")
        return found

    def open(self, uri: str, public_key: PublicKey) -> HeldElsewhere:
        """A signer for a key that is recorded."""
        if uri.startswith(tokens.SCHEME):
            where = self._where(uri)
            return _TokenSigner(uri, public_key, self._token(where), where)
        return _ServiceSigner(uri, public_key)

    def close(self) -> None:
        """Log out of every token."""
        for token in self._tokens.values():
            token.close()

    def _check(self, account: AccountId, uri: str) -> None:
        """Whether this account may name this key at all."""
        if len(uri) > HOLDER_LENGTH_MAX:
            raise LimitExceeded(f"A holder's URI has at most {HOLDER_LENGTH_MAX} characters.", subject="key-holder")
        is_home = self._settings.home in (None, account)
        if uri.startswith(tokens.SCHEME):
            where = self._where(uri)
            if not is_home and not where.object.startswith(f"{account}-"):
                raise InvalidRequest(
                    f"A key of this account is called {account}-… on a token that several accounts share.", subject="key-holder"
                )
            return
        if not is_home or not any(uri.startswith(prefix) for prefix in self._settings.key_services if prefix):
            scheme = uri.partition(":")[0][:40]
            raise InvalidRequest(
                f"This server takes no key from {scheme}: under that name. Holders are file:, pkcs11:token=…;object=…, "
                "offline:WHO, and what its settings allow as key_service.",
                subject="key-holder",
            )

    def _where(self, uri: str) -> TokenUri:
        where = tokens.parse_token_uri(uri)
        if where.module or where.pin_source is not None:
            raise InvalidRequest(
                "The server's own settings say which library and which PIN file are used (pkcs11_module, pkcs11_pin_file): "
                "leave them out of the URI.",
                subject="key-holder",
            )
        if self._settings.pkcs11_module is None:
            raise InvalidRequest(
                "This server has no tokens: start it with --pkcs11-module and --pkcs11-pin-file.", subject="key-holder"
            )
        return TokenUri(token=where.token, object=where.object, module=str(self._settings.pkcs11_module))

    def _token(self, where: TokenUri) -> _Token:
        with self._gate:
            return self._tokens.setdefault(where.token, _Token(self._settings.pkcs11_pin_file))


class _Token:
    """One token: a session that stays open, and one thread at a time in it."""

    def __init__(self, pin_file: Path | None) -> None:
        self._pin_file = pin_file
        self._gate = threading.Lock()
        self._session: Any = None
        self._refused: Redacted[str] | None = None
        """A PIN that the token didn't take: it isn't tried again, lest the token locks itself."""

    def use(self, ask: Callable[[Any], T], where: TokenUri) -> T:
        """Ask within the session; one that has died (the token was pulled and put back) is opened anew, once."""
        with self._gate:
            if self._session is not None:
                try:
                    return ask(self._session)
                except TokenRefused as error:
                    if error.why not in (Why.ABSENT, Why.OTHER):
                        raise
                    self._close()
            self._session = self._open(where, writes=False)
            try:
                return ask(self._session)
            except TokenRefused as error:
                if error.why is not Why.NO_KEY:
                    self._close()
                raise

    def make(self, kind: KeyKind, where: TokenUri) -> None:
        """Make a key pair on the token."""
        with self._gate:
            self._close()
            with self._open(where, writes=True) as session:
                tokens.generate(session, where, kind)

    def _open(self, where: TokenUri, *, writes: bool) -> Any:
        pin = self._read_pin()
        if self._refused is not None and self._refused.reveal() == pin.reveal():
            raise TokenRefused(
                Why.PIN,
                f"The PIN in {self._pin_file} isn't that of the token {where.token!r}, and isn't tried again, since tokens "
                "lock themselves. Write the right one into the file.",
            )
        try:
            session = tokens.open_session(where, pin, writes=writes)
        except TokenRefused as error:
            if error.why is Why.PIN:
                self._refused = pin
            raise
        self._refused = None
        return session

    def _read_pin(self) -> Redacted[str]:
        if self._pin_file is None:
            raise TokenRefused(Why.PIN, "The server knows no PIN: name its file with --pkcs11-pin-file.")
        try:
            with self._pin_file.open("rb") as file:
                return Redacted(file.read(PIN_SIZE_BYTES_MAX).rstrip(b"\r\n").decode("utf-8"))
        except OSError as error:
            raise TokenRefused(Why.PIN, f"The PIN file {self._pin_file} can't be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise TokenRefused(Why.PIN, f"The PIN file {self._pin_file} isn't UTF-8.") from None

    def close(self) -> None:
        """Log out, until the next use."""
        with self._gate:
            self._close()

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except RuntimeError:
                # It had died already: that is why it is closed.
                return


class HeldElsewhere:
    """A signer whose key isn't in this process. What comes from there is believed once the public half verifies it."""

    __slots__ = ("_public_key", "_uri")

    def __init__(self, uri: str, public_key: PublicKey) -> None:
        self._uri = uri
        self._public_key = public_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._uri})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer is never serialised.")

    @property
    def kind(self) -> KeyKind:
        return kind_of_public(self._public_key)

    def public_key(self) -> PublicKey:
        return self._public_key

    def sign(self, data: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """See ``keys.Signer``."""
        wanted = check_may_sign(self.kind, algorithm)
        return self._believed(self._sign(data, wanted), data, wanted, is_digest=False)

    def sign_digest(self, digest: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """See ``keys.Signer``."""
        wanted = check_may_sign(self.kind, algorithm)
        return self._believed(self._sign_digest(digest, wanted), digest, wanted, is_digest=True)

    def _sign(self, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        raise NotImplementedError

    def _sign_digest(self, digest: bytes, algorithm: SignatureAlgorithm) -> bytes:
        raise NotImplementedError

    def _believed(self, signature: bytes, data: bytes, algorithm: SignatureAlgorithm, *, is_digest: bool) -> bytes:
        if not verifies(self._public_key, signature, data, algorithm=algorithm, is_digest=is_digest):
            raise Conflict(
                f"{self._uri} made a signature that the recorded public key doesn't verify: another key lies there now. "
                "Nothing was used.",
                subject="key-holder",
            )
        return signature


class _TokenSigner(HeldElsewhere):
    __slots__ = ("_token", "_where")

    def __init__(self, uri: str, public_key: PublicKey, token: _Token, where: TokenUri) -> None:
        super().__init__(uri, public_key)
        self._token = token
        self._where = where

    def _sign(self, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        where = self._where
        return self._token.use(lambda session: tokens.sign(session, where, data, algorithm=algorithm), where)

    def _sign_digest(self, digest: bytes, algorithm: SignatureAlgorithm) -> bytes:
        where = self._where
        return self._token.use(lambda session: tokens.sign_digest(session, where, digest, algorithm=algorithm), where)


class _ServiceSigner(HeldElsewhere):
    def _sign(self, data: bytes, algorithm: SignatureAlgorithm) -> bytes:
        return key_services.sign(self._uri, self._public_key, data, algorithm=algorithm)

    def _sign_digest(self, digest: bytes, algorithm: SignatureAlgorithm) -> bytes:
        return key_services.sign_digest(self._uri, self._public_key, digest, algorithm=algorithm)


def who_holds(uri: str) -> str:
    """Whom an ``offline:`` URI names.

    Raises:
        InvalidRequest: with subject ``key-holder``: nobody, or not in words.
    """
    who = unquote(uri.removeprefix(OFFLINE))
    if not 1 <= len(who) <= WHO_LENGTH_MAX or not who.isprintable() or len(uri) > HOLDER_LENGTH_MAX:
        raise InvalidRequest(
            f"offline: is followed by who holds the key, in 1 to {WHO_LENGTH_MAX} printable characters, such as "
            "offline:release%20team.",
            subject="key-holder",
        )
    return who
