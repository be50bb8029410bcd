"""What goes out under a signature that was revoked, or whose validity period has ended, is stopped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import InvalidRequest
from overair.basics.ids import JobId, OtaUpdateId, SeededIds, SigningJobId, ThingName
from overair.server.jobs.model import Execution, Job, Report
from overair.server.storage.work import SqlWork
from overair.wire.job_messages import ExecutionStatus
from tests.support.updates_road import UpdatesRoad

IMAGE = b"an image to sign" * 100
DAY_MS = 86_400_000
JOB = JobId("AFR_OTA-rel-7")


@pytest.fixture
def road(work: SqlWork, clock: SettableClock, ids: SeededIds, place: Place, tmp_path: Path) -> Iterator[UpdatesRoad]:
    road = UpdatesRoad(work, clock, ids, place, tmp_path)
    road.settle()
    road.make_thing("dev-2", groups=("fleet",))
    yield road
    road.contents.close()


async def rolled_out(road: UpdatesRoad, *, days: int = 30) -> Mapping[str, Any]:
    """An update for dev-1 and dev-2, of which dev-1 is at work; the profile that signed it."""
    profile = await road.make_profile("release", road.certificate_arn, signatureValidityPeriod={"value": days, "type": "DAYS"})
    file = {
        "fileName": "fw",
        "fileLocation": await road.stored("fw.bin", IMAGE),
        "codeSigning": {"startSigningJobParameter": {"signingProfileName": "release"}},
    }
    await road.create(file, targets=[road.place.iot("thinggroup", "fleet")])
    await road.drive()
    assert (await road.info())["otaUpdateStatus"] == "CREATE_COMPLETE"
    begun = Report(status=ExecutionStatus.IN_PROGRESS)
    await road.work.run(lambda tx: road.jobs.device.report(tx, road.place, ThingName("dev-1"), JOB, begun))
    return profile


async def job_of(road: UpdatesRoad) -> Job:
    return await road.work.read(lambda tx: road.jobs.find(tx, road.account, JOB))


async def executions(road: UpdatesRoad) -> dict[str, str]:
    def read(tx: Any) -> list[Execution]:
        return [
            execution
            for thing in ("dev-1", "dev-2")
            for execution in road.jobs.executions.of_thing(tx, road.account, ThingName(thing), limit=9)
        ]

    return {execution.thing: execution.status.value for execution in await road.work.read(read)}


async def succeed(road: UpdatesRoad, thing: str) -> None:
    finished = Report(status=ExecutionStatus.SUCCEEDED)
    await road.work.run(lambda tx: road.jobs.device.report(tx, road.place, ThingName(thing), JOB, finished))


async def signing_job(road: UpdatesRoad) -> str:
    progress = (await road.find()).progress[0]
    return str(progress.signing_job)


async def test_a_revoked_signature_is_taken_back_from_everybody_who_has_not_installed_it(road: UpdatesRoad) -> None:
    await rolled_out(road)
    await road.signer_api.revoke_signature(road.caller(), {"jobId": await signing_job(road), "reason": "the build was bad"})
    job = await job_of(road)
    assert (job.status, job.reason_code) == ("CANCELED", "SIGNATURE_REVOKED")
    assert "the build was bad" in str(job.comment)
    assert await executions(road) == {"dev-1": "CANCELED", "dev-2": "CANCELED"}


async def test_a_revoked_profile_stops_what_it_signed_since_then_and_nothing_older(road: UpdatesRoad) -> None:
    profile = await rolled_out(road)
    request = {"profileName": "release", "profileVersion": profile["profileVersion"], "reason": "stolen key"}
    later = {**request, "effectiveTime": road.clock.now()}
    road.clock.advance(milliseconds=1)
    await road.signer_api.revoke_signing_profile(road.caller(), {**later, "effectiveTime": road.clock.now()})
    assert (await job_of(road)).status == "IN_PROGRESS"
    await road.signer_api.revoke_signing_profile(road.caller(), later)
    job = await job_of(road)
    assert (job.status, job.reason_code, job.force_canceled) == ("CANCELED", "SIGNATURE_REVOKED", True)
    assert "stolen key" in str(job.comment)


async def test_a_signature_whose_period_ends_goes_to_nobody_new_and_who_has_begun_goes_on(road: UpdatesRoad) -> None:
    await rolled_out(road, days=2)
    road.clock.advance(milliseconds=2 * DAY_MS)
    assert not await road.signature_ends.run_once()
    road.clock.advance(milliseconds=1)
    assert await road.signature_ends.run_once()
    assert not await road.signature_ends.run_once()
    job = await job_of(road)
    assert (job.reason_code, job.force_canceled) == ("SIGNATURE_EXPIRED", False)
    assert await executions(road) == {"dev-1": "IN_PROGRESS", "dev-2": "CANCELED"}
    await succeed(road, "dev-1")
    assert (await executions(road))["dev-1"] == "SUCCEEDED"


async def test_a_certificate_that_ends_stops_no_rollout_and_signs_nothing_new(road: UpdatesRoad) -> None:
    await rolled_out(road, days=36_000)
    road.clock.advance(milliseconds=11 * 365 * DAY_MS)
    assert not await road.signature_ends.run_once()
    assert (await job_of(road)).status == "IN_PROGRESS"
    file = {
        "fileName": "fw",
        "fileLocation": await road.stored("fw.bin", IMAGE),
        "codeSigning": {"startSigningJobParameter": {"signingProfileName": "release"}},
    }
    await road.create(file, update="rel-8")
    await road.drive()
    failed = await road.info("rel-8")
    assert failed["otaUpdateStatus"] == "CREATE_FAILED"
    assert "expired" in failed["errorInfo"]["message"]


async def test_what_is_revoked_while_the_update_is_made_is_never_sent(road: UpdatesRoad) -> None:
    file = {
        "fileName": "fw",
        "fileLocation": await road.stored("fw.bin", IMAGE),
        "codeSigning": road.signing_parameter(),
    }
    await road.create(file)
    while not (await road.find()).progress[0].delivered:
        await road.work.run(lambda tx: road.saga.advance(tx, road.account, OtaUpdateId("rel-7")))
        await road.signing_worker.run_once()
    await road.signer_api.revoke_signature(road.caller(), {"jobId": await signing_job(road), "reason": "too late"})
    await road.drive()
    failed = await road.info()
    assert failed["otaUpdateStatus"] == "CREATE_FAILED"
    assert "too late" in failed["errorInfo"]["message"]
    assert await road.counts() == {"jobs": 0, "streams": 0}


async def test_a_job_that_has_ended_stays_as_it_is(road: UpdatesRoad) -> None:
    await rolled_out(road)
    for thing in ("dev-1", "dev-2"):
        await succeed(road, thing)
    await road.signer_api.revoke_signature(road.caller(), {"jobId": await signing_job(road), "reason": "bad"})
    assert (await job_of(road)).status == "COMPLETED"
    assert await executions(road) == {"dev-1": "SUCCEEDED", "dev-2": "SUCCEEDED"}


async def test_a_profile_that_is_revoked_while_a_job_waits_makes_no_signature(road: UpdatesRoad) -> None:
    profile = await road.make_profile("release", road.certificate_arn)
    source = await road.upload("fw.bin", IMAGE)
    job = await road.start("release", source)
    request = {"profileName": "release", "profileVersion": profile["profileVersion"], "reason": "stolen"}
    await road.signer_api.revoke_signing_profile(road.caller(), {**request, "effectiveTime": road.clock.now()})
    await road.signing_worker.run_once()
    shown = await road.signer_api.describe_signing_job(road.caller(), {"jobId": job})
    assert (shown["status"], "stolen" in shown["statusReason"]) == ("Failed", True)


async def test_a_signature_that_has_ended_starts_no_update(road: UpdatesRoad) -> None:
    await road.make_profile("short", road.certificate_arn, signatureValidityPeriod={"value": 1, "type": "DAYS"})
    source = await road.upload("fw.bin", IMAGE)
    job = await road.start("short", source)
    await road.signing_worker.run_once()
    road.clock.advance(milliseconds=2 * DAY_MS)
    await road.create({"fileName": "fw", "codeSigning": {"awsSignerJobId": job}})
    await road.drive()
    assert "validity period" in (await road.info())["errorInfo"]["message"]
    with pytest.raises(InvalidRequest):
        await road.work.read(lambda tx: road.signing.require_counted(tx, road.account, SigningJobId(job)))
