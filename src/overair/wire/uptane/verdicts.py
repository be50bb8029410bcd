"""What became of a document that somebody offered: values, never exceptions, so that no caller can forget to ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overair.basics.clock import Instant
from overair.wire.uptane.metadata import Body, Document
from overair.wire.uptane.refusals import MetadataRefused, Reason


@dataclass(frozen=True, slots=True)
class Accepted:
    """Believed, and in the set now."""

    document: Document
    body: Body
    changed: bool
    """Whether the bytes are others than those that were believed before: then they are to be stored."""


@dataclass(frozen=True, slots=True)
class AcceptedButExpired:
    """Believed as a floor under versions: it was believed when it was stored, but nothing may be built on it any more."""

    document: Document
    body: Body
    changed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """Not believed; whatever was believed before still is."""

    reason: Reason
    message: str
    field: str = ""
    """The path of the offending member, if any."""


Verdict = Accepted | AcceptedButExpired | Refused


def verdict_of(take: Callable[[], Accepted]) -> Verdict:
    """What came of it, a refusal as a value."""
    try:
        return take()
    except MetadataRefused as error:
        return refused(error)


def refusal_of(check: Callable[[], object]) -> Refused | None:
    """Why a check fails, if it does."""
    try:
        check()
    except MetadataRefused as error:
        return refused(error)
    return None


def refused(error: MetadataRefused) -> Refused:
    return Refused(error.reason, error.message, error.field)


def of_stored(verdict: Verdict, now: Instant) -> Verdict:
    """The verdict on a document that was believed before: age takes its use, not its version."""
    if isinstance(verdict, Accepted) and verdict.document.has_expired(now):
        return AcceptedButExpired(verdict.document, verdict.body, verdict.changed)
    return verdict
