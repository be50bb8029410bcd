"""Whatever operators, devices, groups and the clock do, in whatever order: a job's numbers add up, and no thing has two open
executions of one job."""

from __future__ import annotations

import json
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, GroupName, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import (
    MINUTE_MS,
    PENDING,
    AbortCriterion,
    EndBehavior,
    FailureType,
    JobPhase,
    JobPlan,
    JobSettings,
    JobStatus,
    Report,
    RetryCriterion,
    RolloutConfig,
    Schedule,
    TargetSelection,
)
from overair.server.jobs.tables import job_executions, job_waiting_things, jobs
from overair.server.storage.work import SqlWork, open_sqlite, sql
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
PLACE = Place("us-east-1", AccountId("123456789012"))
START = Instant(1_767_225_600_000)
THINGS = [ThingName(name) for name in ("a", "b", "c", "d")]
GROUPS = [GroupName("g"), GroupName("h")]
JOBS = [JobId(name) for name in ("A", "B", "C")]
NAMESPACES = [None, None, "ns"]
SETTINGS = [
    JobSettings(),
    JobSettings(rollout=RolloutConfig(maximum_per_minute=2)),
    JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=2),), in_progress_timeout_minutes=5),
    JobSettings(
        rollout=RolloutConfig(maximum_per_minute=2),
        retry=(RetryCriterion(failure_type=FailureType.ALL, retries=3),),
        in_progress_timeout_minutes=1,
    ),
    JobSettings(
        rollout=RolloutConfig(maximum_per_minute=30),
        abort=(AbortCriterion(failure_type=FailureType.ALL, threshold_percentage=50, things_executed_min=2),),
    ),
]


