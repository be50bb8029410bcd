"""MQTT over WebSockets at the operator port, signed as AWS IoT has it: apps and consoles with IAM's rights."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import queue
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
import urllib3
from awscrt import mqtt5

from tests.support.crt_client import over_websocket
from tests.support.server_process import ServerProcess

PATIENCE_S = 20.0


def statement(server: ServerProcess, **resources: str) -> list[dict[str, Any]]:
    stem = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}"
    return [{"Effect": "Allow", "Action": f"iot:{action}", "Resource": f"{stem}:{name}"} for action, name in resources.items()]


class Operator:
    """An IAM user with a key and rights on ``room/``."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.iam = server.client("iam")
        self.name = f"app-{uuid.uuid4().hex[:8]}"
        self.user_id = self.iam.create_user(UserName=self.name)["User"]["UserId"]
        key = self.iam.create_access_key(UserName=self.name)["AccessKey"]
        self.key_id, self.secret = key["AccessKeyId"], key["SecretAccessKey"]
        self.allow(
            statement(
                server,
                Connect=f"client/{self.name}*",
                Publish="topic/room/*",
                Subscribe="topicfilter/room/*",
                Receive="topic/room/*",
            )
            + statement(server, Subscribe="topicfilter/$aws/events/*")
            + statement(server, Receive="topic/$aws/events/*")
        )

    def allow(self, statements: list[dict[str, Any]]) -> None:
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.iam.put_user_policy(UserName=self.name, PolicyName="mqtt", PolicyDocument=document)

    def url(self, *, path: str = "/mqtt", service: str = "iotdevicegateway", at: float | None = None, token: str = "") -> str:
        """Signed by hand, as a browser's code does it: the token, if any, comes after the signature."""
        region = self.server.endpoints["region"]
        host = self.server.endpoints["operator_url"].removeprefix("https://")
        moment = datetime.datetime.fromtimestamp(time.time() if at is None else at, datetime.UTC)
        stamp, day = moment.strftime("%Y%m%dT%H%M%SZ"), moment.strftime("%Y%m%d")
        scope = f"{day}/{region}/{service}/aws4_request"
        query = urllib.parse.urlencode(
            {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{self.key_id}/{scope}",
                "X-Amz-Date": stamp,
                "X-Amz-SignedHeaders": "host",
            }
        )
        canonical = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\n{hashlib.sha256(b'').hexdigest()}"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (day, region, service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        url = f"{path}?{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"
        return f"{url}&X-Amz-Security-Token={urllib.parse.quote(token, safe='')}" if token else url


@pytest.fixture
def operator(server: ServerProcess) -> Operator:
    return Operator(server)


def test_the_sdk_signs_its_websocket_and_iam_says_what_it_may(server: ServerProcess, operator: Operator) -> None:
    room = f"room/{uuid.uuid4().hex}"
    client = over_websocket(server, operator.name, operator.key_id, operator.secret)
    client.start()
    events = f"$aws/events/presence/+/{operator.name}-2"
    assert client.subscribe(f"{room}/+", "elsewhere", events) == [1, 0x87, 1]
    assert client.publish(f"{room}/a", b"x" * 100_000, content_type="text/plain").reason_code == 0
    heard = client.message()
    assert (heard.payload, heard.content_type) == (b"x" * 100_000, "text/plain")
    assert client.publish("elsewhere", b"").reason_code == mqtt5.PubackReasonCode.NOT_AUTHORIZED
    assert client.publish(f"{room}/a", b"", retain=True).reason_code == mqtt5.PubackReasonCode.NOT_AUTHORIZED
    second = over_websocket(server, f"{operator.name}-2", operator.key_id, operator.secret)
    second.start()
    second.stop()
    for kind in ("connected", "disconnected"):
        event = json.loads(client.message().payload)
        assert (event["eventType"], event["principalIdentifier"]) == (kind, operator.user_id)
    # Another client id isn't his.
    stranger = over_websocket(server, f"x-{operator.name}", operator.key_id, operator.secret)
    stranger.client.start()
    refused = stranger.refused.get(timeout=PATIENCE_S).connack_packet
    assert refused.reason_code == mqtt5.ConnectReasonCode.NOT_AUTHORIZED
    stranger.stop()
    client.stop()


@pytest.mark.parametrize("how", ["key inactive", "key deleted", "policy gone", "policy narrowed"])
def test_a_websocket_is_cut_or_narrowed_with_its_right(server: ServerProcess, operator: Operator, how: str) -> None:
    client = over_websocket(server, operator.name, operator.key_id, operator.secret)
    client.start()
    assert client.subscribe("room/a") == [1]
    iam = operator.iam
    if how == "key inactive":
        iam.update_access_key(UserName=operator.name, AccessKeyId=operator.key_id, Status="Inactive")
    elif how == "key deleted":
        iam.delete_access_key(UserName=operator.name, AccessKeyId=operator.key_id)
    elif how == "policy gone":
        iam.delete_user_policy(UserName=operator.name, PolicyName="mqtt")
    else:
        operator.allow(statement(server, Connect=f"client/{operator.name}"))
        deadline_s = time.monotonic() + PATIENCE_S
        while client.publish("room/a", b"").reason_code != mqtt5.PubackReasonCode.NOT_AUTHORIZED:
            assert time.monotonic() < deadline_s
        assert client.subscribe("room/a") == [0x87]
        client.stop()
        return
    assert client.cut.get(timeout=PATIENCE_S).disconnect_packet.reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED
    client.stop()


def test_a_roles_session_comes_in_with_its_token_after_the_signature(server: ServerProcess) -> None:
    iam, sts = server.client("iam"), server.client("sts")
    name = f"role-{uuid.uuid4().hex[:8]}"
    account = server.endpoints["account"]
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}))[
        "Role"
    ]["Arn"]
    rights = statement(server, Connect=f"client/{name}", Publish="topic/room/*")
    iam.put_role_policy(
        RoleName=name, PolicyName="mqtt", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": rights})
    )
    key = sts.assume_role(RoleArn=arn, RoleSessionName="app")["Credentials"]
    client = over_websocket(server, name, key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"])
    client.start()
    assert client.publish("room/a", b"").reason_code == 0
    assert client.subscribe("room/a") == [0x87]
    client.stop()
    other = over_websocket(server, name, key["AccessKeyId"], key["SecretAccessKey"], key["SessionToken"][:-4] + "AAAA")
    other.client.start()
    assert other.refused.get(timeout=PATIENCE_S).connack_packet is None
    other.stop()


@pytest.fixture
def pool(server: ServerProcess) -> Iterator[urllib3.HTTPSConnectionPool]:
    url = urllib3.util.parse_url(server.endpoints["operator_url"])
    assert url.host
    with urllib3.HTTPSConnectionPool(url.host, url.port, ca_certs=server.endpoints["ca_file"]) as pool:
        yield pool


UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": base64.b64encode(bytes(16)).decode(),
    "sec-websocket-protocol": "mqtt",
}


