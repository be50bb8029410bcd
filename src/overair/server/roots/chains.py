"""Reading root chains, and who signs for their roles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, NotFound, OverairError, Unavailable
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.service import Keyring
from overair.server.roots.lifetimes import CLOCK_STEP_BACK_MAX_MS, LIFETIMES, alarm_days
from overair.server.roots.model import ALWAYS_ONLINE, RoleExpiry, StoredRoot
from overair.server.roots.ports import RootStore
from overair.server.roots.role_keys import HeldKeys
from overair.wire.uptane.canonical import VERSION_MAX
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import MetadataSigner

GOES_OFFLINE: Final = (Role.ROOT, Role.TARGETS)


class Level(StrEnum):
    """What a thief of the server could make devices believe of the Image repository."""

    DEFAULT = "default"
    """Anything: the server holds the keys of every role."""
    PRODUCTION = "production"
    """Nothing new: root and targets are signed elsewhere."""
    MIXED = "mixed"


class RootChains:
    """What is there, and which keys sign for it."""

    def __init__(self, *, store: RootStore, keys: Keyring, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.keys = HeldKeys(store=store, keys=keys, clock=clock)

    # Reading ----------------------------------------------------------------------------------------------------------

    def exists(self, tx: Tx, account: AccountId, repository: Repository) -> bool:
        return self._store.repository_id(tx, account, repository) is not None

    def repository_id(self, tx: Tx, account: AccountId, repository: Repository) -> str:
        """The UUID that OTA Connect's tools know a repository by.

        Raises:
            NotFound: with subject ``repository``.
        """
        found = self._store.repository_id(tx, account, repository)
        if found is None:
            raise NotFound(f"This account has no {repository} repository.", subject="repository")
        return found

    def repositories(self, tx: Tx) -> Sequence[tuple[AccountId, Repository]]:
        """Of every account of this server."""
        return self._store.repositories(tx)

    def current(self, tx: Tx, account: AccountId, repository: Repository) -> StoredRoot:
        """The newest root that devices see.

        Raises:
            NotFound: with subject ``root-role``.
        """
        return self._newest(tx, account, repository, published_only=True)

    def accepted(self, tx: Tx, account: AccountId, repository: Repository) -> StoredRoot:
        """The newest root at all: one that was pushed may wait for targets that fit it.

        Raises:
            NotFound: with subject ``root-role``.
        """
        return self._newest(tx, account, repository, published_only=False)

    def document(
        self,
        tx: Tx,
        account: AccountId,
        repository: Repository,
        version: int | None,
        flavour: Flavour,
        *,
        also_waiting: bool = False,
    ) -> bytes:
        """One root's bytes, as they are served; ``version`` None: the newest.

        Args:
            also_waiting: Operators see roots that were accepted and aren't published yet; devices don't.

        Raises:
            NotFound: with subject ``root-role``: there is no such version. Never anything else: a device reads every other
                answer as "no new root" too, in silence (Uptane reference §3.6).
        """
        if version is None:
            version = self._store.newest_version(tx, account, repository, flavour, published_only=not also_waiting)
        found = None
        if 0 < version <= VERSION_MAX:
            found = self._store.document(tx, account, repository, version, flavour, published_only=not also_waiting)
        if found is None:
            raise NotFound(f"The {repository} repository has no root version {version}.", subject="root-role")
        return found

    def newest_version(
        self, tx: Tx, account: AccountId, repository: Repository, flavour: Flavour, *, published_only: bool = True
    ) -> int:
        """0 where there is none. The TUF flavour is behind where only the other one was pushed."""
        return self._store.newest_version(tx, account, repository, flavour, published_only=published_only)

    def find(self, tx: Tx, account: AccountId, repository: Repository, version: int) -> StoredRoot | None:
        """One version, published or waiting, with the flavours that are there."""
        return self._store.find(tx, account, repository, version)

    # Signing ----------------------------------------------------------------------------------------------------------

    def is_online(self, tx: Tx, account: AccountId, repository: Repository, role: Role) -> bool:
        """Whether the server can sign for this role by itself."""
        root = self._root_for(tx, account, repository, role)
        keys = root.role_keys(role)
        return len(self.keys.signers_among(tx, account, repository, keys, root.keys)) >= keys.threshold

    def signers(self, tx: Tx, account: AccountId, repository: Repository, role: Role) -> tuple[MetadataSigner, ...]:
        """Enough of them for the role's threshold.

        Raises:
            Conflict: with subject ``role-keys-offline``; ``details`` carries ``required_key_ids`` and ``threshold``.
        """
        root = self._root_for(tx, account, repository, role)
        keys = root.role_keys(role)
        found = self.keys.signers_among(tx, account, repository, keys, root.keys)
        if len(found) < keys.threshold:
            raise keys_offline(repository, role, keys)
        return found

    def online_signers(
        self, tx: Tx, account: AccountId, repository: Repository
    ) -> tuple[int, Mapping[Role, tuple[MetadataSigner, ...]]]:
        """The published root's version, and who signs by it what only the server signs: one look for whoever signs often.

        Raises:
            Conflict: with subject ``role-keys-offline``.
        """
        current = self.current(tx, account, repository)
        root, online = current.root, self.keys.all(tx, account, repository)
        signers = {}
        for role in ALWAYS_ONLINE[repository]:
            keys = root.role_keys(role)
            signers[role] = self.keys.signers_among(tx, account, repository, keys, root.keys, online=online)
            if len(signers[role]) < keys.threshold:
                raise keys_offline(repository, role, keys)
        return current.version, signers

    def signing_instant(self, tx: Tx, account: AccountId, repository: Repository, *, remember: bool = True) -> Instant:
        """The moment to sign at: the clock's, never earlier than the last signature's.

        Args:
            remember: False for documents of single devices, which are signed too often to note each one.

        Raises:
            Unavailable: with subject ``clock``: the clock stands far behind the last signature, so that ends of validity made
                from it would be wrong.
        """
        now, last = self._clock.now(), self._store.last_signed_at(tx, account, repository)
        if last - now > CLOCK_STEP_BACK_MAX_MS:
            raise Unavailable(
                f"The server's clock is {(last - now) // 1000} s behind the last signature of the {repository} repository. "
                "Nothing is signed by a clock that went back: set the clock.",
                subject="clock",
            )
        now = max(now, last)
        if remember and now > last:
            self._store.signed_now(tx, account, repository, now=now)
        return now

    # What operators are told --------------------------------------------------------------------------------------------

    def level(self, tx: Tx, account: AccountId) -> Level:
        """Of the Image repository: who could sign what devices install."""
        online = [self.is_online(tx, account, Repository.IMAGE, role) for role in GOES_OFFLINE]
        if all(online):
            return Level.DEFAULT
        return Level.MIXED if any(online) else Level.PRODUCTION

    def expiry(self, tx: Tx, account: AccountId, repository: Repository) -> RoleExpiry:
        """Until when devices believe the published root."""
        current = self.current(tx, account, repository)
        is_online = self.is_online(tx, account, repository, Role.ROOT)
        lifetime = LIFETIMES[repository, Role.ROOT] if is_online else None
        return RoleExpiry(
            repository=repository,
            role=Role.ROOT.value,
            version=current.version,
            expires=current.root.expires,
            is_online=is_online,
            alarm_days=alarm_days(current.root.expires, self._clock.now(), lifetime=lifetime),
        )

    # ------------------------------------------------------------------------------------------------------------------

    def _newest(self, tx: Tx, account: AccountId, repository: Repository, *, published_only: bool) -> StoredRoot:
        version = self._store.newest_version(tx, account, repository, Flavour.UPTANE, published_only=published_only)
        found = self._store.find(tx, account, repository, version) if version else None
        if found is None:
            raise NotFound(f"The {repository} repository of this account has no root.", subject="root-role")
        return found

    def _root_for(self, tx: Tx, account: AccountId, repository: Repository, role: Role) -> Root:
        """The root that names a role's keys: snapshot and timestamp follow what is published, root and targets what comes."""
        if role in ALWAYS_ONLINE[repository]:
            return self.current(tx, account, repository).root
        return self.accepted(tx, account, repository).root


def keys_offline(repository: Repository, role: Role, keys: RoleKeys) -> OverairError:
    """The refusal of a role that somebody else signs."""
    return Conflict(
        f"The {role} keys of the {repository} repository are offline: the server can't sign for it. Sign with "
        f"{keys.threshold} of the keys that the root names, and push the document.",
        subject="role-keys-offline",
        details={"required_key_ids": list(keys.key_ids), "threshold": keys.threshold},
    )
