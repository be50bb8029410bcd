"""How much of a flood is written down: whoever is refused in a loop mustn't fill the disk, nor keep others' rows out."""

from __future__ import annotations

from typing import Final

from overair.basics.clock import Instant

WINDOW_MS: Final = 60_000
PEER_ROWS_MAX: Final = 10
"""Rows of one peer in a window that tell each thing by itself, written down within the second."""
ROWS_MAX: Final = 1000
"""Such rows of all peers together. It is below ``observed.KEPT_MAX``: a flood leaves room for operators' rows."""


class RowBudget:
    """Counts rows by peer within a window; keeps no more than ``rows_max`` peers."""

    def __init__(self, *, peer_rows_max: int = PEER_ROWS_MAX, rows_max: int = ROWS_MAX, window_ms: int = WINDOW_MS) -> None:
        self._peer_rows_max = peer_rows_max
        self._rows_max = rows_max
        self._window_ms = window_ms
        self._by_peer: dict[str, int] = {}
        self._rows = 0
        self._ends: Instant | None = None

    def take(self, peer: str, now: Instant) -> bool:
        """Whether this peer has a row left. A window begins with the first row that is asked for."""
        if self._ends is None:
            self._ends = Instant(now + self._window_ms)
        taken = self._by_peer.get(peer, 0)
        if taken >= self._peer_rows_max or self._rows >= self._rows_max:
            return False
        self._by_peer[peer] = taken + 1
        self._rows += 1
        return True

    def is_over(self, now: Instant) -> bool:
        """Whether the window has ended."""
        return self._ends is not None and not self._ends - self._window_ms <= now < self._ends

    def renew(self) -> None:
        """Begin anew."""
        self._by_peer.clear()
        self._rows, self._ends = 0, None
