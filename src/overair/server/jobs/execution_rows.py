"""How an execution stands in its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, JobId, ThingName
from overair.server.jobs.model import Execution
from overair.server.jobs.tables import job_executions
from overair.wire.job_messages import ExecutionStatus


def key_of(account: AccountId, thing: ThingName, job: JobId) -> tuple[ColumnElement[bool], ...]:
    return (job_executions.c.account == account, job_executions.c.thing == thing, job_executions.c.job == job)


def details_text(details: Mapping[str, str]) -> str:
    return msgspec.json.encode(details).decode()


def changeable_values(execution: Execution) -> dict[str, Any]:
    return {
        "latest": execution.latest,
        "status": execution.status.value,
        "status_details": details_text(execution.status_details),
        "version": execution.version,
        "force_canceled": execution.force_canceled,
        "started_at": execution.started_at,
        "last_updated_at": execution.last_updated_at,
        "in_progress_due_at": execution.in_progress_due_at,
        "step_due_at": execution.step_due_at,
        # Only what is pending can become due: the index names nothing else.
        "due_at": execution.due_at if execution.is_pending else None,
        "fulfilment": execution.fulfilment,
        "outlived": execution.outlived,
    }


def _instant(value: int | None) -> Instant | None:
    return None if value is None else Instant(value)


def shown_execution(
    thing: ThingName,
    job: JobId,
    number: int,
    status: str,
    queued_at: Instant,
    started_at: Instant | None,
    last_updated_at: Instant,
    version: int,
    job_sequence: int,
) -> Execution:
    return Execution(
        job=job,
        thing=thing,
        number=number,
        status=ExecutionStatus(status),
        queued_at=queued_at,
        started_at=started_at,
        last_updated_at=last_updated_at,
        version=version,
        job_sequence=job_sequence,
    )


def execution_of(row: Mapping[Any, Any]) -> Execution:
    return Execution(
        job=JobId(row["job"]),
        thing=ThingName(row["thing"]),
        number=row["number"],
        status=ExecutionStatus(row["status"]),
        queued_at=Instant(row["queued_at"]),
        last_updated_at=Instant(row["last_updated_at"]),
        version=row["version"],
        job_sequence=row["job_sequence"],
        status_details=msgspec.json.decode(row["status_details"], type=dict[str, str]),
        started_at=_instant(row["started_at"]),
        retry_attempt=row["retry_attempt"],
        latest=row["latest"],
        force_canceled=row["force_canceled"],
        in_progress_due_at=_instant(row["in_progress_due_at"]),
        step_due_at=_instant(row["step_due_at"]),
        fulfilment=row["fulfilment"],
        outlived=row["outlived"],
        namespace=row["namespace"],
    )
