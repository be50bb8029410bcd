"""What operators do with messages: service ``iot-data``."""

from __future__ import annotations

from typing import Final

import msgspec

from overair.basics.errors import InvalidRequest, NotFound
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token
from overair.server.broker.service import Broker, Records
from overair.server.gateway.http_properties import read_properties_said
from overair.server.gateway.model import Message
from overair.wire.topics import is_valid_topic

RETAINED_PAGE_SIZE_MAX: Final = 200
TOPIC_SIZE_BYTES_MAX: Final = 1024
PAYLOAD_SIZE_BYTES_MAX: Final = 128 * 1024


class BrokerOperations:
    """Publish and look at what is retained. Authorisation (iot:Publish, iot:RetainPublish, …) is the dispatcher's."""

    def __init__(self, *, work: Work, broker: Broker, store: Records) -> None:
        self._work = work
        self._broker = broker
        self._store = store

    @operation("iot-data", "Publish")
    async def publish(self, caller: Caller, request: Request) -> Members | None:
        """Hand a message to subscribers; returns once whoever must still get it after a crash has it in the store.

        Raises:
            InvalidRequest: not a topic to publish to (subject ``topic``); a payload over 128 KiB (``too-large``); what MQTT 5
                says beside it isn't in its form (``properties``).
            LimitExceeded: the account retains as many messages as it may (``retained``).
        """
        topic = request["topic"]
        if not is_valid_topic(topic) or len(topic.encode()) > TOPIC_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"{topic[:100]!r} is not a topic to publish to. A topic has 1 to {TOPIC_SIZE_BYTES_MAX} bytes, no control "
                "characters and no wildcards (+, #).",
                subject="topic",
            )
        if topic.startswith("$"):
            raise InvalidRequest(
                f"{topic[:100]} is reserved: topics that begin with $ are the server's own. Use the operations of iot, "
                "iot-jobs-data and the like for what stands behind them.",
                subject="topic",
            )
        payload = request.get("payload") or b""
        if len(payload) > PAYLOAD_SIZE_BYTES_MAX:
            raise InvalidRequest(
                f"The payload has {len(payload)} bytes; a message holds at most {PAYLOAD_SIZE_BYTES_MAX}.", subject="too-large"
            )
        properties, expires = read_properties_said(request, caller.now)
        message = Message(
            topic=topic,
            payload=payload,
            qos=request.get("qos", 0),
            retain=request.get("retain", False),
            properties=properties,
            expires=expires,
        )
        # What is retained stays until somebody changes it, so it leaves a record; a message that passes by leaves none.
        pending = self._broker.publish(caller.account, message, work=self._work if message.retain else None)
        if pending is not None:
            await pending
        return None

    @operation("iot-data", "GetRetainedMessage")
    async def get_retained_message(self, caller: Caller, request: Request) -> Members:
        """A topic's retained message.

        Raises:
            NotFound: nothing is retained for the topic (subject ``retained``).
        """
        topic = request["topic"]
        message = await self._broker.retained_topics.message(caller.account, topic)
        if message is None:
            raise NotFound(f"No message is retained for the topic {topic[:100]!r}.", subject="retained")
        pairs = [dict([value]) for _, value in message.properties if isinstance(value, tuple)]
        return {
            "topic": message.topic,
            "payload": message.payload,
            "qos": message.qos,
            "lastModifiedTime": message.last_modified,
            "userProperties": msgspec.json.encode(pairs) if pairs else None,
        }

    @operation("iot-data", "ListRetainedMessages")
    async def list_retained_messages(self, caller: Caller, request: Request) -> Members:
        """Retained messages without their payloads, by topic."""
        limit = min(request.get("maxResults", RETAINED_PAGE_SIZE_MAX), RETAINED_PAGE_SIZE_MAX)
        position = read_page_token(request.get("nextToken"), tuple[str])
        after = position[0] if position is not None else ""
        rows = await self._work.read(lambda tx: self._store.list_retained(tx, caller.account, after=after, limit=limit + 1))
        page, token = cut(rows, limit, lambda row: (row.topic,))
        return {
            "retainedTopics": [
                {
                    "topic": row.topic,
                    "payloadSize": row.payload_size_bytes,
                    "qos": row.qos,
                    "lastModifiedTime": row.last_modified,
                }
                for row in page
            ],
            "nextToken": token,
        }
