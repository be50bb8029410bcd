"""One publication: targets, then snapshot, then timestamp, in both flavours, in one unit of work.

What comes of it is looked at as a client would before the unit ends; what a client would refuse is undone with the whole unit,
and no version number has been used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import News, Tx
from overair.server.image_repository.model import (
    KEPT_VERSIONS,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    StoredDocument,
    next_version,
)
from overair.server.image_repository.ports import DocumentStore
from overair.server.image_repository.standing import Standing, meets_root
from overair.server.image_repository.verification import Follower, Followers
from overair.server.roots.findings import code_of
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.model import Finding, StoredRoot
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import TARGETS_SIZE_BYTES_MAX, Body, MetaFile, Repository, Role, Snapshot, Targets, Timestamp
from overair.wire.uptane.metadata_reading import read_document, read_snapshot
from overair.wire.uptane.metadata_writing import MetadataSigner, meta_of, payload, sign_payload
from overair.wire.uptane.trust import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be published anew. Nothing at all: the timestamp."""

    targets: Targets | None = None
    """To be signed by the server; version and end are given here."""
    pushed: Sequence[StoredDocument] = field(default_factory=tuple)
    """Signed elsewhere and examined: targets and delegations, in the flavours that came."""
    snapshot: bool = True
    """Whether the snapshot is signed anew: always where anything but the timestamp changes."""


