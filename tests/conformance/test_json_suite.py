"""JSONTestSuite: every y_ is accepted, every n_ refused, every i_ handled without a crash."""

from __future__ import annotations

import contextlib

import pytest

from overair.wire.strict_json import MalformedJson, decode
from tests.support.vectors import vectors

FOLDER = vectors("jsontestsuite")
DELIBERATE = {
    "y_object_duplicated_key.json": "a key said twice is ambiguous, and readers that differ in which one wins are an attack"
}


def cases(kind: str) -> list[str]:
    found = sorted(path.name for path in FOLDER.glob(f"{kind}_*.json"))
    assert found
    return found


@pytest.mark.parametrize("name", [name for name in cases("y") if name not in DELIBERATE])
def test_what_the_suite_accepts_is_accepted(name: str) -> None:
    decode((FOLDER / name).read_bytes(), size_bytes_max=1_000_000, depth_max=1000)


@pytest.mark.parametrize("name", [*cases("n"), *DELIBERATE])
def test_what_the_suite_refuses_is_refused(name: str) -> None:
    with pytest.raises(MalformedJson):
        decode((FOLDER / name).read_bytes(), size_bytes_max=1_000_000, depth_max=1000)


@pytest.mark.parametrize("name", cases("i"))
def test_what_the_suite_leaves_open_is_a_value_or_our_own_error(name: str) -> None:
    with contextlib.suppress(MalformedJson):
        decode((FOLDER / name).read_bytes(), size_bytes_max=1_000_000, depth_max=1000)
