"""Rows of bulk registrations and of what became of their lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, tuple_, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, BucketName, ObjectKey, VersionId
from overair.basics.work import Tx
from overair.server.provisioning.registration_task_model import (
    UNFINISHED,
    LineOutcome,
    RegistrationTask,
    RegistrationTaskId,
    ReportType,
    TaskStatus,
)
from overair.server.provisioning.store.tables import registration_task_lines, registration_tasks
from overair.server.storage.work import sql

_UNFINISHED = sorted(status.value for status in UNFINISHED)


class SqlRegistrationTaskRows:
    """``registration_tasks.TaskStore``."""

    def find_task(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> RegistrationTask | None:
        table = registration_tasks
        row = sql(tx).execute(select(*table.c).where(table.c.account == account, table.c.id == task)).one_or_none()
        return None if row is None else _task(row)

    def insert_task(self, tx: Tx, task: RegistrationTask) -> None:
        sql(tx).execute(
            insert(registration_tasks).values(
                account=task.account,
                id=task.id,
                region=task.region,
                template_body=task.template_body,
                bucket=task.bucket,
                key=task.key,
                version=task.version,
                etag=task.etag,
                size_bytes=task.size_bytes,
                role_arn=task.role_arn,
                started_from=task.started_from,
                created_at=task.created_at,
                **_changing(task),
            )
        )

    def save_task(self, tx: Tx, task: RegistrationTask) -> None:
        table = registration_tasks
        where = (table.c.account == task.account, table.c.id == task.id)
        sql(tx).execute(update(table).where(*where).values(**_changing(task)))

    def delete_task(self, tx: Tx, account: AccountId, task: RegistrationTaskId) -> None:
        table, lines = registration_tasks, registration_task_lines
        sql(tx).execute(delete(lines).where(lines.c.account == account, lines.c.task == task))
        sql(tx).execute(delete(table).where(table.c.account == account, table.c.id == task))

    def count_tasks(self, tx: Tx, account: AccountId) -> int:
        table = registration_tasks
        found = sql(tx).execute(select(func.count()).select_from(table).where(table.c.account == account)).scalar_one()
        return int(found)

    def page_tasks(
        self, tx: Tx, account: AccountId, *, status: TaskStatus | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[RegistrationTask]:
        table = registration_tasks
        wanted = select(*table.c).where(table.c.account == account)
        if status is not None:
            wanted = wanted.where(table.c.status == status.value)
        if after is not None:
            wanted = wanted.where(tuple_(table.c.created_at, table.c.id) < after)
        rows = sql(tx).execute(wanted.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit))
        return [_task(row) for row in rows]

    def unfinished_tasks(self, tx: Tx, account: AccountId | None, *, limit: int) -> Sequence[RegistrationTask]:
        table = registration_tasks
        wanted = select(*table.c).where(table.c.status.in_(_UNFINISHED))
        if account is not None:
            wanted = wanted.where(table.c.account == account)
        return [_task(row) for row in sql(tx).execute(wanted.order_by(table.c.created_at, table.c.id).limit(limit))]

    def tasks_ended_before(self, tx: Tx, moment: int, *, limit: int) -> Sequence[RegistrationTask]:
        table = registration_tasks
        wanted = select(*table.c).where(table.c.status.not_in(_UNFINISHED), table.c.modified_at < moment)
        return [_task(row) for row in sql(tx).execute(wanted.order_by(table.c.modified_at, table.c.id).limit(limit))]

    def find_line(self, tx: Tx, account: AccountId, task: RegistrationTaskId, line: int) -> LineOutcome | None:
        table = registration_task_lines
        wanted = select(table.c.line, table.c.report, table.c.text).where(
            table.c.account == account, table.c.task == task, table.c.line == line
        )
        row = sql(tx).execute(wanted).one_or_none()
        return None if row is None else _line(row)

    def insert_line(self, tx: Tx, account: AccountId, task: RegistrationTaskId, outcome: LineOutcome) -> None:
        sql(tx).execute(
            insert(registration_task_lines).values(
                account=account, task=task, line=outcome.line, report=outcome.report.value, text=outcome.text
            )
        )

    def lines(
        self, tx: Tx, account: AccountId, task: RegistrationTaskId, report: ReportType, *, after: int, limit: int
    ) -> Sequence[LineOutcome]:
        table = registration_task_lines
        wanted = select(table.c.line, table.c.report, table.c.text).where(
            table.c.account == account, table.c.task == task, table.c.report == report.value, table.c.line > after
        )
        return [_line(row) for row in sql(tx).execute(wanted.order_by(table.c.line).limit(limit))]


def _changing(task: RegistrationTask) -> dict[str, Any]:
    return {
        "status": task.status.value,
        "message": task.message,
        "position_bytes": task.position_bytes,
        "lines": task.lines,
        "successes": task.successes,
        "failures": task.failures,
        "modified_at": task.modified_at,
    }


def _task(row: Any) -> RegistrationTask:
    return RegistrationTask(
        account=AccountId(row.account),
        id=RegistrationTaskId(row.id),
        region=row.region,
        template_body=row.template_body,
        bucket=BucketName(row.bucket),
        key=ObjectKey(row.key),
        version=VersionId(row.version),
        etag=row.etag,
        size_bytes=row.size_bytes,
        role_arn=row.role_arn,
        started_from=row.started_from,
        status=TaskStatus(row.status),
        message=row.message,
        position_bytes=row.position_bytes,
        lines=row.lines,
        successes=row.successes,
        failures=row.failures,
        created_at=Instant(row.created_at),
        modified_at=Instant(row.modified_at),
    )


def _line(row: Any) -> LineOutcome:
    return LineOutcome(line=row.line, report=ReportType(row.report), text=row.text)
