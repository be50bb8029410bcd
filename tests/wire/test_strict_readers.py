from __future__ import annotations

import contextlib
import json

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.wire import strict_cbor, strict_json
from overair.wire.strict_cbor import MalformedCbor
from overair.wire.strict_json import MalformedJson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_comes_back_as_it_was_written(value: object) -> None:
    assert strict_json.decode(json.dumps(value).encode(), size_bytes_max=100_000) == value


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_json_value_or_our_own_error(data: bytes) -> None:
    with contextlib.suppress(MalformedJson):
        strict_json.decode(data, size_bytes_max=200)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_cbor_item_or_our_own_error(data: bytes) -> None:
    with contextlib.suppress(MalformedCbor):
        strict_cbor.decode(data, size_bytes_max=200)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '[{"b":{"x":":","x":1}}]', '{"a":1,"\\u0061":2}', '{"":1,"":":"}'])
def test_a_key_said_twice_is_refused_however_it_is_spelt(text: str) -> None:
    with pytest.raises(MalformedJson, match="twice"):
        strict_json.decode(text.encode(), size_bytes_max=100)


def test_colons_inside_strings_are_no_duplicates() -> None:
    assert strict_json.decode(b'{"a:b":"c:d","e":[":"]}', size_bytes_max=100) == {"a:b": "c:d", "e": [":"]}


@pytest.mark.parametrize("depth", [33, 5_000, 200_000])
def test_nesting_beyond_the_bound_is_refused_without_exhausting_anything(depth: int) -> None:
    with pytest.raises(MalformedJson, match="nested"):
        strict_json.decode(b"[" * depth + b"]" * depth, size_bytes_max=1_000_000)
    with pytest.raises(MalformedCbor):
        strict_cbor.decode(b"\x81" * depth + b"\x00", size_bytes_max=1_000_000)


def test_nesting_up_to_the_bound_is_read() -> None:
    strict_json.decode(b"[" * 32 + b"]" * 32, size_bytes_max=100)


def test_a_text_over_the_limit_is_not_read_at_all() -> None:
    with pytest.raises(MalformedJson, match="at most 3"):
        strict_json.decode(b"null", size_bytes_max=3)
    with pytest.raises(MalformedCbor, match="at most 1"):
        strict_cbor.decode(b"\x18\x18", size_bytes_max=1)


@pytest.mark.parametrize(
    "item", ["a2616101616102", "0000", "9b7fffffffffffffff", "bb7fffffffffffffff", "5b7fffffffffffffff00", "61ff"]
)
def test_cbor_with_doubled_keys_trailing_bytes_or_false_lengths_is_refused(item: str) -> None:
    with pytest.raises(MalformedCbor):
        strict_cbor.decode(bytes.fromhex(item), size_bytes_max=100)


def test_only_objects_and_maps_pass_where_those_are_demanded() -> None:
    with pytest.raises(MalformedJson):
        strict_json.decode_object(b"[]", size_bytes_max=10)
    with pytest.raises(MalformedCbor):
        strict_cbor.decode_map(cbor2.dumps([]), size_bytes_max=10)
