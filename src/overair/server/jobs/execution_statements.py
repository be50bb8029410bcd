"""The statements about executions that are spelt once, because devices and the planner wait on them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, case, insert, or_, select, update

from overair.server.jobs.model import PENDING, STARTED
from overair.server.jobs.tables import is_pending, job_executions
from overair.server.storage.statements import HotStatement, listed
from overair.wire.job_messages import ExecutionStatus

PENDING_NAMES: Final = sorted(status.value for status in PENDING)
_STARTED: Final = sorted(status.value for status in STARTED)
started_first: Final = case((job_executions.c.status.in_(_STARTED), 0), else_=1)
COLUMNS: Final = tuple(column.name for column in job_executions.columns)
_CHANGEABLE: Final = (
    "latest",
    "status",
    "status_details",
    "version",
    "force_canceled",
    "started_at",
    "last_updated_at",
    "in_progress_due_at",
    "step_due_at",
    "due_at",
    "fulfilment",
    "outlived",
)
_this_thing: Final = (job_executions.c.account == bindparam("b_account"), job_executions.c.thing == bindparam("b_thing"))
_of_this_job: Final = (*_this_thing, job_executions.c.job == bindparam("b_job"))
_latest: Final = select(*job_executions.c).where(*_of_this_job, job_executions.c.latest.is_(True))
_numbered: Final = select(*job_executions.c).where(*_of_this_job, job_executions.c.number == bindparam("b_number"))
find_latest: Final = HotStatement(_latest)
find_numbered: Final = HotStatement(_numbered)
# A unit that may write holds what it looks at, so that no other node's report comes in between (PostgreSQL).
find_latest_to_change: Final = HotStatement(_latest.with_for_update())
find_numbered_to_change: Final = HotStatement(_numbered.with_for_update())
insert_one: Final = HotStatement(insert(job_executions), columns=COLUMNS)
# Those that a queued execution has a value for; the rest is NULL.
ALIKE: Final = (
    *(name for name in COLUMNS if name != "thing" and not job_executions.c[name].nullable),
    "fulfilment",
    "namespace",
)
_things: Final = listed("b_things")
insert_alike: Final = {
    dialect: HotStatement(
        insert(job_executions).from_select(
            ["thing", *ALIKE],
            select(named.c.value, *(bindparam(f"b_{name}", type_=job_executions.c[name].type) for name in ALIKE)),
        )
    )
    for dialect, named in _things.items()
}
save_one: Final = HotStatement(
    update(job_executions)
    .where(*_of_this_job, job_executions.c.number == bindparam("b_number"))
    .values({name: bindparam(f"b_{name}") for name in _CHANGEABLE})
)
# A hot statement holds no list of values, so the few states are spelt out.
_any_pending: Final = (
    select(*job_executions.c)
    .where(*_this_thing, is_pending)
    .order_by(
        case((or_(*(job_executions.c.status == status for status in _STARTED)), 0), else_=1),
        job_executions.c.queued_at,
        job_executions.c.job_sequence,
        job_executions.c.job,
    )
    .limit(bindparam("b_limit"))
)
pending: Final = HotStatement(_any_pending.where(job_executions.c.namespace.is_(None)))
pending_in_namespace: Final = HotStatement(_any_pending.where(job_executions.c.namespace == bindparam("b_namespace")))
pending_anywhere: Final = HotStatement(_any_pending)
# What tells one queue from another in the messages about it, behind whose it is and in which namespace.
_SHOWN: Final = (
    "thing",
    "namespace",
    "job",
    "number",
    "status",
    "queued_at",
    "started_at",
    "last_updated_at",
    "version",
    "job_sequence",
)
shown_of: Final = {
    dialect: HotStatement(
        select(*(job_executions.c[name] for name in _SHOWN))
        .where(
            job_executions.c.account == bindparam("b_account"),
            job_executions.c.thing.in_(select(named.c.value)),
            is_pending,
        )
        .order_by(job_executions.c.job_sequence)
    )
    for dialect, named in _things.items()
}
latest_of: Final = {
    dialect: HotStatement(
        select(*job_executions.c).where(
            job_executions.c.account == bindparam("b_account"),
            job_executions.c.job == bindparam("b_job"),
            job_executions.c.thing.in_(select(named.c.value)),
            job_executions.c.latest.is_(True),
        )
    )
    for dialect, named in _things.items()
}

# The path that every device waits on: progress of an execution that is already in progress, nothing else changes.
_goes_on: Final = (
    update(job_executions)
    .where(
        *_of_this_job,
        job_executions.c.latest.is_(True),
        job_executions.c.status == ExecutionStatus.IN_PROGRESS.value,
        job_executions.c.fulfilment.is_(None),
    )
    .values(
        status_details=bindparam("b_details"),
        version=job_executions.c.version + 1,
        last_updated_at=bindparam("b_now"),
    )
)
progress: Final = HotStatement(_goes_on.where(job_executions.c.version == bindparam("b_version")))
progress_of_any_version: Final = HotStatement(_goes_on)
