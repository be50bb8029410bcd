"""Jobs between the members of AWS's model and our nouns (wire reference §3.2 to §3.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.operations import Members, Request
from overair.server.jobs.model import (
    PRESIGN_EXPIRES_S_DEFAULT,
    RUNNING,
    AbortCriterion,
    EndBehavior,
    Execution,
    ExponentialRate,
    FailureType,
    Job,
    JobPhase,
    JobSettings,
    JobTarget,
    MaintenanceWindow,
    PresignConfig,
    RetryCriterion,
    RolloutConfig,
    Schedule,
)
from overair.server.jobs.rollout import RETRIES_PER_THING_MAX
from overair.server.jobs.schedule import next_rollouts, read_time, write_time
from overair.wire.job_message_parsing import check_status_details
from overair.wire.job_messages import STEP_TIMEOUT_CANCEL, STEP_TIMEOUT_MINUTES_MAX, ExecutionStatus

INCREMENT_FACTOR_MIN: Final = 1.1
INCREMENT_FACTOR_MAX: Final = 5.0

_PROCESS_DETAILS: Final = {
    ExecutionStatus.CANCELED: "numberOfCanceledThings",
    ExecutionStatus.SUCCEEDED: "numberOfSucceededThings",
    ExecutionStatus.FAILED: "numberOfFailedThings",
    ExecutionStatus.REJECTED: "numberOfRejectedThings",
    ExecutionStatus.QUEUED: "numberOfQueuedThings",
    ExecutionStatus.IN_PROGRESS: "numberOfInProgressThings",
    ExecutionStatus.REMOVED: "numberOfRemovedThings",
    ExecutionStatus.TIMED_OUT: "numberOfTimedOutThings",
}


def changed_settings(current: JobSettings, request: Request) -> JobSettings:
    """The settings with those that a CreateJob or UpdateJob request names.

    Raises:
        InvalidRequest: a combination that the model alone can't refuse. Subject ``job``.
    """
    settings = current
    if "description" in request:
        settings = replace(settings, description=request["description"])
    if request.get("presignedUrlConfig"):
        settings = replace(settings, presign=_presign(request["presignedUrlConfig"], settings.presign))
    if request.get("jobExecutionsRolloutConfig"):
        settings = replace(settings, rollout=_rollout(request["jobExecutionsRolloutConfig"]))
    if request.get("abortConfig"):
        settings = replace(settings, abort=tuple(_abort(item) for item in request["abortConfig"]["criteriaList"]))
    if request.get("jobExecutionsRetryConfig"):
        criteria = request["jobExecutionsRetryConfig"]["criteriaList"]
        settings = replace(settings, retry=tuple(_retry(item) for item in criteria))
    if request.get("timeoutConfig"):
        minutes = request["timeoutConfig"].get("inProgressTimeoutInMinutes")
        settings = replace(settings, in_progress_timeout_minutes=minutes)
    _check_retries(settings)
    return settings


def schedule(config: Request | None, *, windows: tuple[MaintenanceWindow, ...] = ()) -> Schedule | None:
    """A schedulingConfig, with ``windows`` where it names none of its own.

    Raises:
        InvalidRequest: a time that can't be read, or an end behaviour without an end. Subject ``schedule``.
    """
    config = config or {}
    starts_at = None if config.get("startTime") is None else read_time(config["startTime"], name="startTime")
    ends_at = None if config.get("endTime") is None else read_time(config["endTime"], name="endTime")
    if config.get("endBehavior") and ends_at is None:
        raise InvalidRequest("endBehavior has no meaning without an endTime.", subject="schedule")
    own = maintenance_windows(config.get("maintenanceWindows")) or windows
    if starts_at is None and ends_at is None and not own:
        return None
    return Schedule(
        starts_at=starts_at,
        ends_at=ends_at,
        end_behavior=EndBehavior(config.get("endBehavior") or EndBehavior.STOP_ROLLOUT),
        windows=own,
    )


def maintenance_windows(windows: Sequence[Request] | None) -> tuple[MaintenanceWindow, ...]:
    return tuple(
        MaintenanceWindow(starts=window["startTime"], duration_minutes=window["durationInMinutes"]) for window in windows or ()
    )


def shown_windows(windows: Sequence[MaintenanceWindow]) -> list[Members] | None:
    return [{"startTime": window.starts, "durationInMinutes": window.duration_minutes} for window in windows] or None


def status_details(request: Request) -> dict[str, str] | None:
    """Raises InvalidRequest, subject ``status-details``."""
    details = request.get("statusDetails")
    if details is None:
        return None
    wrong = check_status_details(details)
    if wrong is not None:
        raise InvalidRequest(wrong, subject="status-details")
    return dict(details)


def step_timeout_minutes(request: Request, *, may_stop: bool = True) -> int | None:
    """``may_stop``: whether -1 has a meaning; a start has no timer to stop yet.

    Raises:
        InvalidRequest: subject ``step-timeout``.
    """
    minutes: int | None = request.get("stepTimeoutInMinutes")
    if minutes is None or 1 <= minutes <= STEP_TIMEOUT_MINUTES_MAX or (may_stop and minutes == STEP_TIMEOUT_CANCEL):
        return minutes
    stop = ", or -1 to stop the timer" if may_stop else ""
    raise InvalidRequest(f"stepTimeoutInMinutes must be 1 to {STEP_TIMEOUT_MINUTES_MAX}{stop}.", subject="step-timeout")


def shown_settings(settings: JobSettings) -> Members:
    """What a job and a template show alike."""
    return {
        "presignedUrlConfig": {}
        if settings.presign is None
        else {"roleArn": settings.presign.role_arn, "expiresInSec": settings.presign.expires_s},
        "jobExecutionsRolloutConfig": {} if settings.rollout is None else _shown_rollout(settings.rollout),
        "abortConfig": _shown_abort(settings.abort),
        "jobExecutionsRetryConfig": _shown_retry(settings.retry),
        "timeoutConfig": {"inProgressTimeoutInMinutes": settings.in_progress_timeout_minutes},
    }


def described_job(job: Job, targets: Sequence[JobTarget], *, now: Instant) -> Members:
    settings = job.settings
    unplanned = [target.arn for target in targets if not target.planned]
    rollouts = () if job.schedule is None or job.status not in RUNNING else next_rollouts(job.schedule, now=now)
    details: dict[str, Any] = {member: job.counts.get(status, 0) for status, member in _PROCESS_DETAILS.items()}
    # A metered rollout has read its members long before their turns come.
    being_rolled_out = [target.arn for target in targets] if job.phase is JobPhase.ROLLING_OUT else []
    details["processingTargets"] = unplanned or being_rolled_out or None
    return {
        "jobArn": job.arn,
        "jobId": job.id,
        "targetSelection": job.target_selection.value,
        "status": job.status.value,
        "forceCanceled": job.force_canceled or None,
        "reasonCode": job.reason_code,
        "comment": job.comment,
        "targets": [target.arn for target in targets],
        "description": settings.description or None,
        **shown_settings(settings),
        "schedulingConfig": None if job.schedule is None else _shown_schedule(job.schedule),
        "scheduledJobRollouts": [{"startTime": write_time(at)} for at in rollouts] or None,
        "jobTemplateArn": job.template_arn,
        "documentParameters": dict(job.document_parameters) or None,
        "namespaceId": job.namespace,
        "createdAt": job.created_at,
        "lastUpdatedAt": job.last_updated_at,
        "completedAt": job.completed_at,
        "jobProcessDetails": details,
        "isConcurrent": job.concurrent,
        "destinationPackageVersions": list(job.destination_package_versions) or None,
    }


def job_summary(job: Job, *, group_id: str | None = None) -> Members:
    """``group_id``: the group that was asked for."""
    return {
        "jobArn": job.arn,
        "jobId": job.id,
        "thingGroupId": group_id,
        "targetSelection": job.target_selection.value,
        "status": job.status.value,
        "createdAt": job.created_at,
        "lastUpdatedAt": job.last_updated_at,
        "completedAt": job.completed_at,
        "isConcurrent": job.concurrent,
    }


def execution_summary(execution: Execution) -> Members:
    return {
        "status": execution.status.value,
        "queuedAt": execution.queued_at,
        "startedAt": execution.started_at,
        "lastUpdatedAt": execution.last_updated_at,
        "executionNumber": execution.number,
        "retryAttempt": execution.retry_attempt or None,
    }


def described_execution(execution: Execution, thing_arn: str, *, now: Instant) -> Members:
    return {
        "jobId": execution.job,
        "status": execution.status.value,
        "forceCanceled": execution.force_canceled or None,
        "statusDetails": {"detailsMap": dict(execution.status_details)},
        "thingArn": thing_arn,
        "queuedAt": execution.queued_at,
        "startedAt": execution.started_at,
        "lastUpdatedAt": execution.last_updated_at,
        "executionNumber": execution.number,
        "versionNumber": execution.version,
        "approximateSecondsBeforeTimedOut": execution.seconds_before_timed_out(now),
    }


def _presign(config: Request, current: PresignConfig | None) -> PresignConfig:
    role_arn = config.get("roleArn") or (current.role_arn if current else None)
    if not role_arn:
        raise InvalidRequest("presignedUrlConfig needs the roleArn that the URLs are signed for.", subject="job")
    standing_s = current.expires_s if current else PRESIGN_EXPIRES_S_DEFAULT
    return PresignConfig(role_arn=role_arn, expires_s=config.get("expiresInSec", standing_s))


def _rollout(config: Request) -> RolloutConfig:
    exponential = None
    if config.get("exponentialRate"):
        rate = config["exponentialRate"]
        criteria = rate["rateIncreaseCriteria"]
        notified = criteria.get("numberOfNotifiedThings")
        succeeded = criteria.get("numberOfSucceededThings")
        if (notified is None) == (succeeded is None):
            raise InvalidRequest(
                "rateIncreaseCriteria names exactly one of numberOfNotifiedThings and numberOfSucceededThings.", subject="job"
            )
        factor = float(rate["incrementFactor"])
        if not INCREMENT_FACTOR_MIN <= factor <= INCREMENT_FACTOR_MAX or round(factor, 1) != factor:
            raise InvalidRequest("incrementFactor is 1.1 to 5, with one digit after the point.", subject="job")
        exponential = ExponentialRate(
            base_per_minute=rate["baseRatePerMinute"],
            factor=factor,
            notified_criterion=notified,
            succeeded_criterion=succeeded,
        )
    return RolloutConfig(maximum_per_minute=config.get("maximumPerMinute"), exponential=exponential)


def _abort(criterion: Request) -> AbortCriterion:
    percentage = float(criterion["thresholdPercentage"])
    if not 0 < percentage <= 100 or round(percentage, 2) != percentage:
        raise InvalidRequest("thresholdPercentage is above 0 and at most 100, with two digits after the point.", subject="job")
    return AbortCriterion(
        failure_type=FailureType(criterion["failureType"]),
        threshold_percentage=percentage,
        things_executed_min=criterion["minNumberOfExecutedThings"],
    )


def _retry(criterion: Request) -> RetryCriterion:
    return RetryCriterion(failure_type=FailureType(criterion["failureType"]), retries=criterion["numberOfRetries"])


def _check_retries(settings: JobSettings) -> None:
    if sum(criterion.retries for criterion in settings.retry) > RETRIES_PER_THING_MAX:
        raise InvalidRequest(f"At most {RETRIES_PER_THING_MAX} retries can be asked for in all.", subject="job")
    timed = any(criterion.failure_type is FailureType.TIMED_OUT for criterion in settings.retry)
    if timed and settings.in_progress_timeout_minutes is None:
        raise InvalidRequest("Retrying what TIMED_OUT needs a timeoutConfig.", subject="job")


def _shown_schedule(schedule: Schedule) -> Members:
    return {
        "startTime": None if schedule.starts_at is None else write_time(schedule.starts_at),
        "endTime": None if schedule.ends_at is None else write_time(schedule.ends_at),
        "endBehavior": None if schedule.ends_at is None else schedule.end_behavior.value,
        "maintenanceWindows": shown_windows(schedule.windows),
    }


def _shown_rollout(rollout: RolloutConfig) -> Members:
    shown: dict[str, Any] = {"maximumPerMinute": rollout.maximum_per_minute}
    if rollout.exponential is not None:
        rate = rollout.exponential
        shown["exponentialRate"] = {
            "baseRatePerMinute": rate.base_per_minute,
            "incrementFactor": rate.factor,
            "rateIncreaseCriteria": {
                "numberOfNotifiedThings": rate.notified_criterion,
                "numberOfSucceededThings": rate.succeeded_criterion,
            },
        }
    return shown


def _shown_abort(criteria: Sequence[AbortCriterion]) -> Members | None:
    if not criteria:
        return None
    return {
        "criteriaList": [
            {
                "failureType": criterion.failure_type.value,
                "action": "CANCEL",
                "thresholdPercentage": criterion.threshold_percentage,
                "minNumberOfExecutedThings": criterion.things_executed_min,
            }
            for criterion in criteria
        ]
    }


def _shown_retry(criteria: Sequence[RetryCriterion]) -> Members | None:
    if not criteria:
        return None
    return {
        "criteriaList": [
            {"failureType": criterion.failure_type.value, "numberOfRetries": criterion.retries} for criterion in criteria
        ]
    }
