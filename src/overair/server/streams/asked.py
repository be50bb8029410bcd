"""What devices ask of streams, remembered in memory: enough to tell one that asks in vain, or begins again and again.

A note is a few comparisons on the path of every block, and touches nothing else. It is lost with the process; whoever looks at
it looks for a device that is at it now.
"""

from __future__ import annotations

from typing import Final

from overair.basics.ids import AccountId, StreamId, ThingName
from overair.wire.stream_messages import GetStreamRequest

REMEMBERED_MAX: Final = 50_000
"""Downloads; beyond it the one that was begun first is forgotten."""


class Asked:
    """How one device goes about one file of a stream."""

    __slots__ = ("first", "repeats", "request", "rounds")

    def __init__(self, request: GetStreamRequest, first: int) -> None:
        self.request = request
        self.first = first
        """The lowest block of its last request."""
        self.repeats = 0
        """How often it has asked the very same again, without a break."""
        self.rounds = 1
        """How often it has begun with the first block, after it had been further on."""


class AskedBlocks:
    """Of all devices. Called on the event loop alone."""

    def __init__(self) -> None:
        self._seen: dict[tuple[AccountId, str, str, int], Asked] = {}

    def note(self, account: AccountId, thing: str, stream: str, request: GetStreamRequest, first: int) -> None:
        """A request was answered; ``first`` is its lowest block."""
        key = (account, thing, stream, request.file_id)
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= REMEMBERED_MAX:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = Asked(request, first)
        elif seen.request is request or seen.request == request:
            seen.repeats += 1
        else:
            if first == 0 and seen.first:
                seen.rounds += 1
            seen.request, seen.first, seen.repeats = request, first, 0

    def of(self, account: AccountId, thing: ThingName, stream: StreamId) -> tuple[Asked, ...]:
        """How a thing goes about a stream's files; a device asks for few."""
        found = (self._seen.get((account, thing, stream, file_id)) for file_id in range(256))
        return tuple(asked for asked in found if asked is not None)
