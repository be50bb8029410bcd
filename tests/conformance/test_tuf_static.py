"""A real TUF repository, frozen in time (sigstore's, ECDSA keys, one delegation), through the TUF flavour at its own moment."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import pytest

from overair.basics.clock import Instant, from_datetime
from overair.wire.uptane.content import ContentCheck
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.search import DelegationNeeded, FoundTarget, search
from overair.wire.uptane.trust import Accepted, AcceptedButExpired, Refused, TrustedSet
from tests.support.vectors import vectors

FOLDER = vectors("tuf-static") / "sigstore-root-signing"
METADATA = FOLDER / "metadata"
NOW: Final = from_datetime(datetime.fromisoformat((FOLDER / "faketime").read_text().strip()))

UNREADABLE_ROOTS: Final = {
    1: "its moment of expiry has a fraction of a second and a zone; TUF writes YYYY-MM-DDTHH:MM:SSZ",
    2: "its moment of expiry has a fraction of a second",
    3: "its moment of expiry has a fraction of a second",
    4: "its ECDSA keys are hexadecimal points; TUF writes them as PEM",
}
"""Roots that break TUF's own format; the repository's README names version 12 as the one to begin with."""


def begin(root: bytes) -> TrustedSet:
    return TrustedSet.begin(root, repository=Repository.IMAGE, flavour=Flavour.TUF)


def refreshed() -> TrustedSet:
    trusted = begin((FOLDER / "initial_root.json").read_bytes())
    assert trusted.root.consistent_snapshot
    assert isinstance(trusted.check_root_expiry(NOW), Accepted)
    assert isinstance(trusted.update_timestamp((METADATA / "timestamp.json").read_bytes(), now=NOW), Accepted)
    assert trusted.timestamp is not None
    snapshot = METADATA / f"{trusted.timestamp.snapshot.version}.snapshot.json"
    assert isinstance(trusted.update_snapshot(snapshot.read_bytes(), now=NOW), Accepted)
    assert trusted.snapshot is not None
    targets = METADATA / f"{trusted.snapshot.meta['targets.json'].version}.targets.json"
    assert isinstance(trusted.update_targets(targets.read_bytes(), now=NOW), Accepted)
    return trusted


def test_the_artifact_that_the_repository_is_there_for_is_found_and_its_bytes_are_believed() -> None:
    trusted = refreshed()
    name = (FOLDER / "targetpath").read_text().strip()
    with pytest.raises(StopIteration) as ended:
        next(search(name, trusted, now=NOW))
    found = ended.value.value
    assert isinstance(found, FoundTarget)
    assert found.role == "targets"
    check = ContentCheck(found.target)
    check.update((FOLDER / "targets" / f"{found.target.sha256}.{name}").read_bytes())
    assert check.finish() == found.target.sha256


def test_a_delegated_artifact_is_found_through_its_own_role() -> None:
    trusted = refreshed()
    walk = search("registry.npmjs.org/keys.json", trusted, now=NOW)
    needed = next(walk)
    assert isinstance(needed, DelegationNeeded)
    assert (needed.name, needed.by, needed.version) == ("registry.npmjs.org", "targets", 5)
    with pytest.raises(StopIteration) as ended:
        walk.send((METADATA / f"{needed.version}.{needed.name}.json").read_bytes())
    found = ended.value.value
    assert isinstance(found, FoundTarget)
    assert (found.role, found.target.length) == ("registry.npmjs.org", 2121)


def test_the_root_chain_leads_from_the_first_readable_root_to_the_last() -> None:
    trusted = begin((METADATA / "5.root.json").read_bytes())
    for version in range(6, 13):
        verdict = trusted.update_root((METADATA / f"{version}.root.json").read_bytes())
        assert isinstance(verdict, Accepted), (version, verdict)
        assert trusted.root.version == version
    assert isinstance(trusted.check_root_expiry(NOW), Accepted)


@pytest.mark.parametrize("version", UNREADABLE_ROOTS)
def test_roots_that_break_tufs_format_are_refused(version: int) -> None:
    with pytest.raises(MetadataRefused) as caught:
        begin((METADATA / f"{version}.root.json").read_bytes())
    assert caught.value.reason is Reason.INVALID_METADATA


def test_at_todays_time_the_frozen_repository_is_stale() -> None:
    trusted = begin((FOLDER / "initial_root.json").read_bytes())
    later = Instant(NOW + 365 * 24 * 3600 * 1000)
    assert isinstance(trusted.check_root_expiry(later), AcceptedButExpired)
    verdict = trusted.update_timestamp((METADATA / "timestamp.json").read_bytes(), now=later)
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.EXPIRED_METADATA
