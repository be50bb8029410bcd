"""Shared subscriptions: of those who hold the same ``$share/GROUP/FILTER`` one gets each message, in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from overair.server.broker.sessions import SessionRecord
from overair.wire.shared_subscriptions import read_shared
from overair.wire.topics import SubscriptionTrie

MEMBERS_ASKED_MAX: Final = 64
"""Of one group for one message: a group of many that may not hear it costs no more than that."""


class Group:
    """Who holds one shared subscription, with the QoS and options of each."""

    __slots__ = ("members", "name", "turn")

    def __init__(self, name: str) -> None:
        self.name = name
        """The whole filter, as it was subscribed to."""
        self.members: dict[SessionRecord, int] = {}
        self.turn = 0

    def next_of(self, may_hear: Callable[[SessionRecord, str], bool], *, is_kept: bool) -> tuple[SessionRecord, int] | None:
        """Whose turn it is among those who are connected and may hear the message; else, for one that ``is_kept``, among those
        who will come back. None: nobody."""
        members = list(self.members.items())
        size = len(members)
        away = None
        for step in range(min(size, MEMBERS_ASKED_MAX)):
            position = (self.turn + step) % size
            record, octet = members[position]
            link = record.link
            if link is None or not record.ready:
                if away is None and record.persistent and octet & 3:
                    away = (record, octet)
            elif not link.is_slow and may_hear(record, self.name):
                self.turn = position + 1
                return record, octet
        return away if is_kept else None


class SharedSubscriptions:
    """One account's groups."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._trie: SubscriptionTrie[Group, None] = SubscriptionTrie(parent_level=False)

    def add(self, name: str, record: SessionRecord, octet: int) -> None:
        """Join a group; its filter was found to be one."""
        group = self._groups.get(name)
        if group is None:
            shared = read_shared(name)
            assert shared is not None
            group = self._groups[name] = Group(name)
            self._trie.add(shared.topic_filter, group, None)
        group.members[record] = octet

    def remove(self, name: str, record: SessionRecord) -> None:
        """Leave a group; nothing there: no effect."""
        group = self._groups.get(name)
        if group is None or group.members.pop(record, None) is None or group.members:
            return
        del self._groups[name]
        shared = read_shared(name)
        assert shared is not None
        self._trie.remove(shared.topic_filter, group)

    def match(self, topic: str) -> Iterator[Group]:
        """Every group that hears a topic."""
        return (group for group, _ in self._trie.match(topic))

    def __bool__(self) -> bool:
        return bool(self._groups)
