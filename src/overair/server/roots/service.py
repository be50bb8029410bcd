"""What may be done with root chains. Whatever changes one does so in both flavours, in one unit of work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest, NotFound, OverairError, Unavailable
from overair.basics.ids import AccountId, IdSource
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.keyring.model import PreparedKey
from overair.server.keyring.service import Keyring
from overair.server.roots.lifetimes import CLOCK_STEP_BACK_MAX_MS, LIFETIMES, alarm_days
from overair.server.roots.model import ALWAYS_ONLINE, RoleExpiry, RootPushed, StoredRoot, Unsigned, read_stored_root
from overair.server.roots.ports import RepositoryKeeper, RootStore
from overair.server.roots.role_keys import HeldKeys, kind_of
from overair.server.roots.validation import Examined, errors_json, examine_late_flavour, examine_root
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import (
    MetadataSigner,
    Repository,
    Role,
    RoleKeys,
    Root,
    assemble,
    bytes_to_sign,
    payload,
    read_document,
    sign_payload,
    signature_by,
)
from overair.wire.uptane.refusals import MetadataRefused

BOTH: Final = (Flavour.UPTANE, Flavour.TUF)

logger = structlog.get_logger("overair.roots")


class Rehearsed(Exception):
    """Raised at the end of a dry run, so that the unit of work leaves nothing behind. ``outcome`` is what it came to."""

    def __init__(self, outcome: object) -> None:
        super().__init__("A dry run leaves nothing behind.")
        self.outcome = outcome


class RootsService:
    """Root chains of both repositories of every account, and the private keys that the server holds for their roles."""

    def __init__(self, *, store: RootStore, keys: Keyring, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self.keys = HeldKeys(store=store, keys=keys, clock=clock)
        self._keepers: dict[Repository, RepositoryKeeper] = {}

    def kept_by(self, repository: Repository, keeper: RepositoryKeeper) -> None:
        """Who publishes what this repository's root vouches for; told once, while the server is composed."""
        self._keepers[repository] = keeper

    # Beginning --------------------------------------------------------------------------------------------------------

    @staticmethod
    def prepare(key_type: str, roles: Iterable[Role] = tuple(Role)) -> Mapping[Role, PreparedKey]:
        """Keys for ``create`` and ``rotate``, made outside of a unit of work: RSA takes its time.

        Raises:
            InvalidRequest: with subject ``key-type``.
        """
        kind = kind_of(key_type)
        return {role: Keyring.prepare(kind) for role in roles}

    def create(
        self,
        tx: Tx,
        place: Place,
        repository: Repository,
        *,
        key_type: str = "ED25519",
        prepared: Mapping[Role, PreparedKey] | None = None,
    ) -> None:
        """Keys for all four roles, each its own, and root 1 in both flavours: the default level. Does nothing where there is
        a root already. For RSA, ``prepare`` the keys first.

        Raises:
            InvalidRequest: with subject ``key-type``.
        """
        if self.exists(tx, place.account, repository):
            return
        kind_of(key_type)
        now = self._clock.now()
        self._store.begin(tx, place.account, repository, self._ids.uuid(), now=now)
        made = self.keys.make(tx, place.account, repository, Role, key_type=key_type.upper(), prepared=prepared)
        root = Root(
            version=1,
            expires=_whole_second(now + LIFETIMES[repository, Role.ROOT].lasts_ms),
            keys={key.id: key for key in made.values()},
            roles={role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in made.items()},
        )
        signers = self.keys.signers_among(tx, place.account, repository, root.role_keys(Role.ROOT), root.keys)
        self._accept(tx, place, self._signed(repository, root, signers, now, BOTH))

    def adopt_chain(self, tx: Tx, place: Place, repository: Repository, chain: Sequence[Mapping[Flavour, bytes]]) -> None:
        """Take over the root chain of another server, so that its devices follow. The server makes keys of its own for the
        roles that it signs; the next root, by the old root keys, names them (``unsigned``).

        Args:
            chain: Every version from 1 on, verified by the caller.

        Raises:
            Conflict: with subject ``root-role``: there is a chain already.
        """
        if self.exists(tx, place.account, repository):
            raise Conflict(
                f"The {repository} repository has a root already; another server's chain can only begin an empty one.",
                subject="root-role",
            )
        now = self._clock.now()
        self._store.begin(tx, place.account, repository, self._ids.uuid(), now=now)
        self.keys.make(tx, place.account, repository, ALWAYS_ONLINE[repository], key_type="ED25519", prepared=None)
        for number, documents in enumerate(chain, start=1):
            root = read_stored_root(documents[Flavour.UPTANE], Flavour.UPTANE)
            assert root.version == number, "the caller has verified the chain"
            stored = StoredRoot(
                repository=repository,
                version=number,
                root=root,
                documents=documents,
                is_published=True,
                stored_at=now,
            )
            self._store.add(tx, place.account, stored)

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
            version = self._store.newest_version(tx, account, repository, flavour)
            if also_waiting:
                version = max(version, self.accepted(tx, account, repository).version)
        found = None
        if 0 < version < 2**31:
            found = self._store.document(tx, account, repository, version, flavour, published_only=not also_waiting)
        if found is None:
            raise NotFound(f"The {repository} repository has no root version {version}.", subject="root-role")
        return found

    def newest_version(self, tx: Tx, account: AccountId, repository: Repository, flavour: Flavour) -> int:
        """Of the published roots; 0 where there is none. The TUF flavour is behind where only the other one was pushed."""
        return self._store.newest_version(tx, account, repository, flavour)

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

    # Changing ---------------------------------------------------------------------------------------------------------

    def push(
        self,
        tx: Tx,
        place: Place,
        repository: Repository,
        documents: Mapping[Flavour, bytes],
        *,
        dry_run: bool = False,
        cosign: bool = False,
    ) -> RootPushed:
        """Accept the next root. It is published at once, unless what the repository serves doesn't fit it yet: then it waits
        for the targets that do. Private keys that a published root doesn't list are deleted.

        Args:
            documents: Both flavours, the Uptane one alone, or the TUF one of a version whose Uptane flavour is there.
            cosign: Add the signatures of the root keys that the server itself holds.

        Raises:
            InvalidRequest: with subject ``root-role`` and every broken rule in ``details["errors"]``.
            Rehearsed: at the end of a dry run.
        """
        now = self.signing_instant(tx, place.account, repository)
        pushed = self._late_flavour(tx, place, repository, documents, now)
        if pushed is None:
            examined = self.examine(tx, place.account, repository, documents, cosign=cosign)
            if examined.findings.errors or examined.root is None:
                raise refused_root(examined)
            stored = self.store_examined(tx, place, repository, examined)
            stored = self._publish_if_it_fits(tx, place, stored)
            pushed = RootPushed(stored=stored, warnings=tuple(examined.findings.warnings))
        if dry_run:
            raise Rehearsed(pushed)
        return pushed

    def examine(
        self,
        tx: Tx,
        account: AccountId,
        repository: Repository,
        documents: Mapping[Flavour, bytes],
        *,
        cosign: bool = False,
    ) -> Examined:
        """Ask every rule of a pushed root, and change nothing."""
        current = self.accepted(tx, account, repository)
        if cosign:
            documents = {flavour: self._cosigned(tx, account, current, data, flavour) for flavour, data in documents.items()}
        owned = {key.key_id: key.role for key in self.keys.all(tx, account, repository)}
        return examine_root(documents, repository=repository, current=current, owned=owned, now=self._clock.now())

    def store_examined(self, tx: Tx, place: Place, repository: Repository, examined: Examined) -> StoredRoot:
        """Keep a root without fault as the newest; nobody sees it before ``publish``."""
        assert examined.root is not None
        stored = StoredRoot(
            repository=repository,
            version=examined.root.version,
            root=examined.root,
            documents=examined.documents,
            is_published=False,
            stored_at=self._clock.now(),
        )
        self._store.add(tx, place.account, stored)
        return stored

    def publish(self, tx: Tx, place: Place, repository: Repository) -> StoredRoot:
        """Let devices see every root that waited, and delete the private keys that the newest doesn't list."""
        self._store.publish(tx, place.account, repository)
        stored = self.current(tx, place.account, repository)
        listed = {key_id for keys in stored.root.roles.values() for key_id in keys.key_ids}
        held = self.keys.all(tx, place.account, repository)
        self.keys.forget(tx, place.account, repository, [key.key_id for key in held if key.key_id not in listed])
        return stored

    def renew(self, tx: Tx, place: Place, repository: Repository) -> StoredRoot:
        """The next root says the same and counts for longer.

        Raises:
            Conflict: with subject ``role-keys-offline``; see ``signers``.
        """
        return self._next(tx, place, repository, self.accepted(tx, place.account, repository).root)

    def rotate(
        self,
        tx: Tx,
        place: Place,
        repository: Repository,
        *,
        roles: Iterable[Role] = (Role.ROOT, Role.TARGETS),
        key_type: str = "ED25519",
        prepared: Mapping[Role, PreparedKey] | None = None,
    ) -> StoredRoot | Unsigned:
        """New keys for those of the roles whose keys are here. With the root's own keys offline, the keys are made and the root
        that names them comes back unsigned: push it signed.

        Raises:
            InvalidRequest: with subject ``key-type``.
        """
        kind_of(key_type)
        account = place.account
        standing = self.accepted(tx, account, repository).root
        rotated = [role for role in roles if self.is_online(tx, account, repository, role)]
        made = self.keys.make(tx, account, repository, rotated, key_type=key_type.upper(), prepared=prepared)
        root = _with_keys(standing, {role: [key] for role, key in made.items()})
        if not self.is_online(tx, account, repository, Role.ROOT):
            return self.unsigned(tx, account, repository)
        return self._next(tx, place, repository, root)

    def unsigned(self, tx: Tx, account: AccountId, repository: Repository) -> Unsigned:
        """The root that would follow: the next version, a fresh end, and those of the server's own keys that wait to be named
        (after ``rotate`` or ``adopt_chain``) in place of the older ones."""
        accepted = self.accepted(tx, account, repository)
        standing = accepted.root
        waiting: dict[Role, list[PublicKey]] = {}
        for key in self.keys.all(tx, account, repository):
            if key.key_id not in standing.keys:
                waiting.setdefault(key.role, []).append(self.keys.public(tx, account, key))
        # Of several that were made for one role only the last is meant.
        root = self._following(_with_keys(standing, {role: keys[-1:] for role, keys in waiting.items()}), repository)
        keys = standing.role_keys(Role.ROOT)
        return Unsigned(
            role=Role.ROOT,
            version=root.version,
            signed={flavour: payload(root, flavour) for flavour in BOTH},
            required_key_ids=keys.key_ids,
            threshold=keys.threshold,
        )

    def export_private_key(self, tx: Tx, place: Place, repository: Repository, key_id: str) -> Redacted[Mapping[str, object]]:
        """See ``role_keys.HeldKeys.export``."""
        return self.keys.export(tx, place, repository, key_id)

    def delete_private_key(self, tx: Tx, place: Place, repository: Repository, key_id: str, *, force: bool = False) -> None:
        """See ``role_keys.HeldKeys.delete``."""
        root = self.accepted(tx, place.account, repository).root
        self.keys.delete(tx, place, repository, key_id, root=root, force=force)

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
        found = self._store.newest(tx, account, repository, published_only=published_only)
        if found is None:
            raise NotFound(f"The {repository} repository of this account has no root.", subject="root-role")
        return found

    def _root_for(self, tx: Tx, account: AccountId, repository: Repository, role: Role) -> Root:
        """The root that names a role's keys: snapshot and timestamp follow what is published, root and targets what comes."""
        if role in ALWAYS_ONLINE[repository]:
            return self.current(tx, account, repository).root
        return self.accepted(tx, account, repository).root

    def _next(self, tx: Tx, place: Place, repository: Repository, root: Root) -> StoredRoot:
        """Sign ``root`` as the version after the newest, by the keys of both, and accept it."""
        account = place.account
        standing = self.accepted(tx, account, repository)
        now = self.signing_instant(tx, account, repository)
        root = self._following(replace(root, version=standing.version), repository)
        signers = list(self.signers(tx, account, repository, Role.ROOT))
        known = {signer.public_key for signer in signers}
        for signer in self.keys.signers_among(tx, account, repository, root.role_keys(Role.ROOT), root.keys):
            if signer.public_key not in known:
                signers.append(signer)
        # A TUF chain that has stopped stays so until what it lacks is pushed.
        return self._accept(tx, place, self._signed(repository, root, signers, now, standing.documents))

    def _following(self, root: Root, repository: Repository) -> Root:
        expires = _whole_second(self._clock.now() + LIFETIMES[repository, Role.ROOT].lasts_ms)
        return replace(root, version=root.version + 1, expires=expires)

    @staticmethod
    def _signed(
        repository: Repository,
        root: Root,
        signers: Sequence[MetadataSigner],
        now: Instant,
        flavours: Iterable[Flavour],
    ) -> StoredRoot:
        documents = {flavour: sign_payload(payload(root, flavour), signers, flavour) for flavour in flavours}
        return StoredRoot(
            repository=repository,
            version=root.version,
            root=root,
            documents=documents,
            is_published=False,
            stored_at=now,
        )

    def _accept(self, tx: Tx, place: Place, stored: StoredRoot) -> StoredRoot:
        self._store.add(tx, place.account, stored)
        return self._publish_if_it_fits(tx, place, stored)

    def _publish_if_it_fits(self, tx: Tx, place: Place, stored: StoredRoot) -> StoredRoot:
        keeper = self._keepers.get(stored.repository)
        if keeper is not None and not keeper.may_publish(tx, place, stored):
            logger.warning(
                "a root waits for targets that fit it",
                account=place.account,
                repository=stored.repository.value,
                version=stored.version,
            )
            return stored
        published = self.publish(tx, place, stored.repository)
        if keeper is not None:
            keeper.root_published(tx, place, published)
        return published

    def _cosigned(self, tx: Tx, account: AccountId, current: StoredRoot, data: bytes, flavour: Flavour) -> bytes:
        """The same document with the signatures of our own root keys added, where it can be read at all."""
        try:
            document = read_document(data, Role.ROOT, flavour=flavour)
        except MetadataRefused:
            return data  # told in full by the examination
        ours = self.keys.signers_among(tx, account, current.repository, current.root.role_keys(Role.ROOT), current.root.keys)
        there = {signature.key_id for signature in document.signatures}
        to_sign = bytes_to_sign(document.signed, flavour)
        added = [signature_by(signer, to_sign, flavour) for signer in ours if signer.public_key.id not in there]
        return assemble(document.signed, [*document.signatures, *added], flavour)

    def _late_flavour(
        self, tx: Tx, place: Place, repository: Repository, documents: Mapping[Flavour, bytes], now: Instant
    ) -> RootPushed | None:
        """A TUF root alone catches up with its Uptane flavour."""
        if set(documents) != {Flavour.TUF}:
            return None
        version = self._store.newest_version(tx, place.account, repository, Flavour.TUF) + 1
        stored = self._store.find(tx, place.account, repository, version)
        if stored is None:
            return None
        before = self._store.find(tx, place.account, repository, version - 1)
        examined = examine_late_flavour(documents[Flavour.TUF], stored=stored, before=before)
        if examined.findings.errors:
            raise refused_root(examined)
        self._store.add(tx, place.account, replace(stored, documents=examined.documents, stored_at=now))
        keeper = self._keepers.get(repository)
        if keeper is not None and stored.is_published:
            keeper.root_published(tx, place, self.current(tx, place.account, repository))
        found = self._store.find(tx, place.account, repository, version)
        assert found is not None
        return RootPushed(stored=found, warnings=tuple(examined.findings.warnings))