class Machine(RuleBasedStateMachine):
    """The jobs room on real records; refusals are as good as answers, as long as nothing half-done remains."""

    template: Callable[[], Path]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="overair-actions-"))
        shutil.copyfile(type(self).template(), self.folder / "r.sqlite3")
        self.clock = SettableClock(START)
        self.work: SqlWork = open_sqlite(self.folder / "r.sqlite3", clock=self.clock, readers=1)
        self.room = JobsRoom(self.work, PLACE, self.clock)
        self.room.add_things(*THINGS[:3])
        for group in GROUPS:
            self.room.registry.groups[group] = set()
        self.room.registry.groups["g"] = {"a", "b"}
        self.queued: dict[int, dict[tuple[str, int, int], int]] = {}
        """When each attempt of each metered job that ever was had its turn, by the job's sequence."""

    def teardown(self) -> None:
        self.work.close()
        shutil.rmtree(self.folder)

    def tried(self, unit: Callable[[Tx], Any]) -> None:
        try:
            self.work.run_blocking(unit)
        except OverairError:
            return

    # Operators ------------------------------------------------------------------------------------------------------------

    @rule(
        job=st.sampled_from(JOBS),
        of_group=st.booleans(),
        continuous=st.booleans(),
        kind=st.sampled_from(SETTINGS),
        namespace=st.sampled_from(NAMESPACES),
        schedule=st.sampled_from([None, None, None, "start", EndBehavior.STOP_ROLLOUT, EndBehavior.FORCE_CANCEL]),
    )
    def create(
        self,
        job: JobId,
        of_group: bool,
        continuous: bool,
        kind: JobSettings,
        namespace: str | None,
        schedule: EndBehavior | str | None,
    ) -> None:
        targets = [self.room.group_arn("g")] if of_group else [self.room.thing_arn(thing) for thing in ("a", "c")]
        selection = TargetSelection.CONTINUOUS if continuous else TargetSelection.SNAPSHOT
        plan = JobPlan(
            id=job,
            targets=tuple(targets),
            document="{}",
            settings=kind,
            target_selection=selection,
            namespace=namespace,
            schedule=self.schedule(schedule),
        )
        self.tried(lambda tx: self.room.jobs.create(tx, PLACE, plan))

    def schedule(self, kind: EndBehavior | str | None) -> Schedule | None:
        if kind is None:
            return None
        soon = Instant(self.clock.now() + 30 * MINUTE_MS)
        return Schedule(ends_at=soon, end_behavior=kind) if isinstance(kind, EndBehavior) else Schedule(starts_at=soon)

    @rule(job=st.sampled_from(JOBS))
    def associate(self, job: JobId) -> None:
        self.tried(lambda tx: self.room.jobs.associate(tx, PLACE, job, [self.room.group_arn("h")], comment=None))

    @rule(job=st.sampled_from(JOBS), minutes=st.sampled_from([1, 7]))
    def update(self, job: JobId, minutes: int) -> None:
        def changed(settings: JobSettings) -> JobSettings:
            return replace(settings, in_progress_timeout_minutes=minutes)

        self.tried(lambda tx: self.room.jobs.change(tx, PLACE.account, job, changed))

    @rule(job=st.sampled_from(JOBS), force=st.booleans())
    def cancel(self, job: JobId, force: bool) -> None:
        self.tried(lambda tx: self.room.jobs.cancel(tx, PLACE.account, job, force=force))

    @rule(job=st.sampled_from(JOBS), force=st.booleans())
    def delete(self, job: JobId, force: bool) -> None:
        self.tried(lambda tx: self.room.jobs.delete(tx, PLACE.account, job, force=force))

    @rule(job=st.sampled_from(JOBS), thing=st.sampled_from(THINGS), force=st.booleans())
    def cancel_execution(self, job: JobId, thing: ThingName, force: bool) -> None:
        self.tried(lambda tx: self.room.jobs.executions.cancel(tx, PLACE.account, thing, job, force=force))

    @rule(job=st.sampled_from(JOBS), thing=st.sampled_from(THINGS), number=st.integers(1, 4), force=st.booleans())
    def delete_execution(self, job: JobId, thing: ThingName, number: int, force: bool) -> None:
        self.tried(lambda tx: self.room.jobs.executions.delete(tx, PLACE.account, thing, job, number, force=force))

    # Devices --------------------------------------------------------------------------------------------------------------

    @rule(thing=st.sampled_from(THINGS), minutes=st.sampled_from([None, 1, 7]))
    def start_next(self, thing: ThingName, minutes: int | None) -> None:
        self.tried(lambda tx: self.room.jobs.device.start_next(tx, PLACE, thing, step_timeout_minutes=minutes))

    @rule(thing=st.sampled_from(THINGS), namespace=st.sampled_from(NAMESPACES))
    def ask_for_the_next(self, thing: ThingName, namespace: str | None) -> None:
        self.tried(lambda tx: self.room.jobs.device.next(tx, PLACE, thing, namespace=namespace))

    @rule(
        job=st.sampled_from(JOBS),
        thing=st.sampled_from(THINGS),
        status=st.sampled_from([S.IN_PROGRESS, S.SUCCEEDED, S.SUCCEEDED, S.FAILED, S.REJECTED]),
        details=st.sampled_from([None, {"updatedBy": "0x01000000"}, {"reason": "accepted  v2.0.0"}]),
        version=st.sampled_from([None, None, 1, 2]),
        number=st.sampled_from([None, None, 1, 2]),
    )
    def report(
        self, job: JobId, thing: ThingName, status: S, details: dict[str, str] | None, version: int | None, number: int | None
    ) -> None:
        report = Report(status=status, status_details=details, expected_version=version, execution_number=number)
        self.tried(lambda tx: self.room.jobs.device.report(tx, PLACE, thing, job, report))

    # The registry ---------------------------------------------------------------------------------------------------------

    @rule(thing=st.sampled_from(THINGS), group=st.sampled_from(GROUPS))
    def join(self, thing: ThingName, group: GroupName) -> None:
        self.room.registry.things.add(thing)
        members = self.room.registry.groups[group]
        if thing not in members:
            members.add(thing)
            self.work.run_blocking(lambda tx: self.room.jobs.joined(tx, PLACE.account, thing, group))

    @rule(thing=st.sampled_from(THINGS), group=st.sampled_from(GROUPS))
    def leave(self, thing: ThingName, group: GroupName) -> None:
        members = self.room.registry.groups[group]
        if thing in members:
            members.remove(thing)
            self.work.run_blocking(lambda tx: self.room.jobs.left(tx, PLACE.account, thing, group))

    @rule(thing=st.sampled_from(THINGS))
    def delete_thing(self, thing: ThingName) -> None:
        for members in self.room.registry.groups.values():
            members.discard(thing)
        self.room.registry.things.discard(thing)
        self.work.run_blocking(lambda tx: self.room.jobs.thing_deleted(tx, PLACE.account, thing))

    @rule(thing=st.sampled_from(THINGS))
    def provision_again(self, thing: ThingName) -> None:
        self.work.run_blocking(lambda tx: self.room.jobs.provisioned_again(tx, PLACE.account, thing))

    # The clock and the workers --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 1, 29, 61, 301, 1800]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(milliseconds=seconds * 1000)

    @rule()
    def time_out(self) -> None:
        now = self.clock.now()
        self.work.run_blocking(lambda tx: self.room.jobs.executions.time_out_overdue(tx, now=now))

    @rule(steps=st.integers(1, 3))
    def plan(self, steps: int) -> None:
        for _ in range(steps):
            now = self.clock.now()
            self.work.run_blocking(lambda tx, now=now: self.room.jobs.planner.step(tx, now=now))

    # What always holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def the_numbers_add_up(self) -> None:
        def look(tx: Tx) -> tuple[list[Any], list[Any], list[Any]]:
            rows = sql(tx).execute(jobs.select()).all()
            return rows, sql(tx).execute(job_executions.select()).all(), sql(tx).execute(job_waiting_things.select()).all()

        rows, executions, waiting = self.work.read_blocking(look)
        for row in rows:
            own = [execution for execution in executions if execution.job == row.id]
            latest = [execution for execution in own if execution.latest]
            for status in S:
                counted = getattr(row, f"count_{status.value.lower()}")
                assert counted == sum(execution.status == status.value for execution in latest), (row.id, status)
            assert len({execution.thing for execution in latest}) == len(latest)
            # Each thing that ever had an attempt has one that is the latest, and it is its last.
            last = {execution.thing: max(o.number for o in own if o.thing == execution.thing) for execution in own}
            assert {execution.thing: execution.number for execution in latest} == last
            pending = [execution for execution in own if execution.status in {status.value for status in PENDING}]
            assert all(execution.latest for execution in pending)
            assert all(execution.due_at is None for execution in own if execution not in pending)
            if row.status == JobStatus.COMPLETED.value:
                assert not pending
            if row.phase in (JobPhase.CANCELING.value, JobPhase.DELETING.value):
                assert row.status in (JobStatus.CANCELED.value, JobStatus.DELETION_IN_PROGRESS.value)
        known = {row.id for row in rows}
        assert all(execution.job in known for execution in executions)
        of = {row.id: row for row in rows}
        for one in waiting:
            assert one.job in known
            assert of[one.job].phase == JobPhase.ROLLING_OUT.value
            latest = [each for each in executions if (each.job, each.thing, each.latest) == (one.job, one.thing, True)]
            # Nobody waits who has something to do; whoever waits to try again has failed.
            assert all(each.status not in {status.value for status in PENDING} for each in latest)
            assert one.ended is None or [each.status for each in latest] == [one.ended]
        self.the_rate_holds(rows, executions)
        things = self.room.registry.things
        assert all(e.thing in things for e in executions if e.status in {status.value for status in PENDING})

    def the_rate_holds(self, rows: list[Any], executions: list[Any]) -> None:
        # A job that is gone leaves its sequence to another.
        self.queued = {row.sequence: self.queued.get(row.sequence, {}) for row in rows}
        for row in rows:
            rate = json.loads(row.settings)["rollout"]
            if rate is None:
                continue
            queued = self.queued[row.sequence]
            for each in executions:
                if each.job == row.id:
                    queued[each.thing, each.number, each.queued_at] = each.queued_at
            times = sorted(queued.values())
            for position, at in enumerate(times):
                assert bisect_left(times, at + MINUTE_MS) - position <= rate["maximum_per_minute"]


def test_a_jobs_numbers_add_up_whatever_happens(sqlite_template: Callable[[], Path]) -> None:
    Machine.template = staticmethod(sqlite_template)  # type: ignore[assignment]
    run_state_machine_as_test(Machine, settings=settings(max_examples=6, stateful_step_count=30, deadline=None))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_jobs_numbers_add_up_whatever_happens_for_long(sqlite_template: Callable[[], Path]) -> None:
    Machine.template = staticmethod(sqlite_template)  # type: ignore[assignment]
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=60, deadline=None))
