"""Jobs that begin, pause and end by the clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.basics.ids import GroupName, JobId, ThingName
from overair.server.jobs.model import (
    EndBehavior,
    JobPhase,
    JobPlan,
    JobSettings,
    JobStatus,
    MaintenanceWindow,
    RolloutConfig,
    Schedule,
    TargetSelection,
)
from overair.server.jobs.schedule import next_rollouts, opens_at, read_time, write_time
from tests.server.jobs.test_planning import counts, joins, report
from tests.support.jobs_room import JobsRoom


def at(text: str) -> Instant:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


def make(
    room: JobsRoom,
    job: str,
    schedule: Schedule,
    *,
    selection: TargetSelection = TargetSelection.SNAPSHOT,
    settings: JobSettings | None = None,
) -> None:
    plan = JobPlan(
        id=JobId(job),
        targets=(room.group_arn("g"),),
        document="{}",
        schedule=schedule,
        target_selection=selection,
        settings=settings or JobSettings(),
    )
    room.work.run_blocking(lambda tx: room.jobs.create(tx, room.place, plan))


async def until(room: JobsRoom, moment: str) -> None:
    room.clock.set(at(moment))
    while await room.planner.run_once():
        pass


async def test_a_scheduled_job_begins_at_its_start_with_the_members_of_its_making(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    make(room, "A", Schedule(starts_at=at("2026-01-02 10:00")))
    assert (room.job("A").status, counts(room, "A")) == (JobStatus.SCHEDULED, {})
    joins(room, "late", "g")
    await until(room, "2026-01-02 09:59")
    assert (room.job("A").status, counts(room, "A")) == (JobStatus.SCHEDULED, {})
    await until(room, "2026-01-02 10:00")
    assert (room.job("A").status, counts(room, "A")) == (JobStatus.IN_PROGRESS, {"QUEUED": 2})
    for thing in ("a", "b"):
        await report(room, thing, "A", "SUCCEEDED")
    assert room.job("A").status is JobStatus.COMPLETED


async def test_who_joins_a_scheduled_continuous_job_waits_for_its_start(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    make(room, "C", Schedule(starts_at=at("2026-01-02 10:00")), selection=TargetSelection.CONTINUOUS)
    joins(room, "late", "g")
    assert counts(room, "C") == {}
    await until(room, "2026-01-02 10:00")
    assert counts(room, "C") == {"QUEUED": 2}
    joins(room, "later", "g")
    assert counts(room, "C") == {"QUEUED": 3}


def test_a_scheduled_job_can_be_cancelled_before_it_begins(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    make(room, "A", Schedule(starts_at=at("2026-01-02 10:00")))
    room.work.run_blocking(lambda tx: room.jobs.cancel(tx, room.place.account, JobId("A")))
    assert room.job("A").status is JobStatus.CANCELED


@pytest.mark.parametrize(
    ("behavior", "status", "at_the_end"),
    [
        (EndBehavior.STOP_ROLLOUT, JobStatus.IN_PROGRESS, {"QUEUED": 59, "IN_PROGRESS": 1}),
        (EndBehavior.CANCEL, JobStatus.CANCELED, {"CANCELED": 59, "IN_PROGRESS": 1}),
        (EndBehavior.FORCE_CANCEL, JobStatus.CANCELED, {"CANCELED": 60}),
    ],
)
async def test_what_the_end_of_a_schedule_does(
    room: JobsRoom, behavior: EndBehavior, status: JobStatus, at_the_end: dict[str, int]
) -> None:
    room.add_things(*(f"t{number:03}" for number in range(90)), group="g")
    meter = JobSettings(rollout=RolloutConfig(maximum_per_minute=2))
    make(room, "A", Schedule(ends_at=at("2026-01-01 00:30"), end_behavior=behavior), settings=meter)
    await report(room, "t000", "A", "IN_PROGRESS")
    for half_minute in range(60):
        room.clock.set(Instant(at("2026-01-01 00:00") + half_minute * 30_000))
        while await room.planner.run_once():
            pass
    assert counts(room, "A") == {"QUEUED": 59, "IN_PROGRESS": 1}
    # Somebody's turn comes in the moment of the end, and doesn't count any more.
    await until(room, "2026-01-01 00:30")
    assert (room.job("A").status, counts(room, "A")) == (status, at_the_end)
    await until(room, "2026-01-01 05:00")
    assert counts(room, "A") == at_the_end
    assert room.job("A").phase is JobPhase.SETTLED


async def test_a_stopped_rollout_is_completed_with_its_last_execution_and_takes_nobody_in(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    make(room, "C", Schedule(ends_at=at("2026-01-01 01:00")), selection=TargetSelection.CONTINUOUS)
    await until(room, "2026-01-01 01:00")
    assert room.job("C").status is JobStatus.IN_PROGRESS
    joins(room, "b", "g")
    assert counts(room, "C") == {"QUEUED": 1}
    await report(room, "a", "C", "SUCCEEDED")
    assert room.job("C").status is JobStatus.COMPLETED


async def test_a_continuous_job_without_anybody_ends_with_its_schedule(room: JobsRoom) -> None:
    room.add_things(group="g")
    make(room, "C", Schedule(ends_at=at("2026-01-01 01:00")), selection=TargetSelection.CONTINUOUS)
    await until(room, "2026-01-01 00:59")
    assert room.job("C").status is JobStatus.IN_PROGRESS
    await until(room, "2026-01-01 01:00")
    assert room.job("C").status is JobStatus.COMPLETED


async def test_a_rollout_goes_on_in_its_windows_alone(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(200)), group="g")
    window = MaintenanceWindow(starts="cron(0 2 * * ? *)", duration_minutes=60)
    make(
        room,
        "C",
        Schedule(windows=(window,)),
        selection=TargetSelection.CONTINUOUS,
        settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=1)),
    )
    assert room.job("C").status is JobStatus.SCHEDULED
    released: list[tuple[Instant, int]] = []
    before = 0
    for minute in range(0, 3 * 24 * 60, 5):
        room.clock.set(Instant(at("2026-01-01 00:00") + minute * 60_000))
        while await room.planner.run_once():
            pass
        count = sum(counts(room, "C").values())
        if count > before:
            released.append((room.clock.now(), count - before))
        before = count
    assert {as_datetime(moment).hour for moment, _ in released} == {2}
    assert {as_datetime(moment).day for moment, _ in released} == {1, 2, 3}
    assert room.job("C").status is JobStatus.IN_PROGRESS


async def test_who_joins_outside_of_a_window_waits_for_the_next_one(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    window = MaintenanceWindow(starts="cron(0 2 * * ? *)", duration_minutes=60)
    make(room, "C", Schedule(windows=(window,)), selection=TargetSelection.CONTINUOUS)
    await until(room, "2026-01-01 02:30")
    assert counts(room, "C") == {"QUEUED": 1}
    joins(room, "inside", "g")
    assert counts(room, "C") == {"QUEUED": 2}
    await until(room, "2026-01-01 03:00")
    assert room.job("C").phase is JobPhase.SETTLED
    joins(room, "outside", "g")
    joins(room, "gone", "g")
    room.registry.groups["g"].remove("gone")
    room.work.run_blocking(lambda tx: room.jobs.left(tx, room.place.account, ThingName("gone"), GroupName("g")))
    await until(room, "2026-01-02 01:59")
    assert counts(room, "C") == {"QUEUED": 2}
    await until(room, "2026-01-02 02:00")
    assert counts(room, "C") == {"QUEUED": 3}


@pytest.mark.parametrize(
    ("schedule", "selection"),
    [
        (Schedule(starts_at=at("2026-01-01 00:29")), TargetSelection.SNAPSHOT),
        (Schedule(starts_at=at("2027-01-03 00:00")), TargetSelection.SNAPSHOT),
        (Schedule(ends_at=at("2026-01-01 00:29")), TargetSelection.SNAPSHOT),
        (Schedule(ends_at=at("2028-01-04 00:00")), TargetSelection.SNAPSHOT),
        (Schedule(starts_at=at("2026-01-02 00:00"), ends_at=at("2026-01-02 00:29")), TargetSelection.SNAPSHOT),
        (
            Schedule(windows=(MaintenanceWindow(starts="cron(0 2 * * ? *)", duration_minutes=60),)),
            TargetSelection.SNAPSHOT,
        ),
        (
            Schedule(windows=(MaintenanceWindow(starts="cron(0 2 30 2 ? *)", duration_minutes=60),)),
            TargetSelection.CONTINUOUS,
        ),
        (Schedule(windows=(MaintenanceWindow(starts="nonsense", duration_minutes=60),)), TargetSelection.CONTINUOUS),
    ],
)
def test_a_schedule_that_can_not_be_kept_is_refused_and_leaves_no_job(
    room: JobsRoom, schedule: Schedule, selection: TargetSelection
) -> None:
    room.add_things("a", group="g")
    with pytest.raises(InvalidRequest) as caught:
        make(room, "A", schedule, selection=selection)
    assert caught.value.subject == "schedule"
    assert not room.work.read_blocking(lambda tx: room.jobs.page(tx, room.place.account, limit=1))


def test_times_are_read_in_the_forms_that_clients_write() -> None:
    for text in ("2026-01-31 18:05", "2026-01-31T18:05", "2026-01-31T18:05:00Z", "2026-01-31 18:05:00+00:00"):
        assert write_time(read_time(text, name="startTime")) == "2026-01-31 18:05"
    for text in ("", "2026-13-01 00:00", "2026-02-30 00:00", "2026-01-31", "2026-01-31 25:00", "1767225600"):
        with pytest.raises(InvalidRequest):
            read_time(text, name="startTime")


def test_the_next_seven_windows_are_shown_in_order_whoever_s_they_are() -> None:
    windows = (
        MaintenanceWindow(starts="cron(0 2 * * ? *)", duration_minutes=60),
        MaintenanceWindow(starts="cron(0 12 ? * FRI *)", duration_minutes=600),
    )
    schedule = Schedule(windows=windows, starts_at=at("2026-01-02 00:00"), ends_at=at("2026-01-06 00:00"))
    now = at("2026-01-01 00:00")
    assert [write_time(start) for start in next_rollouts(schedule, now=now)] == [
        "2026-01-02 02:00",
        "2026-01-02 12:00",
        "2026-01-03 02:00",
        "2026-01-04 02:00",
        "2026-01-05 02:00",
    ]
    assert opens_at(schedule, now=now) == at("2026-01-02 02:00")
    assert opens_at(schedule, now=at("2026-01-02 21:59")) == at("2026-01-02 21:59")
    assert opens_at(schedule, now=at("2026-01-02 22:00")) == at("2026-01-03 02:00")
    assert opens_at(schedule, now=at("2026-01-05 03:00")) is None
