"""Ended jobs go after their time with what was made for them; what is open, or an operator's own, stays however old it is."""

from __future__ import annotations

import pytest

from overair.basics.clock import SettableClock
from overair.basics.errors import NotFound
from overair.basics.ids import JobId, OtaUpdateId
from overair.server.jobs.model import JobPlan
from overair.server.updates.retention import DAY_MS, JOBS_PER_STEP, Retention
from tests.support.signing_road import BUCKET
from tests.support.updates_road import UpdatesRoad

KEEP_DAYS = 730


def retention(road: UpdatesRoad, *, keep_days: int = KEEP_DAYS) -> Retention:
    return Retention(work=road.work, jobs=road.jobs, updates=road.updates, keep_days=keep_days, clock=road.clock)


async def purge(worker: Retention) -> int:
    """Let the worker do all that is due; how many steps it took."""
    steps = 0
    while await worker.run_once():
        steps += 1
    return steps


async def test_an_ended_job_goes_after_its_time_with_its_update_and_the_stream_that_was_made_for_it(
    road: UpdatesRoad, clock: SettableClock
) -> None:
    file = {"fileName": "/device/updates", "fileLocation": await road.stored("fw.bin", b"image")}
    await road.create({**file, "codeSigning": road.signing_parameter()})
    await road.drive()
    job = JobId("AFR_OTA-rel-7")
    signed = (await road.info())["otaUpdateFiles"][0]["codeSigning"]["awsSignerJobId"]
    worker = retention(road)

    # While devices may still report it is open, however old.
    clock.advance(milliseconds=3 * KEEP_DAYS * DAY_MS)
    assert await purge(worker) == 0
    await road.work.run(lambda tx: road.jobs.cancel(tx, road.account, job, force=True))
    clock.advance(milliseconds=(KEEP_DAYS - 1) * DAY_MS)
    assert await purge(worker) == 0
    assert await road.counts() == {"jobs": 1, "streams": 1}

    clock.advance(milliseconds=2 * DAY_MS)
    assert await purge(worker) == 1
    assert await road.counts() == {"jobs": 0, "streams": 0}
    with pytest.raises(NotFound):
        await road.work.read(lambda tx: road.updates.find(tx, road.account, OtaUpdateId("rel-7")))
    with pytest.raises(NotFound):
        await road.work.read(lambda tx: road.jobs.find(tx, road.account, job))
    # What was signed is the operator's.
    assert await road.versions(f"SignedImages/{signed}")
    assert await road.download(BUCKET, "fw.bin") == b"image"


async def test_many_go_in_bounded_steps_and_none_where_all_are_kept(road: UpdatesRoad, clock: SettableClock) -> None:
    count = 2 * JOBS_PER_STEP + 1
    for number in range(count):
        plan = JobPlan(id=JobId(f"job-{number}"), targets=(road.thing_arn,), document="{}")
        await road.work.run(lambda tx, plan=plan: road.jobs.create(tx, road.place, plan))  # type: ignore[misc]
        await road.work.run(lambda tx, plan=plan: road.jobs.cancel(tx, road.account, plan.id, force=True))  # type: ignore[misc]
    clock.advance(milliseconds=(KEEP_DAYS + 1) * DAY_MS)
    assert await purge(retention(road, keep_days=0)) == 0
    assert (await road.counts())["jobs"] == count
    assert await purge(retention(road)) == 3
    assert (await road.counts())["jobs"] == 0
