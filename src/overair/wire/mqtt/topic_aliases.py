"""Topic aliases of one connection (MQTT 5 section 3.3.2.3.4): a number that a client has given to a topic."""

from __future__ import annotations

from overair.wire.mqtt.packets import MalformedPacket, Publish
from overair.wire.mqtt.properties import Property, number_in
from overair.wire.mqtt.reasons import Reason


class TopicAliases:
    """What the client has said; forgotten with the connection."""

    __slots__ = ("_maximum", "_topics")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._topics: dict[int, str] = {}

    def resolve(self, packet: Publish) -> str:
        """The topic of a PUBLISH, which may have given it a number just now.

        Raises:
            MalformedPacket: the number is too high, or stands for nothing yet.
        """
        if not packet.properties:
            return packet.topic
        alias = number_in(packet.properties, Property.TOPIC_ALIAS, 0)
        if not alias:
            return packet.topic
        if alias > self._maximum:
            raise MalformedPacket(
                f"A topic alias is at most {self._maximum} here, not {alias}.", reason=Reason.TOPIC_ALIAS_INVALID
            )
        if packet.topic:
            self._topics[alias] = packet.topic
            return packet.topic
        topic = self._topics.get(alias)
        if topic is None:
            raise MalformedPacket(f"The topic alias {alias} stands for no topic yet.", reason=Reason.PROTOCOL_ERROR)
        return topic
