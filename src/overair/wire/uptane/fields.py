"""Members of JSON objects from outside, each read as what it must be. ``path`` says where one stands, for whoever is told.

Each function raises ``MetadataRefused`` (INVALID_METADATA) with that path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, cast

from overair.basics.clock import Instant, from_datetime
from overair.wire.uptane.refusals import MetadataRefused, Reason

_EXPIRES: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_HASH_HEX: Final = re.compile(r"[0-9a-fA-F]{32,128}")


def malformed(message: str, path: str) -> MetadataRefused:
    """The error that all of these raise."""
    return MetadataRefused(Reason.INVALID_METADATA, message, field=path)


def object_at(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise malformed(f"{path} must be an object.", path)
    return cast("Mapping[str, object]", value)


def array_at(value: object, path: str) -> Sequence[object]:
    if not isinstance(value, list):
        raise malformed(f"{path} must be an array.", path)
    return cast("Sequence[object]", value)


def integer_at(value: object, path: str, *, minimum: int, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise malformed(f"{path} must be an integer from {minimum} to {maximum}.", path)
    return value


def text_at(value: object, path: str, *, length_min: int = 0, length_max: int) -> str:
    """A string without control characters."""
    if not isinstance(value, str) or not length_min <= len(value) <= length_max:
        raise malformed(f"{path} must be a string of {length_min} to {length_max} characters.", path)
    if any(character < " " or character == "\x7f" for character in value):
        raise malformed(f"{path} holds a control character.", path)
    return value


def texts_at(value: object, path: str) -> tuple[str, ...]:
    items = array_at(value, path)
    if not all(isinstance(item, str) for item in items):
        raise malformed(f"{path} must hold strings.", path)
    return tuple(cast("Sequence[str]", items))


def hashes_at(value: object, path: str, *, required: bool) -> Mapping[str, str]:
    """Algorithm → hexadecimal digits, both in lower case."""
    if value is None and not required:
        return {}
    found: dict[str, str] = {}
    for algorithm, digits in object_at(value, path).items():
        if not isinstance(digits, str) or not _HASH_HEX.fullmatch(digits):
            raise malformed("A hash is hexadecimal.", f"{path}.{algorithm[:32]}")
        found[algorithm.lower()] = digits.lower()
    if not found and required:
        raise malformed("At least one hash is needed.", path)
    return found


def read_expires(value: object, *, field: str = "expires") -> Instant:
    """``YYYY-MM-DDTHH:MM:SSZ``, exactly: aktualizr takes no fraction (Uptane reference §4.1)."""
    if not isinstance(value, str) or not _EXPIRES.fullmatch(value):
        raise malformed("A moment is written YYYY-MM-DDTHH:MM:SSZ.", field)
    try:
        return from_datetime(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC))
    except ValueError:
        raise malformed("A moment is written YYYY-MM-DDTHH:MM:SSZ.", field) from None
