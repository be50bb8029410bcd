"""MQTT 3.1.1 under mutual TLS, with paho."""

from __future__ import annotations

import logging
import ssl
import sys
import threading
from collections import deque
from functools import partial
from random import Random
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from overair.agent.backoff import Backoff
from overair.agent.device_directory import DeviceDirectory, DeviceSettings
from overair.agent.tls import tls_context
from overair.agent.transport import TransportListener

LOG = logging.getLogger("overair.agent.mqtt")

KEEP_ALIVE_S = 60
RECONNECT_BASE_S = 1
RECONNECT_CAP_S = 40
"""Devices that lost their server together come back apart: each wait is drawn between nothing and a limit that doubles up to
this with each attempt from which nothing came."""


def device_context(directory: DeviceDirectory, settings: DeviceSettings) -> ssl.SSLContext:
    """The device's certificate, and only the named CA on the other side, whose certificate must carry the host's name."""
    return tls_context(
        directory.ca_file(settings),
        certificate_file=directory.certificate_file,
        private_key_file=directory.private_key_file,
    )


class MqttTransport:
    """Implements ``agent.transport.Transport``. Clean sessions: whatever was missed is asked for again on ``connected``."""

    def __init__(self, directory: DeviceDirectory, settings: DeviceSettings, *, version: str, chance: Random) -> None:
        self._directory = directory
        self._settings = settings
        self._version = version
        self._backoff = Backoff(base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S, chance=chance)
        self._failures = 0
        self._failure_told = ""
        self._listener: TransportListener | None = None
        self._acknowledged: deque[tuple[int, int]] = deque(maxlen=256)
        self._generation = 0
        """Of clients: each numbers its messages from 1 on."""
        self._changed = threading.Condition()
        self._stopped = False
        self._client = self._new_client(device_context(directory, settings))

    def _new_client(self, context: ssl.SSLContext) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self._settings.thing_name, protocol=paho.MQTTv311, clean_session=True
        )
        # As the C SDKs introduce themselves; there is no password.
        client.username_pw_set(f"?SDK=Overair&Version={self._version}")
        client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = partial(self._on_publish, self._generation)
        return client

    def start(self, listener: TransportListener) -> None:
        with self._changed:
            self._listener = listener
            self._begin(self._client)

    def _begin(self, client: paho.Client) -> None:
        client.connect_async(self._settings.mqtt_host, self._settings.mqtt_port, keepalive=KEEP_ALIVE_S)
        client.loop_start()

    def identity_changed(self) -> None:
        """Connect anew, showing the certificate and trusting the authorities that lie on the disk now. From any thread but the
        connection's own. What was sent and not acknowledged is lost, as where a connection ends by itself and its message with
        it: whoever waits for that says it again."""
        try:
            context = device_context(self._directory, self._settings)
        except OSError as error:
            LOG.warning("the changed identity can't be used; the connection stays as it is: %s", error)
            return
        with self._changed:
            if self._stopped or self._listener is None:
                return
            before = self._client
            self._generation += 1
            self._client = self._new_client(context)
        # First the old one goes, lest two of one client id put each other out.
        before.disconnect()
        before.loop_stop()
        with self._changed:
            if not self._stopped:
                self._begin(self._client)

    def stop(self) -> None:
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            self._changed.notify_all()
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic_filter: str, *, qos: int) -> None:
        self._client.subscribe(topic_filter, qos)

    def publish(self, topic: str, payload: bytes, *, qos: int, timeout_s: float = 0) -> bool:
        with self._changed:
            client, generation = self._client, self._generation
        if qos == 0 and not client.is_connected():
            return False
        sent = client.publish(topic, payload, qos)
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_NO_CONN):
            LOG.warning("a message to %s can't be sent: %s", topic, paho.error_string(sent.rc))
            return False
        if qos == 0 or timeout_s <= 0:
            return sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS
        # Without a connection it stays queued and goes out again on the next one.
        with self._changed:
            number = (generation, sent.mid)
            self._changed.wait_for(lambda: self._stopped or number in self._acknowledged, timeout_s)
            return number in self._acknowledged

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            LOG.warning("the server refused the connection: %s", reason)
            return
        self._failure_told = ""
        LOG.info("connected to %s:%s", self._settings.mqtt_host, self._settings.mqtt_port)
        assert self._listener is not None
        self._listener.connected()

    def _on_connect_fail(self, client: Any, userdata: Any) -> None:
        # The library calls this while it handles what went wrong, and tells nobody.
        self._tell_failure(sys.exception())
        self._draw_wait()

    def _tell_failure(self, error: BaseException | None) -> None:
        """Once for each new reason: a server that is away for a day fills no log."""
        where = f"{self._settings.mqtt_host}:{self._settings.mqtt_port}"
        if isinstance(error, ssl.SSLCertVerificationError):
            told = f"who answers at {where} can't prove to be our server: {error.verify_message}; nothing was told to it"
        else:
            told = f"{where} can't be reached: {error}"
        if told != self._failure_told:
            LOG.warning("%s; it is tried again, with growing waits", told)
            self._failure_told = told

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            LOG.warning("the connection was lost: %s", reason)
        self._draw_wait()

    def _draw_wait(self) -> None:
        """Before another attempt. A server that accepts and says nothing counts as one that doesn't answer."""
        self._failures += 1
        wait_s: Any = self._backoff.wait_s(self._failures)  # paho's hint says int; it adds it to a clock
        self._client.reconnect_delay_set(wait_s, wait_s)

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        self._failures = 0
        assert self._listener is not None
        self._listener.received(message.topic, message.payload)

    def _on_publish(self, generation: int, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._changed:
            self._acknowledged.append((generation, mid))
            self._changed.notify_all()
