"""What devices ask of streams, remembered in memory: enough to tell one that asks in vain, or begins again and again.

A note is a few comparisons on the path of every block, and touches nothing else. It is lost with the process; whoever looks at
it looks for a device that is at it now. Where a server is several processes, those that serve no blocks are told of odd
downloads alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from overair.basics.ids import AccountId, StreamId, ThingName
from overair.basics.work import News
from overair.wire.stream_messages import GetStreamRequest

REMEMBERED_MAX: Final = 50_000
"""Downloads; beyond it the one that was begun first is forgotten."""
ROUNDS_MAX: Final = 3
"""A download that begins more often is a loop."""
REPEATS_TOLD: Final = 3
"""A request that is lost now and then is normal."""

Key = tuple[AccountId, str, str, int]


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


@dataclass(frozen=True, slots=True)
class AskedElsewhere:
    """The same of a device that another process serves, when that process last found it odd."""

    first: int
    repeats: int
    rounds: int


class AskedBlocks:
    """Of all devices. Called on the event loop alone."""

    def __init__(self) -> None:
        self._seen: dict[Key, Asked] = {}
        self._odd: dict[Key, None] = {}
        self._elsewhere: dict[Key, AskedElsewhere] = {}

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
            if seen.repeats >= REPEATS_TOLD:
                self._odd[key] = None
        else:
            if first == 0 and seen.first:
                seen.rounds += 1
                if seen.rounds > ROUNDS_MAX:
                    self._odd[key] = None
            if seen.repeats >= REPEATS_TOLD:
                # It has gone on.
                self._odd[key] = None
            seen.request, seen.first, seen.repeats = request, first, 0

    def of(self, account: AccountId, thing: ThingName, stream: StreamId) -> tuple[Asked | AskedElsewhere, ...]:
        """How a thing goes about a stream's files; a device asks for few."""
        keys = [(account, thing, stream, file_id) for file_id in range(256)]
        found = (self._seen.get(key) or self._elsewhere.get(key) for key in keys)
        return tuple(asked for asked in found if asked is not None)

    def take_odd(self, limit: int) -> Sequence[News]:
        """What there is to tell of downloads that are odd, or were until a moment ago; each is told once for what it did."""
        told: list[News] = []
        for key in list(self._odd)[:limit]:
            del self._odd[key]
            seen = self._seen.get(key)
            if seen is not None:
                account, thing, stream, file_id = key
                course = (str(seen.first), str(seen.repeats), str(seen.rounds))
                told.append(News("asked-blocks", (account, thing, stream, str(file_id), *course)))
        return told

    def heard(self, parts: Sequence[str]) -> None:
        """Another process tells of one. What was missed is told again if it goes on."""
        if not parts:
            return
        account, thing, stream, file_id, *course = parts
        key = (AccountId(account), thing, stream, int(file_id))
        self._elsewhere.pop(key, None)
        if len(self._elsewhere) >= REMEMBERED_MAX:
            del self._elsewhere[next(iter(self._elsewhere))]
        first, repeats, rounds = map(int, course)
        self._elsewhere[key] = AskedElsewhere(first, repeats, rounds)
