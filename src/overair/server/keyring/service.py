"""What other rooms do with private keys."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from cryptography.hazmat.primitives import serialization

from overair.basics.clock import Clock
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, IdSource, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import News, Tx
from overair.server.keyring.keys import PublicKey, Signer, generate, load_public_key, read_pem
from overair.server.keyring.model import KeyKind, PreparedKey, SignatureAlgorithm, WrappedKey
from overair.server.keyring.wrapping import SecretBox

__all__ = ["KeyStore", "Keyring", "PublicKey", "SecretBox", "Signer"]

OPEN_KEYS_MAX: Final = 256
"""Private keys kept unwrapped in memory."""


class KeyStore(Protocol):
    """Where wrapped keys rest."""

    def add(self, tx: Tx, key: WrappedKey) -> None: ...
    def find(self, tx: Tx, account: AccountId, key_id: KeyId) -> WrappedKey | None: ...
    def delete(self, tx: Tx, account: AccountId, key_id: KeyId) -> bool: ...
    def all(self, tx: Tx, account: AccountId) -> list[WrappedKey]: ...


class KeyUseWatcher(Protocol):
    """Hears each time that a private key is taken into use. On whatever thread; it must return at once and never fail."""

    def key_used(self, account: AccountId, key_id: str, purpose: str) -> None: ...


class Keyring:
    """Holds private keys by name. A key id is opaque, and means nothing in another account."""

    def __init__(self, store: KeyStore, box: SecretBox, *, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._box = box
        self._clock = clock
        self._ids = ids
        self._open: OrderedDict[tuple[AccountId, KeyId], Signer] = OrderedDict()
        self._gate = threading.Lock()
        self._watcher: KeyUseWatcher | None = None

    def watched_by(self, watcher: KeyUseWatcher) -> None:
        """Register, before the start, who writes down that keys are used."""
        self._watcher = watcher

    @staticmethod
    def prepare(kind: KeyKind | str) -> PreparedKey:
        """Make a key that no record holds yet: for kinds that take their time (RSA), before the unit of work begins."""
        return generate(KeyKind(kind))

    @staticmethod
    def read_pem(pem: Redacted[bytes]) -> PreparedKey:
        """Read an imported key without keeping it, to compare it with its certificate first.

        Raises:
            InvalidRequest: see ``import_pem``.
        """
        return read_pem(pem)

    def create(self, tx: Tx, account: AccountId, kind: KeyKind | str, purpose: str) -> KeyId:
        """Make and keep a key. For RSA rather ``prepare`` it first and ``keep`` it here."""
        return self.keep(tx, account, self.prepare(kind), purpose)

    def import_pem(self, tx: Tx, account: AccountId, pem: Redacted[bytes], purpose: str) -> KeyId:
        """Keep a private key that was made elsewhere.

        Raises:
            InvalidRequest: with subject ``private-key``: unreadable, encrypted, or of a kind that the keyring doesn't hold.
        """
        return self.keep(tx, account, read_pem(pem), purpose)

    def keep(self, tx: Tx, account: AccountId, prepared: PreparedKey, purpose: str) -> KeyId:
        """Wrap and record a prepared key."""
        key_id = KeyId(self._ids.uuid())
        self._store.add(
            tx,
            WrappedKey(
                account=account,
                key_id=key_id,
                kind=prepared.kind,
                purpose=purpose,
                created=self._clock.now(),
                public_key_der=prepared.public_key_der,
                sealed=self._box.wrap(prepared.private_key_der, context=_context(account, key_id)),
            ),
        )
        return key_id

    def describe(self, tx: Tx, account: AccountId, key_id: KeyId) -> WrappedKey:
        """Kind, purpose and age of a key.

        Raises:
            NotFound: with subject ``private-key``.
        """
        key = self._store.find(tx, account, key_id)
        if key is None:
            raise NotFound(f"There is no private key {key_id!r} in this account.", subject="private-key")
        return key

    def list(self, tx: Tx, account: AccountId) -> list[WrappedKey]:
        return self._store.all(tx, account)

    def public_key(self, tx: Tx, account: AccountId, key_id: KeyId) -> PublicKey:
        """The public half.

        Raises:
            NotFound: with subject ``private-key``.
        """
        return load_public_key(self.describe(tx, account, key_id).public_key_der)

    def signer(self, tx: Tx, account: AccountId, key_id: KeyId) -> Signer:
        """Something that signs outside a transaction, until it is dropped.

        Raises:
            NotFound: with subject ``private-key``.
            KeyringRefused: the wrapping key isn't the one that sealed it.
        """
        # The record is asked each time: a key that was deleted signs nothing more.
        key = self.describe(tx, account, key_id)
        self._tell_used(key)
        with self._gate:
            held = self._open.get((account, key_id))
            if held is not None:
                self._open.move_to_end((account, key_id))
                return held
        signer = Signer(key.kind, self._box.unwrap(key.sealed, context=_context(account, key_id)))
        with self._gate:
            self._open[account, key_id] = signer
            while len(self._open) > OPEN_KEYS_MAX:
                self._open.popitem(last=False)
        return signer

    def sign(self, tx: Tx, account: AccountId, key_id: KeyId, data: bytes, *, algorithm: SignatureAlgorithm | str) -> bytes:
        """Sign a short message within a unit of work.

        Raises:
            NotFound: with subject ``private-key``.
            InvalidRequest: with subject ``signature-algorithm``: the key can't make such a signature.
        """
        return self.signer(tx, account, key_id).sign(data, algorithm=algorithm)

    def export_pem(self, tx: Tx, account: AccountId, key_id: KeyId) -> Redacted[bytes]:
        """The private key itself, as PKCS #8 PEM: for the server's own TLS context and for moving a key offline. Each call
        stands in a reviewed line.

        Raises:
            NotFound: with subject ``private-key``.
        """
        key = self.describe(tx, account, key_id)
        self._tell_used(key)
        opened = self._box.unwrap(key.sealed, context=_context(account, key_id))
        private = serialization.load_der_private_key(opened.reveal(), None)
        return Redacted(
            private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def delete(self, tx: Tx, account: AccountId, key_id: KeyId) -> None:
        """Forget a key. Forgetting one that isn't there does nothing."""
        if self._store.delete(tx, account, key_id):
            tx.after_commit(lambda: self._close(account, key_id))
            tx.tell_nodes(News("key-gone", (account, key_id)))

    def heard_gone(self, parts: Sequence[str]) -> None:
        """Another node has forgotten a key (``nodes.switchboard``)."""
        if parts:
            self._close(AccountId(parts[0]), KeyId(parts[1]))
            return
        with self._gate:
            self._open.clear()

    def _tell_used(self, key: WrappedKey) -> None:
        if self._watcher is not None:
            self._watcher.key_used(key.account, key.key_id, key.purpose)

    def _close(self, account: AccountId, key_id: KeyId) -> None:
        with self._gate:
            self._open.pop((account, key_id), None)


def _context(account: AccountId, key_id: KeyId) -> str:
    return f"private-key/{account}/{key_id}"
