"""Time as an argument.

Everything inside the server counts time as an ``Instant``: whole milliseconds since 1970-01-01T00:00:00Z. Wires that want
seconds (Jobs messages), fractional seconds (AWS JSON) or ISO 8601 (IAM, S3) convert at their own edge.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NewType, Protocol

Instant = NewType("Instant", int)
"""Milliseconds since the Unix epoch."""


class Clock(Protocol):
    """Where a part of the program learns what time it is."""

    def now(self) -> Instant:
        """The present wall-clock time."""
        ...


class WallClock:
    """The machine's own clock."""

    def now(self) -> Instant:
        return Instant(time.time_ns() // 1_000_000)


class SettableClock:
    """A clock for tests and simulation: it stands still until it is moved."""

    def __init__(self, start: Instant) -> None:
        self._now = start

    def now(self) -> Instant:
        return self._now

    def advance(self, *, milliseconds: int) -> None:
        """Move forward; a negative step is a programming error."""
        if milliseconds < 0:
            raise ValueError("A clock only moves forward.")
        self._now = Instant(self._now + milliseconds)

    def set(self, to: Instant) -> None:
        """Jump to an instant, in either direction: this is what a wrong clock in the field does."""
        self._now = to


def epoch_seconds(instant: Instant) -> int:
    """Whole seconds, rounded down: the form of every Jobs message (wire reference §2.2)."""
    return instant // 1000


def as_datetime(instant: Instant) -> datetime:
    """The same moment as an aware UTC datetime."""
    return datetime.fromtimestamp(instant / 1000, tz=UTC)


def from_datetime(moment: datetime) -> Instant:
    """An ``Instant`` from an aware datetime; a naive one is refused, since its zone would be a guess."""
    if moment.tzinfo is None:
        raise ValueError("A datetime without a zone names no instant.")
    return Instant(round(moment.timestamp() * 1000))
