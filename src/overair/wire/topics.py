"""MQTT topic names and filters: validity, matching, and a trie of subscriptions.

Two modes. *Standard*: MQTT 3.1.1 section 4.7. *AWS*: the same, but ``a/#`` does not match its parent level ``a``
(wire reference §8.3).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

TEXT_SIZE_BYTES_MAX: Final = 65_535
"""Of any MQTT string (MQTT 3.1.1 section 1.5.3)."""

_DISALLOWED: Final = re.compile("[\u0000-\u001f\u007f-\u009f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def is_valid_text(text: str) -> bool:
    """Whether MQTT allows these characters: no U+0000 or surrogates (section 1.5.3), nor, as the standard permits a receiver
    to demand, control characters and non-characters. The size isn't looked at."""
    if text.isascii():
        return text.isprintable()
    return _DISALLOWED.search(text) is None


def is_valid_topic(topic: str) -> bool:
    """Whether this may be the topic of a PUBLISH: 1 to 65,535 bytes, no wildcard (sections 3.3.2.1 and 4.7)."""
    return (
        0 < len(topic) <= TEXT_SIZE_BYTES_MAX
        and "+" not in topic
        and "#" not in topic
        and is_valid_text(topic)
        and (topic.isascii() or len(topic.encode()) <= TEXT_SIZE_BYTES_MAX)
    )


def is_valid_filter(topic_filter: str) -> bool:
    """Whether this may be subscribed to: wildcards fill whole levels, ``#`` only the last (section 4.7.1)."""
    if not 0 < len(topic_filter) <= TEXT_SIZE_BYTES_MAX or not is_valid_text(topic_filter):
        return False
    if not topic_filter.isascii() and len(topic_filter.encode()) > TEXT_SIZE_BYTES_MAX:
        return False
    if "#" in topic_filter and topic_filter.find("#") != len(topic_filter) - 1:
        return False
    if "#" not in topic_filter and "+" not in topic_filter:
        return True
    return all(level in {"+", "#"} or ("+" not in level and "#" not in level) for level in topic_filter.split("/"))


def has_wildcard(topic_filter: str) -> bool:
    """Whether a valid filter can match more than one topic."""
    return "+" in topic_filter or topic_filter.endswith("#")


def matches(topic_filter: str, topic: str, *, parent_level: bool = True) -> bool:
    """Whether a valid filter matches a valid topic.

    ``parent_level``: ``a/#`` matches ``a`` (the standard); False is AWS mode. A filter that begins with a wildcard never
    matches a topic that begins with ``$`` (section 4.7.2).
    """
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return position < len(levels) or parent_level
        if position >= len(levels) or (level not in {"+", levels[position]}):
            return False
        if position == len(levels) - 1 and wanted[position + 1 :] == ["#"]:
            return parent_level
    return len(wanted) == len(levels)


class _Node(Generic[Key, Value]):
    __slots__ = ("children", "holders")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Key, Value]] = {}
        self.holders: dict[Key, Value] = {}


class SubscriptionTrie(Generic[Key, Value]):
    """Who subscribed to what. A match costs the topic's depth, not the number of subscriptions.

    The caller has checked that filters and topics are valid and bounded in levels.
    """

    def __init__(self, *, parent_level: bool = True) -> None:
        self._parent_level = parent_level
        self._root: _Node[Key, Value] = _Node()
        self._exact: dict[str, dict[Key, Value]] = {}

    def add(self, topic_filter: str, key: Key, value: Value) -> None:
        """Hold ``value`` for ``key`` under a filter, in place of what that key held there."""
        if not has_wildcard(topic_filter):
            self._exact.setdefault(topic_filter, {})[key] = value
            return
        node = self._root
        for level in topic_filter.split("/"):
            found = node.children.get(level)
            if found is None:
                found = node.children[level] = _Node()
            node = found
        node.holders[key] = value

    def remove(self, topic_filter: str, key: Key) -> None:
        """Forget what ``key`` holds under a filter, and every branch that has become empty. Nothing there: no effect."""
        if not has_wildcard(topic_filter):
            holders = self._exact.get(topic_filter)
            if holders is not None:
                holders.pop(key, None)
                if not holders:
                    del self._exact[topic_filter]
            return
        path: list[tuple[_Node[Key, Value], str]] = []
        node = self._root
        for level in topic_filter.split("/"):
            found = node.children.get(level)
            if found is None:
                return
            path.append((node, level))
            node = found
        node.holders.pop(key, None)
        for parent, level in reversed(path):
            child = parent.children[level]
            if child.holders or child.children:
                return
            del parent.children[level]

    def match(self, topic: str) -> Iterator[tuple[Key, Value]]:
        """Every (key, value) whose filter matches; a key with several matching filters appears several times."""
        exact = self._exact.get(topic)
        if exact is not None:
            yield from exact.items()
        if not self._root.children:
            return
        levels = topic.split("/")
        depth = len(levels)
        stack = [(self._root, 0)]
        while stack:
            node, position = stack.pop()
            wildcards_allowed = position > 0 or not topic.startswith("$")
            rest = node.children.get("#") if wildcards_allowed else None
            if position == depth:
                yield from node.holders.items()
                if rest is not None and self._parent_level:
                    yield from rest.holders.items()
                continue
            if rest is not None:
                yield from rest.holders.items()
            one = node.children.get(levels[position])
            # A topic has no level "+" or "#", so this can't take a wildcard branch for a literal one.
            if one is not None:
                stack.append((one, position + 1))
            if wildcards_allowed:
                plus = node.children.get("+")
                if plus is not None:
                    stack.append((plus, position + 1))

    def __bool__(self) -> bool:
        return bool(self._exact) or bool(self._root.children)
