"""One rate for everything that gives a thing an execution: the planned rollout, joiners, retries and what is sent again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock
from overair.basics.ids import AccountId, JobId, ThingName
from overair.server.jobs.model import (
    AbortCriterion,
    FailureType,
    JobPhase,
    JobPlan,
    JobSettings,
    MaintenanceWindow,
    Report,
    RetryCriterion,
    RolloutConfig,
    Schedule,
    TargetSelection,
)
from overair.server.jobs.tables import job_executions, job_waiting_things
from overair.server.storage.work import open_sqlite, sql
from overair.wire.job_messages import ExecutionStatus
from tests.server.jobs.test_planning import counts, joins, leaves, report
from tests.server.jobs.test_simulated_days import most_in_a_minute
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus
CONTINUOUS = TargetSelection.CONTINUOUS
LOOKS_EVERY_S = 5
TWO_RETRIES = (RetryCriterion(failure_type=FailureType.FAILED, retries=2),)


def at_a_rate(rate: int, **more: Any) -> JobSettings:
    return JobSettings(rollout=RolloutConfig(maximum_per_minute=rate), **more)


def queueings(room: JobsRoom) -> list[int]:
    query = job_executions.select().order_by(job_executions.c.queued_at)
    return [row.queued_at for row in room.work.read_blocking(lambda tx: sql(tx).execute(query).all())]


def in_line(room: JobsRoom) -> list[tuple[str, str | None]]:
    query = job_waiting_things.select().order_by(job_waiting_things.c.position)
    return [(row.thing, row.ended) for row in room.work.read_blocking(lambda tx: sql(tx).execute(query).all())]


async def wait(room: JobsRoom, seconds: int) -> None:
    for begun in range(0, seconds, LOOKS_EVERY_S):
        room.clock.advance(milliseconds=1000 * min(LOOKS_EVERY_S, seconds - begun))
        while await room.planner.run_once():
            pass


async def test_who_joins_gets_the_job_at_once_while_the_minute_has_room_and_waits_otherwise(room: JobsRoom) -> None:
    room.add_things(group="g")
    room.create("C", room.group_arn("g"), selection=CONTINUOUS, settings=at_a_rate(2))
    await wait(room, 120)
    for thing in ("a", "b", "c", "d"):
        joins(room, thing, "g")
        await wait(room, 1)
    assert counts(room, "C") == {"QUEUED": 1}
    assert [thing for thing, _ in in_line(room)] == ["b", "c", "d"]
    assert room.job("C").phase is JobPhase.ROLLING_OUT
    await wait(room, 60)
    assert counts(room, "C") == {"QUEUED": 3}
    leaves(room, "d", "g")
    await wait(room, 120)
    assert (counts(room, "C"), in_line(room), room.job("C").phase) == ({"QUEUED": 3}, [], JobPhase.SETTLED)
    joins(room, "d", "g")
    assert counts(room, "C") == {"QUEUED": 4}


async def test_a_retry_waits_for_its_turn_behind_who_has_yet_to_begin(room: JobsRoom) -> None:
    room.add_things("a", "b", "c", group="g")
    room.create("J", room.group_arn("g"), settings=at_a_rate(1, retry=TWO_RETRIES))
    await report(room, "a", "J", "FAILED")
    # It stays as it ended until then.
    assert (counts(room, "J"), in_line(room)) == ({"FAILED": 1}, [("b", None), ("c", None), ("a", "FAILED")])
    await wait(room, 60)
    await report(room, "b", "J", "SUCCEEDED")
    await wait(room, 60)
    await report(room, "c", "J", "SUCCEEDED")
    assert room.job("J").status == "IN_PROGRESS"
    room.heard()
    await wait(room, 60)
    assert room.kinds() == [("a", "notify"), ("a", "notify-next")]
    again = room.execution("a", "J")
    assert (again.number, again.status, again.retry_attempt) == (2, S.QUEUED, 1)
    assert counts(room, "J") == {"QUEUED": 1, "SUCCEEDED": 2}
    await report(room, "a", "J", "FAILED")
    await wait(room, 60)
    await report(room, "a", "J", "FAILED")
    await wait(room, 60)
    # The second retry was the last one.
    assert room.execution("a", "J").number == 3
    assert (room.job("J").status, counts(room, "J")) == ("COMPLETED", {"FAILED": 1, "SUCCEEDED": 2})


async def test_a_failure_that_waits_for_another_attempt_counts_for_no_abort(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    abort = (AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=50, things_executed_min=1),)
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=1),)
    room.create("J", room.group_arn("g"), settings=at_a_rate(1, retry=retry, abort=abort))
    await report(room, "a", "J", "FAILED")
    assert room.job("J").status == "IN_PROGRESS"
    await wait(room, 120)
    await report(room, "a", "J", "FAILED")
    assert (room.job("J").status, in_line(room)) == ("CANCELED", [])


async def test_a_retry_is_dropped_with_the_attempt_that_it_is_about(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("J", room.group_arn("g"), settings=at_a_rate(1, retry=TWO_RETRIES))
    await report(room, "a", "J", "FAILED")
    account = room.place.account
    room.work.run_blocking(lambda tx: room.jobs.executions.delete(tx, account, ThingName("a"), JobId("J"), 1))
    assert in_line(room) == [("b", None)]
    await wait(room, 180)
    assert counts(room, "J") == {"QUEUED": 1}


async def test_what_is_sent_again_waits_for_its_turn_and_has_all_its_retries(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("C", room.group_arn("g"), selection=CONTINUOUS, settings=at_a_rate(1, retry=TWO_RETRIES))
    await report(room, "a", "C", "FAILED")
    assert in_line(room) == [("b", None), ("a", "FAILED")]
    room.work.run_blocking(lambda tx: room.jobs.provisioned_again(tx, room.place.account, ThingName("a")))
    assert in_line(room) == [("b", None), ("a", None)]
    await wait(room, 120)
    again = room.execution("a", "C")
    assert (again.number, again.status, again.retry_attempt) == (2, S.QUEUED, 0)


async def test_a_retry_waits_for_the_next_window_and_comes_no_more_after_the_schedules_end(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    windows = (MaintenanceWindow(starts="cron(0 10 * * ? *)", duration_minutes=60),)
    schedule = Schedule(windows=windows, ends_at=Instant(room.clock.now() + 36 * 3_600_000))
    plan = JobPlan(
        id=JobId("C"),
        targets=(room.group_arn("g"),),
        document="{}",
        schedule=schedule,
        target_selection=CONTINUOUS,
        settings=JobSettings(retry=TWO_RETRIES),
    )
    room.work.run_blocking(lambda tx: room.jobs.create(tx, room.place, plan))

    async def at_hour(hour: int) -> None:
        room.clock.set(Instant(1_767_225_600_000 + hour * 3_600_000))
        while await room.planner.run_once():
            pass

    await at_hour(10)
    await at_hour(12)
    await report(room, "a", "C", "FAILED")
    assert (counts(room, "C"), in_line(room)) == ({"FAILED": 1}, [("a", "FAILED")])
    await at_hour(34)
    assert (room.execution("a", "C").number, counts(room, "C")) == (2, {"QUEUED": 1})
    await at_hour(37)
    await report(room, "a", "C", "FAILED")
    assert (counts(room, "C"), in_line(room), room.job("C").status) == ({"FAILED": 1}, [], "COMPLETED")


THINGS = [f"t{number}" for number in range(8)]
Event = tuple[str, str, int]
EVENTS = st.tuples(
    st.sampled_from(["join", "leave", "fail", "fail", "succeed", "again", "plan"]),
    st.sampled_from(THINGS),
    st.integers(0, 25_000),
)


@given(rate=st.integers(1, 6), events=st.lists(EVENTS, min_size=20, max_size=60))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_minute_sees_more_than_the_rate_whatever_gives_executions(
    rate: int, events: Sequence[Event], sqlite_template: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("turns") / "r.sqlite3"
    shutil.copyfile(sqlite_template(), path)
    clock = SettableClock(Instant(1_767_225_600_000))
    work = open_sqlite(path, clock=clock, readers=1)
    place = Place("us-east-1", AccountId("123456789012"))
    room = JobsRoom(work, place, clock)
    try:
        room.add_things(*THINGS[:4], group="g")
        room.add_things(*THINGS)
        retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=3),)
        room.create("C", room.group_arn("g"), selection=CONTINUOUS, settings=at_a_rate(rate, retry=retry))
        for kind, thing, milliseconds in events:
            clock.advance(milliseconds=milliseconds)
            happen(room, kind, ThingName(thing))
        # Whoever stands in line gets its turn in the end.
        for _ in range(60):
            clock.advance(milliseconds=10_000)
            happen(room, "plan", ThingName(""))
        assert in_line(room) == []
        assert most_in_a_minute(queueings(room)) <= rate
    finally:
        work.close()


def happen(room: JobsRoom, kind: str, thing: ThingName) -> None:
    account = room.place.account
    members = room.registry.groups["g"]
    if kind == "join" and thing not in members:
        joins(room, thing, "g")
    elif kind == "leave" and thing in members:
        leaves(room, thing, "g")
    elif kind == "again":
        room.work.run_blocking(lambda tx: room.jobs.provisioned_again(tx, account, thing))
    elif kind in ("fail", "succeed"):
        status = S.FAILED if kind == "fail" else S.SUCCEEDED
        pending = room.work.read_blocking(lambda tx: room.jobs.executions.pending_of(tx, account, [thing])).get(thing, ())
        if pending:
            told = Report(status=status)
            room.work.run_blocking(lambda tx: room.jobs.device.report(tx, room.place, thing, JobId("C"), told))
    else:
        while room.work.run_blocking(lambda tx: room.jobs.planner.step(tx, now=room.clock.now())):
            pass
