"""Comparing, telling and merging documents item by item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.cli.sign.items import changes, delegation_order, items_of, merge, merged_order, same, with_items
from overair.wire.uptane.metadata import Delegation, Role, RoleKeys, Root, TargetFile, Targets
from tests.support.uptane_repository import KeyHolder

KEYS = [KeyHolder().public_key for _ in range(6)]
END = Instant(1_900_000_000_000)


def _name(key_id: str) -> str:
    return key_id[:8]


@st.composite
def roots(draw: st.DrawFn) -> Root:
    roles: dict[str, RoleKeys] = {}
    for role in Role:
        chosen = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True))
        threshold = draw(st.integers(1, len(chosen)))
        roles[role.value] = RoleKeys(key_ids=tuple(key.id for key in chosen), threshold=threshold)
    named = {key_id for keys in roles.values() for key_id in keys.key_ids}
    return Root(version=1, expires=END, keys={key.id: key for key in KEYS if key.id in named}, roles=roles)


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    names = draw(st.lists(st.sampled_from(["a", "b", "c/d", "e"]), unique=True))
    files = {
        name: TargetFile(
            name=name,
            length=draw(st.integers(1, 3)),
            hashes={"sha256": draw(st.sampled_from(["aa" * 32, "bb" * 32]))},
            custom={"hardwareIds": ["h"], "name": name},
        )
        for name in sorted(names)
    }
    delegated = draw(st.lists(st.sampled_from(["x", "y", "z"]), unique=True))
    delegations = tuple(
        Delegation(
            name=name,
            keys=RoleKeys(key_ids=(draw(st.sampled_from(KEYS)).id,), threshold=1),
            paths=(f"{name}/*",),
            terminating=draw(st.booleans()),
        )
        for name in delegated
    )
    named = {each.keys.key_ids[0] for each in delegations}
    return Targets(
        version=1,
        expires=END,
        targets=files,
        delegation_keys={key.id: key for key in KEYS if key.id in named},
        delegations=delegations,
        has_delegations=bool(delegations),
    )


bodies = st.one_of(st.tuples(*[roots()] * 3), st.tuples(*[targets()] * 3))


@given(bodies)
def test_a_document_is_made_of_its_items_again(three: Any) -> None:
    body, other, _ = three
    assert with_items(replace(other, version=body.version), items_of(body), order=delegation_order(body)) == body


@given(bodies)
def test_where_only_one_changed_something_that_is_taken(three: Any) -> None:
    base, changed, _ = three
    for mine, theirs in ((changed, base), (base, changed)):
        merged = merge(base, mine, theirs)
        assert merged.conflicts == ()
        order = merged_order(base, mine, theirs)
        assert same(with_items(base, merged.items, order=order), changed)


@given(bodies)
def test_each_item_of_a_merge_was_wanted_by_somebody(three: Any) -> None:
    base, mine, theirs = three
    merged = merge(base, mine, theirs)
    old, my, their = items_of(base), items_of(mine), items_of(theirs)
    for item in set(old) | set(my) | set(their):
        found = merged.items.get(item)
        assert found in (my.get(item), their.get(item))
        if item in merged.conflicts:
            assert my.get(item) != their.get(item)
            assert my.get(item) != old.get(item)
            assert their.get(item) != old.get(item)
        elif my.get(item) != old.get(item):
            assert found == my.get(item)
        else:
            assert found == their.get(item)


@given(bodies)
def test_what_is_told_as_changed_is_what_differs(three: Any) -> None:
    before, after, _ = three
    told = changes(before, after, named=_name)
    assert (told == []) == same(before, after)
    assert all(change.text and (change.before != change.after) for change in told)


def test_other_bytes_under_the_same_name_are_shouted() -> None:
    one = TargetFile(name="a", length=1, hashes={"sha256": "aa" * 32})
    before = Targets(version=1, expires=END, targets={"a": one})
    after = replace(before, targets={"a": replace(one, hashes={"sha256": "bb" * 32})})
    assert "OTHER BYTES" in changes(before, after, named=_name)[0].text
