"""Nouns of bulk registration: a task, its states, and what became of each line of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId

RegistrationTaskId = NewType("RegistrationTaskId", str)
"""A UUID."""

TASK_ORIGIN: Final = "registration-task/"
"""Begins the origin of a thing that a bulk registration made; the task's id follows."""
FILE_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
LINE_SIZE_BYTES_MAX: Final = 64 * 1024
LINES_MAX: Final = 1_000_000
REPORTS_KEPT_MS: Final = 30 * 86_400_000
"""How long a task and its reports are kept after its end."""
MESSAGE_LENGTH_MAX: Final = 2_048


class TaskStatus(Enum):
    """Of a task (iot model, ``Status``)."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    CANCELLING = "Cancelling"


NEXT: Final[Mapping[TaskStatus, frozenset[TaskStatus]]] = {
    TaskStatus.IN_PROGRESS: frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLING}),
    TaskStatus.CANCELLING: frozenset({TaskStatus.CANCELLED}),
}
"""What may follow; a status that is absent is an end."""

UNFINISHED: Final = frozenset(NEXT)


class ReportType(Enum):
    """Which lines a report has (iot model, ``ReportType``)."""

    RESULTS = "RESULTS"
    ERRORS = "ERRORS"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationTask:
    """One file of devices on its way into the registry."""

    account: AccountId
    id: RegistrationTaskId
    region: str
    template_body: str
    bucket: BucketName
    key: ObjectKey
    version: VersionId
    etag: str
    """Of the version that was there at the start: another content under its name is not read."""
    size_bytes: int
    role_arn: str
    started_from: str
    """The address that the operator's request came from."""
    status: TaskStatus
    message: str
    position_bytes: int
    """Everything before it is done."""
    lines: int
    """How many lines that is, empty ones too."""
    successes: int
    failures: int
    created_at: Instant
    modified_at: Instant

    @property
    def place(self) -> Place:
        """Region and account."""
        return Place(self.region, self.account)

    @property
    def origin(self) -> str:
        """What the things that it makes are marked with."""
        return TASK_ORIGIN + self.id

    @property
    def percentage(self) -> int:
        """How far it is, 0 to 100."""
        return 100 if self.size_bytes == 0 else self.position_bytes * 100 // self.size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOutcome:
    """What became of one line. While it stands the line is not done again."""

    line: int
    """Counted from 1."""
    report: ReportType
    text: str
    """One line of a report: a JSON object."""
