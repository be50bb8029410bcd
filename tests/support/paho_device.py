"""A paho client with a certificate, for journeys: connects, listens, and says when it was cut."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import paho.mqtt.client as mqtt

PATIENCE_S = 15.0


class PahoDevice:
    """One device on MQTT 3.1.1 over mutual TLS. It doesn't connect again by itself."""

    def __init__(self, endpoints: dict[str, Any], folder: Path, client_id: str, certificate: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        certificate_file, key_file = folder / f"{client_id}.pem", folder / f"{client_id}.key"
        certificate_file.write_text(certificate["certificatePem"])
        key_file.write_text(certificate["keyPair"]["PrivateKey"])
        self.client_id = client_id
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connected = threading.Event()
        self.cut = threading.Event()
        self.return_code: int | None = None
        self._granted: queue.Queue[int] = queue.Queue()
        self._endpoints = endpoints
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311, reconnect_on_failure=False
        )
        client.tls_set(ca_certs=endpoints["ca_file"], certfile=str(certificate_file), keyfile=str(key_file))
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.cut.set()
        client.on_message = lambda _client, _data, message: self.messages.put((message.topic, message.payload))
        client.on_subscribe = lambda _client, _data, _mid, codes, _properties: self._granted.put(codes[0].value)

    def _on_connect(self, _client: object, _data: object, _flags: object, code: Any, _properties: object) -> None:
        self.return_code = code.value
        if not code.is_failure:
            self.connected.set()

    def connect(self) -> bool:
        """Whether the server let it in."""
        self.cut.clear()
        self.connected.clear()
        self._client.connect(self._endpoints["mqtt_host"], self._endpoints["mqtt_port"], keepalive=60)
        self._client.loop_start()
        deadline = threading.Event()
        for _ in range(int(PATIENCE_S * 20)):
            if self.connected.is_set() or self.cut.is_set():
                break
            deadline.wait(0.05)
        return self.connected.is_set()

    def subscribe(self, topic_filter: str, qos: int = 1) -> int:
        """The granted QoS, or 128."""
        self._client.subscribe(topic_filter, qos)
        return self._granted.get(timeout=PATIENCE_S)

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish without waiting for the acknowledgement."""
        self._client.publish(topic, payload, qos)

    def message(self, timeout_s: float = PATIENCE_S) -> tuple[str, bytes]:
        """The next message."""
        return self.messages.get(timeout=timeout_s)

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> PahoDevice:
        assert self.connect(), f"{self.client_id} was not let in (return code {self.return_code})"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
