"""JSON and CBOR from outside, and Uptane's own spelling of JSON.

Held: what our readers take, the usual ones read alike (``json``, ``cbor2``), and it is, written again, the same; what is
refused is refused with a reason; the spelling that is signed is stable.
"""

from __future__ import annotations

import json

import cbor2

from overair.wire import strict_cbor, strict_json
from overair.wire.uptane import canonical
from overair.wire.uptane.refusals import MetadataRefused
from tests.fuzz.refusals import says_why

SIZE_BYTES_MAX = 64 * 1024


def fuzz_one(data: bytes) -> None:
    try:
        value = strict_json.decode(data, size_bytes_max=SIZE_BYTES_MAX)
    except strict_json.MalformedJson as refused:
        says_why(refused)
    else:
        assert same(json.loads(data), value)
        assert strict_json.decode(json.dumps(value).encode(), size_bytes_max=10 * SIZE_BYTES_MAX) == value
    try:
        document = canonical.read(data, size_bytes_max=SIZE_BYTES_MAX)
        spelt = canonical.canonical(document)
    except MetadataRefused as refused_document:
        says_why(refused_document)
    else:
        assert json.loads(spelt) == document == json.loads(data)
        assert canonical.canonical(canonical.read(spelt, size_bytes_max=10 * SIZE_BYTES_MAX)) == spelt
    try:
        item = strict_cbor.decode(data, size_bytes_max=SIZE_BYTES_MAX)
    except strict_cbor.MalformedCbor as refused_item:
        says_why(refused_item)
    else:
        assert same(cbor2.loads(data), item)
        assert same(strict_cbor.decode(cbor2.dumps(item), size_bytes_max=10 * SIZE_BYTES_MAX), item)


def same(one: object, other: object) -> bool:
    """Equal, with not-a-number equal to itself."""
    return one == other or repr(one) == repr(other)
