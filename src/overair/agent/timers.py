"""Deadlines of the agent, on a clock that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto


class Timer(Enum):
    """What is waited for."""

    REQUEST = auto()
    """An answer to the last request."""
    SELF_TEST = auto()
    """The server's word on the self-test of an image on trial."""
    DEFERRAL = auto()
    """A better moment for the update."""


class Timers:
    """At most one deadline for each kind."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._deadlines: dict[Timer, float] = {}

    def set(self, timer: Timer, seconds: float) -> None:
        """Start it, or start it over."""
        self._deadlines[timer] = self._monotonic() + seconds

    def clear(self, timer: Timer) -> None:
        """Stop it if it runs."""
        self._deadlines.pop(timer, None)

    def clear_all(self) -> None:
        """Stop whatever runs."""
        self._deadlines.clear()

    def take_due(self) -> Timer | None:
        """The one that ran out first, which thereby stops; None if none has."""
        if not self._deadlines:
            return None
        timer = min(self._deadlines, key=self._deadlines.__getitem__)
        if self._deadlines[timer] > self._monotonic():
            return None
        del self._deadlines[timer]
        return timer

    def seconds_left(self) -> float | None:
        """Until the next one runs out; None if none runs."""
        return max(0.0, min(self._deadlines.values()) - self._monotonic()) if self._deadlines else None