def test_a_request_that_is_not_signed_right_gets_no_websocket(
    server: ServerProcess, operator: Operator, pool: urllib3.HTTPSConnectionPool
) -> None:
    def status(url: str, **changes: str | None) -> int:
        headers = {name: value for name, value in {**UPGRADE, **changes}.items() if value is not None}
        answer = pool.request("GET", url, headers=headers, retries=False, preload_content=False)
        answer.close()
        return answer.status

    good = operator.url()
    assert status(good) == 101
    signature = good.rpartition("=")[2]
    assert status(good.replace(signature, "0" * 64)) == 403
    assert status("/mqtt") == 403
    assert status(operator.url(service="iot")) == 403
    assert status(operator.url(at=time.time() - 301)) == 403
    assert status(operator.url(token="x")) == 403
    assert status(good + "&X-Amz-Expires=60") == 403
    assert status(good.replace(operator.key_id, "AKIA" + "A" * 16)) == 403
    assert status(good, **{"sec-websocket-protocol": None}) == 400
    assert status(good, **{"sec-websocket-version": "8"}) == 400
    # What is no WebSocket's request is the operator door's, which knows no such service.
    assert status(good, upgrade=None, connection=None) in (400, 403)
    assert status(operator.url(path="/other")) in (400, 403)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_paho_speaks_either_version_over_a_websocket(server: ServerProcess, operator: Operator, version: int) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=operator.name,
        transport="websockets",
        protocol=version,  # type: ignore[arg-type]
    )
    client.tls_set_context(ssl.create_default_context(cafile=server.endpoints["ca_file"]))
    host, _, port = server.endpoints["operator_url"].removeprefix("https://").rpartition(":")
    client.ws_set_options(path=operator.url(), headers=lambda headers: {**headers, "Host": f"{host}:{port}"})
    client.on_connect = lambda _, __, ___, code, ____: heard.put(code.value)
    client.on_subscribe = lambda _, __, ___, codes, ____: heard.put([code.value for code in codes])
    client.on_message = lambda _, __, message: heard.put((message.topic, message.payload))
    client.connect(host, int(port))
    client.loop_start()
    assert heard.get(timeout=PATIENCE_S) == 0
    client.subscribe("room/#", 1)
    assert heard.get(timeout=PATIENCE_S) == [1]
    topic = f"room/{uuid.uuid4().hex}"
    client.publish(topic, b"hello", qos=1)
    while (message := heard.get(timeout=PATIENCE_S))[0] != topic:
        continue  # other tests' rooms
    assert message == (topic, b"hello")
    client.disconnect()
    client.loop_stop()
