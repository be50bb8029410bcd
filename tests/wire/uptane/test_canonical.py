from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from overair.wire.uptane.canonical import DEPTH_MAX, INTEGER_MAX, CanonicalForm, canonical, read
from overair.wire.uptane.refusals import MetadataRefused, Reason

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x7f"), max_size=12)
INTEGERS = st.integers(-INTEGER_MAX, INTEGER_MAX)


def values(text: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    return st.recursive(
        st.none() | st.booleans() | INTEGERS | text,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


def spelt_by_hand(value: object) -> str:
    """The escaped form, written from the reference's table and from nothing else (§4.1)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:d}"
    if isinstance(value, str):
        return '"' + "".join(escaped(character) for character in value) + '"'
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0])
        return "{" + ",".join(f"{spelt_by_hand(name)}:{spelt_by_hand(member)}" for name, member in members) + "}"
    assert isinstance(value, list)
    return "[" + ",".join(spelt_by_hand(item) for item in value) + "]"


def escaped(character: str) -> str:
    short = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if character in short:
        return short[character]
    if " " <= character <= "~":
        return character
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


@given(values(TEXT))
def test_the_escaped_form_is_the_one_of_the_reference(value: object) -> None:
    assert canonical(value) == spelt_by_hand(value).encode("ascii")


@given(values(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)))
def test_for_printable_ascii_the_escaped_form_is_what_json_dumps_writes(value: object) -> None:
    assert canonical(value) == json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@given(values(TEXT))
def test_the_olpc_form_is_what_tufs_clients_sign(value: object) -> None:
    assert canonical(value, CanonicalForm.OLPC) == encode_canonical(value).encode("utf-8")


@given(st.dictionaries(TEXT, values(TEXT), max_size=4))
def test_what_is_read_back_has_the_same_spelling_again(value: dict[str, object]) -> None:
    data = canonical(value)
    assert read(data, size_bytes_max=len(data)) == value
    pretty = json.dumps(value, indent=1).encode()
    assert canonical(read(pretty, size_bytes_max=len(pretty))) == data


ANY_TEXT = st.text(st.characters() | st.sampled_from(':[,-1."\\\x7f'), max_size=20)
ANY_NUMBER = st.integers() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.dictionaries(ANY_TEXT, st.recursive(ANY_NUMBER | ANY_TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=6)),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
)
def test_what_a_text_lets_through_at_a_glance_a_closer_look_lets_through(
    value: dict[str, object], in_ascii: bool, indent: int | str | None
) -> None:
    try:
        data = json.dumps(value, ensure_ascii=in_ascii, indent=indent).encode()
    except UnicodeEncodeError:
        return  # Half a surrogate pair has no bytes.
    try:
        expected = canonical(value)
    except MetadataRefused:
        with pytest.raises(MetadataRefused):
            read(data, size_bytes_max=10_000)
        return
    found = read(data, size_bytes_max=10_000)
    for form in CanonicalForm:
        assert canonical(found, form, checked=True) == canonical(value, form)
    assert canonical(found) == expected


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_an_object_or_our_own_error(data: bytes) -> None:
    with contextlib.suppress(MetadataRefused):
        read(data, size_bytes_max=200)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"version":1,"version":2}', ""),
        ('{"a":{"b":[1.5]}}', "a.b[0]"),
        ('{"version":1.0}', "version"),
        ('{"version":1e2}', "version"),
        ('{"length":9007199254740993}', "length"),
        ('{"length": \n-9007199254740993}', "length"),
        ('{"a":[1,\t2.5]}', "a[1]"),
        ('{"a":[-0.0]}', "a[0]"),
        ('{"length":NaN}', ""),
        ('{"name":"a\\u007f"}', "name"),
        ('{"name":"ä\\u007f"}', "name"),
        ('{"a\\u007fb":1}', ""),
        ("[]", ""),
        ("", ""),
        ('{"a":1} ', None),
        ('{"a":1}x', ""),
        ('{"a":' * 40 + "1" + "}" * 40, ""),
        ('{"a":"\\ud800"}', ""),
    ],
)
def test_what_two_readers_could_understand_in_two_ways_is_refused(text: str, field: str | None) -> None:
    if field is None:
        read(text.encode(), size_bytes_max=1000)  # white space round it is no ambiguity
        return
    with pytest.raises(MetadataRefused) as caught:
        read(text.encode(), size_bytes_max=1000)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_METADATA, field)


def test_nesting_up_to_the_bound_is_read() -> None:
    text = '{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX
    read(text.encode(), size_bytes_max=1000)


def test_more_bytes_than_are_allowed_are_never_parsed() -> None:
    with pytest.raises(MetadataRefused) as caught:
        read(b"not even JSON", size_bytes_max=5)
    assert caught.value.reason is Reason.OVERSIZED


@pytest.mark.parametrize("form", CanonicalForm)
@pytest.mark.parametrize("value", [{"a": 1.5}, {"a": b"bytes"}, "\ud800"])
def test_what_has_no_canonical_form_is_refused_by_both(form: CanonicalForm, value: object) -> None:
    with pytest.raises(MetadataRefused) as caught:
        canonical(value, form)
    assert caught.value.reason is Reason.INVALID_METADATA
