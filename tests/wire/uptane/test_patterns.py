from __future__ import annotations

import ctypes
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation, RoleKeys
from overair.wire.uptane.patterns import delegates, matches_anywhere

LIBC = ctypes.CDLL(None)

MEMBERS = st.sampled_from(["a", "b", "/", "a-c", "-", "!", "^", ".", "\\]", "\\a", "*", "?"])
BRACKETS = st.builds(
    lambda sign, first, members: f"[{sign}{first}{''.join(members)}]",
    st.sampled_from(["", "!", "^"]),
    st.sampled_from(["", "]", "a", "-"]),
    st.lists(MEMBERS, min_size=1, max_size=3),
).filter(lambda text: "--" not in text and not any(f"-{bad}" in text[:-1] for bad in "!^./*?\\") and "c-" not in text)
PATTERNS = st.lists(st.sampled_from(["a", "b", "/", "*", "?", "\\*", "\\a", ".", "-"]) | BRACKETS, max_size=6).map("".join)


def delegation(*paths: str, prefixes: tuple[str, ...] = ()) -> Delegation:
    return Delegation(name="d", keys=RoleKeys(key_ids=(), threshold=1), paths=paths, path_hash_prefixes=prefixes)


@given(pattern=PATTERNS, name=st.text("abc/]-\\!^.*", max_size=8))
@example(pattern="[]a]", name="]")
@example(pattern="[!]a]", name="b")
@example(pattern="[a-]", name="-")
@example(pattern="[\\]]", name="]")
@example(pattern="a\\", name="a")
def test_the_uptane_flavour_matches_as_the_c_library_does(pattern: str, name: str) -> None:
    expected = LIBC.fnmatch(pattern.encode(), name.encode(), 0) == 0
    assert matches_anywhere(pattern, name) is expected


def test_a_star_matches_slashes_in_the_uptane_flavour_and_stays_in_its_segment_in_tufs() -> None:
    vendor = delegation("vendor-b/*")
    assert delegates(vendor, "vendor-b/gateway/2.bin", Flavour.UPTANE)
    assert not delegates(vendor, "vendor-b/gateway/2.bin", Flavour.TUF)
    assert delegates(vendor, "vendor-b/2.bin", Flavour.TUF)
    assert not delegates(vendor, "vendor-c/2.bin", Flavour.UPTANE)


@pytest.mark.parametrize(
    ("pattern", "name"), [("[[:digit:]]", "1"), ("[[.a.]]", "a"), ("[a-", "[a-"), ("[b-a]", "a"), ("[a\\", "[a"), ("[", "[")]
)
def test_what_c_libraries_understand_in_different_ways_matches_nothing(pattern: str, name: str) -> None:
    assert not matches_anywhere(pattern, name)


def test_many_stars_take_no_more_than_pattern_times_name() -> None:
    assert not matches_anywhere("*a" * 100 + "b", "a" * 253)


def test_a_tuf_delegation_may_go_by_the_hash_of_the_name() -> None:
    digest = hashlib.sha256(b"app.bin").hexdigest()
    assert delegates(delegation(prefixes=(digest[:3].upper(),)), "app.bin", Flavour.TUF)
    assert not delegates(delegation(prefixes=("zz",)), "app.bin", Flavour.TUF)
    assert not delegates(delegation(prefixes=(digest[:2],)), "app.bin", Flavour.UPTANE)


@pytest.mark.parametrize("flavour", Flavour)
def test_no_pattern_means_no_target(flavour: Flavour) -> None:
    assert not delegates(delegation(), "app.bin", flavour)
