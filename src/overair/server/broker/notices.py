"""Messages on their way through records and over the bus: what MQTT 5 says beside a payload goes as MQTT 5 writes it."""

from __future__ import annotations

from overair.basics.work import Notice
from overair.server.gateway.model import Message
from overair.wire.mqtt.body import Body
from overair.wire.mqtt.packets import Properties
from overair.wire.mqtt.properties import Place, read_properties


def properties_in(data: bytes) -> Properties:
    """As they were written for a notice, or for the bus."""
    return read_properties(Body(data, 0, len(data)), Place.PUBLISH) if data else ()


def message_of(notice: Notice, *, qos: int) -> Message:
    """What a notice says to clients."""
    return Message(
        topic=notice.topic,
        payload=notice.payload,
        qos=qos,
        properties=properties_in(notice.properties),
        expires=notice.expires,
    )
