"""Which things can decrypt images, and with which keys: what devices have said of themselves (docs/encryption.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from overair.basics.clock import Clock, Instant
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, GroupName, ThingName
from overair.basics.work import Tx
from overair.server.devices.ports import KeysDeclared, ThingStore
from overair.wire.decryption_messages import Declaration
from overair.wire.job_document import SHORT_KEY_ID_LENGTH, FileEncryption
from overair.wire.key_wrapping import key_id_of, public_key_der


@dataclass(frozen=True, slots=True, kw_only=True)
class DecryptionKey:
    """A public key that images may be encrypted to."""

    id: str
    """SHA-256 of ``der``: 64 lower-case hexadecimal digits."""
    der: bytes
    """SubjectPublicKeyInfo."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a device said last."""

    thing: ThingName
    formats: tuple[int, ...]
    """Of encrypted images that it reads."""
    keys: tuple[DecryptionKey, ...]
    declared_at: Instant

    def says_the_same_as(self, other: Declared) -> bool:
        return (self.formats, self.keys) == (other.formats, other.keys)

    def why_not(self, encryption: FileEncryption) -> str | None:
        """What keeps the thing from reading such a file, as a clause; None: nothing that is known here."""
        if not self.keys:
            return "it has said that it holds no decryption key any more"
        if encryption.format not in self.formats:
            return f"it doesn't read format {encryption.format} of encrypted images"
        if {key.id[:SHORT_KEY_ID_LENGTH] for key in self.keys}.isdisjoint(encryption.key_ids):
            return "the image is encrypted to none of the keys that it has declared"
        return None


class DecryptionStore(Protocol):
    """The rows of declarations."""

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Declared | None: ...

    def put(self, tx: Tx, account: AccountId, declared: Declared) -> None:
        """Insert, or replace what the thing said before."""
        ...

    def delete(self, tx: Tx, account: AccountId, thing: ThingName) -> None: ...

    def among(self, tx: Tx, account: AccountId, things: Sequence[ThingName]) -> Mapping[ThingName, Declared]:
        """Of some things, at most 1,000, those that have said something."""
        ...

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[Declared]:
        """By thing."""
        ...


class DecryptionService:
    """Takes what devices declare, and answers whom an encrypted image may be offered to."""

    def __init__(self, *, store: DecryptionStore, things: ThingStore, clock: Clock) -> None:
        self._store = store
        self._things = things
        self._clock = clock
        self._watcher: KeysDeclared | None = None

    def watched_by(self, watcher: KeysDeclared) -> None:
        """Register, at composition, the room above that must know of what devices say."""
        self._watcher = watcher

    def says_something_new(self, tx: Tx, account: AccountId, thing: ThingName, declaration: Declaration) -> bool:
        """Whether it is worth a write: devices say the same at each connection."""
        before = self._store.find(tx, account, thing)
        return before is None or not before.says_the_same_as(self._understood(thing, declaration))

    def declare(self, tx: Tx, account: AccountId, thing: ThingName, declaration: Declaration) -> Declared:
        """What the device says holds from now on, in place of what it said before.

        Raises:
            NotFound: there is no such thing. Subject ``thing``.
        """
        if self._things.find(tx, account, thing) is None:
            raise NotFound(f"There is no thing {thing!r} in this account.", subject="thing")
        declared = self._understood(thing, declaration)
        self._store.put(tx, account, declared)
        if self._watcher is not None:
            self._watcher.keys_declared(tx, account, thing)
        return declared

    def find(self, tx: Tx, account: AccountId, thing: ThingName) -> Declared | None:
        """What a thing said last; None: never anything."""
        return self._store.find(tx, account, thing)

    def page(self, tx: Tx, account: AccountId, *, after: str | None, limit: int) -> Sequence[Declared]:
        """All that was said, by thing."""
        return self._store.page(tx, account, after=after, limit=limit)

    def unable(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], encryptions: Sequence[FileEncryption]
    ) -> Mapping[ThingName, str]:
        """Those of some things, at most 1,000, that can't read one of these files, and why, as a clause."""
        declared = self._store.among(tx, account, things)
        reasons: dict[ThingName, str] = {}
        for thing in things:
            said = declared.get(thing)
            if said is None:
                reasons[thing] = "it has never declared that it can decrypt"
                continue
            why_not = next((why for encryption in encryptions if (why := said.why_not(encryption)) is not None), None)
            if why_not is not None:
                reasons[thing] = why_not
        return reasons

    # Following the registry (``ports.MembershipChanged``)

    def joined(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def left(self, tx: Tx, account: AccountId, thing: ThingName, group: GroupName) -> None:
        """Nothing hangs on groups."""

    def thing_deleted(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """Another of its name has said nothing yet."""
        self._store.delete(tx, account, thing)

    def _understood(self, thing: ThingName, declaration: Declaration) -> Declared:
        keys = {key_id_of(key).hex(): public_key_der(key) for key in declaration.keys}
        return Declared(
            thing=thing,
            formats=tuple(sorted(set(declaration.formats))),
            keys=tuple(DecryptionKey(id=name, der=der) for name, der in sorted(keys.items())),
            declared_at=self._clock.now(),
        )
