"""Executions in the words of the device plane: whole seconds, absent members left out."""

from __future__ import annotations

from collections.abc import Iterable

from overair.basics.clock import Instant, epoch_seconds
from overair.server.jobs.model import PENDING_LISTED_MAX, STARTED, Execution
from overair.wire.job_messages import ExecutionState, ExecutionSummary, ExecutionView


def summary(execution: Execution) -> ExecutionSummary:
    return ExecutionSummary(
        job_id=execution.job,
        queued_at_s=epoch_seconds(execution.queued_at),
        started_at_s=None if execution.started_at is None else epoch_seconds(execution.started_at),
        last_updated_at_s=epoch_seconds(execution.last_updated_at),
        execution_number=execution.number,
        version_number=execution.version,
    )


def summaries(
    queue: Iterable[Execution],
) -> tuple[tuple[ExecutionSummary, ...], tuple[ExecutionSummary, ...]]:
    """(in progress, queued): the first ``PENDING_LISTED_MAX`` of a queue that is in its order."""
    in_progress: list[ExecutionSummary] = []
    queued: list[ExecutionSummary] = []
    for position, execution in enumerate(queue):
        if position == PENDING_LISTED_MAX:
            break
        (in_progress if execution.status in STARTED else queued).append(summary(execution))
    return tuple(in_progress), tuple(queued)


def view(execution: Execution, *, now: Instant, document: str | None = None, with_thing_name: bool = False) -> ExecutionView:
    """``with_thing_name`` only where the device named the job: old agents count every token of a ``$next`` reply."""
    return ExecutionView(
        job_id=execution.job,
        thing_name=execution.thing if with_thing_name else None,
        status=execution.status,
        status_details=execution.status_details,
        queued_at_s=epoch_seconds(execution.queued_at),
        started_at_s=None if execution.started_at is None else epoch_seconds(execution.started_at),
        last_updated_at_s=epoch_seconds(execution.last_updated_at),
        execution_number=execution.number,
        version_number=execution.version,
        approximate_seconds_before_timed_out=execution.seconds_before_timed_out(now),
        job_document=document,
    )


def state(execution: Execution) -> ExecutionState:
    return ExecutionState(status=execution.status, version_number=execution.version, status_details=execution.status_details)
