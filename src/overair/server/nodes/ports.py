"""The bus: how the processes of one server hear of each other's commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from overair.basics.work import News

Hear = Callable[[str, News], None]
"""(the name of the node that tells it, what it tells), on the event loop, in one order for all nodes."""


class Bus(Protocol):
    """Tells every node what a commit of one of them changed, the teller too, so that all hear everything in one order.

    It keeps nothing. What must not be lost stands in the outbox and in the records, and ``missed`` says when to look there.
    """

    def announce(self, driver: Any, news: Sequence[News]) -> None:
        """Send news with the transaction that is open on the driver's connection: heard if it commits, and only then."""
        ...

    def listen(self, hear: Hear, missed: Callable[[], None]) -> None:
        """Begin to hear, on the running event loop.

        Args:
            missed: Called while nothing can be heard, several times a second, and once it can be again.
        """
        ...

    def close(self) -> None:
        """Hear nothing more. Blocks for a moment."""
        ...


class NobodyElse:
    """The bus of a server that is one process: whatever changes here is evicted here, by the unit that changed it."""

    def announce(self, driver: Any, news: Sequence[News]) -> None:
        """There is nobody to tell."""

    def listen(self, hear: Hear, missed: Callable[[], None]) -> None:
        """Nothing will be heard."""

    def close(self) -> None:
        """Nothing is open."""
