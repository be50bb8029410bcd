"""Who gets an execution, and when: large jobs, metered ones, and those that follow their groups."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overair.basics.errors import (
    InvalidRequest,
)
from overair.basics.ids import GroupName, JobId, ThingName
from overair.server.jobs.model import (
    ExponentialRate,
    JobPhase,
    JobSettings,
    JobStatus,
    RolloutConfig,
    TargetSelection,
)
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom

S = ExecutionStatus


def counts(room: JobsRoom, job: str) -> dict[str, int]:
    return {status.value: count for status, count in room.job(job).counts.items() if count}


async def report(room: JobsRoom, thing: str, job: str, status: str) -> None:
    await room.told(f"$aws/things/{thing}/jobs/{job}/update", {"status": status})


async def test_a_large_job_is_planned_in_pieces_and_completes_only_when_all_of_it_is_done(room: JobsRoom) -> None:
    things = [f"t{number:04}" for number in range(1250)]
    room.add_things(*things, group="g")
    job = room.create("A", room.group_arn("g"))
    assert (job.phase, counts(room, "A")) == (JobPhase.ROLLING_OUT, {"QUEUED": 100})
    assert room.job("A").concurrent
    for thing in things[:100]:
        await report(room, thing, "A", "SUCCEEDED")
    assert room.job("A").status is JobStatus.IN_PROGRESS
    steps = 0
    while await room.planner.run_once():
        steps += 1
    assert counts(room, "A") == {"QUEUED": 1150, "SUCCEEDED": 100}
    assert steps == 2
    assert room.job("A").phase is JobPhase.SETTLED


async def test_a_metered_rollout_releases_its_things_minute_by_minute(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(30)), group="g")
    job = room.create("A", room.group_arn("g"), settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=6)))
    assert (job.phase, counts(room, "A")) == (JobPhase.ROLLING_OUT, {"QUEUED": 1})
    released = [1]
    for _ in range(60 * 5):
        room.clock.advance(milliseconds=1000)
        while await room.planner.run_once():
            pass
        released.append(counts(room, "A")["QUEUED"])
    assert released[60] == 7
    assert released[120] == 13
    assert released[-1] == 30
    assert all(released[at + 60] - released[at] <= 6 for at in range(len(released) - 60))
    assert room.job("A").phase is JobPhase.SETTLED


async def test_cancelling_a_metered_rollout_releases_nothing_more(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(30)), group="g")
    room.create("A", room.group_arn("g"), settings=JobSettings(rollout=RolloutConfig(maximum_per_minute=6)))
    room.work.run_blocking(lambda tx: room.jobs.cancel(tx, room.place.account, JobId("A")))
    room.clock.advance(milliseconds=600_000)
    while await room.planner.run_once():
        pass
    assert counts(room, "A") == {"CANCELED": 1}


async def test_taking_the_rate_away_releases_everybody(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(30)), group="g")
    rollout = RolloutConfig(
        exponential=ExponentialRate(base_per_minute=1, factor=2.0, notified_criterion=10), maximum_per_minute=60
    )
    room.create("A", room.group_arn("g"), settings=JobSettings(rollout=rollout))
    room.work.run_blocking(
        lambda tx: room.jobs.change(tx, room.place.account, JobId("A"), lambda settings: replace(settings, rollout=None))
    )
    room.clock.advance(milliseconds=60_000)
    while await room.planner.run_once():
        pass
    assert counts(room, "A") == {"QUEUED": 30}


def joins(room: JobsRoom, thing: str, group: str) -> None:
    room.add_things(thing, group=group)
    room.work.run_blocking(lambda tx: room.jobs.joined(tx, room.place.account, ThingName(thing), GroupName(group)))


def leaves(room: JobsRoom, thing: str, group: str) -> None:
    room.registry.groups[group].remove(thing)
    room.work.run_blocking(lambda tx: room.jobs.left(tx, room.place.account, ThingName(thing), GroupName(group)))


async def test_who_joins_later_gets_the_continuous_job_at_once_and_no_snapshot(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    room.create("C", room.group_arn("g"), selection=TargetSelection.CONTINUOUS)
    room.create("S", room.group_arn("g"))
    room.heard()
    joins(room, "b", "g")
    assert room.kinds() == [("b", "notify"), ("b", "notify-next")]
    assert (await room.told("$aws/things/b/jobs/$next/get"))["execution"]["jobId"] == "C"
    assert counts(room, "C") == {"QUEUED": 2}
    assert counts(room, "S") == {"QUEUED": 1}


async def test_who_leaves_loses_what_was_pending_and_may_come_back(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.add_things("b", group="h")
    room.create("C", room.group_arn("g"), room.group_arn("h"), selection=TargetSelection.CONTINUOUS)
    leaves(room, "b", "g")
    assert room.execution("b", "C").status is S.QUEUED
    leaves(room, "b", "h")
    assert room.execution("b", "C").status is S.REMOVED
    joins(room, "b", "g")
    assert (room.execution("b", "C").number, room.execution("b", "C").status) == (2, S.QUEUED)
    assert counts(room, "C") == {"QUEUED": 2}
    await report(room, "b", "C", "SUCCEEDED")
    leaves(room, "b", "g")
    joins(room, "b", "g")
    assert room.execution("b", "C").status is S.SUCCEEDED


async def test_a_deleted_thing_takes_its_work_with_it_and_the_job_can_end(room: JobsRoom) -> None:
    room.add_things("a", "b", group="g")
    room.create("A", room.group_arn("g"))
    await report(room, "a", "A", "SUCCEEDED")
    room.registry.things.remove("b")
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, room.place.account, ThingName("b")))
    assert counts(room, "A") == {"SUCCEEDED": 1, "REMOVED": 1}
    assert room.job("A").status is JobStatus.COMPLETED


def test_groups_are_added_to_running_continuous_jobs_only(room: JobsRoom) -> None:
    room.add_things("a", group="g")
    room.add_things("b", group="h")
    room.create("C", room.group_arn("g"), selection=TargetSelection.CONTINUOUS)
    room.create("S", room.group_arn("g"))
    add = room.jobs.associate
    room.work.run_blocking(lambda tx: add(tx, room.place, JobId("C"), [room.group_arn("h")], comment="more"))
    assert counts(room, "C") == {"QUEUED": 2}
    assert room.job("C").comment == "more"
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: add(tx, room.place, JobId("S"), [room.group_arn("h")], comment=None))
    with pytest.raises(InvalidRequest):
        room.work.run_blocking(lambda tx: add(tx, room.place, JobId("C"), [room.thing_arn("a")], comment=None))


async def test_a_group_that_is_deleted_during_the_rollout_names_nobody_any_more(room: JobsRoom) -> None:
    room.add_things(*(f"t{number:03}" for number in range(150)), group="g")
    room.create("A", room.group_arn("g"))
    del room.registry.groups["g"]
    while await room.planner.run_once():
        pass
    assert room.job("A").phase is JobPhase.SETTLED
    assert counts(room, "A") == {"QUEUED": 100}
