"""A device in a test: enrolled through boto3, speaking MQTT through paho, as an unmodified client would."""

from __future__ import annotations

import json
import queue
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from tests.support.server_process import ServerProcess

ANSWER_TIMEOUT_S = 20.0


def own_topics_policy(region: str, account: str) -> str:
    """What the guides give to an OTA device: its own client id and its own jobs and streams (wire reference §8.5)."""
    arn = f"arn:aws:iot:{region}:{account}"
    thing = "${iot:Connection.Thing.ThingName}"
    own = [f"{arn}:topic/$aws/things/{thing}/{kind}/*" for kind in ("jobs", "streams")]
    filters = [f"{arn}:topicfilter/$aws/things/{thing}/{kind}/*" for kind in ("jobs", "streams")]
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{arn}:client/{thing}"},
                {"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], "Resource": own},
                {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": filters},
            ],
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A thing with a certificate, as files."""

    thing: str
    thing_arn: str
    certificate_arn: str
    certificate_id: str
    certificate_file: Path
    key_file: Path
    policy: str


def enroll(server: ServerProcess, folder: Path, thing: str, *, policy_document: str | None = None) -> Identity:
    """Thing, certificate and policy, through boto3 alone."""
    iot = server.client("iot")
    thing_arn = iot.create_thing(thingName=thing)["thingArn"]
    made = iot.create_keys_and_certificate(setAsActive=True)
    policy = f"policy-of-{thing}"
    document = policy_document or own_topics_policy(server.endpoints["region"], server.endpoints["account"])
    iot.create_policy(policyName=policy, policyDocument=document)
    iot.attach_policy(policyName=policy, target=made["certificateArn"])
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    folder.mkdir(parents=True, exist_ok=True)
    certificate_file, key_file = folder / f"{thing}.pem", folder / f"{thing}.key"
    certificate_file.write_text(made["certificatePem"])
    key_file.write_text(made["keyPair"]["PrivateKey"])
    return Identity(
        thing=thing,
        thing_arn=thing_arn,
        certificate_arn=made["certificateArn"],
        certificate_id=made["certificateId"],
        certificate_file=certificate_file,
        key_file=key_file,
        policy=policy,
    )


class Device:
    """One MQTT client with a queue of what it received."""

    def __init__(self, server: ServerProcess, identity: Identity, *, clean: bool = True, client_id: str | None = None) -> None:
        self.server = server
        self.identity = identity
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._connected: queue.Queue[Any] = queue.Queue()
        self.disconnected: queue.Queue[Any] = queue.Queue()
        self._granted: queue.Queue[Any] = queue.Queue()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id or identity.thing, clean_session=clean, protocol=paho.MQTTv311
        )
        context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
        context.load_cert_chain(identity.certificate_file, identity.key_file)
        self.client.tls_set_context(context)
        self.client.on_connect = lambda _client, _data, flags, code, _properties: self._connected.put((flags, code))
        self.client.on_disconnect = lambda _client, _data, _flags, code, _properties: self.disconnected.put(code)
        self.client.on_subscribe = lambda _client, _data, _id, codes, _properties: self._granted.put(codes)
        self.client.on_message = lambda _client, _data, message: self.received.put((message.topic, message.payload))

    def connect(self) -> Device:
        """Connect and wait for CONNACK."""
        self.client.connect(self.server.endpoints["mqtt_host"], self.server.endpoints["mqtt_port"], keepalive=30)
        self.client.loop_start()
        _flags, code = self._connected.get(timeout=ANSWER_TIMEOUT_S)
        assert not code.is_failure, code
        return self

    def subscribe(self, *filters: str, qos: int = 1) -> list[Any]:
        """Subscribe and wait for SUBACK; the granted codes."""
        self.client.subscribe([(each, qos) for each in filters])
        return list(self._granted.get(timeout=ANSWER_TIMEOUT_S))

    def publish(self, topic: str, payload: bytes | dict[str, Any] = b"", *, qos: int = 0) -> None:
        """Publish; a dictionary goes as JSON."""
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        information = self.client.publish(topic, data, qos=qos)
        if qos:
            information.wait_for_publish(ANSWER_TIMEOUT_S)

    def next_message(self, topic: str | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> tuple[str, bytes]:
        """The next message, or the next on one topic (others before it are dropped)."""
        deadline = time.monotonic() + timeout_s
        while True:
            got = self.received.get(timeout=max(0.001, deadline - time.monotonic()))
            if topic is None or got[0] == topic:
                return got

    def ask(self, topic: str, payload: dict[str, Any] | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """Ask a Jobs topic; the accepted or rejected answer, with ``_topic``."""
        self.publish(topic, payload or {})
        deadline = time.monotonic() + timeout_s
        while True:
            got, data = self.received.get(timeout=max(0.001, deadline - time.monotonic()))
            if got in (f"{topic}/accepted", f"{topic}/rejected"):
                return {**json.loads(data), "_topic": got}

    def jobs(self, rest: str) -> str:
        """A Jobs topic of this thing."""
        return f"$aws/things/{self.identity.thing}/jobs/{rest}"

    def close(self) -> None:
        """Disconnect and end the client's thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def __enter__(self) -> Device:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()
