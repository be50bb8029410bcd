"""The port between a Primary and its Secondaries, in one process or in several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from overair.agent.uptane.settings import Verification
from overair.basics.clock import Instant
from overair.wire.uptane.keys import PublicKey
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.reports import InstallationResult

Bundle = Mapping[Repository, Mapping[str, bytes]]
"""Documents by the names under which a server has them: ``2.root.json``, ``targets.json``, ``delegations/NAME.json``."""


class SecondaryAway(Exception):
    """The Secondary can't be reached, or doesn't speak as it should."""


class SecondaryRefuses(Exception):
    """The Secondary's own verification says no."""

    def __init__(self, reason: Reason | None, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondaryIdentity:
    """Who a Secondary is, and where it stands."""

    serial: str
    hardware_id: str
    key: PublicKey
    verification: Verification
    roots: Mapping[Repository, int]
    """Versions of the roots that it trusts; 0 before the first."""


class SecondaryPort(Protocol):
    """What a Primary asks of a Secondary. Every method may raise ``SecondaryAway``."""

    def describe(self) -> SecondaryIdentity:
        """Who it is."""
        ...

    def report(self) -> bytes:
        """Its version report, signed by itself: ``{"signatures", "signed"}`` in JSON."""
        ...

    def put_metadata(self, bundle: Bundle, now: Instant) -> None:
        """Everything that it needs to verify for itself. ``now``: the Primary's time, for a Secondary whose clock is behind.

        Raises:
            SecondaryRefuses
        """
        ...

    def begin_image(self, name: str, length: int) -> int:
        """An image of this name comes, which the metadata speak of; from which byte on it is needed.

        Raises:
            SecondaryRefuses
        """
        ...

    def write_image(self, offset: int, data: bytes) -> None:
        """The next piece.

        Raises:
            SecondaryRefuses
        """
        ...

    def install(self) -> InstallationResult:
        """The image is there: verify it, install it."""
        ...
