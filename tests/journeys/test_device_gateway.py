"""The device gateway over mutual TLS, with certificates and policies made by boto3: what is promised of every connection."""

from __future__ import annotations

import json
import time
import urllib.parse
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3

from overair.wire.mqtt.packets import Connack, Puback, Publish
from tests.support.field_device import Identity, enroll
from tests.support.mqtt_over_tls import MqttOverTls, device_context
from tests.support.server_process import ServerProcess


def policy(server: ServerProcess, *, leave_out: str = "") -> str:
    """Everything below ``room/``, and any client id; one action may be left out."""
    stem = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}"
    resources = {
        "iot:Connect": f"{stem}:client/*",
        "iot:Publish": f"{stem}:topic/room/*",
        "iot:RetainPublish": f"{stem}:topic/room/*",
        "iot:Receive": f"{stem}:topic/room/*",
        "iot:Subscribe": f"{stem}:topicfilter/room/*",
    }
    statements = [
        {"Effect": "Allow", "Action": action, "Resource": resource}
        for action, resource in resources.items()
        if action != leave_out
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture
def make_device(server: ServerProcess, tmp_path: Path) -> Callable[..., Identity]:
    def make(**options: Any) -> Identity:
        name = f"dev-{uuid.uuid4().hex[:8]}"
        return enroll(server, tmp_path / name, name, policy_document=policy(server, **options))

    return make


def connect(server: ServerProcess, device: Identity, client_id: str = "", **options: Any) -> MqttOverTls:
    context = device_context(server.endpoints["ca_file"], device.certificate_file, device.key_file)
    host, port = server.endpoints["mqtt_host"], server.endpoints["mqtt_port"]
    return MqttOverTls(host, port, context, client_id or device.thing, **options)


def set_policy(server: ServerProcess, device: Identity, **options: Any) -> None:
    document = policy(server, **options)
    iot = server.client("iot")
    old = iot.list_policy_versions(policyName=device.policy)["policyVersions"]
    iot.create_policy_version(policyName=device.policy, policyDocument=document, setAsDefault=True)
    for each in old:
        iot.delete_policy_version(policyName=device.policy, policyVersionId=each["versionId"])


def test_taking_receive_away_stops_qos_0_and_queued_and_retained_alike(
    server: ServerProcess, make_device: Callable[..., Identity]
) -> None:
    listening, speaking = make_device(), make_device()
    room = f"room/{uuid.uuid4().hex}"
    speaker = connect(server, speaking)
    speaker.publish(f"{room}/kept", b"retained", qos=1, retain=True)
    assert isinstance(speaker.next(), Puback)

    listener = connect(server, listening, clean_session=False)
    assert listener.subscribe((f"{room}/live", 1)) == (1,)
    speaker.publish(f"{room}/live", b"before", qos=1)
    assert isinstance(speaker.next(), Puback)
    message = listener.next()
    assert isinstance(message, Publish)
    assert message.payload == b"before"
    listener.acknowledge(message)

    set_policy(server, listening, leave_out="iot:Receive")
    time.sleep(1)  # the promise under test: within a second
    speaker.publish(f"{room}/live", b"0")
    speaker.publish(f"{room}/live", b"1", qos=1)
    assert isinstance(speaker.next(), Puback)
    assert listener.subscribe((f"{room}/kept", 1)) == (1,)
    assert listener.before_ping_answer() == []

    listener.close()
    speaker.publish(f"{room}/live", b"2", qos=1)
    assert isinstance(speaker.next(), Puback)
    listener = connect(server, listening, clean_session=False)
    assert listener.connack == Connack(session_present=True)
    assert listener.before_ping_answer() == []


@pytest.mark.parametrize("how", ["INACTIVE", "REVOKED", "policy detached", "certificate deleted"])
def test_a_live_connection_is_cut_within_a_second_of_losing_its_right(
    server: ServerProcess, make_device: Callable[..., Identity], how: str
) -> None:
    device, other = make_device(), make_device()
    live, bystander = connect(server, device), connect(server, other)
    assert live.before_ping_answer() == []
    iot = server.client("iot")
    if how == "policy detached":
        iot.detach_policy(policyName=device.policy, target=device.certificate_arn)
    elif how == "certificate deleted":
        iot.detach_policy(policyName=device.policy, target=device.certificate_arn)
        iot.detach_thing_principal(thingName=device.thing, principal=device.certificate_arn)
        iot.update_certificate(certificateId=device.certificate_id, newStatus="INACTIVE")
        iot.delete_certificate(certificateId=device.certificate_id)
    else:
        iot.update_certificate(certificateId=device.certificate_id, newStatus=how)
    assert live.next(timeout_s=1.0) is None
    assert bystander.before_ping_answer() == []
    assert connect(server, device).connack == Connack(return_code=5)


@pytest.mark.parametrize("action", ["iot:Connect", "iot:Publish", "iot:Subscribe"])
def test_what_a_policy_leaves_out_closes_the_connection(
    server: ServerProcess, make_device: Callable[..., Identity], action: str
) -> None:
    device = make_device(leave_out=action)
    client = connect(server, device)
    if action == "iot:Connect":
        assert client.connack == Connack(return_code=5)
        return
    if action == "iot:Publish":
        client.publish("room/x", b"", qos=1)
    else:
        assert client.subscribe(("room/x", 0)) is None
    assert client.next() is None


def test_an_operator_publishes_and_reads_what_is_retained(server: ServerProcess, make_device: Callable[..., Identity]) -> None:
    room = f"room/{uuid.uuid4().hex}"
    listener = connect(server, make_device())
    assert listener.subscribe((f"{room}/+", 1)) == (1,)
    data = server.client("iot-data")
    data.publish(topic=f"{room}/a", qos=1, payload=b"hello", retain=True)
    message = listener.next()
    assert isinstance(message, Publish)
    assert (message.topic, message.payload, message.qos) == (f"{room}/a", b"hello", 1)
    assert data.get_retained_message(topic=f"{room}/a")["payload"] == b"hello"
    assert f"{room}/a" in [each["topic"] for each in data.list_retained_messages()["retainedTopics"]]
    data.publish(topic=f"{room}/a", payload=b"", retain=True)
    with pytest.raises(data.exceptions.ResourceNotFoundException):
        data.get_retained_message(topic=f"{room}/a")


def test_a_device_publishes_over_https(server: ServerProcess, make_device: Callable[..., Identity]) -> None:
    device = make_device()
    room = f"room/{uuid.uuid4().hex}"
    listener = connect(server, make_device())
    assert listener.subscribe((room, 1)) == (1,)
    pool = urllib3.PoolManager(
        ca_certs=server.endpoints["ca_file"], cert_file=str(device.certificate_file), key_file=str(device.key_file)
    )
    url = f"{server.endpoints['device_url']}/topics/{urllib.parse.quote(room, safe='')}?qos=1"
    answer = pool.request("POST", url, body=b"over https", retries=False)
    assert (answer.status, answer.json()["message"]) == (200, "OK")
    message = listener.next()
    assert isinstance(message, Publish)
    assert message.payload == b"over https"
    refused = pool.request("POST", f"{server.endpoints['device_url']}/topics/elsewhere", body=b"", retries=False)
    assert refused.status == 403
    bare = urllib3.PoolManager(ca_certs=server.endpoints["ca_file"])
    assert bare.request("POST", url, body=b"", retries=False).status == 403


def test_mqtt_is_spoken_on_the_device_port_by_alpn(server: ServerProcess, make_device: Callable[..., Identity]) -> None:
    device = make_device()
    context = device_context(server.endpoints["ca_file"], device.certificate_file, device.key_file, ["x-amzn-mqtt-ca"])
    url = urllib3.util.parse_url(server.endpoints["device_url"])
    client = MqttOverTls(url.host or "", url.port or 0, context, device.thing)
    assert client.connack == Connack()
    assert client.before_ping_answer() == []


def test_what_was_acknowledged_for_a_persistent_session_outlives_a_killed_server(
    new_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    server = new_server().start()
    device = enroll(server, tmp_path / "d", "dev", policy_document=policy(server))
    client = connect(server, device, clean_session=False)
    assert client.subscribe(("room/a", 1)) == (1,)
    client.close()
    speaker = connect(server, device, "speaker")
    for number in range(20):
        speaker.publish("room/a", b"%d" % number, qos=1)
        assert isinstance(speaker.next(), Puback)
    server.kill()
    server.start()
    client = connect(server, device, clean_session=False)
    assert client.connack == Connack(session_present=True)
    heard = []
    for _ in range(20):
        message = client.next()
        assert isinstance(message, Publish)
        heard.append(int(message.payload))
        client.acknowledge(message)
    assert heard == list(range(20))
    assert client.before_ping_answer() == []
