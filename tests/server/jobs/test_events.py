"""``$aws/events/job/…`` and ``$aws/events/jobExecution/…``, where an account asked for them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overair.basics.ids import JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import AbortCriterion, EventKind, FailureType, JobSettings, RetryCriterion
from overair.server.storage.schema import outbox
from overair.server.storage.work import sql
from tests.server.jobs.test_planning import report
from tests.support.jobs_room import JobsRoom


def events(room: JobsRoom) -> list[tuple[str, dict[str, Any]]]:
    """All so far, in order."""

    def query(tx: Tx) -> list[tuple[str, dict[str, Any]]]:
        rows = sql(tx).execute(outbox.select().where(outbox.c.topic.like("$aws/events/%")).order_by(outbox.c.id))
        return [(row.topic.removeprefix("$aws/events/"), json.loads(row.payload)) for row in rows]

    return room.work.read_blocking(query)


@pytest.fixture
def eager(room: JobsRoom) -> JobsRoom:
    wanted = {EventKind.JOB: True, EventKind.JOB_EXECUTION: True}
    room.work.run_blocking(lambda tx: room.jobs.events.configure(tx, room.place.account, wanted))
    return room


async def test_nothing_is_told_unless_it_was_asked_for(room: JobsRoom) -> None:
    room.add_things("a")
    room.create("A", room.thing_arn("a"))
    await report(room, "a", "A", "SUCCEEDED")
    assert events(room) == []
    room.work.run_blocking(lambda tx: room.jobs.events.configure(tx, room.place.account, {EventKind.JOB: True}))
    room.create("B", room.thing_arn("a"))
    await report(room, "a", "B", "SUCCEEDED")
    assert [topic for topic, _ in events(room)] == ["job/B/completed"]


async def test_a_job_that_completes(eager: JobsRoom) -> None:
    room = eager
    room.add_things("a", "b")
    room.create("A", room.thing_arn("a"), room.thing_arn("b"), settings=JobSettings(description="d"))
    await report(room, "a", "A", "IN_PROGRESS")
    await room.told("$aws/things/a/jobs/A/update", {"status": "SUCCEEDED", "statusDetails": {"reason": "fine"}})
    room.clock.advance(milliseconds=1_234)
    await report(room, "b", "A", "REJECTED")
    told = events(room)
    assert [topic for topic, _ in told] == ["jobExecution/A/succeeded", "jobExecution/A/rejected", "job/A/completed"]
    ids = {body.pop("eventId") for _, body in told}
    assert len(ids) == 3
    assert told[0][1] == {
        "eventType": "JOB_EXECUTION",
        "timestamp": 1767225600,
        "operation": "succeeded",
        "jobId": "A",
        "thingArn": room.thing_arn("a"),
        "status": "SUCCEEDED",
        "statusDetails": {"reason": "fine"},
    }
    assert told[2][1] == {
        "eventType": "JOB",
        "timestamp": 1767225601,
        "operation": "completed",
        "jobId": "A",
        "status": "COMPLETED",
        "targetSelection": "SNAPSHOT",
        "targets": [room.thing_arn("a"), room.thing_arn("b")],
        "description": "d",
        "createdAt": 1767225600000,
        "lastUpdatedAt": 1767225601234,
        "completedAt": 1767225601234,
        "jobProcessDetails": {
            "numberOfCanceledThings": 0,
            "numberOfRejectedThings": 1,
            "numberOfFailedThings": 0,
            "numberOfRemovedThings": 0,
            "numberOfSucceededThings": 1,
            "numberOfTimedOutThings": 0,
        },
    }


async def test_a_job_that_is_cancelled_and_deleted(eager: JobsRoom) -> None:
    room = eager
    room.add_things(*(f"t{number:03}" for number in range(150)), group="g")
    room.create("A", room.group_arn("g"))
    room.work.run_blocking(lambda tx: room.jobs.cancel(tx, room.place.account, JobId("A"), comment="why"))
    while await room.planner.run_once():
        pass
    told = events(room)
    assert told[0][0] == "job/A/cancellation_in_progress"
    assert told[0][1]["comment"] == "why"
    assert told[-1][0] == "job/A/canceled"
    assert told[-1][1]["jobProcessDetails"]["numberOfCanceledThings"] == 100
    assert [topic for topic, _ in told[1:-1]] == ["jobExecution/A/canceled"] * 100
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, room.place.account, JobId("A")))
    while await room.planner.run_once():
        pass
    told = events(room)[102:]
    assert told[0][0] == "job/A/deletion_in_progress"
    assert [topic for topic, _ in told[1:-1]] == ["jobExecution/A/deleted"] * 100
    assert (told[-1][0], told[-1][1]["status"]) == ("job/A/deleted", "DELETED")
    assert told[-1][1]["targets"] == [room.group_arn("g")]


async def test_each_attempt_is_told_and_an_abort_too(eager: JobsRoom) -> None:
    room = eager
    room.add_things("a", "b")
    settings = JobSettings(
        retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=1),),
        abort=(AbortCriterion(failure_type=FailureType.FAILED, threshold_percentage=50, things_executed_min=1),),
    )
    room.create("A", room.thing_arn("a"), room.thing_arn("b"), settings=settings)
    await report(room, "a", "A", "FAILED")
    assert [topic for topic, _ in events(room)] == ["jobExecution/A/failed"]
    await report(room, "a", "A", "FAILED")
    while await room.planner.run_once():
        pass
    assert [topic for topic, _ in events(room)] == [
        "jobExecution/A/failed",
        "jobExecution/A/failed",
        "job/A/cancellation_in_progress",
        "jobExecution/A/canceled",
        "job/A/canceled",
    ]


async def test_a_thing_that_goes_and_one_whose_time_is_up(eager: JobsRoom) -> None:
    room = eager
    room.add_things("a", "b")
    room.create("A", room.thing_arn("a"), room.thing_arn("b"), settings=JobSettings(in_progress_timeout_minutes=5))
    await report(room, "a", "A", "IN_PROGRESS")
    room.clock.advance(milliseconds=300_000)
    now = room.clock.now()
    room.work.run_blocking(lambda tx: room.jobs.executions.time_out_overdue(tx, now=now))
    room.work.run_blocking(lambda tx: room.jobs.thing_deleted(tx, room.place.account, ThingName("b")))
    assert [topic for topic, _ in events(room)] == [
        "jobExecution/A/timed_out",
        "jobExecution/A/removed",
        "job/A/completed",
    ]
