"""How fast a job spreads, and when it stops itself: ``--rate`` and ``--abort-on-failures``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from overair.cli.ends import CommandEnded, ExitCode

_PER_MINUTE: Final = re.compile(r"([1-9][0-9]{0,3})/min")
_PERCENT: Final = re.compile(r"([1-9][0-9]?|100)%(?:/([1-9][0-9]{0,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a job spreads, and when it stops itself."""

    per_minute: int | None = None
    abort_percent: int | None = None
    abort_after: int = 1
    """How many devices must have ended before the share of failures counts."""

    @property
    def rollout(self) -> dict[str, Any] | None:
        return None if self.per_minute is None else {"maximumPerMinute": self.per_minute}

    @property
    def abort(self) -> list[dict[str, Any]] | None:
        if self.abort_percent is None:
            return None
        criteria = {
            "action": "CANCEL",
            "thresholdPercentage": self.abort_percent,
            "minNumberOfExecutedThings": self.abort_after,
        }
        return [{"failureType": "ALL", **criteria}]


def read_pace(rate: str | None, abort_on_failures: str | None) -> Pace:
    """``N/min`` and ``P%`` or ``P%/N``.

    Raises:
        CommandEnded: USAGE.
    """
    per_minute = _PER_MINUTE.fullmatch(rate) if rate is not None else None
    if rate is not None and (per_minute is None or int(per_minute[1]) > 1000):
        raise CommandEnded(ExitCode.USAGE, f"--rate {rate} isn't understood: say N/min, from 1/min to 1000/min.")
    percent = _PERCENT.fullmatch(abort_on_failures) if abort_on_failures is not None else None
    if abort_on_failures is not None and percent is None:
        raise CommandEnded(
            ExitCode.USAGE,
            f"--abort-on-failures {abort_on_failures} isn't understood: say P%, or P%/N to wait for N devices to end first.",
        )
    return Pace(
        per_minute=int(per_minute[1]) if per_minute else None,
        abort_percent=int(percent[1]) if percent else None,
        abort_after=int(percent[2] or 1) if percent else 1,
    )
