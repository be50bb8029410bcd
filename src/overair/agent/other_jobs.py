"""Jobs that are no OTA updates: a handler of the application's does them, or they are rejected with the reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from overair.agent.reports import ExecutionId, Report
from overair.wire.job_message_parsing import check_status_details
from overair.wire.job_messages import ExecutionStatus

LOG = logging.getLogger("overair.agent")

NO_HANDLER: Final = "no OTA update, and this device has no handler for other jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherJob:
    """An execution whose document has no ``afr_ota``."""

    execution: ExecutionId
    document: Mapping[str, object]
    status: ExecutionStatus = ExecutionStatus.QUEUED
    """IN_PROGRESS: it was begun before, and its end wasn't told. A handler may be called more than once for one execution."""
    details: Mapping[str, str] = field(default_factory=dict)
    """What the execution's ``statusDetails`` say so far."""

    @property
    def job_id(self) -> str:
        return self.execution.job_id


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutcome:
    """What a handler says of a job."""

    status: ExecutionStatus
    details: Mapping[str, str]

    @classmethod
    def accepted(cls, **details: str) -> JobOutcome:
        """It is done: SUCCEEDED."""
        return cls(status=ExecutionStatus.SUCCEEDED, details=details)

    @classmethod
    def rejected(cls, reason: str, **details: str) -> JobOutcome:
        """It isn't for this device, and nothing was done: REJECTED, which is never retried."""
        return cls(status=ExecutionStatus.REJECTED, details={"reason": reason, **details})

    @classmethod
    def failed(cls, reason: str, **details: str) -> JobOutcome:
        """It was tried and didn't work: FAILED, which the job may retry."""
        return cls(status=ExecutionStatus.FAILED, details={"reason": reason, **details})


JobHandler = Callable[[OtherJob], JobOutcome]
"""Called on the agent's thread: updates wait until it returns."""


def report_of(job: OtherJob, handler: JobHandler | None) -> Report:
    """Have a job done; the report that ends its execution. Whatever a handler does, there is one."""
    if handler is None:
        outcome = JobOutcome.rejected(NO_HANDLER)
    else:
        try:
            outcome = handler(job)
        except Exception as error:
            LOG.exception("the handler of job %s failed", job.job_id)
            outcome = JobOutcome.failed(f"the handler failed: {type(error).__name__}")
    wrong = check_status_details(outcome.details)
    if wrong is not None:
        LOG.warning("the details of job %s can't be told: %s", job.job_id, wrong)
        return Report(status=outcome.status, details={"reason": "the handler's details break the rules of statusDetails"})
    return Report(status=outcome.status, details=outcome.details)


def started() -> Report:
    """A handler has begun."""
    return Report(status=ExecutionStatus.IN_PROGRESS, details={"step": "started"})
