"""What operators may ask of updates, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.errors import AccessDenied, AlreadyExists, InvalidRequest, NotFound
from overair.basics.ids import GroupName, JobId, StreamId, ThingName
from overair.server.jobs.model import JobPlan, JobStatus, TargetSelection
from overair.server.updates.steps import Step
from tests.support.signing_road import BUCKET, policy
from tests.support.updates_road import PowerCut, UpdatesRoad

IMAGE = b"firmware 2.0.0 " * 100


async def plain_file(road: UpdatesRoad) -> dict[str, Any]:
    return {"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE)}


def custom(road: UpdatesRoad, image: bytes, *, inline: bool) -> dict[str, Any]:
    assert isinstance(road.signer.key, ec.EllipticCurvePrivateKey)
    signature = road.signer.key.sign(image, ec.ECDSA(hashes.SHA256()))
    chain = {"inlineDocument": road.signer.certificate_pem.decode()} if inline else {"certificateName": "/c.pem"}
    return {"customCodeSigning": {"signature": {"inlineDocument": signature}, "certificateChain": chain}}


async def job(road: UpdatesRoad, update: str = "rel-7") -> Any:
    job_id = JobId(f"AFR_OTA-{update}")
    return await road.work.read(lambda tx: road.jobs.find(tx, road.account, job_id))


async def delete(road: UpdatesRoad, update: str = "rel-7", *, user: str | None = None, **more: Any) -> None:
    await road.updates_api.delete_ota_update(road.caller(user), {"otaUpdateId": update, **more})


# Creating -----------------------------------------------------------------------------------------------------------------


async def test_an_id_that_is_taken_is_refused_with_the_resource(road: UpdatesRoad) -> None:
    file = await plain_file(road)
    await road.create(file)
    with pytest.raises(AlreadyExists) as refused:
        await road.create(file)
    assert refused.value.details == {"resourceId": "rel-7", "resourceArn": road.place.iot("otaupdate", "rel-7")}


async def test_an_id_whose_job_is_there_already_is_refused(road: UpdatesRoad) -> None:
    plan = JobPlan(id=JobId("AFR_OTA-rel-7"), targets=(road.thing_arn,), document="{}")
    await road.work.run(lambda tx: road.jobs.create(tx, road.place, plan))
    with pytest.raises(AlreadyExists, match="job AFR_OTA-rel-7"):
        await road.create(await plain_file(road))


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("arn:aws:iot:us-east-1:123456789012:thing/nobody", NotFound),
        ("arn:aws:iot:us-east-1:123456789012:thinggroup/nobody", NotFound),
        ("arn:aws:iot:us-east-1:210987654321:thing/dev-1", NotFound),
        ("arn:aws:iot:eu-west-1:123456789012:thing/dev-1", NotFound),
        ("arn:aws:iot:us-east-1:123456789012:cert/dev-1", InvalidRequest),
        ("dev-1", InvalidRequest),
    ],
)
async def test_a_target_that_is_not_a_thing_or_group_of_this_place_is_refused(
    road: UpdatesRoad, target: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await road.create(await plain_file(road), targets=[road.thing_arn, target])
    with pytest.raises(NotFound):
        await road.info()


async def test_a_stream_or_a_file_of_it_that_is_not_there_is_refused_at_once(road: UpdatesRoad) -> None:
    with pytest.raises(NotFound, match="no stream"):
        await road.create({"fileName": "f", "fileLocation": {"stream": {"streamId": "none", "fileId": 0}}})
    await road.make_stream("own", await road.stored("fw.bin", IMAGE))
    with pytest.raises(NotFound, match="no file 1"):
        await road.create({"fileName": "f", "fileLocation": {"stream": {"streamId": "own", "fileId": 1}}})


async def test_an_operator_who_may_not_pass_the_role_is_refused_with_the_action(road: UpdatesRoad) -> None:
    road.make_user("op", policy(("Allow", "iot:*", "*")))
    with pytest.raises(AccessDenied, match="iam:PassRole"):
        await road.create(await plain_file(road), user="op")
    road.make_user("passer", policy(("Allow", "iam:PassRole", road.role_arn)))
    await road.create(await plain_file(road), user="passer")


@pytest.mark.parametrize("location", ["stored", "streamed"])
async def test_a_custom_signature_that_its_certificate_disproves_is_refused_at_the_call(
    road: UpdatesRoad, location: str
) -> None:
    stored = await road.stored("fw.bin", IMAGE)
    await road.make_stream("own", stored)
    at = stored if location == "stored" else {"stream": {"streamId": "own", "fileId": 0}}
    tampered = IMAGE[:-1] + b"!"
    with pytest.raises(InvalidRequest, match="doesn't verify"):
        await road.create({"fileName": "fw", "fileLocation": at, "codeSigning": custom(road, tampered, inline=True)})
    await road.create({"fileName": "fw", "fileLocation": at, "codeSigning": custom(road, tampered, inline=False)})


async def test_a_custom_signature_that_could_not_be_checked_is_never_sent(road: UpdatesRoad) -> None:
    signing = custom(road, IMAGE, inline=True)
    where = {"s3Location": {"bucket": BUCKET, "key": "later.bin"}}
    await road.create({"fileName": "fw", "fileLocation": where, "codeSigning": signing})
    await road.upload("later.bin", IMAGE)
    await road.drive()
    info = await road.info()
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert "could not be checked" in info["errorInfo"]["message"]


@pytest.mark.parametrize(
    "more",
    [
        {"awsJobTimeoutConfig": {"inProgressTimeoutInMinutes": 0}},
        {"awsJobExecutionsRolloutConfig": {"maximumPerMinute": 1001}},
        {
            "awsJobExecutionsRolloutConfig": {
                "exponentialRate": {"baseRatePerMinute": 5, "incrementFactor": 6.0, "rateIncreaseCriteria": {}}
            }
        },
        {
            "awsJobAbortConfig": {
                "abortCriteriaList": [
                    {
                        "failureType": "ALL",
                        "action": "CANCEL",
                        "thresholdPercentage": 0.0,
                        "minNumberOfExecutedThings": 1,
                    }
                ]
            }
        },
    ],
)
async def test_settings_out_of_bounds_are_refused_at_the_call(road: UpdatesRoad, more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        await road.create(await plain_file(road), **more)


async def test_settings_reach_the_job(road: UpdatesRoad) -> None:
    rollout = {
        "maximumPerMinute": 50,
        "exponentialRate": {
            "baseRatePerMinute": 5,
            "incrementFactor": 2.0,
            "rateIncreaseCriteria": {"numberOfNotifiedThings": 10},
        },
    }
    criterion = {
        "failureType": "FAILED",
        "action": "CANCEL",
        "thresholdPercentage": 12.5,
        "minNumberOfExecutedThings": 4,
    }
    await road.create(
        await plain_file(road),
        description="release 7",
        targetSelection="CONTINUOUS",
        awsJobExecutionsRolloutConfig=rollout,
        awsJobAbortConfig={"abortCriteriaList": [criterion]},
        awsJobTimeoutConfig={"inProgressTimeoutInMinutes": 30},
    )
    await road.drive()
    made = await job(road)
    assert made.target_selection is TargetSelection.CONTINUOUS
    settings = made.settings
    assert settings.description == "release 7"
    assert settings.rollout.maximum_per_minute == 50
    assert settings.rollout.exponential.notified_criterion == 10
    assert [(each.threshold_percentage, each.things_executed_min) for each in settings.abort] == [(12.5, 4)]
    assert settings.in_progress_timeout_minutes == 30
    assert settings.presign is None
    assert (await road.info())["awsJobExecutionsRolloutConfig"] == rollout


async def test_a_thing_that_joins_later_is_given_a_continuous_update(road: UpdatesRoad) -> None:
    road.registry.groups.watched_by(road.jobs)
    await road.create(await plain_file(road), targets=[road.place.iot("thinggroup", "fleet")], targetSelection="CONTINUOUS")
    await road.drive()
    assert sum((await job(road)).counts.values()) == 1
    road.make_thing("dev-2")
    await road.work.run(lambda tx: road.registry.groups.add(tx, road.account, GroupName("fleet"), ThingName("dev-2")))
    assert sum((await job(road)).counts.values()) == 2


# Telling ------------------------------------------------------------------------------------------------------------------


async def test_what_was_asked_for_is_told_again_with_what_became_of_it(road: UpdatesRoad) -> None:
    file = {
        **await plain_file(road),
        "fileType": 0,
        "fileVersion": "2.0.0",
        "attributes": {"colour": "red"},
        "codeSigning": road.signing_parameter(),
    }
    await road.create(file, description="seven", additionalParameters={"ticket": "42"}, tags=[{"Key": "a", "Value": "b"}])
    await road.drive()
    info = await road.info()
    job_id = info["otaUpdateFiles"][0]["codeSigning"]["awsSignerJobId"]
    stream = (await road.document()).stream_name
    [version] = (await road.versions(f"SignedImages/{job_id}"))[1:]
    assert info == {
        "otaUpdateId": "rel-7",
        "otaUpdateArn": road.place.iot("otaupdate", "rel-7"),
        "creationDate": road.clock.now(),
        "lastModifiedDate": road.clock.now(),
        "description": "seven",
        "targets": [road.thing_arn],
        "protocols": ["MQTT"],
        "targetSelection": "SNAPSHOT",
        "otaUpdateFiles": [
            {
                "fileName": "fw",
                "fileType": 0,
                "fileVersion": "2.0.0",
                "attributes": {"colour": "red"},
                "fileLocation": {
                    "stream": {"streamId": stream, "fileId": 0},
                    "s3Location": {"bucket": BUCKET, "key": f"SignedImages/{job_id}", "version": version},
                },
                "codeSigning": {**road.signing_parameter(), "awsSignerJobId": job_id},
            }
        ],
        "otaUpdateStatus": "CREATE_COMPLETE",
        "awsIotJobId": "AFR_OTA-rel-7",
        "awsIotJobArn": road.place.iot("job", "AFR_OTA-rel-7"),
        "additionalParameters": {"ticket": "42"},
    }
    arn = road.place.iot("otaupdate", "rel-7")
    assert await road.work.read(lambda tx: dict(road.registry.tags.list(tx, road.place, arn))) == {"a": "b"}


async def test_updates_are_listed_newest_first_in_pages_and_by_status(road: UpdatesRoad) -> None:
    file = await plain_file(road)
    for number in range(3):
        road.clock.advance(milliseconds=1)
        await road.create(file, update=f"rel-{number}")
        if number == 0:
            await road.drive()
    seen: list[str] = []
    token = None
    for _ in range(2):
        request = {"maxResults": 2, **({"nextToken": token} if token else {})}
        page = await road.updates_api.list_ota_updates(road.caller(), request)
        seen += [summary["otaUpdateId"] for summary in page["otaUpdates"]]
        token = page["nextToken"]
    assert (seen, token) == (["rel-2", "rel-1", "rel-0"], None)
    done = await road.updates_api.list_ota_updates(road.caller(), {"otaUpdateStatus": "CREATE_COMPLETE"})
    assert [summary["otaUpdateId"] for summary in done["otaUpdates"]] == ["rel-0"]
    with pytest.raises(InvalidRequest):
        await road.updates_api.list_ota_updates(road.caller(), {"nextToken": "nonsense"})


async def test_an_update_that_is_not_there_is_not_found(road: UpdatesRoad) -> None:
    with pytest.raises(NotFound):
        await road.info("nothing")
    with pytest.raises(NotFound):
        await delete(road, "nothing")


# Deleting -----------------------------------------------------------------------------------------------------------------


async def test_an_update_whose_job_runs_is_deleted_only_by_force(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road))
    await road.drive()
    with pytest.raises(InvalidRequest, match="forceDeleteAWSJob"):
        await delete(road)
    assert (await job(road)).status is JobStatus.IN_PROGRESS
    await delete(road, forceDeleteAWSJob=True)
    with pytest.raises(NotFound):
        await road.info()
    assert await road.counts() == {"jobs": 0, "streams": 1}, "the stream stays unless deleteStream asks for it"


async def test_deleting_takes_the_made_stream_along_if_asked_and_never_an_own_one(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road))
    await road.drive()
    await delete(road, forceDeleteAWSJob=True, deleteStream=True)
    assert await road.counts() == {"jobs": 0, "streams": 0}
    await road.make_stream("own", await road.stored("fw.bin", IMAGE))
    await road.create({"fileName": "fw", "fileLocation": {"stream": {"streamId": "own", "fileId": 0}}})
    await road.drive()
    await delete(road, forceDeleteAWSJob=True, deleteStream=True)
    assert await road.counts() == {"jobs": 0, "streams": 1}
    assert (await road.stream("own")).id == "own"


async def test_a_cancelled_job_goes_with_its_update_without_force(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road))
    await road.drive()
    await road.work.run(lambda tx: road.jobs.cancel(tx, road.account, JobId("AFR_OTA-rel-7")))
    await delete(road)
    assert (await road.counts())["jobs"] == 0


async def test_a_stream_that_was_deleted_by_hand_keeps_no_update_from_being_deleted(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road))
    await road.drive()
    stream = StreamId(str((await road.document()).stream_name))
    await road.work.run(lambda tx: road.streams.delete(tx, road.place, stream))
    await delete(road, forceDeleteAWSJob=True, deleteStream=True)


async def test_deleting_an_update_under_way_ends_its_saga(road: UpdatesRoad) -> None:
    file = await plain_file(road)
    await road.create(file)
    road.cut_after = Step.CREATE_STREAM.value
    with pytest.raises(PowerCut):
        await road.drive()
    road.restart()
    await delete(road, deleteStream=True)
    await road.drive()
    assert await road.counts() == {"jobs": 0, "streams": 0}
    await road.create(file)
    await road.drive()
    assert (await road.info())["otaUpdateStatus"] == "CREATE_COMPLETE"


async def test_deleting_a_job_takes_the_operators_or_the_roles_permission(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road))
    await road.drive()
    road.make_user("clerk", policy(("Allow", "iot:DeleteOTAUpdate", "*")))
    with pytest.raises(AccessDenied, match="user/clerk is not authorized to perform: iot:DeleteJob"):
        await delete(road, user="clerk", forceDeleteAWSJob=True)
    assert (await job(road)).status is JobStatus.IN_PROGRESS
    road.make_user("boss", policy(("Allow", "iot:DeleteJob", "*")))
    await delete(road, user="boss", forceDeleteAWSJob=True)


async def test_tags_go_with_their_update(road: UpdatesRoad) -> None:
    await road.create(await plain_file(road), tags=[{"Key": "a", "Value": "b"}])
    await delete(road)
    await road.create(await plain_file(road))
    arn = road.place.iot("otaupdate", "rel-7")
    assert await road.work.read(lambda tx: dict(road.registry.tags.list(tx, road.place, arn))) == {}
