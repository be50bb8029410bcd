"""Shared subscriptions: ``$share/NAME/FILTER``. Each message goes to one of those who hold the same (MQTT 5 section 4.8.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "$share/"
NAME_SIZE_MAX: Final = 128
"""Of a group's name, in bytes."""


@dataclass(frozen=True, slots=True)
class SharedFilter:
    """A group, and what it subscribes to."""

    group: str
    topic_filter: str


def read_shared(text: str) -> SharedFilter | None:
    """The parts of a valid filter that begins with ``$share/``; None where it isn't a shared subscription after all."""
    group, slash, topic_filter = text.removeprefix(PREFIX).partition("/")
    is_group = 0 < len(group.encode()) <= NAME_SIZE_MAX and "+" not in group and "#" not in group
    return SharedFilter(group, topic_filter) if is_group and slash and topic_filter else None


def is_shared(text: str) -> bool:
    """Whether a filter is a shared subscription's."""
    return text.startswith(PREFIX)


def filter_in(text: str) -> str:
    """What a filter matches topics with: a shared subscription's own, or itself."""
    if not text.startswith(PREFIX):
        return text
    shared = read_shared(text)
    return text if shared is None else shared.topic_filter
