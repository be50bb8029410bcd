"""RFC 8949: the well-formed examples are read as they should be, the ill-formed ones are refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from overair.wire.strict_cbor import MalformedCbor, decode
from tests.support.vectors import vectors

FOLDER = vectors("cbor")
WELL_FORMED: list[dict[str, Any]] = json.loads((FOLDER / "well-formed.json").read_text())
ILL_FORMED: list[dict[str, Any]] = json.loads((FOLDER / "ill-formed.json").read_text())
DELIBERATE = {
    "c349010000000000000000": "tag 2/3, a big integer",
    "c11a514b67b0": "tag 1, a time",
    "c1fb41d452d9ec200000": "tag 1, a time",
    "d818456449455446": "tag 24, embedded CBOR",
    "d82076687474703a2f2f7777772e6578616d706c652e636f6d": "tag 32, a URI",
}
"""No wire of ours has a tag, and the agents refuse tagged members: a tag is refused."""


@pytest.mark.parametrize("case", [case for case in WELL_FORMED if case["hex"] not in DELIBERATE], ids=lambda case: case["hex"])
def test_a_well_formed_item_is_read(case: dict[str, Any]) -> None:
    value = decode(bytes.fromhex(case["hex"]), size_bytes_max=1000)
    if "value" in case:
        assert value == case["value"]
        assert type(value) is type(case["value"])
    elif "Infinity" in case["diagnostic"]:
        assert value == (-math.inf if case["diagnostic"].startswith("-") else math.inf)
    elif case["diagnostic"].startswith("h'"):
        assert value == bytes.fromhex(case["diagnostic"][2:-1])
    elif case["diagnostic"].startswith("{"):
        assert value == {1: 2, 3: 4}
    else:
        assert case["diagnostic"] in ("undefined", "simple(255)")


@pytest.mark.parametrize("case", ILL_FORMED, ids=lambda case: case["hex"])
def test_an_ill_formed_item_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(MalformedCbor):
        decode(bytes.fromhex(case["hex"]), size_bytes_max=1000)


@pytest.mark.parametrize("item", DELIBERATE)
def test_a_tagged_item_is_refused_on_purpose(item: str) -> None:
    assert item in {case["hex"] for case in WELL_FORMED}
    with pytest.raises(MalformedCbor):
        decode(bytes.fromhex(item), size_bytes_max=1000)
