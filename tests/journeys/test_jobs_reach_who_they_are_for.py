"""CONTINUOUS jobs reach who joins later, devices that were away get their work, and the numbers of a job add up."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.device_process import wait_until
from tests.support.field_device import Device, enroll
from tests.support.server_process import ServerProcess

DOCUMENT = '{"operation":"reboot"}'


def counts(iot: Any, job: str) -> dict[str, int]:
    """``jobProcessDetails`` without its zeros and without ``numberOf…Things``."""
    details: Mapping[str, Any] = iot.describe_job(jobId=job)["job"]["jobProcessDetails"]
    return {
        name.removeprefix("numberOf").removesuffix("Things"): number
        for name, number in details.items()
        if name.startswith("numberOf") and number
    }


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def group_of(server: ServerProcess, *things: str) -> tuple[str, str]:
    """(name, ARN) of a new group of these things."""
    iot, name = server.client("iot"), unique("group")
    arn = str(iot.create_thing_group(thingGroupName=name)["thingGroupArn"])
    for thing in things:
        iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
    return name, arn


@pytest.mark.parametrize("selection", ["CONTINUOUS", "SNAPSHOT"])
def test_who_joins_a_group_later_is_told_of_its_continuous_jobs_and_of_no_snapshot(
    server: ServerProcess, tmp_path: Path, selection: str
) -> None:
    iot = server.client("iot")
    early, late = (enroll(server, tmp_path, unique(name)) for name in ("early", "late"))
    group, group_arn = group_of(server, early.thing)
    job = unique("job")
    iot.create_job(jobId=job, targets=[group_arn], document=DOCUMENT, targetSelection=selection)
    with Device(server, late) as device:
        device.subscribe(device.jobs("notify-next"), device.jobs("notify"))
        assert "execution" not in device.ask(device.jobs("$next/get"))
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=late.thing)
        answer = device.ask(device.jobs("$next/get"))
        if selection == "SNAPSHOT":
            assert "execution" not in answer
            assert counts(iot, job) == {"Queued": 1}
            return
        assert answer["execution"]["jobId"] == job
        assert counts(iot, job) == {"Queued": 2}
        assert device.ask(device.jobs(f"{job}/update"), {"status": "SUCCEEDED"})["_topic"].endswith("/accepted")
    assert counts(iot, job) == {"Queued": 1, "Succeeded": 1}
    with Device(server, early) as device:
        assert device.ask(device.jobs(f"{job}/update"), {"status": "SUCCEEDED"})["_topic"].endswith("/accepted")
    assert iot.describe_job(jobId=job)["job"]["status"] == "IN_PROGRESS", "a continuous job never completes by itself"
    later = enroll(server, tmp_path, unique("later"))
    with Device(server, later) as device:
        device.subscribe(device.jobs("notify-next"))
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=later.thing)
        told = json.loads(device.next_message(device.jobs("notify-next"))[1])
        assert told["execution"]["jobId"] == job
        iot.remove_thing_from_thing_group(thingGroupName=group, thingName=later.thing)
        assert "execution" not in json.loads(device.next_message(device.jobs("notify-next"))[1])
    assert counts(iot, job) == {"Succeeded": 2, "Removed": 1}


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])
def test_a_device_that_was_away_gets_its_work_when_it_comes_back(server: ServerProcess, tmp_path: Path, clean: bool) -> None:
    iot, identity = server.client("iot"), enroll(server, tmp_path, unique("away"))
    with Device(server, identity, clean=clean) as device:
        device.subscribe(device.jobs("notify-next"))
    job = unique("job")
    iot.create_job(jobId=job, targets=[identity.thing_arn], document=DOCUMENT)
    details = {"self_test": "ready", "updatedBy": "0x01000000"}
    with Device(server, identity, clean=clean) as device:
        if not clean:
            told = json.loads(device.next_message(device.jobs("notify-next"))[1])
            assert told["execution"]["jobId"] == job
        execution = device.ask(device.jobs("$next/get"))["execution"]
        assert (execution["jobId"], execution["status"]) == (job, "QUEUED")
        assert "statusDetails" not in execution
        device.ask(device.jobs(f"{job}/update"), {"status": "IN_PROGRESS", "statusDetails": details})
    second = unique("job")
    iot.create_job(jobId=second, targets=[identity.thing_arn], document=DOCUMENT)
    with Device(server, identity, clean=clean) as device:
        execution = device.ask(device.jobs("$next/get"))["execution"]
        assert (execution["jobId"], execution["status"]) == (job, "IN_PROGRESS")
        assert execution["statusDetails"] == details, "what was said before a restart comes back word for word"


def test_the_numbers_of_a_job_add_up_at_every_turn(server: ServerProcess, tmp_path: Path) -> None:
    iot = server.client("iot")
    identities = [enroll(server, tmp_path, unique(f"counted{number}")) for number in range(5)]
    job = unique("job")
    _, group_arn = group_of(server, *(identity.thing for identity in identities))
    iot.create_job(jobId=job, targets=[group_arn], document=DOCUMENT)
    expected = {"Queued": 5}
    assert counts(iot, job) == expected
    turns = [("SUCCEEDED", "Succeeded"), ("FAILED", "Failed"), ("REJECTED", "Rejected"), ("IN_PROGRESS", "InProgress")]
    for identity, (status, name) in zip(identities, turns, strict=False):
        with Device(server, identity) as device:
            answer = device.ask(device.jobs(f"{job}/update"), {"status": status})
            assert answer["_topic"].endswith("/accepted"), answer
        expected = {**expected, "Queued": expected["Queued"] - 1, name: 1}
        assert counts(iot, job) == expected
        listed = iot.list_job_executions_for_job(jobId=job)["executionSummaries"]
        found = [entry["jobExecutionSummary"]["status"] for entry in listed]
        assert len(found) == sum(expected.values()) == len(identities)
    iot.cancel_job(jobId=job, comment="enough", reasonCode="ENOUGH")
    assert counts(iot, job) == {"Succeeded": 1, "Failed": 1, "Rejected": 1, "InProgress": 1, "Canceled": 1}
    iot.cancel_job_execution(jobId=job, thingName=identities[3].thing, force=True)
    assert counts(iot, job) == {"Succeeded": 1, "Failed": 1, "Rejected": 1, "Canceled": 2}


def test_a_continuous_update_of_a_group_and_a_thing_reaches_both_and_who_joins_later(
    server: ServerProcess, tmp_path: Path
) -> None:
    iot, endpoints = server.client("iot"), server.endpoints
    alone, member, late = (enroll(server, tmp_path, unique(name)) for name in ("alone", "member", "joiner"))
    group, group_arn = group_of(server, member.thing)
    update, targets = unique("rel"), [group_arn, alone.thing_arn]
    version = server.client("s3").put_object(Bucket=endpoints["bucket"], Key=update, Body=b"an image")["VersionId"]
    iot.create_ota_update(
        otaUpdateId=update,
        description="for all of them",
        targets=targets,
        targetSelection="CONTINUOUS",
        roleArn=endpoints["ota_role_arn"],
        additionalParameters={"ticket": "7"},
        awsJobTimeoutConfig={"inProgressTimeoutInMinutes": 5},
        files=[
            {
                "fileName": "fw",
                "fileVersion": "2.0",
                "attributes": {"kind": "kept"},
                "fileLocation": {"s3Location": {"bucket": endpoints["bucket"], "key": update, "version": version}},
                "codeSigning": {"startSigningJobParameter": {"signingProfileName": endpoints["signing_profile"]}},
            }
        ],
    )

    def whole() -> dict[str, Any] | None:
        info: dict[str, Any] = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        assert info["otaUpdateStatus"] != "CREATE_FAILED", info
        return info if info["otaUpdateStatus"] == "CREATE_COMPLETE" else None

    info = wait_until(whole, what=server.log)
    assert (info["description"], info["additionalParameters"]) == ("for all of them", {"ticket": "7"})
    assert (info["otaUpdateFiles"][0]["attributes"], info["otaUpdateFiles"][0]["fileVersion"]) == ({"kind": "kept"}, "2.0")
    job = iot.describe_job(jobId=info["awsIotJobId"])["job"]
    assert (job["description"], job["targetSelection"], job["targets"]) == ("for all of them", "CONTINUOUS", targets)
    iot.add_thing_to_thing_group(thingGroupName=group, thingName=late.thing)
    documents = []
    for identity in (alone, member, late):
        with Device(server, identity) as device:
            execution = device.ask(device.jobs("$next/get"))["execution"]
            assert execution["jobId"] == f"AFR_OTA-{update}"
            documents.append(execution["jobDocument"])
    assert documents[0] == documents[1] == documents[2]
    assert counts(iot, info["awsIotJobId"]) == {"Queued": 3}


def test_a_report_of_an_earlier_attempt_does_nothing_to_the_retry(server: ServerProcess, tmp_path: Path) -> None:
    iot, identity, job = server.client("iot"), enroll(server, tmp_path, unique("again")), unique("job")
    iot.create_job(
        jobId=job,
        targets=[identity.thing_arn],
        document=DOCUMENT,
        jobExecutionsRetryConfig={"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]},
    )
    failed = {"status": "FAILED", "statusDetails": {"reason": "0x000000e3: 0x00000000"}}
    with Device(server, identity) as device:
        device.ask(device.jobs(f"{job}/update"), failed)
        execution = device.ask(device.jobs("$next/get"))["execution"]
        assert (execution["executionNumber"], execution["status"], execution["versionNumber"]) == (2, "QUEUED", 1)
        assert "statusDetails" not in execution
        late = device.ask(device.jobs(f"{job}/update"), {**failed, "executionNumber": 1})
        assert (late["code"], late["executionState"]["status"]) == ("InvalidStateTransition", "FAILED")
        execution = device.ask(device.jobs("$next/get"))["execution"]
        assert (execution["executionNumber"], execution["status"], execution["versionNumber"]) == (2, "QUEUED", 1)
        assert device.ask(device.jobs(f"{job}/update"), {"status": "SUCCEEDED"})["_topic"].endswith("/accepted")
    assert counts(iot, job) == {"Succeeded": 1}
    assert iot.describe_job(jobId=job)["job"]["status"] == "COMPLETED"
