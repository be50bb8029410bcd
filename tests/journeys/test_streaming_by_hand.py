"""boto3 makes bucket, stream and job; Amazon's own device SDK takes the job, streams the file and reports."""

from __future__ import annotations

import base64
import json
import queue
import random
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import awsiot
import cbor2
import pytest
from awscrt import mqtt, mqtt5
from awscrt.mqtt_request_response import ClientOptions, SubscriptionStatusEventType
from awsiot import iotjobs, mqtt5_client_builder, mqtt_connection_builder

from tests.support.paho_device import PahoDevice
from tests.support.server_process import ServerProcess

PATIENCE_S = 20.0
IMAGE = random.Random(3).randbytes(300_001)
BLOCK_SIZE_BYTES = 4096


@pytest.fixture
def iot(server: ServerProcess) -> Any:
    return server.client("iot")


@pytest.fixture
def device(server: ServerProcess, iot: Any, tmp_path: Path) -> dict[str, Any]:
    """A thing whose certificate may do everything below its own reserved topics."""
    thing = f"dev-{uuid.uuid4().hex[:8]}"
    stem = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}"
    document = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{stem}:client/{thing}"},
            {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": f"{stem}:topic/$aws/things/{thing}/*"},
            {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{stem}:topicfilter/$aws/things/{thing}/*"},
        ],
    }
    iot.create_thing(thingName=thing)
    certificate = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_policy(policyName=thing, policyDocument=json.dumps(document))
    iot.attach_policy(policyName=thing, target=certificate["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=certificate["certificateArn"])
    (tmp_path / "certificate.pem").write_text(certificate["certificatePem"])
    (tmp_path / "private.key").write_text(certificate["keyPair"]["PrivateKey"])
    return {"thing": thing, "arn": f"{stem}:thing/{thing}", "folder": tmp_path, "certificate": certificate}


@pytest.fixture(params=["MQTT 3.1.1", "MQTT 5"])
def connection(server: ServerProcess, device: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[mqtt.Connection]:
    where: dict[str, Any] = {
        "endpoint": server.endpoints["mqtt_host"],
        "port": server.endpoints["mqtt_port"],
        "cert_filepath": str(device["folder"] / "certificate.pem"),
        "pri_key_filepath": str(device["folder"] / "private.key"),
        "ca_filepath": server.endpoints["ca_file"],
    }
    if request.param == "MQTT 5":
        options = mqtt5.ConnectPacket(client_id=device["thing"], keep_alive_interval_sec=60)
        made = mqtt5_client_builder.mtls_from_path(**where, connect_options=options).new_connection()
    else:
        made = mqtt_connection_builder.mtls_from_path(**where, client_id=device["thing"], clean_session=True)
    made.connect().result(PATIENCE_S)
    yield made
    made.disconnect().result(PATIENCE_S)


def store(server: ServerProcess, data: bytes) -> tuple[str, str, str]:
    """(bucket, key, version) of a new object."""
    s3 = server.client("s3")
    bucket, key = server.endpoints["bucket"], f"image-{uuid.uuid4().hex[:8]}.bin"
    version = s3.put_object(Bucket=bucket, Key=key, Body=data)["VersionId"]
    return bucket, key, version


def make_stream(server: ServerProcess, iot: Any, data: bytes) -> str:
    bucket, key, version = store(server, data)
    stream = f"AFR_OTA-{uuid.uuid4()}"
    made = iot.create_stream(
        streamId=stream,
        files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": key, "version": version}}],
        roleArn=server.endpoints["ota_role_arn"],
    )
    assert made["streamVersion"] == 1
    return stream


def test_the_device_sdk_takes_a_job_streams_its_file_and_reports_success(
    server: ServerProcess, iot: Any, device: dict[str, Any], connection: mqtt.Connection
) -> None:
    stream = make_stream(server, iot, IMAGE)
    thing = device["thing"]
    jobs = iotjobs.IotJobsClient(connection)
    announced: queue.Queue[Any] = queue.Queue()
    described: queue.Queue[Any] = queue.Queue()
    updated: queue.Queue[Any] = queue.Queue()
    at_least_once = mqtt.QoS.AT_LEAST_ONCE

    def subscribed(result: tuple[Future[Any], int]) -> None:
        result[0].result(PATIENCE_S)

    subscribed(
        jobs.subscribe_to_next_job_execution_changed_events(
            iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=thing), at_least_once, announced.put
        )
    )
    subscribed(
        jobs.subscribe_to_describe_job_execution_accepted(
            iotjobs.DescribeJobExecutionSubscriptionRequest(thing_name=thing, job_id="$next"), at_least_once, described.put
        )
    )
    job = f"job-{uuid.uuid4().hex[:8]}"
    document = {"afr_ota": {"protocols": ["MQTT"], "streamname": stream, "files": [{"filesize": len(IMAGE), "fileid": 0}]}}
    iot.create_job(jobId=job, targets=[device["arn"]], document=json.dumps(document))
    assert announced.get(timeout=PATIENCE_S).execution.job_id == job

    request = iotjobs.DescribeJobExecutionRequest(thing_name=thing, job_id="$next", client_token="tok")
    jobs.publish_describe_job_execution(request, at_least_once).result(PATIENCE_S)
    answer = described.get(timeout=PATIENCE_S)
    assert (answer.client_token, answer.execution.job_id, answer.execution.status) == ("tok", job, "QUEUED")
    assert answer.execution.job_document == document
    assert answer.timestamp.year >= 2026

    subscribed(
        jobs.subscribe_to_update_job_execution_accepted(
            iotjobs.UpdateJobExecutionSubscriptionRequest(thing_name=thing, job_id=job), at_least_once, updated.put
        )
    )
    for status, details in (("IN_PROGRESS", {"receive": "0/74"}), ("SUCCEEDED", {"reason": "accepted  v2.0.0"})):
        if status == "SUCCEEDED":
            assert fetch(connection, thing, stream, "cbor") == IMAGE
            assert fetch(connection, thing, stream, "json") == IMAGE
        update = iotjobs.UpdateJobExecutionRequest(
            thing_name=thing, job_id=job, status=status, status_details=details, client_token=status
        )
        jobs.publish_update_job_execution(update, at_least_once).result(PATIENCE_S)
        assert updated.get(timeout=PATIENCE_S).client_token == status
    assert announced.get(timeout=PATIENCE_S).execution is None
    with pytest.raises(queue.Empty):
        announced.get(timeout=0.2)

    told = iot.describe_job(jobId=job)["job"]
    assert told["status"] == "COMPLETED"
    assert told["jobProcessDetails"]["numberOfSucceededThings"] == 1
    execution = iot.describe_job_execution(jobId=job, thingName=thing)["execution"]
    assert execution["statusDetails"] == {"detailsMap": {"reason": "accepted  v2.0.0"}}
    assert (execution["versionNumber"], execution["thingArn"]) == (3, device["arn"])


def test_the_device_sdks_second_client_speaks_through_wildcard_subscriptions(
    iot: Any, device: dict[str, Any], connection: mqtt.Connection
) -> None:
    """It subscribes to ``…/get/+`` and the like and correlates by token (checklist 53)."""
    thing, job = device["thing"], f"job-{uuid.uuid4().hex[:8]}"
    options = ClientOptions(
        max_request_response_subscriptions=4, max_streaming_subscriptions=2, operation_timeout_in_seconds=20
    )
    jobs = iotjobs.IotJobsClientV2(connection, options)
    announced: queue.Queue[Any] = queue.Queue()
    ready: queue.Queue[Any] = queue.Queue()
    stream = jobs.create_next_job_execution_changed_stream(
        iotjobs.NextJobExecutionChangedSubscriptionRequest(thing_name=thing),
        awsiot.ServiceStreamOptions(
            incoming_event_listener=announced.put,
            subscription_status_listener=ready.put,
            deserialization_failure_listener=ready.put,
        ),
    )
    stream.open()
    assert ready.get(timeout=PATIENCE_S).type == SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED
    iot.create_job(jobId=job, targets=[device["arn"]], document='{"operation":"reboot"}')
    assert announced.get(timeout=PATIENCE_S).execution.job_id == job
    pending = jobs.get_pending_job_executions(iotjobs.GetPendingJobExecutionsRequest(thing_name=thing)).result(PATIENCE_S)
    assert ([each.job_id for each in pending.queued_jobs], pending.in_progress_jobs) == ([job], [])
    started = jobs.start_next_pending_job_execution(iotjobs.StartNextPendingJobExecutionRequest(thing_name=thing))
    assert started.result(PATIENCE_S).execution.status == "IN_PROGRESS"
    described = jobs.describe_job_execution(iotjobs.DescribeJobExecutionRequest(thing_name=thing, job_id="$next"))
    assert described.result(PATIENCE_S).execution.job_document == {"operation": "reboot"}
    with pytest.raises(awsiot.V2ServiceException) as refused:
        jobs.update_job_execution(
            iotjobs.UpdateJobExecutionRequest(thing_name=thing, job_id=job, status="SUCCEEDED", expected_version=1)
        ).result(PATIENCE_S)
    assert refused.value.modeled_error.code == "VersionMismatch"
    jobs.update_job_execution(iotjobs.UpdateJobExecutionRequest(thing_name=thing, job_id=job, status="SUCCEEDED")).result(
        PATIENCE_S
    )
    assert announced.get(timeout=PATIENCE_S).execution is None
    assert iot.describe_job(jobId=job)["job"]["status"] == "COMPLETED"


def fetch(connection: mqtt.Connection, thing: str, stream: str, form: str) -> bytes:
    """The whole file, 32 blocks at a time."""
    stem = f"$aws/things/{thing}/streams/{stream}"
    blocks: queue.Queue[bytes] = queue.Queue()
    connection.subscribe(f"{stem}/data/{form}", mqtt.QoS.AT_MOST_ONCE, lambda topic, payload, **_: blocks.put(payload))[
        0
    ].result(PATIENCE_S)
    whole: dict[int, bytes] = {}
    total = -(-len(IMAGE) // BLOCK_SIZE_BYTES)
    while len(whole) < total:
        offset = len(whole)
        count = min(32, total - offset)
        request = {"c": "t", "f": 0, "l": BLOCK_SIZE_BYTES, "o": offset, "n": count}
        payload = cbor2.dumps(request) if form == "cbor" else json.dumps(request).encode()
        connection.publish(f"{stem}/get/{form}", payload, mqtt.QoS.AT_MOST_ONCE)
        for _ in range(count):
            raw = blocks.get(timeout=PATIENCE_S)
            block = cbor2.loads(raw) if form == "cbor" else json.loads(raw)
            data = block["p"] if form == "cbor" else base64.b64decode(block["p"])
            assert block["i"] not in whole
            assert block["l"] == len(data)
            whole[block["i"]] = data
    connection.unsubscribe(f"{stem}/data/{form}")[0].result(PATIENCE_S)
    return b"".join(whole[number] for number in range(total))


def test_jobs_over_https_give_the_document_as_a_string(server: ServerProcess, iot: Any, device: dict[str, Any]) -> None:
    data = server.client("iot-jobs-data")
    thing, job = device["thing"], f"job-{uuid.uuid4().hex[:8]}"
    assert data.get_pending_job_executions(thingName=thing)["queuedJobs"] == []
    assert "execution" not in data.describe_job_execution(thingName=thing, jobId="$next")
    iot.create_job(jobId=job, targets=[device["arn"]], document='{"a": 1}')
    (entry,) = data.get_pending_job_executions(thingName=thing)["queuedJobs"]
    assert (entry["jobId"], type(entry["queuedAt"])) == (job, int)
    started = data.start_next_pending_job_execution(thingName=thing, statusDetails={"step": "1"})["execution"]
    assert (started["status"], started["jobDocument"], started["thingName"]) == ("IN_PROGRESS", '{"a":1}', thing)
    state = data.update_job_execution(
        jobId=job, thingName=thing, status="IN_PROGRESS", expectedVersion=2, includeJobExecutionState=True
    )["executionState"]
    assert state == {"status": "IN_PROGRESS", "statusDetails": {"step": "1"}, "versionNumber": 3}
    for error, request in (
        ("InvalidRequestException", {"status": "IN_PROGRESS", "expectedVersion": 2}),
        ("ResourceNotFoundException", {"status": "IN_PROGRESS", "executionNumber": 9}),
    ):
        with pytest.raises(data.exceptions.ClientError) as caught:
            data.update_job_execution(jobId=job, thingName=thing, **request)
        assert caught.value.response["Error"]["Code"] == error
    data.update_job_execution(jobId=job, thingName=thing, status="SUCCEEDED")
    with pytest.raises(data.exceptions.InvalidStateTransitionException):
        data.update_job_execution(jobId=job, thingName=thing, status="IN_PROGRESS")
    with pytest.raises(data.exceptions.TerminalStateException):
        data.describe_job_execution(thingName=thing, jobId=job)


def test_a_deleted_version_stops_the_download_before_the_deletion_is_answered(
    server: ServerProcess, iot: Any, device: dict[str, Any]
) -> None:
    bucket, key, version = store(server, IMAGE)
    stream = f"s-{uuid.uuid4().hex[:8]}"
    iot.create_stream(
        streamId=stream,
        files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": key}}],
        roleArn=server.endpoints["ota_role_arn"],
    )
    stem = f"$aws/things/{device['thing']}/streams/{stream}"
    with PahoDevice(server.endpoints, device["folder"], device["thing"], device["certificate"]) as paho:
        paho.subscribe(f"{stem}/data/json")
        paho.subscribe(f"{stem}/rejected/json")
        ask = json.dumps({"f": 0, "l": 4096, "n": 1}).encode()
        paho.publish(f"{stem}/get/json", ask)
        assert paho.message()[0] == f"{stem}/data/json"
        server.client("s3").delete_object(Bucket=bucket, Key=key, VersionId=version)
        paho.publish(f"{stem}/get/json", ask)
        topic, payload = paho.message()
        assert (topic, json.loads(payload)["o"]) == (f"{stem}/rejected/json", "ResourceNotFound")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.create_stream(
            streamId=f"{stream}-again",
            files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": key}}],
            roleArn=server.endpoints["ota_role_arn"],
        )


def test_a_grant_that_is_taken_away_stops_the_download_at_once(server: ServerProcess, iot: Any, device: dict[str, Any]) -> None:
    bucket, key, _ = store(server, IMAGE)
    iam, s3 = server.client("iam"), server.client("s3")
    role = f"role-{uuid.uuid4().hex[:8]}"
    trusted = {"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    reading = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/{key}"}
    grant = json.dumps({"Version": "2012-10-17", "Statement": [reading]})
    by_bucket = json.dumps({"Version": "2012-10-17", "Statement": [{**reading, "Principal": {"Service": "iot.amazonaws.com"}}]})
    iam.put_role_policy(RoleName=role, PolicyName="read", PolicyDocument=grant)
    stream = f"s-{uuid.uuid4().hex[:8]}"
    iot.create_stream(streamId=stream, files=[{"fileId": 0, "s3Location": {"bucket": bucket, "key": key}}], roleArn=arn)
    stem = f"$aws/things/{device['thing']}/streams/{stream}"
    with PahoDevice(server.endpoints, device["folder"], device["thing"], device["certificate"]) as paho:
        paho.subscribe(f"{stem}/data/json")
        paho.subscribe(f"{stem}/rejected/json")

        def asked() -> str:
            paho.publish(f"{stem}/get/json", json.dumps({"f": 0, "l": 4096, "n": 1}).encode())
            topic, payload = paho.message()
            return "data" if topic.endswith("data/json") else str(json.loads(payload)["o"])

        assert asked() == "data"
        iam.delete_role_policy(RoleName=role, PolicyName="read")
        assert asked() == "Unauthorized"
        s3.put_bucket_policy(Bucket=bucket, Policy=by_bucket)
        assert asked() == "data"
        s3.delete_bucket_policy(Bucket=bucket)
        assert asked() == "Unauthorized"
        iam.put_role_policy(RoleName=role, PolicyName="read", PolicyDocument=grant)
        assert asked() == "data"
        iot.delete_stream(streamId=stream)
        assert asked() == "ResourceNotFound"


def test_a_device_of_the_2018_guide_is_answered_in_its_own_words(
    server: ServerProcess, iot: Any, device: dict[str, Any]
) -> None:
    stem = f"$aws/things/{device['thing']}/streams/{make_stream(server, iot, IMAGE)}"
    with PahoDevice(server.endpoints, device["folder"], device["thing"], device["certificate"]) as paho:
        for topic in (stem, f"{stem}/describe/json/rejected", f"{stem}/get/json/rejected"):
            assert paho.subscribe(topic) == 1
        paho.publish(f"{stem}/describe", b'{"v":1,"t":"tok"}')
        topic, payload = paho.message()
        assert topic == stem
        assert json.loads(payload) == {"v": 1, "t": "tok", "s": 1, "d": "", "r": [{"f": 0, "z": len(IMAGE)}]}
        paho.publish(f"{stem}/get", b'{"v":1,"t":"tok","s":1,"f":0,"l":4096,"o":1,"n":1}')
        topic, payload = paho.message()
        block = json.loads(payload)
        assert (topic, block["v"], block["t"], block["i"]) == (stem, 1, "tok", 1)
        assert base64.b64decode(block["p"]) == IMAGE[4096:8192]
        for verb in ("describe", "get"):
            paho.publish(f"{stem}/{verb}", b'{"v":1,"t":"tok","s":2,"f":0,"l":4096}')
            topic, payload = paho.message()
            assert (topic, json.loads(payload)["code"]) == (f"{stem}/{verb}/json/rejected", "VersionConflict")
