"""The agent's transport against a small server on a real TLS socket."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from queue import Queue
from random import Random

import paho.mqtt.client as paho
import pytest

from overair.agent.device_directory import DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.mqtt_transport import MqttTransport
from overair.wire.mqtt.decoder import Decoder, DecoderLimits, Receiver
from overair.wire.mqtt.packets import (
    Connect,
    Publish,
    Subscribe,
    encode_connack,
    encode_puback,
    encode_publish,
    encode_suback,
)
from tests.support.authority import Authority

TIMEOUT_S = 15


class StubServer:
    """Accepts one connection after the other under mutual TLS; what arrives stands in ``packets``.

    One thread alone reads and writes: Python's TLS sockets don't bear a second one.
    """

    def __init__(self, folder: Path, authority: Authority, *, host: str = "127.0.0.1") -> None:
        certificate, key = authority.issue("server", host=host)
        (folder / "server.pem").write_bytes(certificate + key)
        (folder / "ca.pem").write_bytes(authority.pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(folder / "server.pem")
        self._context.load_verify_locations(folder / "ca.pem")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.packets: Queue[object] = Queue()
        self.handshakes: Queue[str] = Queue()
        self.connection: ssl.SSLSocket | None = None
        self.acknowledging = True
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            try:
                self.connection = self._context.wrap_socket(raw, server_side=True)
                self.handshakes.put("done")
                self._read(self.connection)
            except OSError as error:
                self.handshakes.put(str(error))

    def _read(self, connection: ssl.SSLSocket) -> None:
        limits = DecoderLimits(packet_size_bytes_max=1_000_000)
        decoder = Decoder(receiver=Receiver.SERVER, limits=limits)
        while data := connection.recv(65_536):
            decoder.feed(data)
            while (packet := decoder.next_packet()) is not None:
                self.packets.put(packet)
                if isinstance(packet, Connect):
                    connection.sendall(encode_connack(0))
                elif isinstance(packet, Subscribe):
                    connection.sendall(encode_suback(packet.packet_id, (1,)))
                elif isinstance(packet, Publish) and packet.topic == "echo":
                    connection.sendall(encode_publish("never/subscribed", packet.payload))
                elif isinstance(packet, Publish) and packet.qos and self.acknowledging:
                    connection.sendall(encode_puback(packet.packet_id))

    def cut(self) -> None:
        assert self.connection is not None
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def close(self) -> None:
        self._socket.close()
        if self.connection is not None:
            self.connection.close()


class Listener:
    def __init__(self) -> None:
        self.heard: Queue[tuple[str, bytes]] = Queue()
        self.connections: Queue[None] = Queue()

    def connected(self) -> None:
        self.connections.put(None)

    def received(self, topic: str, payload: bytes) -> None:
        self.heard.put((topic, payload))


def device_for(root: Path, authority: Authority, port: int, ca_pem: bytes | None = None) -> MqttTransport:
    settings = DeviceSettings(thing_name="dev-1", hardware_id="posix", mqtt_host="127.0.0.1", mqtt_port=port)
    certificate, key = authority.issue("dev-1")
    directory = create_device_directory(
        root, settings, certificate_pem=certificate, private_key_pem=key, ca_pem=ca_pem or authority.pem, anchors={}
    )
    assert isinstance(directory, DeviceDirectory)
    return MqttTransport(directory, settings, version="1.2.3", chance=Random(3))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_it_introduces_itself_as_the_c_sdks_do(tmp_path: Path, authority: Authority) -> None:
    server = StubServer(tmp_path, authority)
    transport = device_for(tmp_path / "d", authority, server.port)
    transport.start(Listener())
    hello = server.packets.get(timeout=TIMEOUT_S)
    assert isinstance(hello, Connect)
    assert (hello.client_id, hello.clean_session, hello.keep_alive_s) == ("dev-1", True, 60)
    assert (hello.username, hello.password) == ("?SDK=Overair&Version=1.2.3", None)
    transport.stop()
    transport.stop()
    server.close()


def test_messages_go_both_ways_and_an_acknowledged_one_is_known_to_be(tmp_path: Path, authority: Authority) -> None:
    server = StubServer(tmp_path, authority)
    transport, listener = device_for(tmp_path / "d", authority, server.port), Listener()
    assert transport.publish("lost", b"", qos=0) is False
    transport.start(listener)
    listener.connections.get(timeout=TIMEOUT_S)
    transport.subscribe("a/b", qos=1)
    assert transport.publish("up", b"1", qos=1, timeout_s=TIMEOUT_S) is True
    assert transport.publish("echo", b"down", qos=0) is True
    assert listener.heard.get(timeout=TIMEOUT_S) == ("never/subscribed", b"down")
    server.acknowledging = False
    assert transport.publish("up", b"2", qos=1, timeout_s=0.1) is False
    transport.stop()
    server.close()


def test_after_a_lost_connection_it_comes_back_and_sends_what_was_not_acknowledged(
    tmp_path: Path, authority: Authority
) -> None:
    server = StubServer(tmp_path, authority)
    transport, listener = device_for(tmp_path / "d", authority, server.port), Listener()
    transport.start(listener)
    listener.connections.get(timeout=TIMEOUT_S)
    server.acknowledging = False
    assert transport.publish("final", b"word", qos=1, timeout_s=0.1) is False
    server.acknowledging = True
    server.cut()
    listener.connections.get(timeout=TIMEOUT_S)
    published = []
    while len(published) < 2:
        packet = server.packets.get(timeout=TIMEOUT_S)
        if isinstance(packet, Publish):
            published.append((packet.topic, packet.payload))
    assert published == [("final", b"word")] * 2
    transport.stop()
    server.close()


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_server_that_cannot_prove_itself_hears_nothing(tmp_path: Path, authority: Authority, wrong: str) -> None:
    server = StubServer(tmp_path, authority, host="127.0.0.2" if wrong == "host" else "127.0.0.1")
    ca = Authority().pem if wrong == "authority" else None
    transport = device_for(tmp_path / "d", authority, server.port, ca)
    transport.start(Listener())
    # TLS 1.3 lets our side finish before the device has judged us: what counts is that it goes away without a word.
    server.handshakes.get(timeout=TIMEOUT_S)
    server.handshakes.get(timeout=TIMEOUT_S)
    assert server.packets.empty()
    transport.stop()
    server.close()


def test_each_attempt_that_brings_nothing_makes_the_next_wait_longer_and_a_message_makes_it_short_again(
    tmp_path: Path, authority: Authority
) -> None:
    transport = device_for(tmp_path / "d", authority, 1)
    waits: list[float] = []
    transport._client.reconnect_delay_set = lambda low, high: waits.append(high)  # type: ignore[method-assign]
    for _ in range(400):
        transport._client.on_connect_fail(transport._client, None)  # type: ignore[misc]
    assert max(waits[:3]) <= 4
    assert 0 <= min(waits) < 5 < 35 < max(waits) <= 40
    listener = Listener()
    transport._listener = listener
    transport._on_message(None, None, paho.MQTTMessage(topic=b"a"))
    transport._client.on_connect_fail(transport._client, None)  # type: ignore[misc]
    assert waits[-1] <= 1


def test_a_changed_identity_is_shown_on_a_connection_made_anew(tmp_path: Path, authority: Authority) -> None:
    server = StubServer(tmp_path, authority)
    transport, listener = device_for(tmp_path / "d", authority, server.port), Listener()
    transport.identity_changed()  # before the start there is nothing to make anew
    transport.start(listener)
    listener.connections.get(timeout=TIMEOUT_S)
    assert transport.publish("mine", b"1", qos=1, timeout_s=TIMEOUT_S)
    transport.identity_changed()
    listener.connections.get(timeout=TIMEOUT_S)
    server.acknowledging = False
    # The first message of the new connection has the number of the old one's first: that one's acknowledgement isn't its.
    assert not transport.publish("mine", b"2", qos=1, timeout_s=0.1)
    transport.stop()
    transport.identity_changed()  # and none after the end
    server.close()
