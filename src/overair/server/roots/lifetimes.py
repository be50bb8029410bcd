"""How long signed documents count, and when they are signed anew. Pure; the one place for these numbers.

Uptane reference §4.3, and §8.7 for what a short timestamp is good for. A document that the server can't sign itself lasts as
long as its signer said; the alarms below count down to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.server.keyring.endings import DAY_MS, countdown
from overair.wire.uptane.metadata import Repository, Role

HOUR_MS: Final = 3600 * 1000


@dataclass(frozen=True, slots=True)
class Lifetime:
    """What the server gives to a document that it signs."""

    lasts_ms: int
    renewed_before_ms: int
    """It is signed anew when less than this is left."""


LIFETIMES: Final[Mapping[tuple[Repository, Role], Lifetime]] = {
    (Repository.IMAGE, Role.ROOT): Lifetime(365 * DAY_MS, 60 * DAY_MS),
    (Repository.IMAGE, Role.TARGETS): Lifetime(31 * DAY_MS, 10 * DAY_MS),
    (Repository.IMAGE, Role.SNAPSHOT): Lifetime(31 * DAY_MS, 10 * DAY_MS),
    (Repository.IMAGE, Role.TIMESTAMP): Lifetime(DAY_MS, 12 * HOUR_MS),
    (Repository.DIRECTOR, Role.ROOT): Lifetime(365 * DAY_MS, 60 * DAY_MS),
    # Signed for one device when it asks: short, so that a cancelled assignment ends by itself (Uptane reference §5.4).
    (Repository.DIRECTOR, Role.TARGETS): Lifetime(DAY_MS, 12 * HOUR_MS),
    (Repository.DIRECTOR, Role.SNAPSHOT): Lifetime(DAY_MS, 12 * HOUR_MS),
    (Repository.DIRECTOR, Role.TIMESTAMP): Lifetime(DAY_MS, 12 * HOUR_MS),
}
PUSHED_EXPIRY_MAX_MS: Final = 2 * 366 * DAY_MS
"""No document that an operator pushes may count for longer than two years."""
PUSHED_EXPIRY_SHORT_MS: Final = 30 * DAY_MS
"""A pushed root that ends sooner is accepted with a warning."""
CLOCK_STEP_BACK_MAX_MS: Final = 60 * 1000
"""A clock that is this much behind the last signature is taken for a small correction; more is refused."""


def alarm_days(expires: Instant, now: Instant, *, lifetime: Lifetime | None) -> int | None:
    """The countdown that a document has reached: 30, 14, 7, 3 or 1 days before its end, 0 once it has ended, None before.

    Args:
        lifetime: Of a document that the server signs itself: it alarms only when its renewal is overdue, at half of the time
            in which it should have happened. None: somebody else signs it.
    """
    return countdown(expires, now, renewed_before_ms=None if lifetime is None else lifetime.renewed_before_ms)
