"""The SQL of jobs and their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, delete, func, insert, literal, select, update

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.line_store import SqlLineRows
from overair.server.jobs.model import (
    RUNNING,
    Given,
    Job,
    JobPhase,
    JobSettings,
    JobStatus,
    JobTarget,
    Schedule,
    TargetSelection,
)
from overair.server.jobs.tables import job_documents, job_targets, job_waiting_things, jobs
from overair.server.storage.work import HotStatement, is_writable, sql
from overair.wire.job_messages import ExecutionStatus

ROWS_PER_INSERT_MAX: Final = 1_000
_COUNTS: Final = {status: f"count_{status.value.lower()}" for status in ExecutionStatus}
_CHANGEABLE: Final = (
    "status",
    "phase",
    "next_step_at",
    "settings",
    "comment",
    "reason_code",
    "force_canceled",
    "last_updated_at",
    "completed_at",
    "released",
    "ends_at",
)
_BACKGROUND: Final = sorted(phase.value for phase in JobPhase if phase is not JobPhase.SETTLED)
_RUNNING: Final = sorted(status.value for status in RUNNING)
_COLUMNS: Final = tuple(column.name for column in jobs.columns)

# What making a job and following its executions takes; the rest is asked seldom.
_this_job: Final = (jobs.c.account == bindparam("b_account"), jobs.c.id == bindparam("b_job"))
_highest_sequence: Final = HotStatement(select(func.max(jobs.c.sequence)).where(jobs.c.account == bindparam("b_account")))
_insert: Final = HotStatement(insert(jobs), columns=_COLUMNS)
_insert_document: Final = HotStatement(insert(job_documents), columns=tuple(column.name for column in job_documents.columns))
_insert_target: Final = HotStatement(insert(job_targets), columns=tuple(column.name for column in job_targets.columns))
_find: Final = HotStatement(select(*jobs.c).where(*_this_job))
_find_to_change: Final = HotStatement(select(*jobs.c).where(*_this_job).with_for_update())
_save: Final = HotStatement(update(jobs).where(*_this_job).values({name: bindparam(f"b_{name}") for name in _CHANGEABLE}))
_count: Final = HotStatement(
    update(jobs).where(*_this_job).values({name: jobs.c[name] + bindparam(f"b_{name}") for name in _COUNTS.values()})
)
_no_changes: Final = {f"b_{name}": 0 for name in _COUNTS.values()}
_targets: Final = HotStatement(
    select(job_targets.c.position, job_targets.c.arn, job_targets.c.planned, job_targets.c.cursor)
    .where(job_targets.c.account == bindparam("b_account"), job_targets.c.job == bindparam("b_job"))
    .order_by(job_targets.c.position)
)
_unplanned: Final = HotStatement(
    select(job_targets.c.position, job_targets.c.arn, job_targets.c.planned, job_targets.c.cursor)
    .where(
        job_targets.c.account == bindparam("b_account"),
        job_targets.c.job == bindparam("b_job"),
        job_targets.c.planned.is_(False),
    )
    .order_by(job_targets.c.position)
    .limit(bindparam("b_limit"))
)
_save_target: Final = HotStatement(
    update(job_targets)
    .where(
        job_targets.c.account == bindparam("b_account"),
        job_targets.c.job == bindparam("b_job"),
        job_targets.c.position == bindparam("b_position"),
    )
    .values(planned=bindparam("b_planned"), cursor=bindparam("b_cursor"))
)
_set_planned: Final = HotStatement(
    update(job_targets)
    .where(
        job_targets.c.account == bindparam("b_account"),
        job_targets.c.job == bindparam("b_job"),
        job_targets.c.position == bindparam("b_position"),
    )
    .values(planned=bindparam("b_planned"))
)


class SqlJobStore(SqlLineRows):
    """``JobStore`` over SQL."""

    def next_sequence(self, tx: Tx, account: AccountId) -> int:
        highest = _highest_sequence.first(tx, b_account=account)
        return 1 if highest is None or highest[0] is None else int(highest[0]) + 1

    def insert(self, tx: Tx, job: Job, document: str, targets: Sequence[JobTarget], *, given: Given | None = None) -> None:
        account = job.place.account
        _insert.run(
            tx,
            account=account,
            id=job.id,
            sequence=job.sequence,
            region=job.place.region,
            target_selection=job.target_selection.value,
            document_source=job.document_source,
            destination_package_versions=msgspec.json.encode(job.destination_package_versions).decode(),
            created_at=job.created_at,
            fulfilment=job.fulfilment,
            schedule=None if job.schedule is None else msgspec.json.encode(job.schedule).decode(),
            template_arn=job.template_arn,
            document_parameters=msgspec.json.encode(job.document_parameters).decode() if job.document_parameters else None,
            namespace=job.namespace,
            offline_signed=job.offline_signed,
            encrypted=job.encrypted,
            **_changeable(job),
            **dict.fromkeys(_COUNTS.values(), 0),
        )
        _insert_document.run(
            tx,
            account=account,
            job=job.id,
            document=document,
            given_document=None if given is None else given.document,
            given_package_versions=None if given is None else msgspec.json.encode(given.package_versions).decode(),
        )
        self.add_targets(tx, account, job.id, targets)

    def find(self, tx: Tx, account: AccountId, job: JobId) -> Job | None:
        """A unit that may write holds the row until it ends: on PostgreSQL, where several nodes write, whatever changes a job
        or one of its executions looks at the job first, and so nobody changes what another one is about to save."""
        found = _find_to_change if is_writable(tx) else _find
        row = found.first(tx, b_account=account, b_job=job)
        return None if row is None else _job(dict(zip(_COLUMNS, row, strict=True)))

    def document(self, tx: Tx, account: AccountId, job: JobId) -> str | None:
        query = select(job_documents.c.document).where(job_documents.c.account == account, job_documents.c.job == job)
        return sql(tx).execute(query).scalar()

    def given(self, tx: Tx, account: AccountId, job: JobId) -> Given | None:
        """What the operator wrote, where it isn't what devices get."""
        query = select(job_documents.c.given_document, job_documents.c.given_package_versions).where(
            job_documents.c.account == account, job_documents.c.job == job, job_documents.c.given_document.is_not(None)
        )
        row = sql(tx).execute(query).first()
        if row is None:
            return None
        versions = msgspec.json.decode(row.given_package_versions, type=tuple[str, ...])
        return Given(document=row.given_document, package_versions=versions)

    def save(self, tx: Tx, job: Job) -> None:
        """Write what may change of a job; its counts aren't touched."""
        changed = {f"b_{name}": value for name, value in _changeable(job).items()}
        _save.run(tx, b_account=job.place.account, b_job=job.id, **changed)

    def count(self, tx: Tx, account: AccountId, job: JobId, changes: Mapping[ExecutionStatus, int]) -> None:
        """Add to the counts."""
        added = {f"b_{_COUNTS[status]}": change for status, change in changes.items() if change}
        if added:
            _count.run(tx, b_account=account, b_job=job, **{**_no_changes, **added})

    def delete(self, tx: Tx, account: AccountId, job: JobId) -> None:
        """The job with all that belongs to it, but its executions."""
        for table in (job_documents, job_targets, job_waiting_things):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.job == job))
        sql(tx).execute(delete(jobs).where(jobs.c.account == account, jobs.c.id == job))

    def page(
        self,
        tx: Tx,
        account: AccountId,
        *,
        status: JobStatus | None,
        target_selection: TargetSelection | None,
        target: str | None,
        namespace: str | None = None,
        before: int | None,
        limit: int,
    ) -> Sequence[Job]:
        """Newest first; ``before`` is the sequence of the last one given."""
        query = select(*jobs.c).where(jobs.c.account == account)
        if status is not None:
            query = query.where(jobs.c.status == status.value)
        if target_selection is not None:
            query = query.where(jobs.c.target_selection == target_selection.value)
        if target is not None:
            named = select(job_targets.c.job).where(job_targets.c.account == account, job_targets.c.arn == target)
            query = query.where(jobs.c.id.in_(named))
        if namespace is not None:
            query = query.where(jobs.c.namespace == namespace)
        if before is not None:
            query = query.where(jobs.c.sequence < before)
        rows = sql(tx).execute(query.order_by(jobs.c.sequence.desc()).limit(limit)).mappings()
        return [_job(row) for row in rows]

    def ended_before(self, tx: Tx, moment: Instant, *, limit: int) -> Sequence[Job]:
        """Jobs of any account that ended before a moment, oldest first; not those that carry out something of another room."""
        ended = jobs.c.status.in_([JobStatus.COMPLETED.value, JobStatus.CANCELED.value])
        query = select(*jobs.c).where(ended, jobs.c.completed_at < moment, jobs.c.fulfilment.is_(None))
        rows = sql(tx).execute(query.order_by(jobs.c.completed_at).limit(limit)).mappings()
        return [_job(row) for row in rows]

    def count_with_status(self, tx: Tx, account: AccountId, status: JobStatus) -> int:
        query = select(func.count()).select_from(jobs).where(jobs.c.account == account, jobs.c.status == status.value)
        return int(sql(tx).execute(query).scalar_one())

    def unsettled(self, tx: Tx, *, now: Instant) -> Job | None:
        """The job whose background work has waited longest, of any account; one whose schedule ends comes first.

        A unit that may write claims it: on PostgreSQL another node passes over it and takes the next one.
        """
        ending = select(*jobs.c).where(jobs.c.ends_at <= now).order_by(jobs.c.ends_at).limit(1)
        waiting = (
            select(*jobs.c)
            .where(jobs.c.phase.in_(_BACKGROUND), jobs.c.next_step_at <= now)
            .order_by(jobs.c.next_step_at, jobs.c.account, jobs.c.sequence)
            .limit(1)
        )
        for query in (ending, waiting):
            claimed = query.with_for_update(skip_locked=True) if is_writable(tx) else query
            row = sql(tx).execute(claimed).mappings().first()
            if row is not None:
                return _job(row)
        return None

    def continuous_for(self, tx: Tx, account: AccountId, group_name: str) -> Sequence[Job]:
        """CONTINUOUS jobs that run, or wait for their time, and have this group among their targets, in order of creation."""
        arn = literal("arn:aws:iot:") + jobs.c.region + literal(f":{account}:thinggroup/{group_name}")
        query = (
            select(*jobs.c)
            .join(job_targets, (job_targets.c.account == jobs.c.account) & (job_targets.c.job == jobs.c.id))
            .where(
                jobs.c.account == account,
                jobs.c.status.in_(_RUNNING),
                jobs.c.target_selection == TargetSelection.CONTINUOUS.value,
                job_targets.c.arn == arn,
            )
            .order_by(jobs.c.sequence)
        )
        claimed = query.with_for_update(of=jobs) if is_writable(tx) else query
        return [_job(row) for row in sql(tx).execute(claimed).mappings()]

    # Targets --------------------------------------------------------------------------------------------------------------

    def targets(self, tx: Tx, account: AccountId, job: JobId) -> Sequence[JobTarget]:
        return [
            JobTarget(position=position, arn=arn, planned=planned, cursor=ThingName(cursor) if cursor else None)
            for position, arn, planned, cursor in _targets.all(tx, b_account=account, b_job=job)
        ]

    def add_targets(self, tx: Tx, account: AccountId, job: JobId, targets: Sequence[JobTarget]) -> None:
        rows = [
            {
                "account": account,
                "job": job,
                "position": target.position,
                "arn": target.arn,
                "planned": target.planned,
                "cursor": target.cursor,
            }
            for target in targets
        ]
        if len(rows) == 1:
            _insert_target.run(tx, **rows[0])
        elif rows:
            _insert_target.run_many(tx, rows)

    def unplanned(self, tx: Tx, account: AccountId, job: JobId, *, limit: int) -> Sequence[JobTarget]:
        """The first targets of which members are left, in their order."""
        return [
            JobTarget(position=position, arn=arn, planned=planned, cursor=ThingName(cursor) if cursor else None)
            for position, arn, planned, cursor in _unplanned.all(tx, b_account=account, b_job=job, b_limit=limit)
        ]

    def has_target(self, tx: Tx, account: AccountId, job: JobId, arns: Sequence[str]) -> bool:
        """Whether one of these is among a job's targets."""
        query = select(job_targets.c.position).where(
            job_targets.c.account == account, job_targets.c.job == job, job_targets.c.arn.in_(arns)
        )
        return sql(tx).execute(query.limit(1)).first() is not None

    def set_planned(self, tx: Tx, account: AccountId, job: JobId, positions: Sequence[int] | None = None) -> None:
        """No member of these targets, or of all, is left."""
        if positions is not None and len(positions) == 1:
            _set_planned.run(tx, b_account=account, b_job=job, b_position=positions[0], b_planned=True)
            return
        planned = update(job_targets).where(job_targets.c.account == account, job_targets.c.job == job)
        if positions is not None:
            planned = planned.where(job_targets.c.position.in_(positions))
        sql(tx).execute(planned.values(planned=True))

    def save_target(self, tx: Tx, account: AccountId, job: JobId, target: JobTarget) -> None:
        _save_target.run(
            tx, b_account=account, b_job=job, b_position=target.position, b_planned=target.planned, b_cursor=target.cursor
        )


