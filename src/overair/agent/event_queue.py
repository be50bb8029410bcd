"""What the agent has yet to react to: its own signals first, then timers that are due, then what came from outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from overair.agent.states import Event
from overair.agent.timers import Timer, Timers

TIMER_EVENTS: Final = {
    Timer.REQUEST: Event.REQUEST_TIMER,
    Timer.SELF_TEST: Event.SELF_TEST_TIMER,
    Timer.DEFERRAL: Event.DEFERRAL_TIMER,
}

Happening = tuple[Event | str, bytes | None]
"""An event, or a message on a topic whose meaning depends on the moment at which it is looked at."""


class EventQueue:
    """``put`` may be called from any thread, the rest from the agent's own."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.timers = Timers(monotonic)
        self.signals: deque[tuple[Event, bytes | None]] = deque()
        self._inbox: SimpleQueue[Happening] = SimpleQueue()

    def put(self, what: Event | str, payload: bytes | None = None) -> None:
        """From outside: an event, or a message by its topic."""
        self._inbox.put((what, payload))

    def take(self, *, wait: bool) -> Happening | None:
        """The next one; None where nothing is to be done now, or no longer after the wait."""
        if self.signals:
            return self.signals.popleft()
        timer = self.timers.take_due()
        if timer is not None:
            return TIMER_EVENTS[timer], None
        try:
            return self._inbox.get(block=wait, timeout=self.timers.seconds_left())
        except Empty:
            return None
