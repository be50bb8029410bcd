"""How long to wait before trying again: exponential, with full jitter and a cap.

A fleet that lost its server together must not come back together. So each wait is drawn between nothing and a limit, and the
limit doubles with each failure up to a cap.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_DOUBLINGS_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Draws waits. Holds no count: whoever tries knows how often it has failed."""

    base_s: float
    cap_s: float
    chance: Random

    def limit_s(self, failures: int) -> float:
        """The longest wait after so many failures in a row; none after none."""
        if failures <= 0:
            return 0.0
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))

    def wait_s(self, failures: int) -> float:
        """A wait between nothing and the limit, each as likely as any other."""
        return self.chance.uniform(0.0, self.limit_s(failures))
