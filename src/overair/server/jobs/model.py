"""Nouns and state tables of jobs and executions. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import JobId, ThingName
from overair.wire.job_messages import ExecutionStatus

JOB_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
THING_NAME: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
TARGETS_MAX: Final = 100
"""Groups among the targets of one job."""
TARGETS_IN_ALL_MAX: Final = 10_000
"""With the things that are named one by one."""
DOCUMENT_SIZE_BYTES_MAX: Final = 32_768
DELETIONS_MAX: Final = 10
"""Jobs of one account in DELETION_IN_PROGRESS at once."""
PENDING_LISTED_MAX: Final = 10
MINUTE_MS: Final = 60_000
PRESIGN_EXPIRES_S_DEFAULT: Final = 3600
FULFILMENT_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class JobStatus(StrEnum):
    """What an operator sees of a job (wire reference §3.3)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    DELETION_IN_PROGRESS = "DELETION_IN_PROGRESS"


class JobPhase(StrEnum):
    """What the server still has to do for a job in the background."""

    ROLLING_OUT = "ROLLING_OUT"
    SETTLED = "SETTLED"
    CANCELING = "CANCELING"
    DELETING = "DELETING"


class TargetSelection(StrEnum):
    SNAPSHOT = "SNAPSHOT"
    CONTINUOUS = "CONTINUOUS"


class EndBehavior(StrEnum):
    """What becomes of a job at its schedule's end."""

    STOP_ROLLOUT = "STOP_ROLLOUT"
    CANCEL = "CANCEL"
    FORCE_CANCEL = "FORCE_CANCEL"


class EventKind(StrEnum):
    """What of jobs is told on ``$aws/events/…`` (wire reference §2.11), once an account asks for it."""

    JOB = "JOB"
    JOB_EXECUTION = "JOB_EXECUTION"


class FailureType(StrEnum):
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    ALL = "ALL"


# The state tables: absent means never. No status is compared with another outside of this file and ``rollout.py``.

JOB_MAY_BECOME: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.SCHEDULED: frozenset({JobStatus.IN_PROGRESS, JobStatus.CANCELED, JobStatus.DELETION_IN_PROGRESS}),
    JobStatus.IN_PROGRESS: frozenset({JobStatus.COMPLETED, JobStatus.CANCELED, JobStatus.DELETION_IN_PROGRESS}),
    JobStatus.COMPLETED: frozenset({JobStatus.DELETION_IN_PROGRESS}),
    JobStatus.CANCELED: frozenset({JobStatus.DELETION_IN_PROGRESS}),
}
RUNNING: Final = frozenset({JobStatus.SCHEDULED, JobStatus.IN_PROGRESS})
JOB_DELETABLE_WITHOUT_FORCE: Final = frozenset({JobStatus.COMPLETED, JobStatus.CANCELED})