class Publisher:
    """Signs and stores. Whoever calls it has examined what was pushed."""

    def __init__(self, *, roots: RootsService, documents: DocumentStore, published: Callable[[AccountId], None]) -> None:
        """``published``: told after each commit, before whoever asked is answered."""
        self._roots = roots
        self._documents = documents
        self._published = published
        self._followers = Followers()

    def standing(self, tx: Tx, account: AccountId) -> Standing:
        found = self._documents.all_current(tx, account)
        return Standing({(each.role, each.flavour): each for each in found})

    def publish(self, tx: Tx, place: Place, change: Change) -> Standing:
        """Raises:
        Conflict: with subject ``role-keys-offline``: targets are to be signed, and their keys aren't here.
        InvalidRequest: with subject ``client-refuses``: clients wouldn't believe what would come of it.
        Unavailable: with subject ``clock``.
        """
        account = place.account
        now = self._roots.signing_instant(tx, account, Repository.IMAGE)
        root = self._roots.current(tx, account, Repository.IMAGE)
        before = self.standing(tx, account)
        fresh: list[StoredDocument] = list(change.pushed)
        if change.targets is not None:
            signers = self._roots.signers(tx, account, Repository.IMAGE, Role.TARGETS)
            fresh += self._sign_targets(tx, account, change.targets, root, before, signers, now)
        flavours = self._in_step(tx, place, root, before, fresh)
        fresh += self._sign_above(tx, account, flavours, root, before.with_(fresh), now, snapshot=change.snapshot)
        after = before.with_(fresh)
        followed = {flavour: self._as_client(tx, account, flavour, root, before, after, now) for flavour in flavours}
        for document in fresh:
            self._documents.add(tx, account, document, keep_versions=KEPT_VERSIONS)
        tx.after_commit(lambda: self._is_published(account, followed))
        tx.tell_nodes(News("published", (account,)))
        return after

    def _is_published(self, account: AccountId, followed: Mapping[Flavour, Follower]) -> None:
        for flavour, follower in followed.items():
            self._followers.keep(account, flavour, follower)
        self._published(account)

    def _sign_targets(
        self,
        tx: Tx,
        account: AccountId,
        targets: Targets,
        root: StoredRoot,
        before: Standing,
        signers: Sequence[MetadataSigner],
        now: Instant,
    ) -> list[StoredDocument]:
        version = self._next(TARGETS, before, now)
        body = replace(targets, version=version, expires=self._expires(tx, account, Role.TARGETS, now))
        signed = [self._sign(TARGETS, body, signers, flavour, now) for flavour in root.documents]
        if max(len(each.document) for each in signed) > TARGETS_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"The targets document would have more than {TARGETS_SIZE_BYTES_MAX} bytes, which clients don't read. "
                "Delete images that no vehicle needs, or delegate some to roles of their own.",
                subject="targets-too-large",
            )
        return signed

    def _sign_above(
        self,
        tx: Tx,
        account: AccountId,
        flavours: Sequence[Flavour],
        root: StoredRoot,
        after: Standing,
        now: Instant,
        *,
        snapshot: bool,
    ) -> list[StoredDocument]:
        """Snapshot and timestamp, with the same version and end in each flavour."""
        fresh: list[StoredDocument] = []
        snapshot_signers = self._roots.signers(tx, account, Repository.IMAGE, Role.SNAPSHOT)
        timestamp_signers = self._roots.signers(tx, account, Repository.IMAGE, Role.TIMESTAMP)
        snapshot_version, timestamp_version = self._next(SNAPSHOT, after, now), self._next(TIMESTAMP, after, now)
        for flavour in flavours:
            below = after.get(SNAPSHOT, flavour)
            if snapshot or below is None:
                body = Snapshot(
                    version=snapshot_version,
                    expires=self._expires(tx, account, Role.SNAPSHOT, now),
                    meta=_snapshot_meta(root, after, flavour),
                )
                below = self._sign(SNAPSHOT, body, snapshot_signers, flavour, now)
                fresh.append(below)
            timestamp = Timestamp(
                version=timestamp_version,
                expires=self._expires(tx, account, Role.TIMESTAMP, now),
                snapshot=meta_of(below.document, below.version),
            )
            fresh.append(self._sign(TIMESTAMP, timestamp, timestamp_signers, flavour, now))
        return fresh

    def _in_step(
        self, tx: Tx, place: Place, root: StoredRoot, before: Standing, fresh: Sequence[StoredDocument]
    ) -> list[Flavour]:
        """The flavours whose clients can be told of this state. TUF's are left with what they have where a root or targets were
        pushed in the Uptane flavour alone."""
        after = before.with_(fresh)
        uptane, tuf = after.get(TARGETS), after.get(TARGETS, Flavour.TUF)
        assert uptane is not None, "targets are signed with the first root"
        if tuf is None or Flavour.TUF not in root.documents or tuf.version != uptane.version:
            return [Flavour.UPTANE]
        seen = self._roots.newest_version(tx, place.account, Repository.IMAGE, Flavour.TUF)
        if seen != root.version:
            if not meets_root(tuf.document, Flavour.TUF, root.root):
                return [Flavour.UPTANE]
            self._roots.publish(tx, place, Repository.IMAGE, [Flavour.TUF])
        return [Flavour.UPTANE, Flavour.TUF]

    def _as_client(
        self,
        tx: Tx,
        account: AccountId,
        flavour: Flavour,
        root: StoredRoot,
        before: Standing,
        after: Standing,
        now: Instant,
    ) -> Follower:
        """A client that has followed this state from the one before.

        Raises:
            InvalidRequest: with subject ``client-refuses``.
        """
        last = before.get(SNAPSHOT, flavour)
        first = root.version
        if last is not None:
            body = read_snapshot(read_document(last.document, Role.SNAPSHOT, flavour=flavour))
            first = body.meta["root.json"].version if "root.json" in body.meta else root.version
        roots = [
            self._roots.document(tx, account, Repository.IMAGE, version, flavour) for version in range(first, root.version + 1)
        ]
        stored = {} if last is None else before.files(flavour)
        follower = self._followers.of(account, flavour, roots[0], stored, now=now)
        refused = (
            follower if isinstance(follower, Refused) else follower.refusal(roots[1:], stored, after.files(flavour), now=now)
        )
        if isinstance(follower, Follower) and refused is None:
            return follower
        assert refused is not None
        finding = Finding(code=code_of(refused.reason), field=refused.field, message=refused.message)
        raise InvalidRequest(
            f"Clients ({flavour}) would refuse what would be published, so nothing was: {refused.message}",
            subject="client-refuses",
            details={"field": finding.field, "errors": [finding.to_json()]},
        )

    def _expires(self, tx: Tx, account: AccountId, role: Role, now: Instant) -> Instant:
        expires = now + LIFETIMES[Repository.IMAGE, role].lasts_ms
        not_before = self._documents.not_before(tx, account)
        return Instant(max(expires, not_before or expires) // 1000 * 1000)

    @staticmethod
    def _next(role: str, standing: Standing, now: Instant) -> int:
        last = max((each.version for (of, _), each in standing.documents.items() if of == role), default=0)
        return next_version(last, now)

    @staticmethod
    def _sign(role: str, body: Body, signers: Sequence[MetadataSigner], flavour: Flavour, now: Instant) -> StoredDocument:
        return StoredDocument(
            role=role,
            flavour=flavour,
            version=body.version,
            document=sign_payload(payload(body, flavour), signers, flavour),
            expires=body.expires,
            signed_at=now,
            body=body if isinstance(body, Targets) else None,
        )


def _snapshot_meta(root: StoredRoot, after: Standing, flavour: Flavour) -> dict[str, MetaFile]:
    targets = after.get(TARGETS, flavour)
    assert targets is not None
    meta = {"root.json": MetaFile(version=root.version), "targets.json": meta_of(targets.document, targets.version)}
    meta |= {f"{each.role}.json": meta_of(each.document, each.version) for each in after.delegated(flavour)}
    return meta
