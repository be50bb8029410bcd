"""An update whose server loses power after any step of its saga is whole after the restart: one job, one stream, one signature.

The server is a process of its own, stopped as by a power cut right after the named step's commit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from overair.server.signing.worker import SIGNED
from overair.server.updates.steps import Step
from overair.server.updates.worker import FAILED
from tests.support.server_main import CUT_STATUS
from tests.support.server_process import ServerProcess

IMAGE = b"firmware 2.0.0 " * 3000
STEPS = [*(step.value for step in Step), SIGNED]
WHOLE_TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("cut") / "data", driven=True) as server:
        server.client("iot").create_thing(thingName="dev-1")
        yield server


def create(server: ServerProcess, update: str) -> None:
    """Upload and CreateOTAUpdate; the answer may never come, when the power goes first."""
    bucket = server.endpoints["bucket"]
    uploaded = server.client("s3").put_object(Bucket=bucket, Key=f"{update}.bin", Body=IMAGE)
    file = {
        "fileName": "/device/updates",
        "fileLocation": {"s3Location": {"bucket": bucket, "key": f"{update}.bin", "version": uploaded["VersionId"]}},
        "codeSigning": {"startSigningJobParameter": {"signingProfileName": server.endpoints["signing_profile"]}},
    }
    try:
        server.client("iot").create_ota_update(
            otaUpdateId=update,
            targets=[f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}:thing/dev-1"],
            files=[file],
            roleArn=server.endpoints["ota_role_arn"],
        )
    except HTTPClientError:
        return


def wait_until_whole(iot: Any, update: str) -> dict[str, Any]:
    deadline = time.monotonic() + WHOLE_TIMEOUT_S
    while time.monotonic() < deadline:
        info: dict[str, Any] = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        if info["otaUpdateStatus"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            return info
        time.sleep(0.05)  # GetOTAUpdate is the only way to learn it (wire reference §1.1, step 8)
    raise AssertionError(f"{update} is still being created after {WHOLE_TIMEOUT_S} s.")


def streams(iot: Any) -> set[str]:
    return {stream["streamId"] for page in [iot.list_streams(maxResults=250)] for stream in page["streams"]}


def jobs(iot: Any) -> set[str]:
    return {job["jobId"] for page in iot.get_paginator("list_jobs").paginate() for job in page["jobs"]}


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_after_any_step_leaves_one_whole_update_after_the_restart(driven: ServerProcess, step: str) -> None:
    update = "cut-" + step.replace(".", "-")
    before_jobs, before_streams = jobs(driven.client("iot")), streams(driven.client("iot"))
    driven.tell(cut_after=step)
    create(driven, update)
    assert driven.wait_until_cut() == CUT_STATUS

    iot = driven.start().client("iot")
    info = wait_until_whole(iot, update)
    assert info["otaUpdateStatus"] == "CREATE_COMPLETE", info.get("errorInfo")
    assert jobs(iot) - before_jobs == {f"AFR_OTA-{update}"}
    document = json.loads(iot.get_job_document(jobId=f"AFR_OTA-{update}")["document"])["afr_ota"]
    assert streams(iot) - before_streams == {document["streamname"]}
    stream = iot.describe_stream(streamId=document["streamname"])["streamInfo"]
    assert stream["streamVersion"] == 1

    signing_job = info["otaUpdateFiles"][0]["codeSigning"]["awsSignerJobId"]
    s3, bucket, key = driven.client("s3"), driven.endpoints["bucket"], f"SignedImages/{signing_job}"
    versions = s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    newer, older = (version["VersionId"] for version in versions)
    assert s3.get_object(Bucket=bucket, Key=key, VersionId=newer)["Body"].read() == IMAGE
    signed = json.loads(s3.get_object(Bucket=bucket, Key=key, VersionId=older)["Body"].read())
    assert document["files"][0]["sig-sha256-ecdsa"] == signed["signature"]
    assert stream["files"][0]["s3Location"] == {"bucket": bucket, "key": key, "version": newer}


def test_an_update_that_was_accepted_is_not_accepted_again_after_a_power_cut(driven: ServerProcess) -> None:
    driven.tell(cut_after=Step.ACCEPT.value)
    create(driven, "accepted-once")
    assert driven.wait_until_cut() == CUT_STATUS
    driven.start()
    with pytest.raises(ClientError) as refused:
        driven.client("iot").create_ota_update(
            otaUpdateId="accepted-once",
            targets=[f"arn:aws:iot:{driven.endpoints['region']}:{driven.endpoints['account']}:thing/dev-1"],
            files=[{"fileName": "f", "fileLocation": {"s3Location": {"bucket": "b", "key": "k"}}}],
            roleArn=driven.endpoints["ota_role_arn"],
        )
    assert refused.value.response["Error"]["Code"] == "ResourceAlreadyExistsException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert wait_until_whole(driven.client("iot"), "accepted-once")["otaUpdateStatus"] == "CREATE_COMPLETE"


def test_a_power_cut_after_the_failure_of_an_update_leaves_it_failed_and_nothing_made(driven: ServerProcess) -> None:
    iot, bucket = driven.client("iot"), driven.endpoints["bucket"]
    before_jobs, before_streams = jobs(iot), streams(iot)
    uploaded = driven.client("s3").put_object(Bucket=bucket, Key="fails.bin", Body=IMAGE)
    driven.tell(cut_after=FAILED)
    with suppress(HTTPClientError):
        iot.create_ota_update(
            otaUpdateId="fails",
            targets=[f"arn:aws:iot:{driven.endpoints['region']}:{driven.endpoints['account']}:thing/dev-1"],
            files=[
                {
                    "fileName": "f",
                    "fileLocation": {"s3Location": {"bucket": bucket, "key": "fails.bin", "version": uploaded["VersionId"]}},
                    "codeSigning": {"startSigningJobParameter": {"signingProfileName": "nobody_made_this"}},
                }
            ],
            roleArn=driven.endpoints["ota_role_arn"],
        )
    assert driven.wait_until_cut() == CUT_STATUS
    iot = driven.start().client("iot")
    info = iot.get_ota_update(otaUpdateId="fails")["otaUpdateInfo"]
    assert (info["otaUpdateStatus"], info["errorInfo"]["code"]) == ("CREATE_FAILED", "ResourceNotFoundException")
    assert (jobs(iot), streams(iot)) == (before_jobs, before_streams)
    iot.delete_ota_update(otaUpdateId="fails")


def test_an_update_that_was_deleted_is_gone_whole_after_a_power_cut_and_its_id_is_free(driven: ServerProcess) -> None:
    iot, update = driven.client("iot"), "deleted"
    create(driven, update)
    assert wait_until_whole(iot, update)["otaUpdateStatus"] == "CREATE_COMPLETE"
    job = f"AFR_OTA-{update}"
    stream = json.loads(iot.get_job_document(jobId=job)["document"])["afr_ota"]["streamname"]
    iot.delete_ota_update(otaUpdateId=update, deleteStream=True, forceDeleteAWSJob=True)
    driven.kill()

    iot = driven.start().client("iot")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.get_ota_update(otaUpdateId=update)
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_stream(streamId=stream)
    deadline = time.monotonic() + WHOLE_TIMEOUT_S
    while job in jobs(iot):  # a job's executions are deleted piece by piece
        assert time.monotonic() < deadline
        time.sleep(0.05)
    executions = iot.list_job_executions_for_thing(thingName="dev-1", maxResults=250)["executionSummaries"]
    assert job not in {execution["jobId"] for execution in executions}
    create(driven, update)
    assert wait_until_whole(iot, update)["otaUpdateStatus"] == "CREATE_COMPLETE"