_REPORTED: Final = frozenset(
    {ExecutionStatus.IN_PROGRESS, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.REJECTED}
)
DEVICE_MAY_REPORT: Final[Mapping[ExecutionStatus, frozenset[ExecutionStatus]]] = {
    ExecutionStatus.QUEUED: _REPORTED,
    ExecutionStatus.IN_PROGRESS: _REPORTED,
}
SERVER_MAY_SET: Final[Mapping[ExecutionStatus, frozenset[ExecutionStatus]]] = {
    ExecutionStatus.QUEUED: frozenset({ExecutionStatus.CANCELED, ExecutionStatus.REMOVED}),
    ExecutionStatus.IN_PROGRESS: frozenset({ExecutionStatus.TIMED_OUT, ExecutionStatus.CANCELED, ExecutionStatus.REMOVED}),
}
CANCELABLE_WITHOUT_FORCE: Final = frozenset({ExecutionStatus.QUEUED})
PENDING: Final = frozenset({ExecutionStatus.QUEUED, ExecutionStatus.IN_PROGRESS})
STARTED: Final = frozenset({ExecutionStatus.IN_PROGRESS})
REFUSED_BY: Final = "refusedBy"
SERVER: Final = "server"
"""In the status details of an execution that the server refuses in its thing's place."""
RETRIED: Final[Mapping[ExecutionStatus, FailureType]] = {
    ExecutionStatus.FAILED: FailureType.FAILED,
    ExecutionStatus.TIMED_OUT: FailureType.TIMED_OUT,
}
"""How a retry criterion names the end of an execution; no other end is ever retried."""
FAILURES: Final[Mapping[FailureType, frozenset[ExecutionStatus]]] = {
    FailureType.FAILED: frozenset({ExecutionStatus.FAILED}),
    FailureType.REJECTED: frozenset({ExecutionStatus.REJECTED}),
    FailureType.TIMED_OUT: frozenset({ExecutionStatus.TIMED_OUT}),
    FailureType.ALL: frozenset({ExecutionStatus.FAILED, ExecutionStatus.REJECTED, ExecutionStatus.TIMED_OUT}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignConfig:
    """How placeholders for presigned URLs are filled."""

    role_arn: str
    expires_s: int = PRESIGN_EXPIRES_S_DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialRate:
    """Starts at ``base_per_minute``, grows by ``factor`` each time another ``criterion`` things were notified or succeeded."""

    base_per_minute: int
    factor: float
    notified_criterion: int | None = None
    succeeded_criterion: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    maximum_per_minute: int | None = None
    exponential: ExponentialRate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortCriterion:
    failure_type: FailureType
    threshold_percentage: float
    things_executed_min: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryCriterion:
    failure_type: FailureType
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventConfiguration:
    """Whether an account hears of one kind of events."""

    enabled: bool
    created_at: Instant
    last_updated_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """When a rollout may go on, again and again. ``starts`` is a cron expression that ``cron.parse_cron`` let through."""

    starts: str
    duration_minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a job rolls out (wire reference §3.7). All of it is settled when the job is made."""

    starts_at: Instant | None = None
    ends_at: Instant | None = None
    end_behavior: EndBehavior = EndBehavior.STOP_ROLLOUT
    windows: tuple[MaintenanceWindow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """The parts that UpdateJob may change."""

    description: str = ""
    presign: PresignConfig | None = None
    rollout: RolloutConfig | None = None
    abort: tuple[AbortCriterion, ...] = ()
    retry: tuple[RetryCriterion, ...] = ()
    in_progress_timeout_minutes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTemplate:
    """What jobs can be made from, again and again."""

    id: str
    place: Place
    description: str
    document: str
    settings: JobSettings
    created_at: Instant
    document_source: str | None = None
    windows: tuple[MaintenanceWindow, ...] = ()
    destination_package_versions: tuple[str, ...] = ()

    @property
    def arn(self) -> str:
        return self.place.iot("jobtemplate", self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What an operator asks for. ``document`` is JSON text of an object."""

    id: JobId
    targets: tuple[str, ...]
    document: str
    document_source: str | None = None
    target_selection: TargetSelection = TargetSelection.SNAPSHOT
    settings: JobSettings = field(default_factory=JobSettings)
    destination_package_versions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    fulfilment: str | None = None
    """What ``ports.Fulfilment`` brings to things that have ECUs: a multi-target update's id. None: what the document names."""
    schedule: Schedule | None = None
    template_arn: str | None = None
    """The template that it was made from. The plan is whole without it."""
    document_parameters: Mapping[str, str] = field(default_factory=dict)
    """What the document's ``${aws:iot:parameter:…}`` were filled with."""
    namespace: str | None = None
    """Whose queue on a thing the job stands in; None: the one that every device asks for."""
    offline_signed: bool = False
    """Every image that it brings was found to be signed by a key that this server doesn't hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What an operator wrote, before placeholders for package versions were filled."""

    document: str
    package_versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTarget:
    """One target ARN, and how far its members have been planned."""

    position: int
    arn: str
    planned: bool = False
    cursor: ThingName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it stands, without its document."""

    id: JobId
    sequence: int
    """In order of creation within the account: ties between executions that were queued in one millisecond."""
    place: Place
    status: JobStatus
    phase: JobPhase
    target_selection: TargetSelection
    settings: JobSettings
    created_at: Instant
    last_updated_at: Instant
    next_step_at: Instant
    """When the background work goes on; for a metered rollout, when the next thing may be released."""
    released: tuple[tuple[Instant, int], ...] = ()
    """What a metered rollout released in the last minute: when, and how many. It stands in the row that a step claims, so that
    the rate holds whichever node takes it."""
    completed_at: Instant | None = None
    document_source: str | None = None
    destination_package_versions: tuple[str, ...] = ()
    comment: str | None = None
    reason_code: str | None = None
    force_canceled: bool = False
    counts: Mapping[ExecutionStatus, int] = field(default_factory=dict)
    """Things by the state of their latest execution."""
    fulfilment: str | None = None
    """See ``JobPlan.fulfilment``."""
    schedule: Schedule | None = None
    ends_at: Instant | None = None
    """When the schedule's end is to be carried out; None once it was, or where there is none."""
    template_arn: str | None = None
    document_parameters: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    """See ``JobPlan.namespace``."""
    offline_signed: bool = False
    """See ``JobPlan.offline_signed``."""
    encrypted: bool = False
    """A file of its document is encrypted: only things that can read it are given it."""

    @property
    def arn(self) -> str:
        return self.place.iot("job", self.id)

    @property
    def concurrent(self) -> bool:
        """Whether executions are being rolled out or cancelled."""
        return self.phase in (JobPhase.ROLLING_OUT, JobPhase.CANCELING)

    @property
    def metered(self) -> bool:
        """Whether its things wait for their turn: for a rate, or for a time."""
        return self.settings.rollout is not None or self.schedule is not None

    @property
    def started(self) -> int:
        """Things that were ever notified, in their latest attempt."""
        return sum(self.counts.values())

    @property
    def pending(self) -> int:
        return sum(count for status, count in self.counts.items() if status in PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One thing doing one job, in one attempt."""

    job: JobId
    thing: ThingName
    number: int
    status: ExecutionStatus
    queued_at: Instant
    last_updated_at: Instant
    version: int = 1
    job_sequence: int = 0
    status_details: Mapping[str, str] = field(default_factory=dict)
    started_at: Instant | None = None
    retry_attempt: int = 0
    latest: bool = True
    force_canceled: bool = False
    in_progress_due_at: Instant | None = None
    step_due_at: Instant | None = None
    fulfilment: str | None = None
    """What ``ports.Fulfilment`` brings to this thing in place of the document."""
    outlived: bool = False
    """The thing was reset, made again or provisioned again since: a CONTINUOUS job that names it comes to it once more."""
    namespace: str | None = None
    """Its job's."""

    @property
    def may_come_again(self) -> bool:
        """Whether a CONTINUOUS job that still names the thing comes to it once more."""
        return not self.is_pending and (self.outlived or self.refused_by_server or self.status is ExecutionStatus.REMOVED)

    @property
    def refused_by_server(self) -> bool:
        """Whether it was ended before its thing heard of it."""
        return self.status_details.get(REFUSED_BY) == SERVER

    @property
    def fulfilled(self) -> bool:
        """Whether ``ports.Fulfilment`` brings it and hears how it went: then no report over the Jobs API counts."""
        return self.fulfilment is not None

    @property
    def due_at(self) -> Instant | None:
        """When it times out: a step's timer never outlives the one of the whole (wire reference §2.8)."""
        timers = [timer for timer in (self.in_progress_due_at, self.step_due_at) if timer is not None]
        return min(timers, default=None)

    @property
    def is_pending(self) -> bool:
        return self.status in PENDING

    def seconds_before_timed_out(self, now: Instant) -> int | None:
        due = self.due_at
        return None if due is None or not self.is_pending else max(0, -((now - due) // 1000))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A thing in a job's line, until its turn comes."""

    thing: ThingName
    ended: ExecutionStatus | None = None
    """How its attempt ended that is to be tried again; None: the job comes to it anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlikeQueue:
    """Things whose queues read alike."""

    executions: Sequence[Execution]
    """The queue of the first of them, as far as a message shows it; in no order."""
    things: Sequence[ThingName]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a device says of an execution (UpdateJobExecution). ``status_details`` None leaves the stored ones alone."""

    status: ExecutionStatus
    status_details: Mapping[str, str] | None = None
    expected_version: int | None = None
    execution_number: int | None = None
    step_timeout_minutes: int | None = None
