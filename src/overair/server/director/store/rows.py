"""Values between rows and nouns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from overair.basics.clock import Instant
from overair.basics.ids import EcuSerial
from overair.server.director.model import EcuMap, Image
from overair.wire.uptane.keys import KeyType, PublicKey


def text(value: object) -> str:
    """Compact JSON."""
    return msgspec.json.encode(value).decode()


def instant(value: int | None) -> Instant | None:
    return None if value is None else Instant(value)


def strings(value: str) -> dict[str, str]:
    return msgspec.json.decode(value, type=dict[str, str])


def ecu_map(value: str | None) -> EcuMap | None:
    if value is None:
        return None
    return {EcuSerial(serial): hardware_id for serial, hardware_id in strings(value).items()}


def image(name: str, length: int, hashes: str) -> Image:
    return Image(name=name, length=length, hashes=strings(hashes))


def public_key(row: Mapping[Any, Any]) -> PublicKey:
    return PublicKey(KeyType(row["key_type"]), bytes(row["key_der"]))
