"""What keeps the Image repository signed: publishing what was decided, going along with new roots, renewing in time."""

from __future__ import annotations

from dataclasses import replace

from overair.basics.arn import Place
from overair.basics.clock import Clock, Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.catalogue import Catalogue
from overair.server.image_repository.model import (
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Changed,
    Published,
    StoredTarget,
)
from overair.server.image_repository.ports import DocumentStore, InUse, TargetStore
from overair.server.image_repository.publication import Change, Publisher
from overair.server.image_repository.standing import Standing, meets_root, targets_body
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.model import StoredRoot, Unsigned
from overair.server.roots.service import BOTH, RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from overair.wire.uptane.metadata_writing import payload


class Upkeep:
    """The part of the service that signs. As the keeper of the Image repository's root it goes along with every new one
    (``roots.ports.RepositoryKeeper``)."""

    def __init__(
        self,
        *,
        roots: RootsService,
        documents: DocumentStore,
        targets: TargetStore,
        publisher: Publisher,
        in_use: InUse,
        clock: Clock,
    ) -> None:
        self._roots = roots
        self._documents = documents
        self._targets = targets
        self._publisher = publisher
        self._clock = clock
        self.catalogue = Catalogue(store=targets, in_use=in_use)

    # Signing ------------------------------------------------------------------------------------------------------------

    def is_online(self, tx: Tx, account: AccountId) -> bool:
        """Whether the server signs targets itself."""
        return self._roots.is_online(tx, account, Repository.IMAGE, Role.TARGETS)

    def unsigned(self, tx: Tx, account: AccountId, targets: Targets | None = None) -> Unsigned:
        """The targets document that would follow, with all that is pending, ready to be signed elsewhere."""
        standing = self._publisher.standing(tx, account)
        document = standing.targets_document()
        body = self.body(tx, account) if targets is None else targets
        expires = self._clock.now() + LIFETIMES[Repository.IMAGE, Role.TARGETS].lasts_ms
        not_before = self._documents.not_before(tx, account)
        body = replace(
            body,
            version=document.version + 1,
            expires=Instant(max(expires, not_before or expires) // 1000 * 1000),
        )
        keys = self._roots.accepted(tx, account, Repository.IMAGE).root.role_keys(Role.TARGETS)
        return Unsigned(
            role=Role.TARGETS,
            version=body.version,
            signed={flavour: payload(body, flavour) for flavour in BOTH},
            required_key_ids=keys.key_ids,
            threshold=keys.threshold,
        )

    def renew_due(self, tx: Tx, place: Place, *, signed_before: Instant | None = None) -> bool:
        """Sign anew what ends soon. True where anything was.

        Args:
            signed_before: What was signed before this moment too: after a start that may follow a restore from a backup, so
                that versions rise above any that were given since.

        Raises:
            Unavailable: with subject ``clock``.
        """
        account, now = place.account, self._clock.now()
        standing = self._publisher.standing(tx, account)
        targets = standing.get(TARGETS)
        if targets is None or self._roots.current(tx, account, Repository.IMAGE).root.expires <= now:
            return False

        def is_due(role: str) -> bool:
            found = standing.get(role)
            if found is None or (signed_before is not None and found.signed_at < signed_before):
                return True
            return found.expires - now < LIFETIMES[Repository.IMAGE, Role(role)].renewed_before_ms

        if is_due(TARGETS) and self.is_online(tx, account):
            self.publish_signed(tx, place, self.body(tx, account))
        elif targets.expires <= now:
            return False  # clients would refuse whatever stood above
        elif is_due(SNAPSHOT):
            self._publisher.publish(tx, place, Change())
        elif is_due(TIMESTAMP):
            self._publisher.publish(tx, place, Change(snapshot=False))
        else:
            return False
        return True

    # As the keeper of its root --------------------------------------------------------------------------------------------

    def may_publish(self, tx: Tx, place: Place, root: StoredRoot) -> frozenset[Flavour]:
        """See ``roots.ports.RepositoryKeeper``."""
        account = place.account
        standing = self._publisher.standing(tx, account)
        uptane = standing.get(TARGETS)
        if uptane is None or self.is_online(tx, account):
            return frozenset(root.documents)
        fits: set[Flavour] = set()
        for flavour in root.documents:
            found = standing.get(TARGETS, flavour)
            if (
                found is not None
                and found.version == uptane.version
                and found.expires > self._clock.now()
                and meets_root(found.document, flavour, root.root)
            ):
                fits.add(flavour)
        return frozenset(fits) if Flavour.UPTANE in fits else frozenset()

    def root_published(self, tx: Tx, place: Place, root: StoredRoot) -> None:
        """See ``roots.ports.RepositoryKeeper``."""
        account = place.account
        standing = self._publisher.standing(tx, account)
        if self.is_online(tx, account) and self._needs_signing(standing, root):
            empty = Targets(version=0, expires=Instant(0), targets={})
            body = standing.targets() or empty
            self.publish_signed(tx, place, self.catalogue.with_pending(tx, account, body))
        else:
            self._publisher.publish(tx, place, Change())

    def _needs_signing(self, standing: Standing, root: StoredRoot) -> bool:
        """Whether targets must be signed anew to stand below this root: after months switched off they have ended as well."""
        for flavour in root.documents:
            found, uptane = standing.get(TARGETS, flavour), standing.get(TARGETS)
            if found is None or uptane is None or found.version != uptane.version:
                return True
            if found.expires <= self._clock.now() or not meets_root(found.document, flavour, root.root):
                return True
        return False

    # ------------------------------------------------------------------------------------------------------------------

    def body(self, tx: Tx, account: AccountId) -> Targets:
        """What targets say now, and what is pending."""
        document = self._publisher.standing(tx, account).targets_document()
        return self.catalogue.with_pending(tx, account, targets_body(document.document, Flavour.UPTANE))

    def change(self, tx: Tx, place: Place, target: StoredTarget | None, body: Targets) -> Changed:
        if not self.is_online(tx, place.account):
            return Changed(target=target, unsigned=self.unsigned(tx, place.account, body))
        published = self.publish_signed(tx, place, body)
        found = None if target is None else self._targets.find(tx, place.account, target.name)
        return Changed(target=found or target, published=published)

    def publish_signed(self, tx: Tx, place: Place, body: Targets) -> Published:
        """Sign targets here, publish them, and bring the catalogue in step."""
        after = self._publisher.publish(tx, place, Change(targets=body))
        self.reconcile(tx, place.account, after)
        return after.published()

    def reconcile(self, tx: Tx, account: AccountId, after: Standing) -> None:
        """Bring the catalogue in step with what is published."""
        self.catalogue.reconcile(
            tx, account, after.listing(), in_force={TARGETS, *after.delegations_in_force()}, now=self._clock.now()
        )
