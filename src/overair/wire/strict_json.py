"""JSON from outside, read strictly (RFC 8259).

msgspec reads and checks the text; what it lets through is refused here: an object that says one key twice, and nesting deeper
than the caller allows. NaN, infinities, numbers out of range, bad UTF-8, a byte order mark and trailing text are refused too,
all as one kind of error.
"""

from __future__ import annotations

import json

import msgspec

DEPTH_MAX = 32
"""Default bound on nesting; a scalar has depth 0."""


class MalformedJson(ValueError):
    """The bytes aren't JSON as we read it; the message says why."""


def decode(data: bytes, *, size_bytes_max: int, depth_max: int = DEPTH_MAX) -> object:
    """Read one JSON value: dict, list, str, int, float, bool or None. Integers are exact up to 64 bits and far beyond.

    Raises:
        MalformedJson: anything but one JSON value of at most ``size_bytes_max`` bytes and ``depth_max`` levels.
    """
    if len(data) > size_bytes_max:
        raise MalformedJson(f"The text has {len(data)} bytes; at most {size_bytes_max} are read.")
    try:
        value: object = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedJson(f"Not JSON: {error}") from None
    except RecursionError:
        raise MalformedJson(f"The text is nested deeper than {depth_max} levels.") from None
    members = _count_members(value, depth_max)
    # Each member has one colon in the text. More colons than members: some stand inside strings, or a key came twice.
    if data.count(b":") != members:
        _refuse_duplicate_keys(data)
    return value


def decode_object(data: bytes, *, size_bytes_max: int, depth_max: int = DEPTH_MAX) -> dict[str, object]:
    """As ``decode``, for texts whose top level must be an object.

    Raises:
        MalformedJson: also when the top level is anything else.
    """
    value = decode(data, size_bytes_max=size_bytes_max, depth_max=depth_max)
    if not isinstance(value, dict):
        raise MalformedJson("The top level must be a JSON object.")
    return value


def _count_members(value: object, depth_max: int) -> int:
    members = 0
    depth = 0
    level = [value]
    while level:
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                members += len(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            else:
                continue
            if depth >= depth_max:
                raise MalformedJson(f"The text is nested deeper than {depth_max} levels.")
        level = below
        depth += 1
    return members


def _distinct(pairs: list[tuple[str, object]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise MalformedJson(f"The key {name[:100]!r} occurs twice in one object.")
        names.add(name)


def _refuse_duplicate_keys(data: bytes) -> None:
    json.loads(data, object_pairs_hook=_distinct)
