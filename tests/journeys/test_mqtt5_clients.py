"""MQTT 5 with clients that aren't ours: Amazon's SDK and paho, over mutual TLS."""

from __future__ import annotations

import queue
import ssl
import uuid
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from awscrt import mqtt5
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.journeys.test_device_gateway_sessions import whole_room
from tests.support.crt_client import over_alpn, over_tls
from tests.support.field_device import Identity, enroll
from tests.support.server_process import ServerProcess

PATIENCE_S = 20.0


@pytest.fixture
def device(server: ServerProcess, tmp_path: Path) -> Identity:
    name = f"dev-{uuid.uuid4().hex[:8]}"
    return enroll(server, tmp_path / name, name, policy_document=whole_room(server))


@pytest.fixture
def room() -> str:
    return f"room/{uuid.uuid4().hex}"


def test_the_device_sdk_speaks_mqtt_5_with_qos_1_both_ways_wills_and_sessions(
    server: ServerProcess, device: Identity, room: str
) -> None:
    client = over_tls(server, device, session_expiry_interval_sec=600)
    offered = client.start()
    assert offered.session_present is False
    assert (offered.maximum_qos, offered.retain_available, offered.shared_subscription_available) == (1, True, True)
    assert offered.subscription_identifiers_available is False
    assert offered.session_expiry_interval_sec == 600
    assert client.subscribe(f"{room}/#", "elsewhere") == [1, 0x87]

    speaker = over_tls(server, device, f"{device.thing}-speaker", will=mqtt5.PublishPacket(topic=f"{room}/gone", payload=b"!"))
    speaker.start()
    pair = mqtt5.UserProperty(name="batch", value="7")
    said = speaker.publish(
        f"{room}/a",
        b"hello",
        content_type="text/plain",
        response_topic=f"{room}/answers",
        correlation_data=b"42",
        user_properties=[pair],
        message_expiry_interval_sec=60,
    )
    assert said.reason_code == mqtt5.PubackReasonCode.SUCCESS
    heard = client.message()
    assert (heard.topic, heard.payload, heard.content_type) == (f"{room}/a", b"hello", "text/plain")
    assert (heard.response_topic, heard.correlation_data_bytes) == (f"{room}/answers", b"42")
    assert [(each.name, each.value) for each in heard.user_properties] == [("batch", "7")]
    assert heard.message_expiry_interval_sec in (58, 59, 60)
    refused = speaker.publish("elsewhere", b"")
    assert refused.reason_code == mqtt5.PubackReasonCode.NOT_AUTHORIZED
    assert "iot:Publish" in refused.reason_string

    client.stop()
    speaker.publish(f"{room}/b", b"meanwhile")
    again = over_tls(server, device, session_expiry_interval_sec=600)
    assert again.start().session_present is True
    assert again.message().payload == b"meanwhile"
    # A second connection takes the id over: the first hears why.
    taken = over_tls(server, device, f"{device.thing}-speaker")
    taken.start()
    assert speaker.cut.get(timeout=PATIENCE_S).disconnect_packet.reason_code == mqtt5.DisconnectReasonCode.SESSION_TAKEN_OVER
    assert again.message().topic == f"{room}/gone"
    for each in (speaker, taken, again):
        each.stop()


def test_the_device_sdk_comes_in_by_alpn_and_is_cut_with_its_certificate(server: ServerProcess, device: Identity) -> None:
    client = over_alpn(server, device)
    client.start()
    server.client("iot").update_certificate(certificateId=device.certificate_id, newStatus="INACTIVE")
    assert client.cut.get(timeout=PATIENCE_S).disconnect_packet.reason_code == mqtt5.DisconnectReasonCode.NOT_AUTHORIZED
    client.stop()


class Paho:
    """paho speaking MQTT 5, on its own thread."""

    def __init__(self, server: ServerProcess, device: Identity, **connect: Any) -> None:
        self.connected: queue.Queue[Any] = queue.Queue()
        self.granted: queue.Queue[list[int]] = queue.Queue()
        self.published: queue.Queue[int] = queue.Queue()
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=device.thing, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=server.endpoints["ca_file"])
        context.load_cert_chain(device.certificate_file, device.key_file)
        client.tls_set_context(context)
        client.on_connect = lambda _, __, flags, code, properties: self.connected.put((code.value, flags, properties))
        client.on_subscribe = lambda _, __, ___, codes, ____: self.granted.put([code.value for code in codes])
        client.on_publish = lambda _, __, ___, code, ____: self.published.put(code.value)
        client.on_message = lambda _, __, message: self.messages.put(message)
        client.connect(server.endpoints["mqtt_host"], server.endpoints["mqtt_port"], **connect)
        client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def properties(packet: int, **said: Any) -> Properties:
    made = Properties(packet)
    for name, value in said.items():
        setattr(made, name, value)
    return made


def test_paho_speaks_mqtt_5_with_aliases_options_and_a_session(server: ServerProcess, device: Identity, room: str) -> None:
    expiry = properties(PacketTypes.CONNECT, SessionExpiryInterval=600)
    client = Paho(server, device, clean_start=True, properties=expiry)
    code, flags, offered = client.connected.get(timeout=PATIENCE_S)
    assert (code, flags.session_present, offered.TopicAliasMaximum > 0) == (0, False, True)
    client.client.subscribe([(f"{room}/+", SubscribeOptions(qos=1, noLocal=False)), ("elsewhere", SubscribeOptions(qos=1))])
    assert client.granted.get(timeout=PATIENCE_S) == [1, 0x87]
    for topic in (f"{room}/a", ""):
        alias = properties(PacketTypes.PUBLISH, TopicAlias=1, UserProperty=[("k", "v")])
        client.client.publish(topic, b"by its number", qos=1, properties=alias)
        assert client.published.get(timeout=PATIENCE_S) == 0
        message = client.messages.get(timeout=PATIENCE_S)
        assert (message.topic, message.payload) == (f"{room}/a", b"by its number")
        assert message.properties.UserProperty == [("k", "v")]
    client.client.publish("elsewhere", b"", qos=1)
    assert client.published.get(timeout=PATIENCE_S) == 0x87
    client.close()
    again = Paho(server, device, clean_start=False, properties=expiry)
    assert again.connected.get(timeout=PATIENCE_S)[1].session_present
    again.close()


def test_two_workers_share_what_devices_say(server: ServerProcess, device: Identity, room: str, tmp_path: Path) -> None:
    stem = f"arn:aws:iot:{server.endpoints['region']}:{server.endpoints['account']}"
    document = whole_room(server).replace(f"{stem}:topicfilter/room/*", f"{stem}:topicfilter/$share/workers/room/*")
    name = f"app-{uuid.uuid4().hex[:8]}"
    app = enroll(server, tmp_path / name, name, policy_document=document)
    workers = [over_tls(server, app, f"{app.thing}-{number}") for number in range(2)]
    for worker in workers:
        worker.start()
        assert worker.subscribe(f"$share/workers/{room}/+", f"{room}/+") == [1, 0x87]
    speaker = over_tls(server, device)
    speaker.start()
    for number in range(10):
        speaker.publish(f"{room}/a", b"%d" % number)
    shares = [[int(worker.message().payload) for _ in range(5)] for worker in workers]
    assert sorted(shares[0] + shares[1]) == list(range(10))
    for each in (*workers, speaker):
        each.stop()
