"""The index below hears each change of an execution's status, and nothing of progress."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from overair.basics.ids import AccountId, JobId, ThingName
from overair.basics.work import Tx
from overair.server.jobs.model import FailureType, JobSettings, RetryCriterion
from overair.wire.job_messages import ExecutionStatus
from tests.support.jobs_room import JobsRoom


class Told:
    """``jobs.ports.StatusesChanged`` that only notes."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str | None]] = []

    def statuses_changed(
        self, tx: Tx, account: AccountId, job: JobId, things: Sequence[ThingName], status: ExecutionStatus | None
    ) -> None:
        self.heard += [(thing, None if status is None else status.value) for thing in things]


@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_a_change_of_status_is_told_once_and_progress_never(room: JobsRoom) -> None:
    told = Told()
    room.jobs.searched_by(told)
    room.add_things("dev-1")
    room.create("a", room.thing_arn("dev-1"))
    topic = "$aws/things/dev-1/jobs/a/update"
    await room.told(topic, {"status": "IN_PROGRESS"})
    for percent in ("1", "2", "3"):
        await room.told(topic, {"status": "IN_PROGRESS", "statusDetails": {"percent": percent}})
    await room.told(topic, {"status": "SUCCEEDED"})
    assert told.heard == [("dev-1", "QUEUED"), ("dev-1", "IN_PROGRESS"), ("dev-1", "SUCCEEDED")]
    assert room.work.read_blocking(lambda tx: room.jobs.statuses_of(tx, room.place.account, ThingName("dev-1"))) == {
        "a": "SUCCEEDED"
    }


@pytest.mark.parametrize("work", ["sqlite"], indirect=True)
async def test_a_retry_is_told_as_the_attempt_that_counts(room: JobsRoom) -> None:
    told = Told()
    room.jobs.searched_by(told)
    room.add_things("dev-1")
    room.create(
        "a", room.thing_arn("dev-1"), settings=JobSettings(retry=(RetryCriterion(failure_type=FailureType.FAILED, retries=1),))
    )
    await room.told("$aws/things/dev-1/jobs/a/update", {"status": "FAILED"})
    await room.told("$aws/things/dev-1/jobs/a/update", {"status": "FAILED"})
    assert told.heard == [("dev-1", "QUEUED"), ("dev-1", "QUEUED"), ("dev-1", "FAILED")]
