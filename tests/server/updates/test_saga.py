"""From CreateOTAUpdate to a job; and whatever step a power cut follows: never a second job, never half an update."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from overair.basics.errors import Unavailable
from overair.basics.ids import AccountId, OtaUpdateId, ThingName
from overair.basics.work import Tx
from overair.server.objects.model import Versioning
from overair.server.signing.worker import SIGNED
from overair.server.updates.steps import NEXT, Step
from overair.server.updates.worker import FAILED
from overair.wire.image_signature import SignatureAlgorithm, load_signer_certificate, verify_image_signature
from overair.wire.job_document import TransferProtocol, findings
from tests.support.signing_road import BUCKET, policy
from tests.support.updates_road import ROLE_ACTIONS, PowerCut, UpdatesRoad

IMAGE = b"firmware 2.0.0 " * 5000
ALL_STEPS = [*(step.value for step in Step), SIGNED]


async def signed_file(road: UpdatesRoad, image: bytes = IMAGE) -> dict[str, Any]:
    return {
        "fileName": "/device/updates",
        "fileType": 0,
        "fileVersion": "2.0.0",
        "fileLocation": await road.stored("fw.bin", image),
        "codeSigning": road.signing_parameter(),
    }


async def create_and_drive(road: UpdatesRoad, file: dict[str, Any]) -> None:
    await road.create(file)
    await road.drive()


async def check_whole(road: UpdatesRoad) -> None:
    """One job, one stream at version 1, one signed object with the raw image over it, and a document that devices verify."""
    info = await road.info()
    assert info["otaUpdateStatus"] == "CREATE_COMPLETE"
    assert await road.counts() == {"jobs": 1, "streams": 1}
    [file] = info["otaUpdateFiles"]
    signing_job = file["codeSigning"]["awsSignerJobId"]
    key = f"SignedImages/{signing_job}"
    older, newer = await road.versions(key)
    assert json.loads(await road.download(BUCKET, key, older))["rawPayloadSize"] == len(IMAGE)
    assert await road.download(BUCKET, key, newer) == IMAGE
    document = await road.document()
    [described] = document.files
    stream = await road.stream(str(document.stream_name))
    assert stream.version == 1
    [streamed] = stream.files
    assert (streamed.source.key, streamed.version) == (key, newer)
    assert described.size_bytes == streamed.size_bytes == len(IMAGE)
    assert described.certificate_path == "/anchor.pem"
    assert described.signature is not None
    verified = verify_image_signature(
        [IMAGE],
        signature=described.signature.value,
        algorithm=SignatureAlgorithm(described.signature.key),
        signer=load_signer_certificate(road.signer.certificate_pem),
    )
    assert verified.sha256 == hashlib.sha256(IMAGE).hexdigest()
    assert findings(document, job_id=info["awsIotJobId"]) == []


async def test_an_update_is_signed_streamed_and_given_to_devices_as_one_job(road: UpdatesRoad) -> None:
    answer = await road.create(await signed_file(road), description="release 7")
    assert answer == {
        "otaUpdateId": "rel-7",
        "awsIotJobId": "AFR_OTA-rel-7",
        "otaUpdateArn": road.place.iot("otaupdate", "rel-7"),
        "awsIotJobArn": road.place.iot("job", "AFR_OTA-rel-7"),
        "otaUpdateStatus": "CREATE_PENDING",
    }
    await road.drive()
    await check_whole(road)
    assert [step for step in road.steps if step != SIGNED] == [step.value for step in Step]
    stream = (await road.document()).stream_name
    assert stream is not None
    assert len(stream) == 44


async def test_the_table_of_steps_is_one_line_from_accept_to_complete() -> None:
    line = [Step.ACCEPT]
    while line[-1] in NEXT:
        line.append(NEXT[line[-1]])
    assert line == list(Step)


@pytest.mark.parametrize("step", ALL_STEPS)
async def test_a_power_cut_after_any_step_leaves_one_whole_update_after_the_restart(road: UpdatesRoad, step: str) -> None:
    file = await signed_file(road)
    road.cut_after = step
    with pytest.raises(PowerCut):
        await create_and_drive(road, file)
    assert road.steps[-1] == step
    road.restart()
    await road.drive()
    await check_whole(road)


async def test_a_power_cut_after_every_single_step_leaves_one_whole_update(road: UpdatesRoad) -> None:
    file = await signed_file(road)
    cuts = 0
    road.cut_after = Step.ACCEPT.value
    with pytest.raises(PowerCut):
        await road.create(file)
    for step in [step for step in ALL_STEPS if step is not Step.ACCEPT.value]:
        road.restart()
        road.cut_after = step
        try:
            await road.drive()
        except PowerCut:
            cuts += 1
    road.restart()
    await road.drive()
    await check_whole(road)
    assert cuts == len(ALL_STEPS) - 2  # the signing itself was done on the way to the step after it


async def test_two_processes_at_the_same_saga_make_one_update(road: UpdatesRoad) -> None:
    await road.create(await signed_file(road))
    stale = await road.find()
    await road.updates_worker.run_once()
    # A process that read the update before the other's commits finds its step taken.
    taken = await road.work.run(lambda tx: road.updates._store.take(tx, stale))
    assert taken is False
    await road.drive()
    await check_whole(road)


# The pairs of location and signing (wire reference §5.2) ------------------------------------------------------------------


async def finished_signing(road: UpdatesRoad, image: bytes = IMAGE) -> tuple[str, dict[str, Any]]:
    """A signing job that was run beforehand, and where its image stands."""
    await road.make_profile("before", road.certificate_arn, signingParameters={"certname": "/before.pem"})
    location = await road.stored("before.bin", image)
    source = await road.work.read(lambda tx: road.objects.find(tx, road.place, BUCKET, "before.bin"))
    job = await road.start("before", source, token="before")
    await road.signing_worker.run_once()
    return job, location


def custom(road: UpdatesRoad, image: bytes = IMAGE, *, inline: bool = True) -> dict[str, Any]:
    assert isinstance(road.signer.key, ec.EllipticCurvePrivateKey)
    signature = road.signer.key.sign(image, ec.ECDSA(hashes.SHA256()))
    chain = {"certificateName": "/custom.pem"}
    if inline:
        chain["inlineDocument"] = road.signer.certificate_pem.decode()
    return {
        "customCodeSigning": {
            "signature": {"inlineDocument": signature},
            "certificateChain": chain,
            "hashAlgorithm": "SHA256",
            "signatureAlgorithm": "ECDSA",
        }
    }


async def check_devices_would_verify(road: UpdatesRoad, certificate_path: str) -> None:
    [file] = (await road.document()).files
    assert file.certificate_path == certificate_path
    assert file.size_bytes == len(IMAGE)
    assert file.signature is not None
    signer = load_signer_certificate(road.signer.certificate_pem)
    verify_image_signature(
        [IMAGE], signature=file.signature.value, algorithm=SignatureAlgorithm(file.signature.key), signer=signer
    )
    name = (await road.document()).stream_name
    [streamed] = (await road.stream(str(name))).files
    assert await road.download(streamed.source.bucket, streamed.source.key, streamed.version) == IMAGE


async def test_a_file_of_an_own_stream_signed_before_by_signer(road: UpdatesRoad) -> None:
    job, location = await finished_signing(road)
    await road.make_stream("own", location)
    file = {
        "fileName": "fw",
        "fileLocation": {"stream": {"streamId": "own", "fileId": 0}},
        "codeSigning": {"awsSignerJobId": job},
    }
    await road.create(file)
    await road.drive()
    await check_devices_would_verify(road, "/before.pem")
    assert (await road.document()).stream_name == "own"
    assert await road.counts() == {"jobs": 1, "streams": 1}


async def test_a_file_of_an_own_stream_with_a_custom_signature(road: UpdatesRoad) -> None:
    await road.make_stream("own", await road.stored("fw.bin", IMAGE))
    file = {"fileName": "fw", "fileLocation": {"stream": {"streamId": "own", "fileId": 0}}, "codeSigning": custom(road)}
    await road.create(file)
    await road.drive()
    await check_devices_would_verify(road, "/custom.pem")


async def test_an_object_signed_by_a_profile_that_is_there(road: UpdatesRoad) -> None:
    await road.make_profile("mine", road.certificate_arn, signingParameters={"certname": "/mine.pem"})
    signing = {"startSigningJobParameter": {"signingProfileName": "mine"}}
    await road.create({"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE), "codeSigning": signing})
    await road.drive()
    await check_devices_would_verify(road, "/mine.pem")


async def test_a_finished_signing_job_alone_is_delivered_as_raw_bytes(road: UpdatesRoad) -> None:
    job, _ = await finished_signing(road)
    for update in ("rel-7", "rel-8"):
        await road.create({"fileName": "fw", "codeSigning": {"awsSignerJobId": job}}, update=update)
        await road.drive()
    await check_devices_would_verify(road, "/before.pem")
    assert len(await road.versions(f"SignedImages/{job}")) == 2, "the second update finds the raw image of the first"


async def test_an_object_with_a_custom_signature(road: UpdatesRoad) -> None:
    await road.create({"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE), "codeSigning": custom(road)})
    await road.drive()
    await check_devices_would_verify(road, "/custom.pem")
    assert await road.versions("fw.bin") == [(await road.info())["otaUpdateFiles"][0]["fileLocation"]["s3Location"]["version"]]


async def test_an_unsigned_update_goes_out_and_is_marked(road: UpdatesRoad) -> None:
    await road.create(
        {"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE)}, additionalParameters={"mine": "kept"}
    )
    await road.drive()
    [file] = (await road.document()).files
    assert file.signature is None
    assert (await road.info())["additionalParameters"] == {"mine": "kept", "overair:unsigned": "true"}
    unsigned = await road.work.read(lambda tx: road.updates.unsigned(tx, road.account, limit=10))
    assert [update.id for update in unsigned] == ["rel-7"]


async def test_several_files_go_into_one_stream_and_one_document(road: UpdatesRoad) -> None:
    first = await signed_file(road)
    second = {
        "fileName": "extra",
        "fileType": 2,
        "fileLocation": await road.stored("x", b"extra"),
        "codeSigning": custom(road, b"extra"),
    }
    await road.create(first, second)
    await road.drive()
    document = await road.document()
    assert [(file.file_id, file.path, file.size_bytes) for file in document.files] == [
        (0, "/device/updates", len(IMAGE)),
        (1, "extra", 5),
    ]
    assert [file.source.file_id for file in (await road.stream(str(document.stream_name))).files] == [0, 1]


async def test_an_update_over_http_has_urls_to_presign_and_no_stream(road: UpdatesRoad) -> None:
    await road.create(await signed_file(road), protocols=["HTTP"], awsJobPresignedUrlConfig={"expiresInSec": 60})
    await road.drive()
    document = await road.document()
    assert document.protocols == (TransferProtocol.HTTP,)
    assert document.stream_name is None
    [file] = document.files
    assert file.url is not None
    key = (await road.info())["otaUpdateFiles"][0]["fileLocation"]["s3Location"]
    assert file.url == (
        f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{BUCKET}/{key['key']}?versionId={key['version']}}}"
    )
    assert file.auth_scheme == "aws.s3.presigned"
    assert await road.counts() == {"jobs": 1, "streams": 0}


async def test_both_protocols_have_a_stream_and_urls(road: UpdatesRoad) -> None:
    await road.create(await signed_file(road), protocols=["MQTT", "HTTP"])
    await road.drive()
    document = await road.document()
    assert document.protocols == (TransferProtocol.MQTT, TransferProtocol.HTTP)
    assert document.stream_name is not None
    assert document.files[0].url is not None


async def test_a_source_without_a_version_is_pinned_at_creation(road: UpdatesRoad) -> None:
    file = await signed_file(road)
    version = file["fileLocation"]["s3Location"].pop("version")
    await road.create(file)
    await road.upload("fw.bin", b"a later image under the same key")
    await road.drive()
    await check_whole(road)
    job = (await road.info())["otaUpdateFiles"][0]["codeSigning"]["awsSignerJobId"]
    described = await road.signer_api.describe_signing_job(road.caller(), {"jobId": job})
    assert described["source"]["s3"]["version"] == version


# Refused on the way -------------------------------------------------------------------------------------------------------


async def check_failed(road: UpdatesRoad, code: str, *words: str) -> None:
    info = await road.info()
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert info["errorInfo"]["code"] == code
    for word in words:
        assert word in info["errorInfo"]["message"]
    assert await road.counts() == {"jobs": 0, "streams": 0}
    assert FAILED in road.steps


@pytest.mark.parametrize("action", sorted(set(ROLE_ACTIONS) - {"s3:GetObject", "signer:GetSigningProfile"}))
async def test_without_one_permission_of_the_role_the_update_fails_naming_it(road: UpdatesRoad, action: str) -> None:
    road.role_arn = road.make_role("narrow", policy(("Allow", [a for a in ROLE_ACTIONS if a != action], "*")))
    await road.create(await signed_file(road))
    await road.drive()
    await check_failed(road, "AccessDeniedException", action)


async def test_without_leave_to_look_at_a_named_profile_the_update_fails_naming_it(road: UpdatesRoad) -> None:
    await road.make_profile("mine", road.certificate_arn)
    actions = [action for action in ROLE_ACTIONS if action != "signer:GetSigningProfile"]
    road.role_arn = road.make_role("narrow", policy(("Allow", actions, "*")))
    signing = {"startSigningJobParameter": {"signingProfileName": "mine"}}
    await road.create({"fileName": "fw", "fileLocation": await road.stored("fw.bin", IMAGE), "codeSigning": signing})
    await road.drive()
    await check_failed(road, "AccessDeniedException", "signer:GetSigningProfile")


async def test_a_role_that_does_not_trust_the_service_fails_the_update(road: UpdatesRoad) -> None:
    trust = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
        }
    )
    road.role_arn = road.make_role("foreign", policy(("Allow", "*", "*")), trust=trust)
    await road.create(await signed_file(road))
    await road.drive()
    await check_failed(road, "InvalidRequestException", "cannot be assumed")


async def test_a_role_may_pass_itself_to_the_iot_service_alone(road: UpdatesRoad) -> None:
    def role(name: str, service: str) -> str:
        others = [action for action in ROLE_ACTIONS if action != "iam:PassRole"]
        document = json.loads(policy(("Allow", others, "*"), ("Allow", "iam:PassRole", "*")))
        document["Statement"][1]["Condition"] = {"StringEquals": {"iam:PassedToService": service}}
        return road.make_role(name, json.dumps(document))

    road.role_arn = role("other", "lambda.amazonaws.com")
    await road.create(await signed_file(road))
    await road.drive()
    await check_failed(road, "AccessDeniedException", "iam:PassRole")
    road.role_arn = role("ours", "iot.amazonaws.com")
    await road.create(await signed_file(road), update="rel-8")
    await road.drive()
    assert (await road.info("rel-8"))["otaUpdateStatus"] == "CREATE_COMPLETE"


async def test_a_bucket_policy_may_let_the_service_read_in_place_of_the_role(road: UpdatesRoad) -> None:
    actions = [action for action in ROLE_ACTIONS if action != "s3:GetObjectVersion"]
    road.role_arn = road.make_role("narrow", policy(("Allow", actions, "*")))
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "s3:GetObjectVersion",
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await road.work.run(lambda tx: road.objects.set_policy(tx, road.place, BUCKET, document))
    await road.create(await signed_file(road))
    await road.drive()
    await check_whole(road)


async def test_a_bucket_policy_that_denies_wins_over_the_role(road: UpdatesRoad) -> None:
    statement = {
        "Effect": "Deny",
        "Principal": {"Service": "iot.amazonaws.com"},
        "Action": "s3:GetObjectVersion",
        "Resource": f"arn:aws:s3:::{BUCKET}/*",
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    await road.work.run(lambda tx: road.objects.set_policy(tx, road.place, BUCKET, document))
    await road.create(await signed_file(road))
    await road.drive()
    await check_failed(road, "AccessDeniedException", "s3:GetObjectVersion")


async def test_a_missing_object_profile_or_signing_job_fails_the_update(road: UpdatesRoad) -> None:
    there = await road.stored("fw.bin", IMAGE)
    cases = [
        {"fileLocation": {"s3Location": {"bucket": BUCKET, "key": "nothing"}}},
        {"fileLocation": there, "codeSigning": {"startSigningJobParameter": {"signingProfileName": "nobody"}}},
        {"codeSigning": {"awsSignerJobId": "00000000-0000-4000-8000-000000000000"}},
    ]
    for number, case in enumerate(cases):
        await road.create({"fileName": "fw", **case}, update=f"rel-{number}")
        await road.drive()
        info = await road.info(f"rel-{number}")
        assert (info["otaUpdateStatus"], info["errorInfo"]["code"]) == ("CREATE_FAILED", "ResourceNotFoundException")
    assert await road.counts() == {"jobs": 0, "streams": 0}


async def test_a_signing_job_that_fails_fails_the_update_with_its_reason(road: UpdatesRoad) -> None:
    file = await signed_file(road)
    road.cut_after = Step.START_SIGNING.value
    with pytest.raises(PowerCut):
        await create_and_drive(road, file)
    road.restart()
    version = file["fileLocation"]["s3Location"]["version"]
    await road.work.run(lambda tx: road.objects.delete(tx, road.place, BUCKET, "fw.bin", version))
    await road.drive()
    await check_failed(road, "InvalidRequestException", "Signing job", "failed")


async def test_an_empty_file_fails_the_update_since_agents_would_drop_it_in_silence(road: UpdatesRoad) -> None:
    await road.create({"fileName": "fw", "fileLocation": await road.stored("fw.bin", b"")})
    await road.drive()
    await check_failed(road, "InvalidRequestException", "0 bytes")


async def test_signing_from_a_bucket_without_versions_fails_the_update(road: UpdatesRoad) -> None:
    road.make_bucket("plain", Versioning.NEVER)
    await road.upload("fw.bin", IMAGE, bucket="plain")
    file = {"fileName": "fw", "fileLocation": {"s3Location": {"bucket": "plain", "key": "fw.bin"}}}
    await road.create({**file, "codeSigning": road.signing_parameter()})
    await road.drive()
    await check_failed(road, "InvalidRequestException", "keeps no versions")
    await road.create(file, update="rel-8")
    await road.drive()
    assert (await road.info("rel-8"))["otaUpdateStatus"] == "CREATE_COMPLETE"


async def test_a_stream_that_serves_other_bytes_than_were_signed_fails_the_update(road: UpdatesRoad) -> None:
    job, _ = await finished_signing(road)
    await road.make_stream("own", await road.stored("other.bin", b"something else"))
    file = {
        "fileName": "fw",
        "fileLocation": {"stream": {"streamId": "own", "fileId": 0}},
        "codeSigning": {"awsSignerJobId": job},
    }
    await road.create(file)
    await road.drive()
    info = await road.info()
    assert info["otaUpdateStatus"] == "CREATE_FAILED"
    assert "isn't what signing job" in info["errorInfo"]["message"]


async def test_a_streamed_file_that_was_replaced_since_fails_the_update(road: UpdatesRoad) -> None:
    road.make_bucket("plain", Versioning.NEVER)
    await road.upload("fw.bin", IMAGE, bucket="plain")
    await road.make_stream("own", {"s3Location": {"bucket": "plain", "key": "fw.bin", "version": None}})
    await road.upload("fw.bin", b"another image", bucket="plain")
    await road.create({"fileName": "fw", "fileLocation": {"stream": {"streamId": "own", "fileId": 0}}})
    await road.drive()
    info = await road.info()
    assert info["errorInfo"]["code"] == "InvalidRequestException"
    assert "has changed since the stream was made" in info["errorInfo"]["message"]


async def test_a_revoked_signature_is_never_sent(road: UpdatesRoad) -> None:
    job, _ = await finished_signing(road)
    await road.signer_api.revoke_signature(road.caller(), {"jobId": job, "reason": "stolen key"})
    await road.create({"fileName": "fw", "codeSigning": {"awsSignerJobId": job}})
    await road.drive()
    await check_failed(road, "InvalidRequestException", "was revoked at", ": stolen key")


async def test_a_target_that_goes_away_before_the_job_fails_the_update_and_takes_its_stream_back(road: UpdatesRoad) -> None:
    file = await signed_file(road)
    road.cut_after = Step.CREATE_STREAM.value
    with pytest.raises(PowerCut):
        await create_and_drive(road, file)
    assert await road.counts() == {"jobs": 0, "streams": 1}
    road.restart()
    await road.work.run(lambda tx: road.registry.devices.delete(tx, road.account, ThingName("dev-1")))
    await road.drive()
    await check_failed(road, "ResourceNotFoundException", "dev-1")


async def test_a_full_disk_ends_no_update_but_is_raised_for_another_try(
    road: UpdatesRoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    await road.create(await signed_file(road))
    road.clock.advance(milliseconds=1)
    await road.create({"fileName": "fw", "fileLocation": await road.stored("x", b"x")}, update="rel-8")
    advance = road.saga.advance

    def full(tx: Tx, account: AccountId, update: OtaUpdateId) -> Step | None:
        if update == "rel-7":
            raise Unavailable("The disk is full.", subject="storage")
        return advance(tx, account, update)

    with monkeypatch.context() as patch:
        patch.setattr(road.saga, "advance", full)
        with pytest.raises(ExceptionGroup) as raised:
            await road.updates_worker.run_once()
    assert [type(fault) for fault in raised.value.exceptions] == [Unavailable]
    assert (await road.info())["otaUpdateStatus"] == "CREATE_PENDING"
    assert (await road.info("rel-8"))["otaUpdateStatus"] == "CREATE_COMPLETE", "the others had their turn"
    await road.drive()
    assert (await road.info())["otaUpdateStatus"] == "CREATE_COMPLETE"
