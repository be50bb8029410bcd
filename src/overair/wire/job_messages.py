"""AWS IoT Jobs on the device plane: topics, requests, replies, rejections, notifications (wire reference §2).

Here the messages and how they are written; ``job_message_parsing`` reads them, on either side. Every time is in whole seconds
since the epoch; what is absent stays out of the JSON. A job document is passed as its JSON text and stands in messages as
an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

PAYLOAD_SIZE_BYTES_MAX: Final = 128 * 1024
"""Of any message either way (wire reference §11, broker payload)."""
DEPTH_MAX: Final = 40
"""A document may nest 32 deep; a reply wraps it in three levels."""
CLIENT_TOKEN_SIZE_BYTES_MAX: Final = 64
STATUS_DETAILS_PAIRS_MAX: Final = 10
STATUS_DETAILS_VALUE_LENGTH_MAX: Final = 1024
STEP_TIMEOUT_MINUTES_MAX: Final = 7 * 24 * 60
STEP_TIMEOUT_CANCEL: Final = -1
LONG_MAX: Final = 2**63 - 1
NEXT: Final = "$next"
"""Stands for a job id in describe topics: the execution that is first in the queue."""
NAMESPACE_PREFIX: Final = "namespace-"
"""Begins the level of a topic that names a namespace of jobs, after the job and before the operation."""


class ExecutionStatus(StrEnum):
    """The state of one thing doing one job (wire reference §2.8)."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    REMOVED = "REMOVED"
    CANCELED = "CANCELED"


DEVICE_STATUSES: Final = frozenset(
    {ExecutionStatus.IN_PROGRESS, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.REJECTED}
)
"""What a device may ask for."""


class RejectionCode(StrEnum):
    """Codes of rejected messages (wire reference §2.7)."""

    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_STATE_TRANSITION = "InvalidStateTransition"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    VERSION_MISMATCH = "VersionMismatch"
    INTERNAL_ERROR = "InternalError"
    REQUEST_THROTTLED = "RequestThrottled"
    TERMINAL_STATE_REACHED = "TerminalStateReached"


class MalformedMessage(ValueError):
    """A payload that can't be understood. ``client_token`` is there if that much could be read."""

    def __init__(self, code: RejectionCode, message: str, *, client_token: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.client_token = client_token


# ── topics ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pending_topic(thing: str) -> str:
    return f"$aws/things/{thing}/jobs/get"


def start_next_topic(thing: str) -> str:
    return f"$aws/things/{thing}/jobs/start-next"


def describe_topic(thing: str, job: str = NEXT, *, namespace: str | None = None) -> str:
    return f"$aws/things/{thing}/jobs/{job}{_level(namespace)}/get"


def update_topic(thing: str, job: str, *, namespace: str | None = None) -> str:
    return f"$aws/things/{thing}/jobs/{job}{_level(namespace)}/update"


def notify_topic(thing: str, *, namespace: str | None = None) -> str:
    return f"$aws/things/{thing}/jobs/notify{_ending(namespace)}"


def notify_next_topic(thing: str, *, namespace: str | None = None) -> str:
    return f"$aws/things/{thing}/jobs/notify-next{_ending(namespace)}"


def _level(namespace: str | None) -> str:
    return "" if namespace is None else f"/{NAMESPACE_PREFIX}{namespace}"


def _ending(namespace: str | None) -> str:
    return "" if namespace is None else f"-{NAMESPACE_PREFIX}{namespace}"


def accepted(request_topic: str) -> str:
    return request_topic + "/accepted"


def rejected(request_topic: str) -> str:
    return request_topic + "/rejected"


# ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """GetPendingJobExecutions (§2.3)."""

    client_token: str | None = None

    def to_json(self) -> bytes:
        return _encode({"clientToken": self.client_token})


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeRequest:
    """DescribeJobExecution (§2.4). ``execution_number`` None: the latest."""

    client_token: str | None = None
    execution_number: int | None = None
    include_job_document: bool = True

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "executionNumber": self.execution_number,
                "includeJobDocument": None if self.include_job_document else False,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNextRequest:
    """StartNextPendingJobExecution (§2.5)."""

    client_token: str | None = None
    status_details: Mapping[str, str] | None = None
    step_timeout_minutes: int | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "statusDetails": self.status_details,
                "stepTimeoutInMinutes": self.step_timeout_minutes,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRequest:
    """UpdateJobExecution (§2.6). ``status_details`` None leaves the stored ones alone, a map replaces them as a whole."""

    status: ExecutionStatus
    client_token: str | None = None
    status_details: Mapping[str, str] | None = None
    expected_version: int | None = None
    execution_number: int | None = None
    include_job_execution_state: bool = False
    include_job_document: bool = False
    step_timeout_minutes: int | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "status": self.status.value,
                "statusDetails": self.status_details,
                "expectedVersion": self.expected_version,
                "executionNumber": self.execution_number,
                "includeJobExecutionState": self.include_job_execution_state or None,
                "includeJobDocument": self.include_job_document or None,
                "stepTimeoutInMinutes": self.step_timeout_minutes,
            }
        )


