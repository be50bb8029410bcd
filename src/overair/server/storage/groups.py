"""What has queued up while the last group was served: the next group."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


def groups(waiting: queue.SimpleQueue[T | None], *, size_max: int) -> Iterator[list[T]]:
    """Whoever waits, in order, at most ``size_max`` together; never empty, and nobody is kept waiting for company.

    Blocks while nobody waits. A None in the queue ends it, after the group that was taken before.
    """
    while (first := waiting.get()) is not None:
        group = [first]
        while len(group) < size_max:
            try:
                following = waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                yield group
                return
            group.append(following)
        yield group
