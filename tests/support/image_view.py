"""The Image repository as a client sees it."""

from __future__ import annotations

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Targets
from overair.wire.uptane.trust import Accepted, TrustedSet
from tests.support.image_room import ImageRoom


def trusted(room: ImageRoom, flavour: Flavour = Flavour.UPTANE, *, first_root: int | None = None) -> TrustedSet:
    """A client that has this root (the newest unless said otherwise) and fetches the rest; what it refuses fails the test."""
    now = room.clock.now()
    newest = room.read(lambda tx: room.roots.newest_version(tx, room.account, Repository.IMAGE, flavour))
    versions = range(first_root or newest, newest + 1)
    chain = [
        room.read(lambda tx: room.roots.document(tx, room.account, Repository.IMAGE, version, flavour))  # noqa: B023
        for version in versions
    ]
    client = TrustedSet.begin(chain[0], repository=Repository.IMAGE, flavour=flavour)
    verdicts = [client.update_root(root) for root in chain[1:]]
    verdicts += [
        client.check_root_expiry(now),
        client.update_timestamp(room.document("timestamp", flavour), now=now),
        client.update_snapshot(room.document("snapshot", flavour), now=now),
        client.update_targets(room.document("targets", flavour), now=now),
    ]
    assert all(isinstance(verdict, Accepted) for verdict in verdicts), verdicts
    return client


def believed(room: ImageRoom, flavour: Flavour = Flavour.UPTANE, *, first_root: int | None = None) -> Targets:
    """The targets that such a client believes."""
    targets = trusted(room, flavour, first_root=first_root).targets
    assert targets is not None
    return targets
