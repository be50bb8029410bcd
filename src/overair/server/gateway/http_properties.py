"""What a message that is published over HTTP says beside its payload, in the words of AWS's Publish."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.gateway.modern import honoured_expiry_s
from overair.wire.mqtt.outgoing import properties_size_bytes
from overair.wire.mqtt.packets import Properties, PropertyValue
from overair.wire.mqtt.properties import Property
from overair.wire.strict_json import MalformedJson, decode
from overair.wire.topics import TEXT_SIZE_BYTES_MAX, is_valid_text, is_valid_topic

PROPERTIES_SIZE_BYTES_MAX: Final = 16 * 1024
INDICATORS: Final = {"UNSPECIFIED_BYTES": 0, "UTF8_DATA": 1}
EXPIRY_S_MAX: Final = 2**32 - 1


def read_properties_said(said: Mapping[str, Any], now: Instant) -> tuple[Properties, Instant | None]:
    """(properties, when the message expires) by the member names of ``iot-data``'s Publish; ``userProperties`` is JSON's text.

    Raises:
        InvalidRequest: not in the form that MQTT 5 has for it, or too much (subject ``properties``).
    """
    found: list[tuple[int, PropertyValue]] = []
    if said.get("payloadFormatIndicator") is not None:
        if said["payloadFormatIndicator"] not in INDICATORS:
            raise _wrong("payloadFormatIndicator is UNSPECIFIED_BYTES or UTF8_DATA.")
        found.append((Property.PAYLOAD_FORMAT_INDICATOR, INDICATORS[said["payloadFormatIndicator"]]))
    if said.get("contentType") is not None:
        found.append((Property.CONTENT_TYPE, _text(said["contentType"], "contentType")))
    if said.get("responseTopic") is not None:
        if not is_valid_topic(said["responseTopic"]):
            raise _wrong("responseTopic is a topic: not empty, without wildcards (+, #) and control characters.")
        found.append((Property.RESPONSE_TOPIC, said["responseTopic"]))
    if said.get("correlationData") is not None:
        try:
            data = b64decode(said["correlationData"], validate=True)
        except (binascii.Error, ValueError):
            raise _wrong("correlationData is Base64.") from None
        if len(data) > TEXT_SIZE_BYTES_MAX:
            raise _wrong(f"correlationData has at most {TEXT_SIZE_BYTES_MAX} bytes.")
        found.append((Property.CORRELATION_DATA, data))
    if said.get("userProperties") is not None:
        found += _pairs(said["userProperties"])
    properties = tuple(found)
    if properties_size_bytes(properties) > PROPERTIES_SIZE_BYTES_MAX:
        raise _wrong(f"A message's properties have at most {PROPERTIES_SIZE_BYTES_MAX} bytes together.")
    expiry_s = said.get("messageExpiry")
    if expiry_s is None:
        return properties, None
    if not 0 <= expiry_s <= EXPIRY_S_MAX:
        raise _wrong(f"messageExpiry is a number of seconds from 0 to {EXPIRY_S_MAX}.")
    return properties, Instant(now + honoured_expiry_s(expiry_s) * 1000)


def _pairs(text: str) -> list[tuple[int, PropertyValue]]:
    rule = 'userProperties is a JSON array of objects with one name and one text each: [{"name": "value"}].'
    try:
        listed = decode(text.encode(), size_bytes_max=PROPERTIES_SIZE_BYTES_MAX, depth_max=3)
    except MalformedJson:
        raise _wrong(rule) from None
    pairs: list[tuple[int, PropertyValue]] = []
    for each in listed if isinstance(listed, list) else [None]:
        if not isinstance(each, dict) or len(each) != 1:
            raise _wrong(rule)
        ((name, value),) = each.items()
        if not isinstance(value, str):
            raise _wrong(rule)
        pairs.append((Property.USER_PROPERTY, (_text(name, "userProperties"), _text(value, "userProperties"))))
    return pairs


def _text(text: str, member: str) -> str:
    if not is_valid_text(text) or len(text.encode()) > TEXT_SIZE_BYTES_MAX:
        raise _wrong(f"{member} has no control characters, and at most {TEXT_SIZE_BYTES_MAX} bytes.")
    return text


def _wrong(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="properties")
