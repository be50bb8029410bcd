"""notify and notify-next: exactly when the table of wire reference §2.9 says."""

from __future__ import annotations

import pytest

from overair.basics.ids import JobId
from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion
from tests.support.jobs_room import JobsRoom

BOTH = [("dev-1", "notify"), ("dev-1", "notify-next")]
T = 1767225600


def update(job: str) -> str:
    return f"$aws/things/dev-1/jobs/{job}/update"


@pytest.fixture
def two_jobs(room: JobsRoom) -> JobsRoom:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"))
    room.create("B", room.thing_arn("dev-1"))
    room.heard()
    return room


def test_the_first_job_is_announced_on_both_topics_with_its_document(room: JobsRoom) -> None:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"))
    notify, notify_next = room.heard()
    summary = {"jobId": "A", "queuedAt": T, "lastUpdatedAt": T, "executionNumber": 1, "versionNumber": 1}
    assert notify.kind == "notify"
    assert notify.body == {"timestamp": T, "jobs": {"QUEUED": [summary]}}
    assert notify_next.kind == "notify-next"
    assert notify_next.body == {
        "timestamp": T,
        "execution": {**summary, "status": "QUEUED", "jobDocument": {"operation": "x"}},
    }


def test_a_second_job_behind_it_is_no_new_next_one(room: JobsRoom) -> None:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"))
    room.heard()
    room.create("B", room.thing_arn("dev-1"))
    (notify,) = room.heard()
    assert notify.kind == "notify"
    assert [entry["jobId"] for entry in notify.body["jobs"]["QUEUED"]] == ["A", "B"]


async def test_starting_the_first_and_its_progress_are_announced_to_nobody(two_jobs: JobsRoom) -> None:
    for number in range(3):
        await two_jobs.told(update("A"), {"status": "IN_PROGRESS", "statusDetails": {"receive": f"{number}/9"}})
    await two_jobs.told("$aws/things/dev-1/jobs/start-next")
    await two_jobs.refused(update("A"), {"status": "IN_PROGRESS", "expectedVersion": 1})
    assert two_jobs.heard() == []


async def test_a_later_job_that_overtakes_becomes_the_next_one(two_jobs: JobsRoom) -> None:
    await two_jobs.told(update("B"), {"status": "IN_PROGRESS"})
    (notify_next,) = two_jobs.heard()
    assert (notify_next.kind, notify_next.body["execution"]["jobId"]) == ("notify-next", "B")
    assert notify_next.body["execution"]["status"] == "IN_PROGRESS"


async def test_the_end_of_the_first_announces_the_other(two_jobs: JobsRoom) -> None:
    await two_jobs.told(update("A"), {"status": "SUCCEEDED"})
    notify, notify_next = two_jobs.heard()
    assert [entry["jobId"] for entry in notify.body["jobs"]["QUEUED"]] == ["B"]
    assert notify_next.body["execution"]["jobId"] == "B"


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "REJECTED"])
async def test_the_end_of_the_last_announces_an_empty_queue(room: JobsRoom, status: str) -> None:
    room.add_things("dev-1")
    room.create("A", room.thing_arn("dev-1"))
    room.heard()
    await room.told(update("A"), {"status": status})
    notify, notify_next = room.heard()
    assert (notify.kind, notify.body) == ("notify", {"timestamp": T, "jobs": {}})
    assert (notify_next.kind, notify_next.body) == ("notify-next", {"timestamp": T})


def test_cancelling_one_that_is_not_first_changes_the_set_only(two_jobs: JobsRoom) -> None:
    two_jobs.work.run_blocking(lambda tx: two_jobs.jobs.cancel(tx, two_jobs.place.account, JobId("B")))
    assert two_jobs.kinds() == BOTH[:1]


def test_cancelling_and_deleting_the_last_one_announce_an_empty_queue(room: JobsRoom) -> None:
    room.add_things("dev-1")
    account = room.place.account
    room.create("A", room.thing_arn("dev-1"))
    room.heard()
    room.work.run_blocking(lambda tx: room.jobs.cancel(tx, account, JobId("A")))
    assert [item.body.get("jobs", "execution" in item.body) for item in room.heard()] == [{}, False]
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("A")))
    assert room.heard() == []
    room.create("A", room.thing_arn("dev-1"))
    room.heard()
    room.work.run_blocking(lambda tx: room.jobs.delete(tx, account, JobId("A"), force=True))
    assert room.kinds() == BOTH


async def test_a_retry_is_another_next_one_with_empty_details(room: JobsRoom) -> None:
    room.add_things("dev-1")
    retry = (RetryCriterion(failure_type=FailureType.FAILED, retries=1),)
    room.create("A", room.thing_arn("dev-1"), settings=JobSettings(retry=retry))
    room.heard()
    await room.told(update("A"), {"status": "IN_PROGRESS", "statusDetails": {"self_test": "ready"}})
    await room.told(update("A"), {"status": "FAILED"})
    notify, notify_next = room.heard()
    assert notify.body["jobs"]["QUEUED"][0]["executionNumber"] == 2
    execution = notify_next.body["execution"]
    assert (execution["executionNumber"], execution["versionNumber"]) == (2, 1)
    assert "statusDetails" not in execution
    await room.told(update("A"), {"status": "FAILED"})
    assert room.kinds() == BOTH


def test_every_thing_hears_of_its_own_queue_alone(room: JobsRoom) -> None:
    room.add_things("a", "b", "c", group="g")
    room.create("A", room.thing_arn("b"))
    room.heard()
    room.create("B", room.group_arn("g"))
    # Among things there is no order; of each, in its own.
    assert sorted(room.kinds(), key=lambda heard: heard[0]) == [
        ("a", "notify"),
        ("a", "notify-next"),
        ("b", "notify"),
        ("c", "notify"),
        ("c", "notify-next"),
    ]
