"""The SQL of the things that wait for their turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import Waiting
from overair.server.jobs.tables import job_waiting_things
from overair.server.storage.work import HotStatement, sql
from overair.wire.job_messages import ExecutionStatus

_waiting: Final = HotStatement(
    select(job_waiting_things.c.thing, job_waiting_things.c.ended)
    .where(job_waiting_things.c.account == bindparam("b_account"), job_waiting_things.c.job == bindparam("b_job"))
    .order_by(job_waiting_things.c.position)
    .limit(bindparam("b_limit"))
)


class SqlLineRows:
    """A job's line: part of ``JobStore`` over SQL."""

    def add_waiting(
        self,
        tx: Tx,
        account: AccountId,
        job: JobId,
        things: Sequence[ThingName],
        *,
        ended: ExecutionStatus | None = None,
    ) -> None:
        """Put things at the end of the line; those that stand in it already keep their place. ``ended``: how their attempts
        ended that are to be tried again."""
        in_line = (
            job_waiting_things.c.account == account,
            job_waiting_things.c.job == job,
            job_waiting_things.c.thing.in_(things),
        )
        known = set(sql(tx).execute(select(job_waiting_things.c.thing).where(*in_line)).scalars())
        if known and ended is None:
            # Whom the job comes to anew has all its retries before it.
            sql(tx).execute(update(job_waiting_things).where(*in_line).values(ended=None))
        last = sql(tx).execute(
            select(func.max(job_waiting_things.c.position)).where(
                job_waiting_things.c.account == account, job_waiting_things.c.job == job
            )
        )
        position = int(last.scalar() or 0)
        rows = [
            {
                "account": account,
                "job": job,
                "thing": thing,
                "position": position + offset,
                "ended": None if ended is None else ended.value,
            }
            for offset, thing in enumerate((thing for thing in things if thing not in known), start=1)
        ]
        if rows:
            sql(tx).execute(insert(job_waiting_things), rows)

    def waiting(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[Waiting]:
        return [
            Waiting(thing=ThingName(thing), ended=None if ended is None else ExecutionStatus(ended))
            for thing, ended in _waiting.all(tx, b_account=account, b_job=job, b_limit=limit)
        ]

    def waiting_to_retry(self, tx: Tx, account: AccountId, job: JobId) -> Mapping[ExecutionStatus, int]:
        """How many of those in line wait to try again, by how their last attempt ended."""
        query = (
            select(job_waiting_things.c.ended, func.count())
            .where(
                job_waiting_things.c.account == account,
                job_waiting_things.c.job == job,
                job_waiting_things.c.ended.is_not(None),
            )
            .group_by(job_waiting_things.c.ended)
        )
        return {ExecutionStatus(ended): int(count) for ended, count in sql(tx).execute(query)}

    def drop_retry(self, tx: Tx, account: AccountId, job: JobId, thing: ThingName) -> None:
        """The attempt that was to be tried again is gone."""
        sql(tx).execute(
            delete(job_waiting_things).where(
                job_waiting_things.c.account == account,
                job_waiting_things.c.job == job,
                job_waiting_things.c.thing == thing,
                job_waiting_things.c.ended.is_not(None),
            )
        )

    def drop_waiting(
        self, tx: Tx, account: AccountId, *, job: JobId | None = None, things: Sequence[ThingName] | None = None
    ) -> None:
        """Take things out of the line: of one job, of some things, or of both together."""
        statement = delete(job_waiting_things).where(job_waiting_things.c.account == account)
        if job is not None:
            statement = statement.where(job_waiting_things.c.job == job)
        if things is not None:
            statement = statement.where(job_waiting_things.c.thing.in_(things))
        sql(tx).execute(statement)
