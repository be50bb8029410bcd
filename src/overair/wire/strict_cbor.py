"""CBOR from outside, read strictly (RFC 8949).

One well-formed item and nothing after it, map keys distinct, nesting bounded, strings valid UTF-8. Tags are refused: none of
our wires has one, and the agents on the other side fail a job over a tagged integer (wire reference §4.5).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cbor2

DEPTH_MAX = 16
"""Default bound on nesting; a scalar has depth 0."""


class MalformedCbor(ValueError):
    """The bytes aren't CBOR as we read it; the message says why."""


class _NoTags(dict[int, Any]):
    """Stands in for the decoder's table of tags: finding anything in it is refused."""

    def get(self, key: int, default: Any = None) -> Any:
        raise MalformedCbor(f"Tag {key} has no meaning here.")

    __getitem__ = get

    def __contains__(self, key: object) -> bool:
        return True


_NO_TAGS = _NoTags()


def decode(data: bytes, *, size_bytes_max: int, depth_max: int = DEPTH_MAX) -> object:
    """Read one CBOR item. Indefinite lengths are allowed, as the clients' own decoders allow them.

    Raises:
        MalformedCbor: anything but one untagged item of at most ``size_bytes_max`` bytes and ``depth_max`` levels.
    """
    if len(data) > size_bytes_max:
        raise MalformedCbor(f"The item has {len(data)} bytes; at most {size_bytes_max} are read.")
    stream = BytesIO(data)
    decoder = cbor2.CBORDecoder(
        stream, semantic_decoders=_NO_TAGS, max_depth=depth_max, allow_duplicate_keys=False, strict_hashable_types=False
    )
    try:
        value: object = decoder.decode()
    except cbor2.CBORError as error:
        raise MalformedCbor(f"Not CBOR: {error}") from None
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise MalformedCbor(f"Not CBOR: {error}") from None
    if stream.read(1):
        raise MalformedCbor("Bytes follow the item.")
    return value


def decode_map(data: bytes, *, size_bytes_max: int, depth_max: int = DEPTH_MAX) -> dict[object, object]:
    """As ``decode``, for messages whose top level must be a map.

    Raises:
        MalformedCbor: also when the top level is anything else.
    """
    value = decode(data, size_bytes_max=size_bytes_max, depth_max=depth_max)
    if not isinstance(value, dict):
        raise MalformedCbor("The top level must be a CBOR map.")
    return value
