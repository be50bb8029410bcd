"""What may be done with root chains. Whatever changes one does so in both flavours, in one unit of work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import structlog

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.errors import Conflict, InvalidRequest
from overair.basics.ids import AccountId, IdSource
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.keyring.model import PreparedKey
from overair.server.keyring.service import Keyring
from overair.server.roots.lifetimes import LIFETIMES, PUSHED_EXPIRY_MAX_MS
from overair.server.roots.model import RootPushed, StoredRoot, Unsigned, read_stored_root
from overair.server.roots.next_roots import BOTH, NextRoots, whole_second, with_keys
from overair.server.roots.ports import RepositoryKeeper, RootStore
from overair.server.roots.role_keys import kind_of
from overair.server.roots.validation import Examined, examine_late_flavour, examine_root, refused_root
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_reading import read_document, read_root
from overair.wire.uptane.metadata_writing import assemble, bytes_to_sign, signature_by
from overair.wire.uptane.refusals import MetadataRefused

__all__ = ["BOTH", "Rehearsed", "RootsService"]

logger = structlog.get_logger("overair.roots")


class Rehearsed(Exception):
    """Raised at the end of a dry run, so that the unit of work leaves nothing behind. ``outcome`` is what it came to."""

    def __init__(self, outcome: object) -> None:
        super().__init__("A dry run leaves nothing behind.")
        self.outcome = outcome


class RootsService(NextRoots):
    """Root chains of both repositories of every account, and the private keys that the server holds for their roles."""

    def __init__(self, *, store: RootStore, keys: Keyring, clock: Clock, ids: IdSource) -> None:
        super().__init__(store=store, keys=keys, clock=clock)
        self._ids = ids
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
            expires=whole_second(now + LIFETIMES[repository, Role.ROOT].lasts_ms),
            keys={key.id: key for key in made.values()},
            roles={role.value: RoleKeys(key_ids=(key.id,), threshold=1) for role, key in made.items()},
        )
        signers = self.keys.signers_among(tx, place.account, repository, root.role_keys(Role.ROOT), root.keys)
        self._accept(tx, place, self.signed(repository, root, signers, now, BOTH))

    def adopt_chain(self, tx: Tx, place: Place, repository: Repository, chain: Sequence[Mapping[Flavour, bytes]]) -> None:
        """Take over the root chain of another server, so that its devices follow. It takes the place of the chain that the
        account began with; the private keys of that one stay here, for the next root to name (``unsigned``), which the old root
        keys must sign. To be called in the unit of work that pushes it: nothing signed by the server fits the chain before.

        Args:
            chain: Every version from 1 on, verified by the caller (``importing.examine_chain``).

        Raises:
            Conflict: with subject ``root-role``: the account's own chain has gone on, or devices follow it.
        """
        account = place.account
        if self.exists(tx, account, repository):
            has_begun = self.accepted(tx, account, repository).version > 1 or self._store.probes(tx, account, repository)
            if has_begun:
                raise Conflict(
                    f"Devices may follow the root chain that the {repository} repository has, so another can't take its place. "
                    "Take the other server's chain over in a new account.",
                    subject="root-role",
                )
            self._store.clear(tx, account, repository)
        else:
            self.keys.make(tx, account, repository, Role, key_type="ED25519", prepared=None)
        now = self._clock.now()
        self._store.begin(tx, account, repository, self._ids.uuid(), now=now)
        for number, documents in enumerate(chain, start=1):
            root = read_stored_root(documents[Flavour.UPTANE], Flavour.UPTANE)
            assert root.version == number, "the caller has verified the chain"
            stored = StoredRoot(
                repository=repository, version=number, root=root, documents=documents, is_published=True, stored_at=now
            )
            self._store.add(tx, account, stored)

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
        keep_keys: bool = False,
    ) -> RootPushed:
        """Accept the next root. It is published at once, unless what the repository serves doesn't fit it yet: then it waits
        for the targets that do. Private keys that the published root doesn't list are deleted.

        Args:
            documents: Both flavours, the Uptane one alone, or the TUF one of a version whose Uptane flavour is there.
            cosign: Add the signatures of the root keys that the server itself holds.
            keep_keys: See ``publish``.

        Raises:
            InvalidRequest: with subject ``root-role`` and every broken rule in ``details["errors"]``.
            Rehearsed: at the end of a dry run.
        """
        if set(documents) == {Flavour.TUF}:
            pushed = self._push_late_flavour(tx, place, repository, documents[Flavour.TUF])
        else:
            examined = self.examine(tx, place.account, repository, documents, cosign=cosign)
            if examined.findings.errors or examined.root is None:
                raise refused_root(examined)
            stored = self.accept(tx, place, repository, examined, keep_keys=keep_keys)
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
        return examine_root(
            documents,
            repository=repository,
            current=current,
            owned={key.key_id: key.role for key in self.keys.all(tx, account, repository)},
            has_tuf_chain=self.newest_version(tx, account, repository, Flavour.TUF, published_only=False) > 0,
            now=self.signing_instant(tx, account, repository),
        )

    def accept(
        self, tx: Tx, place: Place, repository: Repository, examined: Examined, *, keep_keys: bool = False
    ) -> StoredRoot:
        """Keep a root without fault, and publish it if what the repository serves fits it."""
        return self._publish_if_it_fits(tx, place, self.store_examined(tx, place, repository, examined), keep_keys=keep_keys)

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

    def publish(
        self, tx: Tx, place: Place, repository: Repository, flavours: Collection[Flavour], *, keep_keys: bool = False
    ) -> StoredRoot:
        """Let devices see every root that waited, in these flavours, and delete private keys that the newest doesn't list.

        Args:
            keep_keys: Whoever pushes deletes them himself, once he has read the root back. They sign nothing any more, and are
                deleted after ``KEPT_KEY_MS`` if he never comes.
        """
        self._store.publish(tx, place.account, repository, flavours)
        stored = self.current(tx, place.account, repository)
        if Flavour.UPTANE in flavours:
            # The other flavour follows; what becomes of keys is decided with this one.
            self.keys.follow(tx, place.account, repository, stored.root, keeps=keep_keys)
        return stored

    def forget_kept(self, tx: Tx, place: Place, repository: Repository) -> int:
        """Delete private keys that were kept for somebody who didn't come back; how many there were."""
        gone = self.keys.kept_too_long(tx, place.account, repository)
        self.keys.forget(tx, place.account, repository, gone)
        return len(gone)

    def renew(self, tx: Tx, place: Place, repository: Repository, *, not_before: Instant | None = None) -> StoredRoot:
        """The next root says the same and counts for longer: for its year, and until ``not_before`` at least.

        Raises:
            Conflict: with subject ``role-keys-offline``; see ``signers``.
            InvalidRequest: ``not_before`` is further away than two years.
        """
        standing = self.accepted(tx, place.account, repository).root
        if not_before is not None and not_before - self._clock.now() > PUSHED_EXPIRY_MAX_MS:
            raise InvalidRequest("A root counts for at most two years.", details={"field": "expireAt"})
        return self._next(tx, place, repository, standing, not_before=not_before)

    def rotate(
        self,
        tx: Tx,
        place: Place,
        repository: Repository,
        *,
        roles: Iterable[Role] = (Role.ROOT, Role.TARGETS),
        key_type: str = "ED25519",
        prepared: Mapping[Role, PreparedKey] | None = None,
        also_offline: bool = False,
    ) -> StoredRoot | Unsigned:
        """New keys for those of the roles whose keys are here. With the root's own keys offline, the keys are made and the root
        that names them comes back unsigned: push it signed.

        Args:
            also_offline: Keys for roles whose keys aren't here too: the way back from offline keys.

        Raises:
            InvalidRequest: with subject ``key-type``.
        """
        kind_of(key_type)
        account = place.account
        standing = self.accepted(tx, account, repository).root
        rotated = [role for role in roles if also_offline or self.is_online(tx, account, repository, role)]
        made = self.keys.make(tx, account, repository, rotated, key_type=key_type.upper(), prepared=prepared)
        root = with_keys(standing, {role: [key] for role, key in made.items()})
        if not self.is_online(tx, account, repository, Role.ROOT):
            return self.unsigned(tx, account, repository)
        return self._next(tx, place, repository, root)

    def export_private_key(self, tx: Tx, place: Place, repository: Repository, key_id: str) -> Redacted[Mapping[str, object]]:
        """See ``role_keys.HeldKeys.export``."""
        return self.keys.export(tx, place, repository, key_id)

    def delete_private_key(self, tx: Tx, place: Place, repository: Repository, key_id: str, *, force: bool = False) -> None:
        """See ``role_keys.HeldKeys.delete``."""
        root = self.accepted(tx, place.account, repository).root
        self.keys.delete(tx, place, repository, key_id, root=root, force=force)

    # ------------------------------------------------------------------------------------------------------------------

    def _next(
        self, tx: Tx, place: Place, repository: Repository, root: Root, *, not_before: Instant | None = None
    ) -> StoredRoot:
        """Sign ``root`` as the version after the newest, by the keys of both, and accept it."""
        account = place.account
        standing = self.accepted(tx, account, repository)
        now = self.signing_instant(tx, account, repository)
        root = self.following(replace(root, version=standing.version), repository)
        root = replace(root, expires=max(root.expires, whole_second(not_before or 0)))
        signers = list(self.signers(tx, account, repository, Role.ROOT))
        known = {signer.public_key for signer in signers}
        for signer in self.keys.signers_among(tx, account, repository, root.role_keys(Role.ROOT), root.keys):
            if signer.public_key not in known:
                signers.append(signer)
        # A TUF chain that has stopped stays so until what it lacks is pushed.
        return self._accept(tx, place, self.signed(repository, root, signers, now, standing.documents))

    def _accept(self, tx: Tx, place: Place, stored: StoredRoot) -> StoredRoot:
        self._store.add(tx, place.account, stored)
        return self._publish_if_it_fits(tx, place, stored)

    def _publish_if_it_fits(self, tx: Tx, place: Place, stored: StoredRoot, *, keep_keys: bool = False) -> StoredRoot:
        keeper = self._keepers.get(stored.repository)
        flavours = frozenset(BOTH) if keeper is None else keeper.may_publish(tx, place, stored)
        if Flavour.UPTANE not in flavours:
            logger.warning(
                "a root waits for targets that fit it",
                account=place.account,
                repository=stored.repository.value,
                version=stored.version,
            )
            return stored
        published = self.publish(tx, place, stored.repository, flavours, keep_keys=keep_keys)
        if keeper is not None:
            keeper.root_published(tx, place, published)
        return published

    def _cosigned(self, tx: Tx, account: AccountId, current: StoredRoot, data: bytes, flavour: Flavour) -> bytes:
        """The same document with the signatures of those root keys that are here, of the current root and of this one, where it
        can be read at all."""
        try:
            document = read_document(data, Role.ROOT, flavour=flavour)
            new = read_root(document)
        except MetadataRefused:
            return data  # told in full by the examination
        there = {signature.key_id for signature in document.signatures}
        to_sign = bytes_to_sign(document.signed, flavour)
        signatures = list(document.signatures)
        for root in (current.root, new):
            keys = root.role_keys(Role.ROOT)
            for signer in self.keys.signers_among(tx, account, current.repository, keys, root.keys):
                if signer.public_key.id not in there:
                    there.add(signer.public_key.id)
                    signatures.append(signature_by(signer, to_sign, flavour))
        return assemble(document.signed, signatures, flavour)

    def _push_late_flavour(self, tx: Tx, place: Place, repository: Repository, data: bytes) -> RootPushed:
        """A TUF root alone catches up with its Uptane flavour."""
        account = place.account
        accepted = self.accepted(tx, account, repository)
        last = self.newest_version(tx, account, repository, Flavour.TUF, published_only=False)
        # A chain that was taken over from elsewhere begins where somebody signs the first TUF root.
        stored = self.find(tx, account, repository, last + 1) if last else accepted
        if stored is None:
            raise InvalidRequest(
                f"The TUF flavour has every root version up to {last} already. Push a new root in both flavours.",
                subject="root-role",
                details={"field": "uptane"},
            )
        before = self.find(tx, account, repository, stored.version - 1) if last else None
        examined = examine_late_flavour(data, stored=stored, before=before)
        if examined.findings.errors:
            raise refused_root(examined)
        late = replace(stored, documents=examined.documents, is_published=False, stored_at=self._clock.now())
        self._store.add(tx, account, late)
        self._publish_if_it_fits(tx, place, self.accepted(tx, account, repository))
        found = self.find(tx, account, repository, stored.version)
        assert found is not None
        return RootPushed(stored=found, warnings=tuple(examined.findings.warnings))
