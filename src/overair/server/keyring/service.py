"""What other rooms do with private keys."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Protocol

from cryptography.hazmat.primitives import serialization

from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId, IdSource, KeyId
from overair.basics.redacted import Redacted
from overair.basics.work import News, Tx
from overair.server.keyring.holders import KeyHolders, who_holds
from overair.server.keyring.keys import (
    MemorySigner,
    PublicKey,
    Signer,
    generate,
    kind_of_public,
    load_public_key,
    public_key_der,
    read_pem,
)
from overair.server.keyring.model import (
    FILE,
    OFFLINE,
    KeyKind,
    PreparedKey,
    SignatureAlgorithm,
    WrappedKey,
)
from overair.server.keyring.wrapping import SecretBox

__all__ = ["KeyStore", "Keyring", "PublicKey", "SecretBox", "Signer"]

OPEN_KEYS_MAX: Final = 256
"""Private keys kept unwrapped in memory."""
_OFFLINE_ROADS: Final = {
    "acm": "Sign the image there with `overair sign image` and ship it with that signature.",
    "device-authority": "Have the certificate issued there and register it with RegisterCertificate.",
    "fleet-authority": "Have the certificate issued there; devices come in with it once that authority is registered.",
}
"""How to go on without a key that is held offline, by its purpose."""


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

    def __init__(
        self, store: KeyStore, box: SecretBox, *, clock: Clock, ids: IdSource, holders: KeyHolders | None = None
    ) -> None:
        self._store = store
        self._holders = holders or KeyHolders()
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

    def hold(
        self,
        account: AccountId,
        uri: str,
        *,
        make: KeyKind | None = None,
        public_key: PublicKey | None = None,
        proof: SignatureAlgorithm | None = None,
    ) -> PreparedKey:
        """A key that somebody else holds, as a URI names it. It is asked for its public half and for one signature, since a key
        that can't sign now won't sign on the day it is needed: outside of a unit of work.

        Args:
            uri: ``file:`` makes a key here; see ``holders``.
            make: The kind of key to make where none is there; None to find one.
            public_key: What it must be; needed where nobody can be asked (``offline:``).
            proof: With which signature it proves itself: the one that it is wanted for.

        Raises:
            InvalidRequest: with subject ``key-holder`` or ``private-key``.
            Conflict: with subject ``key-holder``: who holds it doesn't sign now, or holds another key.
        """
        if uri == FILE:
            if make is None:
                raise InvalidRequest("file: holds what is made or imported here; it names no key.", subject="key-holder")
            return generate(make)
        if uri.startswith(OFFLINE):
            who_holds(uri)
            if public_key is None:
                raise InvalidRequest(
                    "Of a key that is held offline the server needs the public half: import its certificate, or push the root "
                    "that names it (overair sign).",
                    subject="key-holder",
                )
            found = public_key
        else:
            found = self._holders.find(account, uri, make=make)
            if public_key is not None and public_key_der(found) != public_key_der(public_key):
                raise Conflict(f"{uri} holds another key than the certificate's.", subject="key-holder")
        kind = kind_of_public(found)
        if make is not None and kind is not make:
            raise Conflict(f"{uri} holds a key of kind {kind.value}; {make.value} is needed here.", subject="key-holder")
        if not uri.startswith(OFFLINE):
            self._holders.open(uri, found).sign(b"overair: does this key sign?", algorithm=proof or _proof_of(kind))
        return PreparedKey(kind=kind, public_key_der=public_key_der(found), private_key_der=Redacted(b""), holder=uri)

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
                sealed=b""
                if prepared.holder != FILE
                else self._box.wrap(prepared.private_key_der, context=sealed_context(account, key_id)),
                holder=prepared.holder,
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
            Conflict: with subject ``key-offline``: somebody else must sign; who and how.
            KeyringRefused: the wrapping key isn't the one that sealed it.
        """
        # The record is asked each time: a key that was deleted signs nothing more.
        key = self.describe(tx, account, key_id)
        self.require_here(key)
        self._tell_used(key)
        with self._gate:
            held = self._open.get((account, key_id))
            if held is not None:
                self._open.move_to_end((account, key_id))
                return held
        signer: Signer
        if key.holder == FILE:
            signer = MemorySigner(key.kind, self._box.unwrap(key.sealed, context=sealed_context(account, key_id)))
        else:
            signer = self._holders.open(key.holder, load_public_key(key.public_key_der))
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
            Conflict: with subject ``key-holder``: it lies elsewhere and doesn't leave.
        """
        key = self.describe(tx, account, key_id)
        if key.holder != FILE:
            raise Conflict(f"The private key lies at {key.holder} and doesn't leave its holder.", subject="key-holder")
        self._tell_used(key)
        opened = self._box.unwrap(key.sealed, context=sealed_context(account, key_id))
        private = serialization.load_der_private_key(opened.reveal(), None)
        return Redacted(
            private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    @staticmethod
    def require_here(key: WrappedKey) -> None:
        """See that the server can sign with a key at all.

        Raises:
            Conflict: with subject ``key-offline``: it is held offline; by whom, and what to do.
        """
        if key.holder.startswith(OFFLINE):
            how = _OFFLINE_ROADS.get(key.purpose, "Have the signature made there.")
            raise Conflict(
                f"The {key.purpose} key is held offline by {who_holds(key.holder)}; the server has its public half only. {how}",
                subject="key-offline",
            )

    def delete(self, tx: Tx, account: AccountId, key_id: KeyId) -> None:
        """Forget a key; one that is held elsewhere stays there. Forgetting one that isn't there does nothing."""
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


def _proof_of(kind: KeyKind) -> SignatureAlgorithm:
    if kind is KeyKind.ED25519:
        return SignatureAlgorithm.ED25519
    return SignatureAlgorithm.RSA_PSS_SHA256 if kind.value.startswith("rsa-") else SignatureAlgorithm.ECDSA_SHA256


def sealed_context(account: AccountId, key_id: KeyId) -> str:
    """What binds a sealed private key to its row."""
    return f"private-key/{account}/{key_id}"