# ── replies and notifications ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSummary:
    """One entry of a list of pending executions."""

    job_id: str
    queued_at_s: int
    last_updated_at_s: int
    execution_number: int
    version_number: int
    started_at_s: int | None = None

    def members(self) -> dict[str, object]:
        shown: dict[str, object] = {"jobId": self.job_id, "queuedAt": self.queued_at_s}
        if self.started_at_s is not None:
            shown["startedAt"] = self.started_at_s
        shown["lastUpdatedAt"] = self.last_updated_at_s
        shown["executionNumber"] = self.execution_number
        shown["versionNumber"] = self.version_number
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """A whole execution as a device sees it. ``job_document`` is JSON text of an object; ``status_details`` may be empty."""

    job_id: str
    status: ExecutionStatus
    queued_at_s: int
    last_updated_at_s: int
    execution_number: int
    version_number: int
    thing_name: str | None = None
    status_details: Mapping[str, str] | None = None
    started_at_s: int | None = None
    approximate_seconds_before_timed_out: int | None = None
    job_document: str | None = None

    def members(self) -> dict[str, object]:
        shown: dict[str, object] = {"jobId": self.job_id}
        if self.thing_name is not None:
            shown["thingName"] = self.thing_name
        shown["status"] = self.status.value
        if self.status_details:
            shown["statusDetails"] = self.status_details
        shown["queuedAt"] = self.queued_at_s
        if self.started_at_s is not None:
            shown["startedAt"] = self.started_at_s
        shown["lastUpdatedAt"] = self.last_updated_at_s
        shown["versionNumber"] = self.version_number
        shown["executionNumber"] = self.execution_number
        if self.approximate_seconds_before_timed_out is not None:
            shown["approximateSecondsBeforeTimedOut"] = self.approximate_seconds_before_timed_out
        if self.job_document is not None:
            shown["jobDocument"] = msgspec.Raw(self.job_document.encode())
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """What an update's reply, or its rejection, says about where the execution stands."""

    status: ExecutionStatus
    version_number: int
    status_details: Mapping[str, str] | None = None

    def members(self) -> dict[str, object]:
        shown: dict[str, object] = {"status": self.status.value}
        if self.status_details:
            shown["statusDetails"] = self.status_details
        shown["versionNumber"] = self.version_number
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReply:
    """Answer to GetPendingJobExecutions. Both arrays are always there."""

    timestamp_s: int
    in_progress: tuple[ExecutionSummary, ...] = ()
    queued: tuple[ExecutionSummary, ...] = ()
    client_token: str | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "timestamp": self.timestamp_s,
                "inProgressJobs": [summary.members() for summary in self.in_progress],
                "queuedJobs": [summary.members() for summary in self.queued],
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReply:
    """Answer to DescribeJobExecution and StartNextPendingJobExecution, and, without a token, the body of ``notify-next``.

    ``execution`` None: nothing is pending, and the member is left out (checklist 6).
    """

    timestamp_s: int
    execution: ExecutionView | None = None
    client_token: str | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "timestamp": self.timestamp_s,
                "execution": None if self.execution is None else self.execution.members(),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReply:
    """Answer to UpdateJobExecution; the last two only where the request asked for them."""

    timestamp_s: int
    client_token: str | None = None
    execution_state: ExecutionState | None = None
    job_document: str | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "timestamp": self.timestamp_s,
                "executionState": None if self.execution_state is None else self.execution_state.members(),
                "jobDocument": None if self.job_document is None else msgspec.Raw(self.job_document.encode()),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """What stands on ``…/rejected``. ``execution_state`` only with InvalidStateTransition and VersionMismatch."""

    timestamp_s: int
    code: str
    message: str
    client_token: str | None = None
    execution_state: ExecutionState | None = None

    def to_json(self) -> bytes:
        return _encode(
            {
                "clientToken": self.client_token,
                "timestamp": self.timestamp_s,
                "code": self.code,
                "message": self.message,
                "executionState": None if self.execution_state is None else self.execution_state.members(),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingChanged:
    """The body of ``notify`` (JobExecutionsChanged): a status' key is there only when it has entries."""

    timestamp_s: int
    in_progress: tuple[ExecutionSummary, ...] = ()
    queued: tuple[ExecutionSummary, ...] = ()

    def to_json(self) -> bytes:
        jobs: dict[str, object] = {}
        if self.in_progress:
            jobs["IN_PROGRESS"] = [summary.members() for summary in self.in_progress]
        if self.queued:
            jobs["QUEUED"] = [summary.members() for summary in self.queued]
        return msgspec.json.encode({"timestamp": self.timestamp_s, "jobs": jobs})


def _encode(members: dict[str, object]) -> bytes:
    """Compact JSON without the members that are None."""
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None})
