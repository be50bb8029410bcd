"""A blocking MQTT client over mutual TLS that says exactly what it is told, for journeys."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from overair.wire.mqtt.client import ClientConnection
from overair.wire.mqtt.packets import Connack, Packet, Pingresp, Publish, Suback, encode_puback

PATIENCE_S = 15.0


def device_context(ca_file: str, certificate_file: Path, key_file: Path, alpn: list[str] | None = None) -> ssl.SSLContext:
    """A TLS context with a client certificate."""
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(certificate_file, key_file)
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


class MqttOverTls:
    """One connection, CONNECT included."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, client_id: str, *, clean_session: bool = True) -> None:
        plain = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._socket = context.wrap_socket(plain, server_hostname=host)
        self._wire = ClientConnection()
        self._packets: list[Packet] = []
        self.send(self._wire.connect(client_id, clean_session=clean_session))
        answer = self.next()
        self.connack = answer if isinstance(answer, Connack) else None

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def next(self, timeout_s: float = PATIENCE_S) -> Packet | None:
        """The next packet; None once the server has closed."""
        self._socket.settimeout(timeout_s)
        while not self._packets:
            try:
                data = self._socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self._packets += self._wire.receive(data)
        return self._packets.pop(0)

    def subscribe(self, *filters: tuple[str, int]) -> Any:
        """The return codes, or None when the server closed instead."""
        self.send(self._wire.subscribe(*filters))
        answer = self.next()
        return answer.return_codes if isinstance(answer, Suback) else None

    def publish(self, topic: str, payload: bytes = b"", *, qos: int = 0, retain: bool = False) -> None:
        self.send(self._wire.publish(topic, payload, qos=qos, retain=retain))

    def before_ping_answer(self) -> list[Packet]:
        """Everything that the server had to say before it answered a PINGREQ sent now."""
        self.send(b"\xc0\x00")
        found = []
        while not isinstance(packet := self.next(), Pingresp):
            assert packet is not None, "the server has closed the connection"
            found.append(packet)
        return found

    def acknowledge(self, packet: Publish) -> None:
        self.send(encode_puback(packet.packet_id))

    def close(self) -> None:
        self._socket.close()