def _changeable(job: Job) -> dict[str, Any]:
    return {
        "status": job.status.value,
        "phase": job.phase.value,
        "next_step_at": job.next_step_at,
        "settings": msgspec.json.encode(job.settings).decode(),
        "comment": job.comment,
        "reason_code": job.reason_code,
        "force_canceled": job.force_canceled,
        "last_updated_at": job.last_updated_at,
        "completed_at": job.completed_at,
        "released": msgspec.json.encode(job.released).decode(),
        "ends_at": job.ends_at,
    }


def _job(row: Mapping[Any, Any]) -> Job:
    return Job(
        id=JobId(row["id"]),
        sequence=row["sequence"],
        place=Place(row["region"], AccountId(row["account"])),
        status=JobStatus(row["status"]),
        phase=JobPhase(row["phase"]),
        target_selection=TargetSelection(row["target_selection"]),
        settings=msgspec.json.decode(row["settings"], type=JobSettings),
        created_at=Instant(row["created_at"]),
        last_updated_at=Instant(row["last_updated_at"]),
        completed_at=None if row["completed_at"] is None else Instant(row["completed_at"]),
        next_step_at=Instant(row["next_step_at"]),
        document_source=row["document_source"],
        destination_package_versions=msgspec.json.decode(row["destination_package_versions"], type=tuple[str, ...]),
        comment=row["comment"],
        reason_code=row["reason_code"],
        force_canceled=row["force_canceled"],
        counts={status: row[column] for status, column in _COUNTS.items()},
        fulfilment=row["fulfilment"],
        released=msgspec.json.decode(row["released"], type=tuple[tuple[Instant, int], ...]),
        schedule=None if row["schedule"] is None else msgspec.json.decode(row["schedule"], type=Schedule),
        ends_at=None if row["ends_at"] is None else Instant(row["ends_at"]),
        template_arn=row["template_arn"],
        document_parameters=msgspec.json.decode(row["document_parameters"] or "{}", type=dict[str, str]),
        namespace=row["namespace"],
        offline_signed=row["offline_signed"],
        encrypted=row["encrypted"],
    )
