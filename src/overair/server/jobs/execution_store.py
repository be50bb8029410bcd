"""The SQL of executions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import (
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs import execution_statements as statements
from overair.server.jobs.execution_rows import changeable_values, details_text, execution_of, key_of, shown_execution
from overair.server.jobs.model import PENDING_LISTED_MAX, AlikeQueue, Execution
from overair.server.jobs.tables import is_pending, job_executions
from overair.server.storage.work import is_writable, sql
from overair.wire.job_messages import ExecutionStatus

ROWS_PER_INSERT_MAX: Final = 1_000


class SqlExecutionStore:
    """``ExecutionStore`` over SQL."""

    def progress(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        job: JobId,
        *,
        status_details: Mapping[str, str],
        expected_version: int | None,
        now: Instant,
    ) -> bool:
        """Take a progress report in one statement. False: the latest execution isn't in progress, is at another version, or
        isn't the device's to report on."""
        values: dict[str, Any] = {
            "b_account": account,
            "b_thing": thing,
            "b_job": job,
            "b_details": details_text(status_details),
            "b_now": now,
        }
        if expected_version is None:
            return statements.progress_of_any_version.run(tx, **values) == 1
        return statements.progress.run(tx, b_version=expected_version, **values) == 1

    def find(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, number: int | None = None) -> Execution | None:
        """One attempt, or the latest."""
        if number is None:
            latest = statements.find_latest_to_change if is_writable(tx) else statements.find_latest
            found = latest.first(tx, b_account=account, b_thing=thing, b_job=job)
        else:
            numbered = statements.find_numbered_to_change if is_writable(tx) else statements.find_numbered
            found = numbered.first(tx, b_account=account, b_thing=thing, b_job=job, b_number=number)
        return None if found is None else execution_of(dict(zip(statements.COLUMNS, found, strict=True)))

    def pending(
        self, tx: Tx, account: AccountId, thing: ThingName, *, namespace: str | None = None, limit: int
    ) -> Sequence[Execution]:
        """The queue of a thing in a namespace: what is in progress, then what is queued, each in the order of queueing."""
        if namespace is None:
            rows = statements.pending.all(tx, b_account=account, b_thing=thing, b_limit=limit)
        else:
            rows = statements.pending_in_namespace.all(
                tx, b_account=account, b_thing=thing, b_namespace=namespace, b_limit=limit
            )
        return [execution_of(dict(zip(statements.COLUMNS, row, strict=True))) for row in rows]

    def pending_anywhere(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[Execution]:
        """What a thing has before it in all namespaces together."""
        rows = statements.pending_anywhere.all(tx, b_account=account, b_thing=thing, b_limit=limit)
        return [execution_of(dict(zip(statements.COLUMNS, row, strict=True))) for row in rows]

    def pending_of(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], *, namespace: str | None = None
    ) -> Mapping[ThingName, Sequence[Execution]]:
        """The queues of several things; a thing with an empty one is absent. At least ``PENDING_LISTED_MAX`` of each."""
        if len(things) == 1:
            queue = self.pending(tx, account, things[0], namespace=namespace, limit=PENDING_LISTED_MAX)
            return {things[0]: queue} if queue else {}
        query = (
            select(*job_executions.c)
            .where(
                job_executions.c.account == account,
                job_executions.c.thing.in_(things),
                is_pending,
                job_executions.c.namespace.is_(None) if namespace is None else job_executions.c.namespace == namespace,
            )
            .order_by(statements.started_first, job_executions.c.queued_at, job_executions.c.job_sequence, job_executions.c.job)
        )
        queues: dict[ThingName, list[Execution]] = {}
        for row in sql(tx).execute(query).mappings():
            execution = execution_of(row)
            queues.setdefault(execution.thing, []).append(execution)
        return queues

    def queues_of(
        self, tx: Tx, account: AccountId, things: Sequence[ThingName], *, namespace: str | None = None
    ) -> Sequence[AlikeQueue]:
        """The queues of several things that have something to do, those that read alike together."""
        if len(things) == 1:
            queue = self.pending(tx, account, things[0], namespace=namespace, limit=PENDING_LISTED_MAX)
            return [AlikeQueue(executions=queue, things=things)] if queue else []
        names = msgspec.json.encode(things).decode()
        queues: dict[ThingName, list[tuple[Any, ...]]] = {}
        for thing, within, *shown in statements.shown_of[sql(tx).dialect.name].all(tx, b_account=account, b_things=names):
            if within == namespace:
                queues.setdefault(thing, []).append(tuple(shown))
        alike: dict[tuple[tuple[Any, ...], ...], list[ThingName]] = {}
        for thing, rows in queues.items():
            alike.setdefault(tuple(rows), []).append(thing)
        return [
            AlikeQueue(executions=[shown_execution(named[0], *row) for row in rows], things=named)
            for rows, named in alike.items()
        ]

    def insert(self, tx: Tx, account: AccountId, executions: Sequence[Execution]) -> None:
        """Add new attempts, at most ``ROWS_PER_INSERT_MAX``."""
        assert len(executions) <= ROWS_PER_INSERT_MAX
        rows = [
            {
                "account": account,
                "thing": execution.thing,
                "job": execution.job,
                "number": execution.number,
                "job_sequence": execution.job_sequence,
                "retry_attempt": execution.retry_attempt,
                "queued_at": execution.queued_at,
                "namespace": execution.namespace,
                **changeable_values(execution),
            }
            for execution in executions
        ]
        if len(rows) == 1:
            statements.insert_one.run(tx, **rows[0])
        elif rows:
            sql(tx).execute(insert(job_executions), rows)

    def insert_alike(self, tx: Tx, account: AccountId, alike: Execution, things: Sequence[ThingName]) -> None:
        """Add first attempts that differ in nothing but their thing, at most ``ROWS_PER_INSERT_MAX``: one INSERT … SELECT."""
        assert alike.number == 1
        assert len(things) <= ROWS_PER_INSERT_MAX
        if len(things) == 1:
            self.insert(tx, account, [replace(alike, thing=things[0])])
        elif things:
            values = {f"b_{name}": value for name, value in changeable_values(alike).items() if name in statements.ALIKE}
            statements.insert_alike[sql(tx).dialect.name].run(
                tx,
                b_things=msgspec.json.encode(things).decode(),
                b_account=account,
                b_job=alike.job,
                b_number=alike.number,
                b_job_sequence=alike.job_sequence,
                b_retry_attempt=alike.retry_attempt,
                b_queued_at=alike.queued_at,
                b_namespace=alike.namespace,
                **values,
            )

    def save(self, tx: Tx, account: AccountId, execution: Execution) -> None:
        """Write what may change of one attempt."""
        changed = {f"b_{name}": value for name, value in changeable_values(execution).items()}
        statements.save_one.run(
            tx, b_account=account, b_thing=execution.thing, b_job=execution.job, b_number=execution.number, **changed
        )

    def delete(self, tx: Tx, account: AccountId, execution: Execution) -> None:
        sql(tx).execute(
            delete(job_executions).where(
                *key_of(account, execution.thing, execution.job), job_executions.c.number == execution.number
            )
        )

    def attempts(
        self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, *, since: int
    ) -> Mapping[ExecutionStatus, int]:
        """How often a thing's attempts at a job, from number ``since`` on, stand in each state."""
        query = (
            select(job_executions.c.status, func.count())
            .where(*key_of(account, thing, job), job_executions.c.number >= since)
            .group_by(job_executions.c.status)
        )
        return {ExecutionStatus(status): int(count) for status, count in sql(tx).execute(query)}

    def last_number(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId) -> int:
        """The highest number of a thing's attempts at a job; 0 for none."""
        query = select(func.max(job_executions.c.number)).where(*key_of(account, thing, job))
        return int(sql(tx).execute(query).scalar() or 0)

    def latest_of(self, tx: Tx, account: AccountId, job: JobId, things: Sequence[ThingName]) -> Mapping[ThingName, Execution]:
        """Where those of some things stand that have an execution of a job already."""
        if len(things) == 1:
            found = self.find(tx, account, things[0], job)
            return {} if found is None else {things[0]: found}
        names = msgspec.json.encode(things).decode()
        rows = statements.latest_of[sql(tx).dialect.name].all(tx, b_account=account, b_job=job, b_things=names)
        executions = [execution_of(dict(zip(statements.COLUMNS, row, strict=True))) for row in rows]
        return {execution.thing: execution for execution in executions}

    def outlive(self, tx: Tx, account: AccountId, thing: ThingName) -> int:
        """A thing isn't what it was when it ended its executions. Returns how many of them it has outlived now."""
        ended = (
            update(job_executions)
            .where(
                job_executions.c.account == account,
                job_executions.c.thing == thing,
                job_executions.c.status.not_in(statements.PENDING_NAMES),
                job_executions.c.latest.is_(True),
                job_executions.c.outlived.is_(False),
            )
            .values(outlived=True)
        )
        return int(sql(tx).execute(ended).rowcount)

    def of_job(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        *,
        status: ExecutionStatus | None,
        after: tuple[str, int] | None,
        limit: int,
    ) -> Sequence[Execution]:
        """Attempts of a job by (thing, number)."""
        query = select(*job_executions.c).where(job_executions.c.account == account, job_executions.c.job == job)
        if status is not None:
            query = query.where(job_executions.c.status == status.value)
        if after is not None:
            query = query.where(tuple_(job_executions.c.thing, job_executions.c.number) > tuple_(*after))
        query = query.order_by(job_executions.c.thing, job_executions.c.number).limit(limit)
        return [execution_of(row) for row in sql(tx).execute(query).mappings()]

    def of_thing(
        self,
        tx: Tx,
        account: AccountId,
        thing: ThingName,
        *,
        status: ExecutionStatus | None,
        job: JobId | None,
        namespace: str | None = None,
        before: tuple[int, str, int] | None,
        limit: int,
    ) -> Sequence[Execution]:
        """A thing's attempts, newest first by (queued at, job, number)."""
        table = job_executions.c
        query = select(*table).where(table.account == account, table.thing == thing)
        if status is not None:
            query = query.where(table.status == status.value)
        if job is not None:
            query = query.where(table.job == job)
        if namespace is not None:
            query = query.where(table.namespace == namespace)
        if before is not None:
            query = query.where(tuple_(table.queued_at, table.job, table.number) < tuple_(*before))
        query = query.order_by(table.queued_at.desc(), table.job.desc(), table.number.desc()).limit(limit)
        return [execution_of(row) for row in sql(tx).execute(query).mappings()]

    def overdue(self, tx: Tx, *, now: Instant, limit: int) -> Sequence[tuple[AccountId, Execution]]:
        """Executions of any account whose time is up, the longest overdue first."""
        query = select(*job_executions.c).where(job_executions.c.due_at <= now).order_by(job_executions.c.due_at).limit(limit)
        return [(AccountId(row["account"]), execution_of(row)) for row in sql(tx).execute(query).mappings()]
