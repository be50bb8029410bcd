"""What is told on ``$aws/events/job/…`` and ``$aws/events/jobExecution/…`` (wire reference §2.11). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from overair.basics.clock import Instant, epoch_seconds
from overair.server.jobs.model import Execution, Job
from overair.wire.job_messages import ExecutionStatus


class JobEvent(StrEnum):
    COMPLETED = "completed"
    CANCELED = "canceled"
    CANCELLATION_IN_PROGRESS = "cancellation_in_progress"
    DELETED = "deleted"
    DELETION_IN_PROGRESS = "deletion_in_progress"


_ENDED: Final = {
    "numberOfCanceledThings": ExecutionStatus.CANCELED,
    "numberOfRejectedThings": ExecutionStatus.REJECTED,
    "numberOfFailedThings": ExecutionStatus.FAILED,
    "numberOfRemovedThings": ExecutionStatus.REMOVED,
    "numberOfSucceededThings": ExecutionStatus.SUCCEEDED,
    "numberOfTimedOutThings": ExecutionStatus.TIMED_OUT,
}
DELETED: Final = "deleted"


def job_event_topic(job: Job, event: JobEvent) -> str:
    return f"$aws/events/job/{job.id}/{event.value}"


def job_event(job: Job, event: JobEvent, targets: Sequence[str], *, event_id: str, now: Instant) -> bytes:
    """``timestamp`` counts seconds, the job's own times milliseconds, as AWS has it."""
    body: dict[str, Any] = {
        "eventType": "JOB",
        "eventId": event_id,
        "timestamp": epoch_seconds(now),
        "operation": event.value,
        "jobId": job.id,
        "status": event.value.upper(),
        "targetSelection": job.target_selection.value,
        "targets": list(targets),
        "createdAt": job.created_at,
        "lastUpdatedAt": job.last_updated_at,
        "jobProcessDetails": {name: job.counts.get(status, 0) for name, status in _ENDED.items()},
    }
    optional = {
        "description": job.settings.description or None,
        "comment": job.comment,
        "reasonCode": job.reason_code,
        "completedAt": job.completed_at,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    return msgspec.json.encode(body)


def execution_event_topic(execution: Execution, *, deleted: bool) -> str:
    return f"$aws/events/jobExecution/{execution.job}/{_operation(execution, deleted=deleted)}"


def execution_event(job: Job, execution: Execution, *, deleted: bool, event_id: str, now: Instant) -> bytes:
    operation = _operation(execution, deleted=deleted)
    body = {
        "eventType": "JOB_EXECUTION",
        "eventId": event_id,
        "timestamp": epoch_seconds(now),
        "operation": operation,
        "jobId": execution.job,
        "thingArn": job.place.iot("thing", execution.thing),
        "status": operation.upper(),
        "statusDetails": dict(execution.status_details),
    }
    return msgspec.json.encode(body)


def _operation(execution: Execution, *, deleted: bool) -> str:
    return DELETED if deleted else execution.status.value.lower()
