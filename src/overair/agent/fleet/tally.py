"""What a virtual fleet has done, counted while it happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Of all devices together."""

    connects: int = 0
    reconnects: int = 0
    blocks: int = 0
    """Verified to be of their place; a repeat isn't counted."""
    bytes: int = 0
    requests: int = 0
    """For blocks or ranges."""
    repeated_requests: int = 0
    """Asked again, since not everything had come in time."""
    succeeded: int = 0
    """Jobs; counted when the server has acknowledged it."""
    failures: Counter[str] = field(default_factory=Counter)
    """By cause, in words."""

    refusals: Counter[str] = field(default_factory=Counter)
    """Connections that didn't come about, by reason."""

    @property
    def ended(self) -> int:
        """Jobs that came to an end, whichever."""
        return self.succeeded + self.failures.total()
