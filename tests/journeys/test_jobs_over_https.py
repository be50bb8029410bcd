"""Jobs' data plane over HTTPS: an unmodified boto3 with SigV4 at the operator's port and with a device certificate at the
device's port, and a plain HTTPS client as small devices have it."""

from __future__ import annotations

import json
import ssl
import uuid
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.field_device import Device, Identity, enroll, own_topics_policy
from tests.support.server_process import ServerProcess

DATA_ACTIONS = [
    "iot:DescribeJobExecution",
    "iot:GetPendingJobExecutions",
    "iot:StartNextPendingJobExecution",
    "iot:UpdateJobExecution",
]
DOCUMENT = '{"do":"it"}'


@pytest.fixture
def identity(server: ServerProcess, tmp_path: Path) -> Identity:
    """A device whose policy allows its own topics, and its jobs over HTTPS."""
    thing = f"https-{uuid.uuid4().hex}"
    region, account = server.endpoints["region"], server.endpoints["account"]
    document = json.loads(own_topics_policy(region, account))
    # Named in full: over HTTPS there is no client id that a variable could take the thing from.
    arn = f"arn:aws:iot:{region}:{account}:thing/{thing}"
    document["Statement"].append({"Effect": "Allow", "Action": DATA_ACTIONS, "Resource": arn})
    return enroll(server, tmp_path, thing, policy_document=json.dumps(document))


def device_client(server: ServerProcess, identity: Identity) -> Any:
    """boto3 as a device has it: no key, no signature, its certificate in the handshake."""
    certificate = (str(identity.certificate_file), str(identity.key_file))
    config = Config(signature_version=UNSIGNED, client_cert=certificate, retries={"total_max_attempts": 1}, read_timeout=60)
    return server.client("iot-jobs-data", endpoint_url=server.endpoints["device_url"], config=config)


def create_job(server: ServerProcess, identity: Identity, **more: Any) -> str:
    job = f"job-{uuid.uuid4().hex}"
    server.client("iot").create_job(jobId=job, targets=[identity.thing_arn], document=DOCUMENT, **more)
    return job


def refusal(call: Any, **request: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**request)
    answer: Any = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.fixture(params=["SigV4 at the operator's port", "a certificate at the device's port"])
def data(request: pytest.FixtureRequest, server: ServerProcess, identity: Identity) -> Any:
    return server.client("iot-jobs-data") if "SigV4" in request.param else device_client(server, identity)


def test_the_jobs_endpoint_is_one_that_boto3_can_use(server: ServerProcess, identity: Identity) -> None:
    job = create_job(server, identity)
    address = server.client("iot").describe_endpoint(endpointType="iot:Jobs")["endpointAddress"]
    data = server.client("iot-jobs-data", endpoint_url=f"https://{address}")
    queued = data.get_pending_job_executions(thingName=identity.thing)["queuedJobs"]
    assert [entry["jobId"] for entry in queued] == [job]


