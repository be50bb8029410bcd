"""Trusted sets for tests: begun with a test repository's first root, brought up to what it serves now."""

from __future__ import annotations

from typing import Final

from overair.basics.clock import Instant
from overair.wire.uptane.canonical import CanonicalForm
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.trust import Accepted, Chain, Refused, TrustedSet, Verdict
from tests.support.uptane_repository import UptaneRepository

NOW: Final = Instant(1_800_000_000_000)
"""What the clock of a test repository says."""


def begin(repository: UptaneRepository, *, chain: Chain = Chain.WHOLE, form: CanonicalForm | None = None) -> TrustedSet:
    """Nothing but the first root is believed."""
    return TrustedSet.begin(
        repository.files["1.root.json"], repository=repository.kind, flavour=repository.flavour, chain=chain, form=form
    )


def update(trusted: TrustedSet, repository: UptaneRepository, *, now: Instant = NOW) -> Verdict:
    """One refresh as a client does it: roots, timestamp, snapshot, targets, until something is refused. The last verdict."""
    while (data := repository.document(f"{trusted.root.version + 1}.root.json")) is not None:
        verdict = trusted.update_root(data)
        if isinstance(verdict, Refused):
            return verdict
    for take, name in (
        (trusted.update_timestamp, "timestamp.json"),
        (trusted.update_snapshot, "snapshot.json"),
        (trusted.update_targets, "targets.json"),
    ):
        verdict = take(repository.files[name], now=now)
        if isinstance(verdict, Refused):
            return verdict
    return verdict


def believing(repository: UptaneRepository, *, chain: Chain = Chain.WHOLE) -> TrustedSet:
    """Everything that is served now is believed."""
    trusted = begin(repository, chain=chain)
    verdict = (
        update(trusted, repository)
        if chain is Chain.WHOLE
        else trusted.update_targets(repository.files["targets.json"], now=NOW)
    )
    assert isinstance(verdict, Accepted), verdict
    return trusted


def reason_of(verdict: object) -> Reason | None:
    """Why it was refused; None when it wasn't."""
    return verdict.reason if isinstance(verdict, Refused) else None


def director(**changes: object) -> UptaneRepository:
    """A Director."""
    return UptaneRepository(Repository.DIRECTOR, **changes)  # type: ignore[arg-type]
