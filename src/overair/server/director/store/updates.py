"""Multi-target updates, whom they are assigned to, whom they leave out, and what vehicles are served."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, exists, func, insert, select, update

from overair.basics.clock import Instant
from overair.basics.ids import AccountId, EcuSerial, JobId, MultiTargetUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.director.model import (
    Assignment,
    AssignmentOutcome,
    Cancelled,
    CancelWay,
    DirectorJob,
    DirectorView,
    LeftOut,
    Origin,
    View,
)
from overair.server.director.multi_target_update import MultiTargetUpdate, TargetUpdate, read_targets, targets_members
from overair.server.director.store.rows import image, instant, strings, text
from overair.server.director.tables import assignments, jobs, left_out, updates, views
from overair.server.storage.work import HotStatement, sql

ROWS_PER_INSERT_MAX: Final = 1_000
UPDATES_IN_MEMORY_MAX: Final = 256

_VIEW_COLUMNS: Final = tuple(column.name for column in views.columns)
_VIEW_VALUES: Final = tuple(name for name in _VIEW_COLUMNS if name not in ("account", "thing"))
_this_view: Final = (views.c.account == bindparam("b_account"), views.c.thing == bindparam("b_thing"))
_find_view: Final = HotStatement(select(*views.c).where(*_this_view))
_insert_view: Final = HotStatement(insert(views), columns=_VIEW_COLUMNS)
_save_view: Final = HotStatement(
    update(views).where(*_this_view).values({name: bindparam(f"b_{name}") for name in _VIEW_VALUES})
)
_stale: Final = HotStatement(update(views).where(*_this_view).values(is_stale=True))

_ASSIGNMENT_COLUMNS: Final = tuple(column.name for column in assignments.columns)
_insert_assignment: Final = HotStatement(insert(assignments), columns=_ASSIGNMENT_COLUMNS)
_this_assignment: Final = (
    assignments.c.account == bindparam("b_account"),
    assignments.c.thing == bindparam("b_thing"),
)
_attempt: Final = HotStatement(
    select(*assignments.c).where(
        *_this_assignment, assignments.c.job == bindparam("b_job"), assignments.c.number == bindparam("b_number")
    )
)
_CHANGEABLE: Final = ("installed", "ended_at", "outcome", "result_code")
_save_assignment: Final = HotStatement(
    update(assignments)
    .where(*_this_assignment, assignments.c.correlation_id == bindparam("b_correlation_id"))
    .values({name: bindparam(f"b_{name}") for name in _CHANGEABLE})
)
_correlated: Final = HotStatement(
    select(*assignments.c).where(*_this_assignment, assignments.c.correlation_id == bindparam("b_correlation_id"))
)
_find_job: Final = HotStatement(
    select(jobs.c.origin, jobs.c.correlation_id, jobs.c.approval_needed, jobs.c.campaign).where(
        jobs.c.account == bindparam("b_account"), jobs.c.job == bindparam("b_job")
    )
)
_find_update: Final = HotStatement(
    select(updates.c.targets, updates.c.created_at, updates.c.only_ecus).where(
        updates.c.account == bindparam("b_account"), updates.c.id == bindparam("b_id")
    )
)


class SqlUpdateStore:
    """``ports.UpdateStore`` over SQL."""

    # Multi-target updates -------------------------------------------------------------------------------------------------

    def add_update(self, tx: Tx, account: AccountId, made: MultiTargetUpdate) -> None:
        sql(tx).execute(
            insert(updates).values(
                account=account,
                id=made.id,
                targets=text(targets_members(made)),
                created_at=made.created_at,
                only_ecus=None if made.only_ecus is None else text(sorted(made.only_ecus)),
            )
        )

    def find_update(self, tx: Tx, account: AccountId, update_id: MultiTargetUpdateId) -> MultiTargetUpdate | None:
        row = _find_update.first(tx, b_account=account, b_id=update_id)
        if row is None:
            return None
        targets, created_at, only_ecus = row
        return MultiTargetUpdate(
            id=update_id,
            targets=_targets(targets),
            created_at=Instant(created_at),
            only_ecus=None if only_ecus is None else frozenset(msgspec.json.decode(only_ecus, type=list[EcuSerial])),
        )

    # Jobs -----------------------------------------------------------------------------------------------------------------

    def add_job(self, tx: Tx, account: AccountId, job: DirectorJob) -> None:
        sql(tx).execute(
            insert(jobs).values(
                account=account,
                job=job.job,
                origin=job.origin.value,
                correlation_id=job.correlation_id,
                approval_needed=job.approval_needed,
                campaign=job.campaign,
            )
        )

    def find_job(self, tx: Tx, account: AccountId, job: JobId) -> DirectorJob | None:
        row = _find_job.first(tx, b_account=account, b_job=job)
        if row is None:
            return None
        origin, correlation_id, approval_needed, campaign = row
        return DirectorJob(
            job=job,
            origin=Origin(origin),
            correlation_id=correlation_id,
            approval_needed=approval_needed,
            campaign=campaign,
        )

    def forget_job(self, tx: Tx, account: AccountId, job: JobId) -> None:
        """A deleted job, and whom it left out. What became of its assignments stays in the vehicles' history."""
        for table in (jobs, left_out):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.job == job))

    # Who is left out ------------------------------------------------------------------------------------------------------

    def put_left_out(self, tx: Tx, account: AccountId, job: JobId, reasons: Sequence[LeftOut]) -> None:
        """Keep why these things get nothing of a job, in place of what was kept of them."""
        if not reasons:
            return
        assert len(reasons) <= ROWS_PER_INSERT_MAX
        self.take_in(tx, account, job, [reason.thing for reason in reasons])
        rows = [
            {
                "account": account,
                "job": job,
                "thing": reason.thing,
                "code": reason.code,
                "message": reason.message,
                "at": reason.at,
                "ecus": text(reason.ecus),
            }
            for reason in reasons
        ]
        sql(tx).execute(insert(left_out), rows)

    def take_in(self, tx: Tx, account: AccountId, job: JobId, things: Collection[ThingName]) -> None:
        """These things get the job after all."""
        statement = delete(left_out).where(left_out.c.account == account, left_out.c.job == job)
        sql(tx).execute(statement.where(left_out.c.thing.in_(things)))

    def left_out_of(self, tx: Tx, account: AccountId, job: JobId, *, after: str | None, limit: int) -> Sequence[LeftOut]:
        """Of one job, by thing."""
        query = select(*left_out.c).where(left_out.c.account == account, left_out.c.job == job)
        if after is not None:
            query = query.where(left_out.c.thing > after)
        return [_left_out(row) for row in sql(tx).execute(query.order_by(left_out.c.thing).limit(limit)).mappings()]

    def count_left_out(self, tx: Tx, account: AccountId, job: JobId) -> int:
        query = select(func.count()).select_from(left_out).where(left_out.c.account == account, left_out.c.job == job)
        return int(sql(tx).execute(query).scalar_one())

    def left_out_for(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[tuple[JobId, LeftOut]]:
        """Of one thing, newest first."""
        query = select(*left_out.c).where(left_out.c.account == account, left_out.c.thing == thing)
        query = query.order_by(left_out.c.at.desc(), left_out.c.job.desc()).limit(limit)
        return [(JobId(row["job"]), _left_out(row)) for row in sql(tx).execute(query).mappings()]

    # Assignments ----------------------------------------------------------------------------------------------------------

    def add_assignment(self, tx: Tx, account: AccountId, assignment: Assignment) -> None:
        _insert_assignment.run(
            tx,
            account=account,
            thing=assignment.thing,
            correlation_id=assignment.correlation_id,
            job=assignment.job,
            number=assignment.number,
            update_id=assignment.update,
            targets=text(
                {
                    serial: {"name": target.name, "length": target.length, "hashes": target.hashes}
                    for serial, target in assignment.targets.items()
                }
            ),
            created_at=assignment.created_at,
            **_assignment_changes(assignment),
        )

    def save_assignment(self, tx: Tx, account: AccountId, assignment: Assignment) -> None:
        changes = {f"b_{name}": value for name, value in _assignment_changes(assignment).items()}
        _save_assignment.run(
            tx,
            b_account=account,
            b_thing=assignment.thing,
            b_correlation_id=assignment.correlation_id,
            **changes,
        )

    def attempt(self, tx: Tx, account: AccountId, thing: ThingName, job: JobId, number: int) -> Assignment | None:
        row = _attempt.first(tx, b_account=account, b_thing=thing, b_job=job, b_number=number)
        return None if row is None else _assignment(dict(zip(_ASSIGNMENT_COLUMNS, row, strict=True)))

    def correlated(self, tx: Tx, account: AccountId, thing: ThingName, correlation_id: str) -> Assignment | None:
        row = _correlated.first(tx, b_account=account, b_thing=thing, b_correlation_id=correlation_id)
        return None if row is None else _assignment(dict(zip(_ASSIGNMENT_COLUMNS, row, strict=True)))

    def open_updates(self, tx: Tx, account: AccountId) -> Sequence[MultiTargetUpdateId]:
        """What vehicles have fetched and haven't ended."""
        query = select(assignments.c.update_id).where(assignments.c.account == account, assignments.c.ended_at.is_(None))
        return [MultiTargetUpdateId(update_id) for update_id in sql(tx).execute(query.distinct()).scalars()]

    def assignments_of(self, tx: Tx, account: AccountId, thing: ThingName, *, limit: int) -> Sequence[Assignment]:
        """A vehicle's, newest first."""
        query = select(*assignments.c).where(assignments.c.account == account, assignments.c.thing == thing)
        query = query.order_by(assignments.c.created_at.desc(), assignments.c.number.desc()).limit(limit)
        return [_assignment(row) for row in sql(tx).execute(query).mappings()]

    def results_of_job(self, tx: Tx, account: AccountId, job: JobId) -> Mapping[tuple[AssignmentOutcome, str], int]:
        """How the last attempt of each vehicle at a job has ended, counted by outcome and result code."""
        query = (
            select(assignments.c.outcome, assignments.c.result_code, func.count())
            .where(
                assignments.c.account == account,
                assignments.c.job == job,
                assignments.c.outcome.is_not(None),
                _is_last_attempt(),
            )
            .group_by(assignments.c.outcome, assignments.c.result_code)
        )
        return {(AssignmentOutcome(outcome), str(code)): int(count) for outcome, code, count in sql(tx).execute(query)}

    def failed_with(
        self, tx: Tx, account: AccountId, job: JobId, code: str | None, *, after: str | None, limit: int
    ) -> Sequence[Assignment]:
        """Of the vehicles whose last attempt at a job failed, by thing; with one result code, or with any."""
        query = select(*assignments.c).where(
            assignments.c.account == account,
            assignments.c.job == job,
            assignments.c.outcome == AssignmentOutcome.FAILED.value,
            _is_last_attempt(),
        )
        if code is not None:
            query = query.where(assignments.c.result_code == code)
        if after is not None:
            query = query.where(assignments.c.thing > after)
        query = query.order_by(assignments.c.thing).limit(limit)
        return [_assignment(row) for row in sql(tx).execute(query).mappings()]

    # Views ----------------------------------------------------------------------------------------------------------------

    def find_view(self, tx: Tx, account: AccountId, thing: ThingName) -> DirectorView | None:
        row = _find_view.first(tx, b_account=account, b_thing=thing)
        return None if row is None else _view(dict(zip(_VIEW_COLUMNS, row, strict=True)))

    def put_view(self, tx: Tx, account: AccountId, thing: ThingName, view: DirectorView) -> None:
        values = _view_values(view)
        changed = _save_view.run(tx, b_account=account, b_thing=thing, **{f"b_{name}": value for name, value in values.items()})
        if changed == 0:
            _insert_view.run(tx, account=account, thing=thing, **values)

    def set_stale(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        _stale.run(tx, b_account=account, b_thing=thing)

    def forget(self, tx: Tx, account: AccountId, thing: ThingName) -> None:
        """The thing is gone. The version of its view stays, so that a vehicle of the same name never sees a lower one."""
        for table in (assignments, left_out):
            sql(tx).execute(delete(table).where(table.c.account == account, table.c.thing == thing))
        forgotten = update(views).where(views.c.account == account, views.c.thing == thing)
        sql(tx).execute(
            forgotten.values(
                view=View.EMPTY.value,
                job=None,
                number=None,
                correlation_id="",
                is_stale=True,
                must_stay=False,
                cancelled_job=None,
                cancelled_number=None,
                cancelled_way=None,
                cancelled_at=None,
                held_until=None,
            )
        )


@lru_cache(maxsize=UPDATES_IN_MEMORY_MAX)
def _targets(text: str) -> Mapping[str, TargetUpdate]:
    """An update is never changed, and read for each vehicle that it is for."""
    return read_targets({"targets": msgspec.json.decode(text)})


def _is_last_attempt() -> ColumnElement[bool]:
    later = assignments.alias("later")
    return ~exists().where(
        later.c.account == assignments.c.account,
        later.c.thing == assignments.c.thing,
        later.c.job == assignments.c.job,
        later.c.number > assignments.c.number,
    )


def _left_out(row: Mapping[Any, Any]) -> LeftOut:
    return LeftOut(
        thing=ThingName(row["thing"]),
        code=row["code"],
        message=row["message"],
        at=Instant(row["at"]),
        ecus=strings(row["ecus"]),
    )


def _assignment_changes(assignment: Assignment) -> dict[str, Any]:
    return {
        "installed": text(sorted(assignment.installed)),
        "ended_at": assignment.ended_at,
        "outcome": None if assignment.outcome is None else assignment.outcome.value,
        "result_code": assignment.result_code,
    }


def _assignment(row: Mapping[Any, Any]) -> Assignment:
    targets = msgspec.json.decode(row["targets"], type=dict[str, dict[str, Any]])
    outcome = row["outcome"]
    return Assignment(
        thing=ThingName(row["thing"]),
        job=JobId(row["job"]),
        number=row["number"],
        update=MultiTargetUpdateId(row["update_id"]),
        correlation_id=row["correlation_id"],
        targets={
            EcuSerial(serial): image(target["name"], target["length"], text(target["hashes"]))
            for serial, target in targets.items()
        },
        created_at=Instant(row["created_at"]),
        installed=frozenset(EcuSerial(serial) for serial in msgspec.json.decode(row["installed"], type=list[str])),
        ended_at=instant(row["ended_at"]),
        outcome=None if outcome is None else AssignmentOutcome(outcome),
        result_code=row["result_code"],
    )


def _view_values(view: DirectorView) -> dict[str, Any]:
    cancelled = view.cancelled
    return {
        "version": view.version,
        "view": view.view.value,
        "job": view.job,
        "number": view.number,
        "correlation_id": view.correlation_id,
        "root_version": view.root_version,
        "signed_at": view.signed_at,
        "expires_at": view.expires_at,
        "is_stale": view.is_stale,
        "must_stay": view.must_stay,
        "cancelled_job": None if cancelled is None else cancelled.job,
        "cancelled_number": None if cancelled is None else cancelled.number,
        "cancelled_way": None if cancelled is None else cancelled.way.value,
        "cancelled_at": None if cancelled is None else cancelled.at,
        "held_until": None if cancelled is None else cancelled.held_until,
        "targets": view.targets,
        "snapshot": view.snapshot,
        "timestamp": view.timestamp,
    }


def _view(row: Mapping[Any, Any]) -> DirectorView:
    cancelled = None
    if row["cancelled_job"] is not None:
        cancelled = Cancelled(
            job=JobId(row["cancelled_job"]),
            number=row["cancelled_number"],
            way=CancelWay(row["cancelled_way"]),
            at=Instant(row["cancelled_at"]),
            held_until=instant(row["held_until"]),
        )
    return DirectorView(
        version=row["version"],
        view=View(row["view"]),
        job=None if row["job"] is None else JobId(row["job"]),
        number=row["number"],
        correlation_id=row["correlation_id"],
        root_version=row["root_version"],
        signed_at=Instant(row["signed_at"]),
        expires_at=Instant(row["expires_at"]),
        targets=bytes(row["targets"]),
        snapshot=bytes(row["snapshot"]),
        timestamp=bytes(row["timestamp"]),
        is_stale=row["is_stale"],
        must_stay=row["must_stay"],
        cancelled=cancelled,
    )
