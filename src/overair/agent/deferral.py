"""Not now: the device's own say over when an update may use its line and its time.

The application is asked twice: before anything is fetched, and, for firmware, before the restart into it. What it answers
stands in the execution's ``statusDetails``, so that an operator sees that the device is well and waits.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from overair.agent.reports import ExecutionId, Report
from overair.agent.update_job import UpdateJob
from overair.wire.job_messages import ExecutionStatus

LOG = logging.getLogger("overair.agent")

REASON_LENGTH_MAX: Final = 200
SECONDS_MIN: Final = 1.0
SECONDS_MAX: Final = 7 * 86_400.0
SECONDS_AFTER_A_FAULT: Final = 600.0


class Stage(Enum):
    """What is about to happen."""

    DOWNLOAD = "download"
    RESTART = "restart"
    """The image is received and verified; the device would restart into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the application is asked about."""

    stage: Stage
    job_id: str
    paths: tuple[str, ...]
    size_bytes: int
    """Of all files that have yet to come."""
    installs_firmware: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferral:
    """Not now."""

    reason: str
    """For the operator: ``driving``, ``battery at 12 %``."""
    seconds: float
    """When to ask again; a second at least, a week at most. ``Event.RESUME`` asks at once."""


Permission = Callable[[Offer], Deferral | None]
"""None: go on. Called on the agent's thread; must be quick."""


class Deferrals:
    """Asks the application, and says each answer once."""

    def __init__(self, permission: Permission | None) -> None:
        self._permission = permission
        self._told: tuple[ExecutionId, Stage, str] | None = None

    def ask(self, job: UpdateJob, stage: Stage) -> tuple[float, Report | None] | None:
        """None to go on; else (seconds until it is asked again, the report if there is something new to say)."""
        if self._permission is None:
            return None
        offer = Offer(
            stage=stage,
            job_id=job.job_id,
            paths=tuple(file.path for file in job.files),
            size_bytes=sum(file.size_bytes for file in job.files),
            installs_firmware=job.installs_firmware,
        )
        try:
            deferral = self._permission(offer)
        except Exception:
            LOG.exception("whether this is a good moment can't be told")
            deferral = Deferral(reason="the device's own check failed", seconds=SECONDS_AFTER_A_FAULT)
        if deferral is None:
            self._told = None
            return None
        seconds = min(max(deferral.seconds, SECONDS_MIN), SECONDS_MAX)
        told = (job.execution, stage, deferral.reason)
        if told == self._told:
            return seconds, None
        self._told = told
        return seconds, _report(deferral.reason, seconds, stage)


def _report(reason: str, seconds: float, stage: Stage) -> Report:
    plain = "".join(character for character in reason if unicodedata.category(character)[0] != "C")[:REASON_LENGTH_MAX]
    details = {"deferred": plain or "not now", "before": stage.value, "again_in_s": str(round(seconds))}
    return Report(status=ExecutionStatus.IN_PROGRESS, details=details)
