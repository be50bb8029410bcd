"""Bad input at every door of a running server: a clear error of the right kind, for that client only, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cbor2
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from overair.wire.mqtt.packets import Connack, Publish
from tests.support.field_device import Identity, enroll
from tests.support.mqtt_over_tls import MqttOverTls, device_context
from tests.support.server_process import ServerProcess

MIB = 1024 * 1024
OTHER_ACCOUNT = "999999999999"


def unique(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def refusal(call: Any, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"].get("Message", "")


@pytest.fixture
def make_device(server: ServerProcess, tmp_path: Path) -> Callable[[], Identity]:
    return lambda: enroll(server, tmp_path / unique("d"), unique("bad"))


def connect(server: ServerProcess, device: Identity, client_id: str = "") -> MqttOverTls:
    context = device_context(server.endpoints["ca_file"], device.certificate_file, device.key_file)
    host, port = server.endpoints["mqtt_host"], server.endpoints["mqtt_port"]
    return MqttOverTls(host, port, context, client_id or device.thing)


# Devices --------------------------------------------------------------------------------------------------------------

MALFORMED_MQTT = {
    "a packet type that isn't": b"\x00\x00",
    "flags that must be zero": b"\xc1\x00",
    "a length that never ends": b"\x30\xff\xff\xff\xff\xff",
    "a topic that isn't UTF-8": b"\x30\x04\x00\x02\xff\xfe",
    "a topic with a wildcard": b"\x30\x04\x00\x02a#",
    "a subscription without a filter": b"\x82\x02\x00\x01",
    "a second greeting": b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x1e\x00\x02ab",
    "a QoS that isn't": b"\x36\x05\x00\x01a\x00\x01",
    "a megabyte and more announced": b"\x30\xff\xff\xff\x01",
}


@pytest.mark.parametrize("sent", MALFORMED_MQTT.values(), ids=MALFORMED_MQTT)
def test_malformed_mqtt_closes_that_connection_and_no_other(
    server: ServerProcess, make_device: Callable[[], Identity], sent: bytes
) -> None:
    bad, good = make_device(), make_device()
    bystander, client = connect(server, good), connect(server, bad)
    client.send(sent)
    assert client.next(timeout_s=10) is None
    assert bystander.before_ping_answer() == []
    # The same device may come back at once.
    assert connect(server, bad).connack == Connack(return_code=0)


def test_what_is_no_mqtt_at_all_is_turned_away_and_the_port_lives_on(
    server: ServerProcess, make_device: Callable[[], Identity]
) -> None:
    device = make_device()
    context = device_context(server.endpoints["ca_file"], device.certificate_file, device.key_file)
    host, port = server.endpoints["mqtt_host"], server.endpoints["mqtt_port"]
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), b"\x16\x03\x01"):
        with context.wrap_socket(socket.create_connection((host, port), timeout=10), server_hostname=host) as talk:
            talk.sendall(noise)
            try:
                assert talk.recv(100) in (b"", b"\x20\x02\x00\x01")
            except (ConnectionError, ssl.SSLError):
                continue
    with socket.create_connection((host, port), timeout=10) as plain:
        plain.sendall(b"no TLS here\r\n\r\n")
        while plain.recv(1000):
            pass
    assert connect(server, device).connack == Connack(return_code=0)


MALFORMED_JSON = [
    b"{",
    b"[]",
    b"\xff\xfe",
    b'{"status":"SUCCEEDED","status":"FAILED"}',
    b'{"status":NaN}',
    b"[" * 5000,
    b"null",
    b'{"status":3}',
    b'{"status":"FINISHED"}',
]


@pytest.mark.parametrize("payload", MALFORMED_JSON, ids=range(len(MALFORMED_JSON)))
def test_malformed_json_is_rejected_to_who_sent_it_and_the_connection_stays(
    server: ServerProcess, make_device: Callable[[], Identity], payload: bytes
) -> None:
    device = make_device()
    server.client("iot").create_job(jobId=(job := unique("job")), targets=[device.thing_arn], document="{}")
    client, topic = connect(server, device), f"$aws/things/{device.thing}/jobs/{job}/update"
    assert client.subscribe((f"{topic}/+", 1)) == (1,)
    client.publish(topic, payload)
    answer = client.next()
    assert isinstance(answer, Publish)
    assert answer.topic == f"{topic}/rejected"
    assert json.loads(answer.payload)["code"] in ("InvalidJson", "InvalidRequest", "InvalidTopic")
    assert client.before_ping_answer() == []


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\xa1", b"\x9f" * 3000, b"\x01", cbor2.dumps({"f": -1}), cbor2.dumps([1]) + b"\x00"]
)
def test_malformed_cbor_is_rejected_to_who_sent_it_and_the_connection_stays(
    server: ServerProcess, make_device: Callable[[], Identity], payload: bytes
) -> None:
    device = make_device()
    endpoints, stream = server.endpoints, unique("stream")
    server.client("s3").put_object(Bucket=endpoints["bucket"], Key=stream, Body=b"image")
    files = [{"fileId": 0, "s3Location": {"bucket": endpoints["bucket"], "key": stream}}]
    server.client("iot").create_stream(streamId=stream, roleArn=endpoints["ota_role_arn"], files=files)
    client, stem = connect(server, device), f"$aws/things/{device.thing}/streams/{stream}"
    assert client.subscribe((f"{stem}/rejected/cbor", 1), (f"{stem}/data/cbor", 1)) == (1, 1)
    client.publish(f"{stem}/get/cbor", payload)
    answer = client.next()
    assert isinstance(answer, Publish)
    assert answer.topic == f"{stem}/rejected/cbor"
    assert cbor2.loads(answer.payload)["o"] in ("InvalidCbor", "InvalidRequest")
    client.publish(f"{stem}/get/cbor", cbor2.dumps({"f": 0, "l": 4096, "o": 0, "n": 1}))
    answer = client.next()
    assert isinstance(answer, Publish)
    assert cbor2.loads(answer.payload)["p"] == b"image"


def test_a_thing_that_is_not_yours_gives_you_nothing(server: ServerProcess, make_device: Callable[[], Identity]) -> None:
    mine, yours = make_device(), make_device()
    job = unique("job")
    server.client("iot").create_job(jobId=job, targets=[yours.thing_arn], document='{"secret":1}')
    # Another's topics: closed, whatever is asked there.
    for ask in (
        lambda client: client.subscribe((f"$aws/things/{yours.thing}/jobs/#", 1)),
        lambda client: client.publish(f"$aws/things/{yours.thing}/jobs/{job}/update", b'{"status":"FAILED"}', qos=1),
        lambda client: client.publish(f"$aws/things/{yours.thing}/jobs/$next/get", b"{}"),
    ):
        client = connect(server, mine)
        ask(client)
        assert client.next() is None
    # Another's name.
    assert connect(server, mine, client_id=yours.thing).connack == Connack(return_code=5)
    assert server.client("iot").describe_job_execution(jobId=job, thingName=yours.thing)["execution"]["status"] == "QUEUED"


# Operators ------------------------------------------------------------------------------------------------------------


def test_names_that_break_the_pattern_are_refused_with_the_rule(server: ServerProcess) -> None:
    loose = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    iot, s3, signer, iam = (server.client(name, config=loose) for name in ("iot", "s3", "signer", "iam"))
    role = server.endpoints["ota_role_arn"]
    files = [{"fileId": 0, "s3Location": {"bucket": "b", "key": "k"}}]
    trust = {"AssumeRolePolicyDocument": "{}"}
    policy = {"policyDocument": '{"Version":"2012-10-17","Statement":[]}'}
    for call, arguments, pattern in (
        (iot.create_thing, {"thingName": "a b"}, "[a-zA-Z0-9:_-]+"),
        (iot.create_thing, {"thingName": "a" * 129}, "128"),
        (iot.create_thing, {"thingName": "ü"}, "[a-zA-Z0-9:_-]+"),
        (iot.create_thing_group, {"thingGroupName": "a/b"}, "[a-zA-Z0-9:_-]+"),
        (iot.create_policy, {"policyName": "a b", **policy}, "+=,.@-]+"),
        (iot.create_job, {"jobId": "a:b", "targets": ["x"], "document": "{}"}, "[a-zA-Z0-9_-]+"),
        (iot.create_stream, {"streamId": "a.b", "files": files, "roleArn": role}, "[a-zA-Z0-9_-]+"),
        (iot.create_ota_update, {"otaUpdateId": "a" * 129, "targets": ["x"], "files": [{}], "roleArn": role}, "128"),
    ):
        status, code, message = refusal(call, **arguments)
        assert (status, code) == (400, "InvalidRequestException"), arguments
        assert pattern in message, message
    assert refusal(s3.create_bucket, Bucket="Not_A_Bucket")[:2] == (400, "InvalidBucketName")
    assert refusal(signer.get_signing_profile, profileName="a-b")[:2] == (400, "ValidationException")
    assert refusal(iam.create_role, RoleName="a b", **trust)[:2] == (400, "ValidationError")


def test_a_stream_of_a_missing_object_is_refused_naming_it(server: ServerProcess) -> None:
    iot, endpoints, name = server.client("iot"), server.endpoints, unique("s")
    where: dict[str, str]
    for where, told in (
        ({"bucket": endpoints["bucket"], "key": "never-put"}, "never-put"),
        ({"bucket": "no-such-bucket-at-all", "key": "k"}, "no-such-bucket-at-all"),
        ({"bucket": endpoints["bucket"], "key": "never-put", "version": "nonsense"}, "never-put"),
    ):
        status, code, message = refusal(
            iot.create_stream, streamId=name, roleArn=endpoints["ota_role_arn"], files=[{"fileId": 0, "s3Location": where}]
        )
        # The role that reads for the service has no right at all to a bucket that nobody gave it.
        expected = (
            (403, "AccessDeniedException") if where["bucket"].startswith("no-such") else (404, "ResourceNotFoundException")
        )
        assert (status, code) == expected
        assert told in message
    assert refusal(iot.describe_stream, streamId=name)[:2] == (404, "ResourceNotFoundException")


def test_what_belongs_to_another_account_is_not_there_or_denied(server: ServerProcess) -> None:
    iot, region = server.client("iot"), server.endpoints["region"]
    foreign = f"arn:aws:iot:{region}:{OTHER_ACCOUNT}:"
    mine = iot.create_thing(thingName=unique("mine"))["thingArn"]
    for call, arguments in (
        (iot.create_job, {"jobId": unique("j"), "targets": [f"{foreign}thing/x"], "document": "{}"}),
        (iot.list_tags_for_resource, {"resourceArn": f"{foreign}thinggroup/x"}),
        (iot.attach_policy, {"policyName": "p", "target": f"{foreign}cert/{'0' * 64}"}),
        (
            iot.create_stream,
            {"streamId": unique("s"), "roleArn": f"arn:aws:iam::{OTHER_ACCOUNT}:role/r", "files": [_file(server)]},
        ),
        (iot.list_principal_things, {"principal": f"{foreign}cert/{'0' * 64}"}),
        (iot.create_job, {"jobId": unique("j"), "targets": [mine.replace(region, "eu-west-1")], "document": "{}"}),
    ):
        status, code, _ = refusal(call, **arguments)
        assert status in (400, 403, 404), arguments
        assert code in ("InvalidRequestException", "ResourceNotFoundException", "AccessDeniedException"), arguments
    acm = server.client("acm")
    arn = f"arn:aws:acm:{region}:{OTHER_ACCOUNT}:certificate/{uuid.uuid4()}"
    assert refusal(acm.describe_certificate, CertificateArn=arn)[1] in ("ResourceNotFoundException", "InvalidArnException")


def _file(server: ServerProcess) -> dict[str, Any]:
    server.client("s3").put_object(Bucket=server.endpoints["bucket"], Key="present", Body=b"1")
    return {"fileId": 0, "s3Location": {"bucket": server.endpoints["bucket"], "key": "present"}}


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_over_the_limit_is_refused_before_it_was_sent_and_costs_no_memory(server: ServerProcess, framing: str) -> None:
    at = urlsplit(server.endpoints["plain_http_url"])
    before = resident_bytes(server)
    with socket.create_connection((at.hostname, at.port), timeout=20) as talk:
        size = b"Content-Length: 1000000000" if framing == "length" else b"Transfer-Encoding: chunked"
        talk.sendall(b"POST /things/t HTTP/1.1\r\nHost: x\r\n" + size + b"\r\n\r\n")
        answer = b""
        try:
            if framing == "chunks":
                piece = b"100000\r\n" + b" " * MIB + b"\r\n"
                for _ in range(200):
                    talk.sendall(piece)
            answer = talk.recv(65536)
        except (ConnectionError, TimeoutError):
            # Cut while we still sent: whatever it said may be lost with the rest.
            pass
    if framing == "length":
        assert re.match(rb"HTTP/1.1 (413|403|400) ", answer), answer
    assert resident_bytes(server) - before < 48 * MIB
    assert server.client("sts").get_caller_identity()["Account"] == server.endpoints["account"]


def resident_bytes(server: ServerProcess) -> int:
    assert server.process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_signed_body_over_its_services_limit_is_too_large_by_code(server: ServerProcess) -> None:
    iot = server.client("iot", config=Config(parameter_validation=False, retries={"total_max_attempts": 1}))
    status, code, message = refusal(
        iot.create_job, jobId="large", targets=["x"], document=json.dumps({"a": "x" * (MIB + 100_000)})
    )
    assert (status, code) == (413, "RequestEntityTooLargeException"), message


def test_another_region_is_refused_naming_ours_on_every_plane(server: ServerProcess) -> None:
    ours = server.endpoints["region"]
    for service, call, arguments in (
        ("iot", "list_things", {}),
        ("iot-data", "list_retained_messages", {}),
        ("iot-jobs-data", "get_pending_job_executions", {"thingName": "t"}),
        ("signer", "list_signing_jobs", {}),
        ("acm", "list_certificates", {}),
        ("s3", "list_buckets", {}),
    ):
        status, _code, message = refusal(getattr(server.client(service, region_name="eu-central-1"), call), **arguments)
        assert status in (400, 403)
        assert ours in message, (service, message)
