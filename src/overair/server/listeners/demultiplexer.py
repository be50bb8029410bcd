"""After the handshake: who speaks MQTT, who speaks HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from overair.server.listeners.http import HttpService
from overair.server.listeners.tls import TlsTransport

MQTT_ALPN: Final = (b"x-amzn-mqtt-ca", b"mqtt")
HTTP_ALPN: Final = (b"x-amzn-http-ca", b"http/1.1")
_MQTT_NAMES: Final = frozenset(name.decode() for name in MQTT_ALPN)

MqttProtocol = Callable[[], asyncio.Protocol]


def speak_http(service: HttpService) -> Callable[[TlsTransport], asyncio.Protocol]:
    """Every connection is HTTP."""

    def accept(transport: TlsTransport) -> asyncio.Protocol:
        return service.protocol(
            {
                "peer_der": transport.get_extra_info("peer_der"),
                "peer_chain_der": transport.get_extra_info("peer_chain_der"),
                "alpn": transport.get_extra_info("alpn"),
                "server_name": transport.get_extra_info("server_name"),
                "secure": True,
            }
        )

    return accept


def speak_mqtt(mqtt: MqttProtocol) -> Callable[[TlsTransport], asyncio.Protocol]:
    """Every connection is MQTT, whatever name it chose for it."""
    return lambda _transport: mqtt()


def speak_by_alpn(mqtt: MqttProtocol, service: HttpService) -> Callable[[TlsTransport], asyncio.Protocol]:
    """MQTT where ALPN says so, else HTTP (wire reference §8.1)."""
    http = speak_http(service)

    def accept(transport: TlsTransport) -> asyncio.Protocol:
        if transport.get_extra_info("alpn") in _MQTT_NAMES:
            return mqtt()
        return http(transport)

    return accept
