"""Where a whole job stands: each of its things in one stage, and the causes of what failed in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import NotFound
from overair.basics.ids import AccountId, ClientId, JobId, SeededIds, ThingName
from overair.basics.work import Tx
from overair.server.explain.rollout_api import RolloutOperations
from overair.server.jobs.model import JobPlan, JobSettings, Report, RolloutConfig
from overair.server.jobs.tallies import JobTallies
from overair.server.jobs.tally_store import SqlTallyStore
from overair.server.signing.model import Standing
from overair.server.storage.work import SqlWork
from overair.wire.job_messages import ExecutionStatus
from tests.support.updates_road import UpdatesRoad

JOB = JobId("rel-7")
THINGS = [f"t-{number}" for number in range(8)]


class Connections:
    def __init__(self) -> None:
        self.now: set[str] = set()

    def is_connected(self, account: AccountId, client_id: ClientId) -> bool:
        return client_id in self.now


class NoSignatures:
    """The job goes out under none."""

    def signatures(self, tx: Tx, place: Place, job: JobId) -> list[Standing]:
        return []


class Room:
    """A job over eight things, and the question."""

    def __init__(self, road: UpdatesRoad) -> None:
        self.road = road
        self.connections = Connections()
        self.door = RolloutOperations(
            work=road.work,
            jobs=road.jobs,
            tallies=JobTallies(SqlTallyStore()),
            connections=self.connections,
            signatures=NoSignatures(),
            clock=road.clock,
        )
        for thing in THINGS:
            road.make_thing(thing, groups=("eight",))

    async def start(self, settings: JobSettings | None = None) -> None:
        road = self.road
        plan = JobPlan(
            id=JOB, targets=(road.place.iot("thinggroup", "eight"),), document="{}", settings=settings or JobSettings()
        )
        await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan))

    async def report(self, thing: str, status: ExecutionStatus, **details: str) -> None:
        road, report = self.road, Report(status=status, status_details=details)
        await road.work.run(lambda tx: road.jobs.device.report(tx, road.place, ThingName(thing), JOB, report))

    async def stages(self) -> dict[str, Any]:
        """What isn't zero, without the names."""
        answer = await self.door.describe_rollout(self.road.caller(), {"jobId": JOB})
        return {name: value for name, value in answer.items() if value and name not in ("jobId", "targetSelection", "reasons")}


@pytest.fixture
def room(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[Room]:
    road = UpdatesRoad(work, clock, ids, place, tmp_path)
    road.settle()
    yield Room(road)
    road.contents.close()


async def test_a_job_that_is_not_there_is_not_found(room: Room) -> None:
    with pytest.raises(NotFound):
        await room.stages()


async def test_each_thing_counts_in_exactly_one_stage_and_causes_are_told_in_words(room: Room) -> None:
    await room.start()
    assert await room.stages() == {"status": "IN_PROGRESS", "queued": 8}
    room.connections.now = {"t-0", "t-1", "t-7", "someone-else"}
    await room.report("t-1", ExecutionStatus.IN_PROGRESS)
    await room.report("t-2", ExecutionStatus.IN_PROGRESS, receive="1/64")
    await room.report("t-3", ExecutionStatus.IN_PROGRESS, receive="63/64")
    await room.report("t-4", ExecutionStatus.IN_PROGRESS, self_test="active", updatedBy="0x01000000")
    await room.report("t-5", ExecutionStatus.FAILED, reason="0x24000000: 5")
    await room.report("t-6", ExecutionStatus.REJECTED)
    assert await room.stages() == {
        "status": "IN_PROGRESS",
        "notified": 2,
        "begun": 1,
        "downloading": 2,
        "selfTest": 1,
        "failed": 1,
        "rejected": 1,
        "blocksReceived": 64,
        "blocksTotal": 128,
        "causes": [
            {
                "status": "FAILED",
                "reason": "the job document could not be used: it is no OTA document, or a field is missing or malformed "
                "[0x24000000: 5]",
                "count": 1,
            },
            {"status": "REJECTED", "reason": "it gave no reason", "count": 1},
        ],
    }
    await room.report("t-0", ExecutionStatus.SUCCEEDED, reason="accepted  v2.0.0")
    after = await room.stages()
    assert after["succeeded"] == 1
    assert after["notified"] == 1


async def test_what_a_rate_holds_back_is_waiting(room: Room) -> None:
    await room.start(JobSettings(rollout=RolloutConfig(maximum_per_minute=1)))
    await room.road.drive()
    stages = await room.stages()
    assert stages["ratePerMinute"] == 1
    assert (stages["waiting"], stages["queued"]) == (7, 1)
