"""Answers of one connection in the order of its requests, although some wait for a commit and others don't.

MQTT wants acknowledgements in the order of the publishes (MQTT-4.6.0-2); replies follow their acknowledgement.
"""

from __future__ import annotations

from collections import deque

from overair.server.gateway.handlers import Replies


class Slot:
    """The place of one answer."""

    __slots__ = ("acknowledgement", "done", "qos", "replies")

    def __init__(self, acknowledgement: bytes, qos: int) -> None:
        self.acknowledgement = acknowledgement
        self.qos = qos
        self.replies: Replies = ()
        self.done = False


class AnswerQueue:
    """Slots in the order of the requests; what is done at the front goes out."""

    __slots__ = ("_slots",)

    def __init__(self) -> None:
        self._slots: deque[Slot] | None = None

    def __len__(self) -> int:
        return len(self._slots) if self._slots is not None else 0

    def reserve(self, acknowledgement: bytes, qos: int) -> Slot:
        """A place for an answer that will come."""
        if self._slots is None:
            self._slots = deque()
        slot = Slot(acknowledgement, qos)
        self._slots.append(slot)
        return slot

    def fill(self, slot: Slot, replies: Replies) -> list[Slot]:
        """The answer has come: it may go out now with all that waited behind it, or must wait itself (nothing returned)."""
        slot.replies = replies
        slot.done = True
        ready = []
        while self._slots and self._slots[0].done:
            ready.append(self._slots.popleft())
        if not self._slots:
            self._slots = None  # an idle connection keeps no empty queue
        return ready

    def clear(self) -> None:
        """Nobody is there to be answered."""
        self._slots = None
