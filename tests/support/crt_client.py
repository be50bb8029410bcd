"""Amazon's own MQTT 5 client (awscrt, as awsiotsdk builds it), with queues of what it heard."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from awscrt import auth, io, mqtt5
from awsiot import mqtt5_client_builder

from tests.support.field_device import Identity
from tests.support.server_process import ServerProcess

PATIENCE_S = 20.0

_CALLBACKS = {
    "on_publish_received": "on_publish_callback_fn",
    "on_lifecycle_connection_success": "on_lifecycle_event_connection_success_fn",
    "on_lifecycle_connection_failure": "on_lifecycle_event_connection_failure_fn",
    "on_lifecycle_disconnection": "on_lifecycle_event_disconnection_fn",
    "on_lifecycle_stopped": "on_lifecycle_event_stopped_fn",
}
"""The builders' names for what the client calls otherwise."""


class CrtClient:
    """One client. It doesn't come back by itself within a test's time."""

    def __init__(self, build: Callable[..., mqtt5.Client], client_id: str, **connect: Any) -> None:
        self.messages: queue.Queue[mqtt5.PublishPacket] = queue.Queue()
        self.connected: queue.Queue[mqtt5.LifecycleConnectSuccessData] = queue.Queue()
        self.refused: queue.Queue[mqtt5.LifecycleConnectFailureData] = queue.Queue()
        self.cut: queue.Queue[mqtt5.LifecycleDisconnectData] = queue.Queue()
        self._stopped: Future[None] = Future()
        self.client = build(
            connect_options=mqtt5.ConnectPacket(client_id=client_id, keep_alive_interval_sec=60, **connect),
            session_behavior=mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS
            if connect.get("session_expiry_interval_sec")
            else mqtt5.ClientSessionBehaviorType.CLEAN,
            min_reconnect_delay_ms=60_000,
            max_reconnect_delay_ms=60_000,
            on_publish_received=lambda data: self.messages.put(data.publish_packet),
            on_lifecycle_connection_success=self.connected.put,
            on_lifecycle_connection_failure=self.refused.put,
            on_lifecycle_disconnection=self.cut.put,
            on_lifecycle_stopped=lambda _: self._stopped.set_result(None),
        )

    def start(self) -> mqtt5.ConnackPacket:
        """Connect: what the server offered."""
        self.client.start()
        return self.connected.get(timeout=PATIENCE_S).connack_packet

    def subscribe(self, *filters: str, **options: Any) -> list[int]:
        """At QoS 1: the reason codes."""
        subscriptions = [mqtt5.Subscription(each, mqtt5.QoS.AT_LEAST_ONCE, **options) for each in filters]
        packet = mqtt5.SubscribePacket(subscriptions=subscriptions)
        return [int(code) for code in self.client.subscribe(packet).result(PATIENCE_S).reason_codes]

    def publish(self, topic: str, payload: bytes, **more: Any) -> mqtt5.PubackPacket:
        """At QoS 1: its acknowledgement."""
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS.AT_LEAST_ONCE, **more)
        return self.client.publish(packet).result(PATIENCE_S).puback

    def message(self) -> mqtt5.PublishPacket:
        """The next one."""
        return self.messages.get(timeout=PATIENCE_S)

    def stop(self) -> None:
        """Say goodbye."""
        self.client.stop(mqtt5.DisconnectPacket())
        self._stopped.result(PATIENCE_S)


def over_tls(server: ServerProcess, identity: Identity, client_id: str = "", **connect: Any) -> CrtClient:
    """With a device's certificate."""

    def build(**options: Any) -> mqtt5.Client:
        return mqtt5_client_builder.mtls_from_path(
            endpoint=server.endpoints["mqtt_host"],
            port=server.endpoints["mqtt_port"],
            cert_filepath=str(identity.certificate_file),
            pri_key_filepath=str(identity.key_file),
            ca_filepath=server.endpoints["ca_file"],
            **options,
        )

    return CrtClient(build, client_id or identity.thing, **connect)


def over_alpn(server: ServerProcess, identity: Identity, **connect: Any) -> CrtClient:
    """At the device port, with the name that the SDK offers by itself on port 443 alone."""
    host, _, port = server.endpoints["device_url"].removeprefix("https://").rpartition(":")
    tls = io.TlsContextOptions.create_client_with_mtls_from_path(str(identity.certificate_file), str(identity.key_file))
    tls.override_default_trust_store_from_path(None, server.endpoints["ca_file"])
    tls.alpn_list = ["x-amzn-mqtt-ca"]

    def build(**options: Any) -> mqtt5.Client:
        named = {_CALLBACKS.get(name, name): value for name, value in options.items()}
        return mqtt5.Client(mqtt5.ClientOptions(host_name=host, port=int(port), tls_ctx=io.ClientTlsContext(tls), **named))

    return CrtClient(build, identity.thing, **connect)


def over_websocket(
    server: ServerProcess, client_id: str, access_key_id: str, secret: str, token: str | None = None, **connect: Any
) -> CrtClient:
    """With an operator's key, at the operator port."""
    provider = auth.AwsCredentialsProvider.new_static(access_key_id, secret, token)
    host, _, port = server.endpoints["operator_url"].removeprefix("https://").rpartition(":")

    def build(**options: Any) -> mqtt5.Client:
        return mqtt5_client_builder.websockets_with_default_aws_signing(
            endpoint=host,
            port=int(port),
            region=server.endpoints["region"],
            credentials_provider=provider,
            ca_filepath=server.endpoints["ca_file"],
            **options,
        )

    return CrtClient(build, client_id, **connect)
