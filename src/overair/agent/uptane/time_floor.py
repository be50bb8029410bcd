"""What time it is at least: a clock that was set back must not make expired metadata good again.

The rule. Metadata is judged at ``max(the device's clock, the floor)``. The floor is the newest of

- when this program was built;
- when the device's certificate was issued: its issuer's word;
- the ``Date`` of an answer from the gateway over TLS pinned to the provisioned CA, while that lies before the expiry of the
  trusted Director root. It counts at once, and is kept over restarts only once Director targets were accepted at that
  time: what the Director signed lives about a day, so a gateway alone can't push a device far into the future.

While the program runs the floor moves on with the monotonic clock, so a device without a clock ages too. The device's own clock
never raises the floor: one wrong moment of it would else be for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from overair.basics.clock import Clock, Instant, from_datetime

BUILT_AT: Final = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))


class SecureTime:
    """The device's clock, held above the floor."""

    def __init__(self, clock: Clock, *, floor: Instant = BUILT_AT, monotonic: Callable[[], float]) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._floor = max(floor, BUILT_AT)
        self._heard = self._floor
        self._since = monotonic()

    def now(self) -> Instant:
        """Never earlier than the newest fact, nor than an earlier answer of this method's would have aged to."""
        return max(self._clock.now(), self._aged())

    @property
    def floor(self) -> Instant:
        """What is to be kept over restarts."""
        return self._floor

    def learn(self, moment: Instant) -> None:
        """A fact that counts for good: the issue of a certificate."""
        self._floor = max(self._floor, moment)
        self._hear(moment)

    def hear(self, moment: Instant | None, *, not_after: Instant | None) -> None:
        """What the gateway says the time is; past ``not_after`` (the Director root's expiry) it isn't believed."""
        if moment is not None and (not_after is None or moment < not_after):
            self._hear(moment)

    def confirm(self, *, until: Instant) -> bool:
        """Director targets that expire at ``until`` were accepted now: what was heard counts for good. True: the floor rose."""
        heard = min(self._aged(), until)
        if heard <= self._floor:
            return False
        self._floor = heard
        return True

    def forget_heard(self) -> None:
        """What was heard since the last confirmation led nowhere: the gateway and the Director disagree."""
        self._heard, self._since = self._floor, self._monotonic()

    def _aged(self) -> Instant:
        return Instant(self._heard + int((self._monotonic() - self._since) * 1000))

    def _hear(self, moment: Instant) -> None:
        if moment > self._aged():
            self._heard, self._since = moment, self._monotonic()
