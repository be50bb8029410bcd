"""What devices say of their decryption keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from overair.wire.decryption_messages import (
    DECLARATION_SIZE_BYTES_MAX,
    KEYS_MAX,
    Declaration,
    declare_topic,
    parse_declaration,
)
from overair.wire.job_messages import MalformedMessage
from overair.wire.key_wrapping import key_id_of

KEYS = [ec.derive_private_key(number + 1, ec.SECP256R1()).public_key() for number in range(KEYS_MAX + 1)]


@given(
    count=st.integers(0, KEYS_MAX),
    formats=st.lists(st.integers(1, 255), min_size=1, max_size=8),
    token=st.none() | st.just("t"),
)
def test_what_is_declared_is_understood(count: int, formats: list[int], token: str | None) -> None:
    said = Declaration(keys=tuple(KEYS[:count]), formats=tuple(formats), client_token=token)
    heard = parse_declaration(said.to_json())
    assert list(map(key_id_of, heard.keys)) == list(map(key_id_of, said.keys))
    assert (heard.formats, heard.client_token) == (said.formats, said.client_token)
    assert declare_topic("dev-1") == "$aws/things/dev-1/jobs/$decryption/declare"


def test_anything_else_is_refused() -> None:
    good = json.loads(Declaration(keys=(KEYS[0],)).to_json())
    changes: list[dict[str, Any]] = [
        {"keys": None},
        {"keys": ["AAAA"]},
        {"keys": ["not Base64!"]},
        {"keys": [5]},
        {"keys": good["keys"] * (KEYS_MAX + 1)},
        {"formats": []},
        {"formats": [0]},
        {"formats": [True]},
        {"formats": ["1"]},
        {"formats": None},
        {"clientToken": "x" * 65},
        {"clientToken": 1},
    ]
    for change in changes:
        with pytest.raises(MalformedMessage):
            parse_declaration(json.dumps(good | change).encode())
    for payload in (b"", b"[]", b"{", b'{"keys":[]' + b" " * DECLARATION_SIZE_BYTES_MAX + b"}"):
        with pytest.raises(MalformedMessage):
            parse_declaration(payload)
    with pytest.raises(MalformedMessage) as caught:
        parse_declaration(json.dumps({**good, "keys": 1, "clientToken": "mine"}).encode())
    assert caught.value.client_token == "mine"
