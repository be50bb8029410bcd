"""Bulk registration: a file of devices, each line carried out through one template (wire reference §9.2).

The saga has one step that is repeated, a line, and one that ends it. A line's registration and its row in the report are one
unit of work, so that a task which is cut anywhere goes on without registering anything twice; what a line wants and can't have
is its row among the errors, and the task goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import msgspec

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.errors import Conflict, InvalidRequest, LimitExceeded, NotFound, OverairError
from overair.basics.ids import AccountId, BucketName, IdSource, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.access.service import AccessService
from overair.server.error_codes import code_for
from overair.server.objects.model import ObjectVersion
from overair.server.objects.service import ObjectsService
from overair.server.provisioning.registration import Registrations
from overair.server.provisioning.registration_files import Line
from overair.server.provisioning.registration_task_model import (
    FILE_SIZE_BYTES_MAX,
    LINE_SIZE_BYTES_MAX,
    LINES_MAX,
    MESSAGE_LENGTH_MAX,
    NEXT,
    REPORTS_KEPT_MS,
    UNFINISHED,
    LineOutcome,
    RegistrationTask,
    RegistrationTaskId,
    ReportType,
    TaskStatus,
)
from overair.server.provisioning.template_language import PARAMETERS_MAX, Template
from overair.wire import strict_json

TASKS_KEPT_MAX: Final = 1_000
"""Of one account."""


class TaskStore(Protocol):
    """Rows of tasks and of what became of their lines."""

    def find_task(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> RegistrationTask | None: ...

    def insert_task(self, tx: Tx, task: RegistrationTask) -> None: ...

    def save_task(self, tx: Tx, task: RegistrationTask) -> None:
        """Write status, message, how far it is and when that was."""
        ...

    def delete_task(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> None:
        """With its lines."""
        ...

    def count_tasks(self, tx: Tx, account: AccountId) -> int: ...

    def page_tasks(
        self, tx: Tx, account: AccountId, *, status: TaskStatus | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[RegistrationTask]:
        """Newest first, by (creation time, id)."""
        ...

    def unfinished_tasks(self, tx: Tx, account: AccountId | None, *, limit: int) -> Sequence[RegistrationTask]:
        """Oldest first; of every account where none is named."""
        ...

    def tasks_ended_before(self, tx: Tx, moment: int, *, limit: int) -> Sequence[RegistrationTask]:
        """Of every account, the oldest first."""
        ...

    def find_line(self, tx: Tx, account: AccountId, task: RegistrationTaskId, line: int) -> LineOutcome | None: ...

    def insert_line(self, tx: Tx, account: AccountId, task: RegistrationTaskId, outcome: LineOutcome) -> None: ...

    def lines(
        self, tx: Tx, account: AccountId, task: RegistrationTaskId, report: ReportType, *, after: int, limit: int
    ) -> Sequence[LineOutcome]:
        """By number."""
        ...


class RegistrationTasks:
    """Tasks of one account at a time.

    Raises, everywhere: ``NotFound(subject="registration-task")``, ``InvalidRequest`` (subjects ``template``, ``input-file``,
    ``role``), ``AccessDenied``, ``Conflict(subject="in-use")``, ``LimitExceeded(subject="registration-tasks")``.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        registrations: Registrations,
        objects: ObjectsService,
        roles: AccessService,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._registrations = registrations
        self._objects = objects
        self._roles = roles
        self._clock = clock
        self._ids = ids

    def start(
        self, tx: Tx, place: Place, *, template_body: str, bucket: str, key: str, role_arn: str, source_ip: str
    ) -> RegistrationTask:
        """Pin the file as it is now and queue its lines. What is wrong with template, role or file is said at once."""
        Template.read(template_body)
        running = self._store.unfinished_tasks(tx, place.account, limit=1)
        if running:
            raise Conflict(
                f"The registration task {running[0].id} is {running[0].status.value}. An account has one at a time: wait "
                "for its end, or stop it (StopThingRegistrationTask).",
                subject="in-use",
            )
        if self._store.count_tasks(tx, place.account) >= TASKS_KEPT_MAX:
            raise LimitExceeded(
                f"{TASKS_KEPT_MAX} registration tasks of this account are kept, each for 30 days after its end.",
                subject="registration-tasks",
            )
        now = self._clock.now()
        task = RegistrationTask(
            account=place.account,
            id=RegistrationTaskId(self._ids.uuid()),
            region=place.region,
            template_body=template_body,
            bucket=BucketName(bucket),
            key=ObjectKey(key),
            version=VersionId(""),
            etag="",
            size_bytes=0,
            role_arn=role_arn,
            started_from=source_ip,
            status=TaskStatus.IN_PROGRESS,
            message="",
            position_bytes=0,
            lines=0,
            successes=0,
            failures=0,
            created_at=now,
            modified_at=now,
        )
        file = self._readable(tx, task, None)
        if file.size_bytes > FILE_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"s3://{bucket}/{key} has {file.size_bytes} bytes; a registration task reads at most {FILE_SIZE_BYTES_MAX}.",
                subject="input-file",
            )
        task = replace(task, version=file.version_id, etag=file.etag, size_bytes=file.size_bytes)
        self._store.insert_task(tx, task)
        return task

    def find(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> RegistrationTask:
        """A task by its id."""
        found = self._store.find_task(tx, account, task)
        if found is None:
            raise NotFound(f"There is no registration task {task[:40]}.", subject="registration-task")
        return found

    def page(
        self, tx: Tx, account: AccountId, *, status: TaskStatus | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[RegistrationTask]:
        """Tasks, the newest first."""
        return self._store.page_tasks(tx, account, status=status, after=after, limit=limit)

    def lines(
        self, tx: Tx, account: AccountId, task: RegistrationTaskId, report: ReportType, *, after: int, limit: int
    ) -> Sequence[LineOutcome]:
        """Lines of a report, by number."""
        self.find(tx, account, task)
        return self._store.lines(tx, account, task, report, after=after, limit=limit)

    def stop(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> None:
        """Have a task end before its next lines; what was registered stays. Stopping it again is fine."""
        found = self.find(tx, account, task)
        if found.status in (TaskStatus.CANCELLING, TaskStatus.CANCELLED):
            return
        if found.status not in UNFINISHED:
            raise InvalidRequest(f"The registration task {task} is {found.status.value} already.", subject="registration-task")
        self._become(tx, found, TaskStatus.CANCELLING, "")

    # The saga ---------------------------------------------------------------------------------------------------------------

    def unfinished(self, tx: Tx, *, limit: int) -> Sequence[RegistrationTask]:
        """Whatever the account, the oldest first."""
        return self._store.unfinished_tasks(tx, None, limit=limit)

    def file_of(self, tx: Tx, task: RegistrationTask) -> ObjectVersion:
        """The pinned file, if the role may still read it and it is still the same."""
        found = self._readable(tx, task, task.version)
        if found.etag != task.etag or found.size_bytes != task.size_bytes:
            raise InvalidRequest(f"s3://{task.bucket}/{task.key} has changed since the task began.", subject="input-file")
        return found

    def register_line(self, tx: Tx, task: RegistrationTask, template: Template, line: Line) -> ReportType | None:
        """Carry one line out, unless that was done; which report it is in. None: an empty line, or the task was stopped.

        Raises:
            OverairError: the line can't be carried out, and nothing of it was. ``refuse_line`` writes that down.
        """
        standing = self._store.find_line(tx, task.account, task.id, line.number)
        if standing is not None:
            return standing.report
        if not self._goes_on(tx, task) or (line.text is not None and not line.text.strip()):
            return None
        plan = template.resolve(_parameters(line))
        registered = self._registrations.register(tx, task.place, plan, origin=task.origin, source_ip=task.started_from)
        report = {
            "lineNumber": line.number,
            "thingName": registered.thing,
            "certificateId": registered.certificate_id,
            "certificatePem": registered.certificate_pem,
            "resourceArns": dict(registered.resource_arns),
        }
        self._write(tx, task, line, ReportType.RESULTS, report)
        return ReportType.RESULTS

    def refuse_line(self, tx: Tx, task: RegistrationTask, line: Line, error: OverairError) -> ReportType | None:
        """Write down why a line wasn't carried out."""
        standing = self._store.find_line(tx, task.account, task.id, line.number)
        if standing is not None:
            return standing.report
        if not self._goes_on(tx, task):
            return None
        report = {"lineNumber": line.number, "errorCode": code_for("iot", error), "errorMessage": error.message}
        self._write(tx, task, line, ReportType.ERRORS, report)
        return ReportType.ERRORS

    def advance(self, tx: Tx, task: RegistrationTask, lines: Sequence[Line], outcomes: Sequence[ReportType | None]) -> None:
        """Everything up to the last of these lines is done."""
        found = self._store.find_task(tx, task.account, task.id)
        if found is None or found.position_bytes != task.position_bytes or found.status is not TaskStatus.IN_PROGRESS:
            return  # stopped since, or another process has come here first
        self._store.save_task(
            tx,
            replace(
                found,
                position_bytes=lines[-1].end_bytes,
                lines=lines[-1].number,
                successes=found.successes + sum(each is ReportType.RESULTS for each in outcomes),
                failures=found.failures + sum(each is ReportType.ERRORS for each in outcomes),
                modified_at=self._clock.now(),
            ),
        )
        if lines[-1].number >= LINES_MAX and lines[-1].end_bytes < found.size_bytes:
            standing = self.find(tx, task.account, task.id)
            self._become(tx, standing, TaskStatus.FAILED, f"The file has more than {LINES_MAX} lines; the rest was not read.")

    def end(self, tx: Tx, task: RegistrationTask, status: TaskStatus, message: str = "") -> None:
        """Bring a task to an end, unless it has come to one."""
        found = self._store.find_task(tx, task.account, task.id)
        if found is not None and status in NEXT.get(found.status, ()):
            self._become(tx, found, status, message)

    def has_old(self, tx: Tx) -> bool:
        """Whether there is something to sweep."""
        return bool(self._store.tasks_ended_before(tx, self._clock.now() - REPORTS_KEPT_MS, limit=1))

    def sweep(self, tx: Tx) -> int:
        """Forget a task that ended long ago, with its reports; how many."""
        old = self._store.tasks_ended_before(tx, self._clock.now() - REPORTS_KEPT_MS, limit=1)
        for task in old:
            self._store.delete_task(tx, task.account, task.id)
        return len(old)

    def _readable(self, tx: Tx, task: RegistrationTask, version: VersionId | None) -> ObjectVersion:
        role = self._roles.assume_as_service(
            tx, task.place, task.role_arn, source_arn=task.place.iot("registrationtask", task.id)
        )
        policy = self._objects.bucket_policy(tx, task.place, task.bucket)
        where = f"arn:aws:s3:::{task.bucket}/{task.key}"
        self._roles.require_for_role(tx, role, "s3:GetObject", where, resource_policy=policy)
        try:
            return self._objects.find(tx, task.place, task.bucket, task.key, version)
        except NotFound as gone:
            raise InvalidRequest(f"The input file can't be read: {gone.message}", subject="input-file") from None

    def _goes_on(self, tx: Tx, task: RegistrationTask) -> bool:
        found = self._store.find_task(tx, task.account, task.id)
        return found is not None and found.status is TaskStatus.IN_PROGRESS

    def _write(self, tx: Tx, task: RegistrationTask, line: Line, report: ReportType, told: Mapping[str, object]) -> None:
        text = msgspec.json.encode({name: value for name, value in told.items() if value is not None}).decode()
        self._store.insert_line(tx, task.account, task.id, LineOutcome(line=line.number, report=report, text=text))

    def _become(self, tx: Tx, task: RegistrationTask, status: TaskStatus, message: str) -> None:
        assert status in NEXT.get(task.status, ()), f"{task.status} → {status}"
        now = self._clock.now()
        self._store.save_task(tx, replace(task, status=status, message=message[:MESSAGE_LENGTH_MAX], modified_at=now))


def _parameters(line: Line) -> dict[str, str]:
    """The line's one JSON object of texts.

    Raises:
        InvalidRequest: subject ``parameters``.
    """
    if line.text is None:
        raise InvalidRequest(f"A line has at most {LINE_SIZE_BYTES_MAX} bytes.", subject="parameters")
    try:
        given = strict_json.decode_object(line.text, size_bytes_max=LINE_SIZE_BYTES_MAX, depth_max=2)
    except strict_json.MalformedJson as broken:
        raise InvalidRequest(f"The line must be one JSON object of texts. {broken}", subject="parameters") from None
    if len(given) > PARAMETERS_MAX:
        raise InvalidRequest(f"At most {PARAMETERS_MAX} parameters can be given.", subject="parameters")
    parameters: dict[str, str] = {}
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidRequest(f"The parameter {name[:100]!r} must be text.", subject="parameters")
        parameters[name] = value
    return parameters
