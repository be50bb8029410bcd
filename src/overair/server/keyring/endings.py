"""What ends when: certificates, signed documents, revocation lists. Pure; the one place for the steps of the countdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import KeyId

DAY_MS: Final = 24 * 3600 * 1000
ALARM_DAYS: Final = (30, 14, 7, 3, 1)
NAME_LENGTH_MAX: Final = 255


class EndingKind(StrEnum):
    AUTHORITY = "authority"
    SERVER_CERTIFICATE = "server-certificate"
    DEVICE_CERTIFICATES = "device-certificates"
    SIGNER_CERTIFICATE = "signer-certificate"
    METADATA = "metadata"
    REVOCATION_LIST = "revocation-list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One thing that counts until a moment."""

    kind: EndingKind
    name: str
    """Unique in the account for ever: a purpose, an ARN, a role."""
    what: str
    """For people."""
    expires: Instant
    todo: str
    """What to do about it, as a sentence."""
    key_id: KeyId | None = None
    """The key of the keyring that stands behind it: it says who holds it."""
    holder: str = ""
    """Who holds its key, where that isn't in the keyring."""
    renewed_before_ms: int | None = None
    """Of what the server renews by itself: when, before the end. It alarms only once that is overdue."""
    is_summary: bool = False
    """Whether it stands for many, of which the first ends at ``expires``: that moves from one to the next all the time."""

    @property
    def renews_itself(self) -> bool:
        return self.renewed_before_ms is not None

    def step(self, now: Instant) -> int | None:
        """See ``countdown``."""
        return countdown(self.expires, now, renewed_before_ms=self.renewed_before_ms)

    def days_left(self, now: Instant) -> int:
        """Whole days; negative once it has ended."""
        return (self.expires - now) // DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The last step that was told of an ending."""

    name: str
    expires: Instant
    step: int


def countdown(expires: Instant, now: Instant, *, renewed_before_ms: int | None) -> int | None:
    """The countdown that something has reached: 30, 14, 7, 3 or 1 days before its end, 0 once it has ended, None before.

    Args:
        renewed_before_ms: Of what the server renews by itself: it alarms only when that is overdue, at half of the time in
            which it should have happened. None: somebody else renews it.
    """
    left_ms = expires - now
    if left_ms <= 0:
        return 0
    if renewed_before_ms is not None and left_ms > renewed_before_ms // 2:
        return None
    return next((days for days in reversed(ALARM_DAYS) if left_ms <= days * DAY_MS), None)


def is_news(ending: Ending, told: Told | None, now: Instant) -> bool:
    """Whether a step has been reached that nobody was told of."""
    step = ending.step(now)
    if step is None or told is None:
        return step is not None
    if not ending.is_summary and told.expires != ending.expires:
        return True
    return step < told.step


def forgets(ending: Ending, told: Told, now: Instant) -> bool:
    """Whether what was told counts no more: of a summary whose first one now ends later, the steps begin anew."""
    step = ending.step(now)
    return ending.is_summary and (step is None or step > told.step)


def soonest_first(endings: Sequence[Ending]) -> list[Ending]:
    return sorted(endings, key=lambda ending: (ending.expires, ending.name))
