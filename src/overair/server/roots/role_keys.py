"""The server's own keys of roles: made, found, signing, taken out, forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, NotFound
from overair.basics.ids import AccountId
from overair.basics.redacted import Redacted
from overair.basics.work import News, Tx
from overair.server.keyring.model import KeyKind, PreparedKey, SignatureAlgorithm
from overair.server.keyring.service import Keyring, Signer
from overair.server.roots.model import ALWAYS_ONLINE, OnlineKey
from overair.server.roots.ports import RootStore
from overair.wire.uptane.keys import KeyType, PublicKey, public_key_of
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import MetadataSigner

KEY_KINDS: Final[Mapping[str, KeyKind]] = {"ED25519": KeyKind.ED25519, "RSA": KeyKind.RSA_3072}
_ALGORITHMS: Final[Mapping[KeyType, SignatureAlgorithm]] = {
    KeyType.ED25519: SignatureAlgorithm.ED25519,
    KeyType.RSA: SignatureAlgorithm.RSA_PSS_SHA256,
}

logger = structlog.get_logger("overair.roots")


@dataclass(frozen=True, slots=True)
class KeyringSigner:
    """A role's key in the keyring, in the shape that documents are signed with."""

    public_key: PublicKey
    held: Signer = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        return self.held.sign(data, algorithm=_ALGORITHMS[self.public_key.type])


