"""The SQL of tallies."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import func, select

from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.tables import job_executions, job_waiting_things
from overair.server.jobs.tallies import Standing
from overair.server.storage.work import sql
from overair.wire.job_messages import ExecutionStatus


class SqlTallyStore:
    """Implements ``tallies.TallyStore``."""

    def standings(
        self, tx: Tx, account: AccountId, job: JobId, *, statuses: Collection[ExecutionStatus], limit: int
    ) -> Sequence[Standing]:
        table = job_executions.c
        query = (
            select(table.status, table.status_details, func.count().label("things"))
            .where(
                table.account == account,
                table.job == job,
                table.status.in_(sorted(status.value for status in statuses)),
                table.latest.is_(True),
            )
            .group_by(table.status, table.status_details)
            .order_by(func.count().desc(), table.status, table.status_details)
            .limit(limit)
        )
        return [
            Standing(status=ExecutionStatus(status), details=msgspec.json.decode(details, type=dict[str, str]), count=things)
            for status, details, things in sql(tx).execute(query)
        ]

    def waiting(self, tx: Tx, account: AccountId, job: JobId) -> int:
        table = job_waiting_things.c
        # Whoever waits for another attempt counts by how the last one ended.
        query = (
            select(func.count())
            .select_from(job_waiting_things)
            .where(table.account == account, table.job == job, table.ended.is_(None))
        )
        return int(sql(tx).execute(query).scalar_one())

    def lines_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> frozenset[JobId]:
        table = job_waiting_things.c
        query = select(table.job).where(table.account == account, table.thing == thing)
        return frozenset(JobId(job) for job in sql(tx).execute(query.limit(limit)).scalars())

    def queued(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[ThingName]:
        table = job_executions.c
        query = select(table.thing).where(
            table.account == account,
            table.job == job,
            table.status == ExecutionStatus.QUEUED.value,
            table.latest.is_(True),
        )
        return [ThingName(thing) for thing in sql(tx).execute(query.limit(limit)).scalars()]