def keys_offline(repository: Repository, role: Role, keys: RoleKeys) -> OverairError:
    """The refusal of a role that somebody else signs."""
    return Conflict(
        f"The {role} keys of the {repository} repository are offline: the server can't sign for it. Sign with "
        f"{keys.threshold} of the keys that the root names, and push the document.",
        subject="role-keys-offline",
        details={"required_key_ids": list(keys.key_ids), "threshold": keys.threshold},
    )


def refused_root(examined: Examined) -> InvalidRequest:
    """Every broken rule in one refusal."""
    errors = examined.findings.errors
    return InvalidRequest(
        f"The root was refused; nothing was changed. {errors[0].message}",
        subject="root-role",
        details={"errors": errors_json(errors), "field": errors[0].field, "hint": errors[0].hint},
    )


def _with_keys(root: Root, replaced: Mapping[Role, Sequence[PublicKey]]) -> Root:
    """The same root with other keys for some roles, at a threshold that they can meet; keys that nobody needs any more go."""
    roles = dict(root.roles)
    keys = dict(root.keys)
    for role, new in replaced.items():
        if not new:
            continue
        roles[role.value] = RoleKeys(
            key_ids=tuple(key.id for key in new), threshold=min(root.role_keys(role).threshold, len(new))
        )
        keys |= {key.id: key for key in new}
    named = {key_id for role_keys in roles.values() for key_id in role_keys.key_ids}
    return replace(root, keys={key_id: key for key_id, key in keys.items() if key_id in named}, roles=roles)


def _whole_second(moment: int) -> Instant:
    """Documents say whole seconds."""
    return Instant(moment // 1000 * 1000)