def test_boto3_does_jobs_by_signature_and_by_certificate_alike(server: ServerProcess, identity: Identity, data: Any) -> None:
    thing = identity.thing
    first = create_job(server, identity, timeoutConfig={"inProgressTimeoutInMinutes": 10})
    with Device(server, identity) as listener:
        listener.subscribe(listener.jobs("notify"), listener.jobs("notify-next"))
        queued = data.get_pending_job_executions(thingName=thing)
        assert [entry["jobId"] for entry in queued["queuedJobs"]] == [first]
        assert queued["inProgressJobs"] == []
        entry = queued["queuedJobs"][0]
        assert {type(entry[name]) for name in ("queuedAt", "lastUpdatedAt", "versionNumber", "executionNumber")} == {int}
        assert entry["queuedAt"] < 10**10, "whole seconds, not milliseconds"

        described = data.describe_job_execution(thingName=thing, jobId="$next")["execution"]
        assert (described["jobId"], described["status"], described["jobDocument"]) == (first, "QUEUED", DOCUMENT)
        assert "startedAt" not in described
        assert "statusDetails" not in described
        bare = data.describe_job_execution(thingName=thing, jobId=first, includeJobDocument=False, executionNumber=1)
        assert "jobDocument" not in bare["execution"]

        started = data.start_next_pending_job_execution(thingName=thing, statusDetails={"step": "one"}, stepTimeoutInMinutes=5)[
            "execution"
        ]
        assert (started["status"], started["versionNumber"], started["statusDetails"]) == ("IN_PROGRESS", 2, {"step": "one"})
        assert 280 <= started["approximateSecondsBeforeTimedOut"] <= 300
        again = data.start_next_pending_job_execution(thingName=thing, statusDetails={"step": "ignored"})["execution"]
        assert (again["versionNumber"], again["statusDetails"]) == (2, {"step": "one"})

        update = {"thingName": thing, "jobId": first}
        assert refusal(data.update_job_execution, **update, status="IN_PROGRESS", expectedVersion=1) == (
            "InvalidRequestException",
            400,
        )
        told = data.update_job_execution(
            **update,
            status="IN_PROGRESS",
            statusDetails={"step": "two"},
            expectedVersion=2,
            executionNumber=1,
            stepTimeoutInMinutes=-1,
            includeJobExecutionState=True,
            includeJobDocument=True,
        )
        assert told["executionState"] == {"status": "IN_PROGRESS", "statusDetails": {"step": "two"}, "versionNumber": 3}
        assert told["jobDocument"] == DOCUMENT
        timer = data.describe_job_execution(thingName=thing, jobId=first)["execution"]["approximateSecondsBeforeTimedOut"]
        assert 500 < timer <= 600, "the step's timer is gone, the one of the whole runs on"

        ended = data.update_job_execution(**update, status="SUCCEEDED")
        assert {"executionState", "jobDocument"}.isdisjoint(ended)
        assert refusal(data.update_job_execution, **update, status="FAILED") == ("InvalidStateTransitionException", 409)
        assert refusal(data.describe_job_execution, thingName=thing, jobId=first) == ("TerminalStateException", 410)
        assert "execution" not in data.describe_job_execution(thingName=thing, jobId="$next")
        assert "execution" not in data.start_next_pending_job_execution(thingName=thing)
        assert refusal(data.describe_job_execution, thingName=thing, jobId="none") == ("ResourceNotFoundException", 404)
        # What came over HTTPS is announced over MQTT as if it had come there: the end alone, and each notice once.
        heard = [listener.next_message(), listener.next_message()]
        bodies = {topic.rpartition("/")[2]: json.loads(payload) for topic, payload in heard}
        assert bodies["notify"]["jobs"] == {}
        assert "execution" not in bodies["notify-next"]


def test_a_device_without_any_sdk_works_on_one_connection_and_a_revoked_certificate_ends_it(
    server: ServerProcess, identity: Identity
) -> None:
    context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    pool = urllib3.HTTPSConnectionPool(
        server.endpoints["device_url"].split("/")[2].split(":")[0],
        int(server.endpoints["device_url"].rsplit(":", 1)[1]),
        ssl_context=context,
        retries=False,
        maxsize=1,
        block=True,
    )
    job = create_job(server, identity)
    path = f"/things/{identity.thing}/jobs"
    assert pool.request("GET", path).json()["queuedJobs"][0]["jobId"] == job
    started = pool.request("PUT", f"{path}/$next", body=b"").json()["execution"]
    assert (started["jobId"], started["status"], json.loads(started["jobDocument"])) == (job, "IN_PROGRESS", {"do": "it"})
    elsewhere = pool.request("GET", "/things/somebody-else/jobs")
    assert (elsewhere.status, elsewhere.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    done = pool.request("POST", f"{path}/{job}", body=json.dumps({"status": "SUCCEEDED", "expectedVersion": 2}))
    assert (done.status, done.json()) == (200, {})
    server.client("iot").update_certificate(certificateId=identity.certificate_id, newStatus="INACTIVE")
    refused = pool.request("GET", path)
    assert (refused.status, refused.headers["x-amzn-errortype"]) == (400, "CertificateValidationException")
    assert pool.num_connections == 1
    counted = server.client("iot").describe_job(jobId=job)["job"]
    assert (counted["status"], counted["jobProcessDetails"]["numberOfSucceededThings"]) == ("COMPLETED", 1)


def test_the_guides_topic_policy_alone_opens_nothing_over_https(server: ServerProcess, tmp_path: Path) -> None:
    identity = enroll(server, tmp_path, f"https-{uuid.uuid4().hex}")
    create_job(server, identity)
    data = device_client(server, identity)
    for call in (data.get_pending_job_executions, data.start_next_pending_job_execution):
        assert refusal(call, thingName=identity.thing) == ("AccessDeniedException", 403)
    bare = urllib3.PoolManager(ca_certs=server.endpoints["ca_file"], retries=False)
    answer = bare.request("GET", f"{server.endpoints['device_url']}/things/{identity.thing}/jobs")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")


def test_a_bucket_named_like_the_path_is_still_read_by_its_links(server: ServerProcess) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket="things")
    s3.put_object(Bucket="things", Key="dev/jobs", Body=b"an object")
    at_the_device_port = server.client("s3", endpoint_url=server.endpoints["device_url"])
    link = at_the_device_port.generate_presigned_url("get_object", Params={"Bucket": "things", "Key": "dev/jobs"})
    bare = urllib3.PoolManager(ca_certs=server.endpoints["ca_file"], retries=False)
    assert bare.request("GET", link).data == b"an object"