class HeldKeys:
    """What the server owns of each role's keys."""

    def __init__(self, *, store: RootStore, keys: Keyring, clock: Clock) -> None:
        self.when_forgotten: Callable[[], None] = lambda: None
        """Told on the event loop once a key's end is durable."""
        self._store = store
        self._keys = keys
        self._clock = clock

    def make(
        self,
        tx: Tx,
        account: AccountId,
        repository: Repository,
        roles: Iterable[Role],
        *,
        key_type: str,
        prepared: Mapping[Role, PreparedKey] | None,
    ) -> Mapping[Role, PublicKey]:
        """A new key for each role, in the keyring."""
        made: dict[Role, PublicKey] = {}
        for role in roles:
            key = prepared[role] if prepared is not None else self._keys.prepare(KEY_KINDS[key_type])
            keyring_key = self._keys.keep(tx, account, key, f"{repository}-{role}")
            public = PublicKey(KeyType.ED25519 if key.kind is KeyKind.ED25519 else KeyType.RSA, key.public_key_der)
            self._store.add_key(
                tx,
                account,
                OnlineKey(
                    repository=repository,
                    role=role,
                    key_id=public.id,
                    keyring_key=keyring_key,
                    created_at=self._clock.now(),
                ),
            )
            made[role] = public
        return made

    def all(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[OnlineKey]:
        return self._store.keys(tx, account, repository)

    def public(self, tx: Tx, account: AccountId, key: OnlineKey) -> PublicKey:
        found = self._keys.public_key(tx, account, key.keyring_key)
        assert isinstance(found, rsa.RSAPublicKey | ed25519.Ed25519PublicKey)
        return public_key_of(found)

    def signers_among(
        self,
        tx: Tx,
        account: AccountId,
        repository: Repository,
        keys: RoleKeys,
        known: Mapping[str, PublicKey],
        *,
        online: Sequence[OnlineKey] | None = None,
    ) -> tuple[MetadataSigner, ...]:
        """Those keys of a role that the server holds, as many as the threshold asks, or fewer. Keys that are only kept until
        somebody deletes them aren't among them. ``online``: what ``all`` has said, for whoever asks for several roles."""
        online = self._store.keys(tx, account, repository) if online is None else online
        held = {key.key_id: key for key in online if key.unlisted_at is None}
        found: list[MetadataSigner] = []
        for key_id in keys.key_ids:
            if key_id in held and key_id in known and len(found) < keys.threshold:
                found.append(KeyringSigner(known[key_id], self._keys.signer(tx, account, held[key_id].keyring_key)))
        return tuple(found)

    def find(self, tx: Tx, account: AccountId, repository: Repository, key_id: str) -> OnlineKey:
        """Raises:
        NotFound: with subject ``role-key``.
        """
        for key in self._store.keys(tx, account, repository):
            if key.key_id == key_id:
                return key
        raise NotFound(
            f"The server holds no private key {key_id[:64]!r} of the {repository} repository. Its root names the key ids; "
            "a key that was taken offline, or that no root names any more, is gone for good.",
            subject="role-key",
        )

    def export(self, tx: Tx, place: Place, repository: Repository, key_id: str) -> Redacted[Mapping[str, object]]:
        """The key pair as signing tools keep it (Uptane reference §4.2): for taking a role offline. Told in the log, and by the
        caller in the audit.

        Raises:
            NotFound: with subject ``role-key``.
            Conflict: with subject ``role-key``: a key that has to stay with the server.
        """
        key = self.find(tx, place.account, repository, key_id)
        if key.role in ALWAYS_ONLINE[repository]:
            raise Conflict(
                f"The key {key_id[:16]}… signs {key.role} of the {repository} repository, which only the server can do: it is "
                "never handed out.",
                subject="role-key",
            )
        pair = _key_pair(self._keys.export_pem(tx, place.account, key.keyring_key))
        self._store.exported(tx, place.account, repository, key_id, now=self._clock.now())
        logger.warning(
            "a private key was handed out", account=place.account, repository=repository.value, role=key.role, key_id=key_id
        )
        return pair

    def delete(self, tx: Tx, place: Place, repository: Repository, key_id: str, *, root: Root, force: bool = False) -> None:
        """Forget a private key for good.

        Raises:
            NotFound: with subject ``role-key``.
            Conflict: with subject ``role-key``: it has to stay with the server, or it is the only copy of a key that the
                current root names (``force`` overrides that).
        """
        key = self.find(tx, place.account, repository, key_id)
        if key.role in ALWAYS_ONLINE[repository]:
            raise Conflict(
                f"The key {key_id[:16]}… signs {key.role} of the {repository} repository, which only the server can do. "
                "Rotate it instead.",
                subject="role-key",
            )
        if key_id in root.role_keys(key.role).key_ids and key.exported_at is None and not force:
            raise Conflict(
                f"The current root names the key {key_id[:16]}… for {key.role}, and nobody has taken a copy of it: without it "
                "no device could ever be given new keys. Push a root without it first (it is deleted then), fetch it first, or "
                "say force=true.",
                subject="role-key",
            )
        self.forget(tx, place.account, repository, [key_id])

    def follow(self, tx: Tx, account: AccountId, repository: Repository, root: Root, *, keeps: bool) -> None:
        """After ``root`` was published: forget the keys that it doesn't name, or (``keeps``) keep those that somebody is about
        to delete himself, once he has read the root back."""
        listed = {key_id for keys in root.roles.values() for key_id in keys.key_ids}
        gone: list[str] = []
        for key in self._store.keys(tx, account, repository):
            if key.key_id in listed:
                if key.unlisted_at is not None:
                    self._store.unlisted(tx, account, repository, key.key_id, at=None)
            elif not keeps or key.role in ALWAYS_ONLINE[repository]:
                gone.append(key.key_id)
            elif key.unlisted_at is None:
                self._store.unlisted(tx, account, repository, key.key_id, at=self._clock.now())
        self.forget(tx, account, repository, gone)

    def kept(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[OnlineKey]:
        """Keys that no root names any more, and that wait to be deleted."""
        return [key for key in self._store.keys(tx, account, repository) if key.unlisted_at is not None]

    def kept_too_long(self, tx: Tx, account: AccountId, repository: Repository) -> Sequence[str]:
        """Key ids of those whose time is over: nobody came to delete them."""
        now = self._clock.now()
        return [
            key.key_id for key in self.kept(tx, account, repository) if key.kept_until is not None and key.kept_until <= now
        ]

    def forget(self, tx: Tx, account: AccountId, repository: Repository, key_ids: Iterable[str]) -> None:
        """Delete private keys; those that aren't there are gone already. ``when_forgotten`` says when to erase."""
        for key_id in key_ids:
            keyring_key = self._store.drop_key(tx, account, repository, key_id)
            if keyring_key is not None:
                self._keys.delete(tx, account, keyring_key)
                tx.after_commit(lambda: self.when_forgotten())
                tx.tell_nodes(News("key-erasure"))
                logger.info("a private key was deleted", account=account, repository=repository.value, key_id=key_id)


def kind_of(key_type: str) -> KeyKind:
    """Raises:
    InvalidRequest: with subject ``key-type``.
    """
    kind = KEY_KINDS.get(key_type.upper())
    if kind is None:
        raise InvalidRequest(
            f"Keys of type {key_type[:40]!r} can't be made: {' and '.join(KEY_KINDS)} can.",
            subject="key-type",
            details={"field": "keyType"},
        )
    return kind


def _key_pair(pem: Redacted[bytes]) -> Redacted[Mapping[str, object]]:
    key = serialization.load_pem_private_key(pem.reveal(), None)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        private = (key.private_bytes_raw() + key.public_key().public_bytes_raw()).hex()
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        encoding, no_encryption = serialization.Encoding.PEM, serialization.NoEncryption()
        private = key.private_bytes(encoding, serialization.PrivateFormat.TraditionalOpenSSL, no_encryption).decode("ascii")
    public_key = key.public_key()
    assert isinstance(public_key, rsa.RSAPublicKey | ed25519.Ed25519PublicKey)
    public = public_key_of(public_key).to_json()
    keyval = public["keyval"]
    assert isinstance(keyval, dict)
    return Redacted({"keytype": public["keytype"], "keyval": {**keyval, "private": private}})
