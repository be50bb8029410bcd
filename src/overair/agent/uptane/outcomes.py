"""How a round of the Primary ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a round ended."""

    NOTHING_NEW = "nothing-new"
    INSTALLED = "installed"
    FAILED = "failed"
    """An update ended, and not well."""
    WAITING = "waiting"
    """For an ECU, or for the machine's restart."""
    REFUSED = "refused"
    """By the server, or by the device: what the server says isn't believed."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One round, for people."""

    kind: Kind
    message: str = ""

    @property
    def well(self) -> bool:
        """Nothing has to be tried again soon."""
        return self.kind in (Kind.NOTHING_NEW, Kind.INSTALLED, Kind.WAITING)
