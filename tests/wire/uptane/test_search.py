from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation, RoleKeys
from overair.wire.uptane.refusals import Reason
from overair.wire.uptane.search import DEPTH_MAX, VISITED_MAX, DelegationNeeded, FoundTarget, search
from overair.wire.uptane.trust import Refused, TrustedSet
from tests.support.uptane_repository import DAY, KeyHolder, UptaneRepository, target_file
from tests.support.uptane_trust import NOW, believing, reason_of

FLAVOURS = pytest.mark.parametrize("flavour", Flavour)


def build(
    *delegations: tuple[str, str], terminating: Sequence[str] = (), flavour: Flavour = Flavour.UPTANE
) -> UptaneRepository:
    """A repository whose delegations are (who, to whom), all for every name; written as in the stories of TUF's own tests."""
    repository = UptaneRepository(flavour=flavour)
    for above, name in delegations:
        repository.delegate(name, ["*"], terminating=name in terminating, below=None if above == "targets" else above)
    return repository


def put(repository: UptaneRepository, role: str, content: bytes) -> None:
    """The role names the target ``app``."""
    target = target_file("app", content)
    repository.delegated[role] = replace(repository.delegated[role], targets={"app": target})
    repository.publish()


def run(
    repository: UptaneRepository, trusted: TrustedSet | None = None, name: str = "app"
) -> tuple[list[str], FoundTarget | Refused]:
    """Who was asked, and what came of it."""
    walk = search(name, trusted or believing(repository), now=NOW)
    asked: list[str] = []
    needed: DelegationNeeded | None = None
    try:
        while True:
            needed = next(walk) if needed is None else walk.send(repository.files.get(f"{needed.name}.json"))
            asked.append(needed.name)
    except StopIteration as end:
        return asked, end.value


@FLAVOURS
@pytest.mark.parametrize(
    ("delegations", "terminating", "asked"),
    [
        ([("targets", "A")], "", "A"),
        ([("targets", "A"), ("targets", "B")], "", "AB"),
        ([("targets", "A"), ("targets", "B"), ("B", "C")], "", "ABC"),
        ([("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "", "ACDB"),
        ([("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "", "ACDB"),
        ([("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")], "C", "AC"),
        ([("targets", "A"), ("targets", "B"), ("A", "C"), ("C", "D")], "C", "ACD"),
        ([("targets", "A"), ("targets", "B")], "A", "A"),
    ],
)
def test_roles_are_asked_in_order_and_a_terminating_one_is_the_last(
    delegations: list[tuple[str, str]], terminating: str, asked: str, flavour: Flavour
) -> None:
    visited, result = run(build(*delegations, terminating=terminating, flavour=flavour))
    assert "".join(visited) == asked
    assert reason_of(result) is Reason.TARGET_MISMATCH


def test_the_first_role_that_names_the_target_is_the_one_that_counts() -> None:
    repository = build(("targets", "A"), ("targets", "B"))
    put(repository, "A", b"first")
    put(repository, "B", b"second")
    asked, result = run(repository)
    assert isinstance(result, FoundTarget)
    assert (asked, result.role, result.target.length) == (["A"], "A", 5)
    repository.add_target(target_file("app", b"above them both"))
    asked, result = run(repository)
    assert isinstance(result, FoundTarget)
    assert (asked, result.role) == ([], "targets")


def test_a_terminating_role_that_does_not_name_the_target_keeps_lower_ones_from_answering() -> None:
    repository = build(("targets", "A"), ("targets", "B"), terminating="A")
    put(repository, "B", b"second")
    asked, result = run(repository)
    assert (asked, reason_of(result)) == (["A"], Reason.TARGET_MISMATCH)


def test_a_role_is_only_asked_for_names_that_it_was_given() -> None:
    repository = UptaneRepository()
    repository.delegate("vendor", ["vendor/*"], target_file("app", b"not theirs"), target_file("vendor/app", b"theirs"))
    assert run(repository)[0] == []
    asked, result = run(repository, name="vendor/app")
    assert isinstance(result, FoundTarget)
    assert (asked, result.role) == (["vendor"], "vendor")


def test_a_name_below_is_searched_only_where_every_role_above_was_given_it() -> None:
    repository = UptaneRepository()
    repository.delegate("A", ["a/*"])
    repository.delegate("B", ["*"], target_file("app", b"too far"), below="A")
    assert run(repository) == ([], run(repository)[1])
    assert reason_of(run(repository)[1]) is Reason.TARGET_MISMATCH


def link(repository: UptaneRepository, above: str, name: str) -> None:
    """One delegation more to a role that is there, with the key that it has."""
    holder = repository.delegation_keys[name]
    keys = RoleKeys(key_ids=(holder.public_key.id,), threshold=1)
    parent = repository.delegated[above]
    repository.delegated[above] = replace(
        parent,
        delegations=(*parent.delegations, Delegation(name=name, keys=keys, paths=("*",))),
        delegation_keys={**parent.delegation_keys, holder.public_key.id: holder.public_key},
        has_delegations=True,
    )
    repository.publish()


@FLAVOURS
def test_a_circle_of_delegations_is_walked_once(flavour: Flavour) -> None:
    repository = build(("targets", "A"), ("targets", "B"), ("B", "C"), ("C", "D"), flavour=flavour)
    link(repository, "D", "B")
    link(repository, "A", "A")
    asked, result = run(repository)
    assert ("".join(asked), reason_of(result)) == ("ABCD", Reason.TARGET_MISMATCH)


def test_what_lies_deeper_than_five_levels_is_not_asked() -> None:
    names = [f"level{number}" for number in range(1, DEPTH_MAX + 2)]
    repository = build(*zip(["targets", *names], names, strict=False))
    put(repository, names[-1], b"too deep")
    asked, result = run(repository)
    assert (asked, reason_of(result)) == (names[:DEPTH_MAX], Reason.TARGET_MISMATCH)
    put(repository, names[DEPTH_MAX - 1], b"deep enough")
    assert isinstance(run(repository)[1], FoundTarget)


def test_a_search_that_is_sent_from_role_to_role_without_end_is_given_up() -> None:
    repository = UptaneRepository()
    names = [f"r{number}" for number in range(VISITED_MAX + 10)]
    holder = KeyHolder()
    keys = RoleKeys(key_ids=(holder.public_key.id,), threshold=1)
    for name in names:
        repository.delegation_keys[name] = holder
        repository.delegated[name] = replace(repository.targets, version=0, targets={})
    repository.targets = replace(
        repository.targets,
        delegations=tuple(Delegation(name=name, keys=keys, paths=("*",)) for name in names),
        delegation_keys={holder.public_key.id: holder.public_key},
    )
    repository.publish()
    asked, result = run(repository)
    assert (len(asked), reason_of(result)) == (VISITED_MAX - 1, Reason.INVALID_METADATA)


def test_a_role_with_two_delegators_is_believed_by_each_ones_own_keys() -> None:
    repository = UptaneRepository()
    repository.delegate("A", ["a/*"])
    repository.delegate("B", ["b/*"])
    repository.delegate("release", ["*"], target_file("a/app", b"a"), target_file("b/app", b"b"), below="A")
    other = KeyHolder()
    parent = repository.delegated["B"]
    repository.delegated["B"] = replace(
        parent,
        delegations=(Delegation(name="release", keys=RoleKeys(key_ids=(other.public_key.id,), threshold=1), paths=("*",)),),
        delegation_keys={other.public_key.id: other.public_key},
    )
    repository.publish()
    trusted = believing(repository)
    assert isinstance(run(repository, trusted, "a/app")[1], FoundTarget)
    asked, result = run(repository, trusted, "b/app")
    assert (asked, reason_of(result)) == (["B", "release"], Reason.BAD_KEY_ID)


@FLAVOURS
def test_what_a_search_was_sent_once_it_does_not_ask_for_again(flavour: Flavour) -> None:
    repository = build(("targets", "A"), ("A", "B"), flavour=flavour)
    put(repository, "B", b"app")
    trusted = believing(repository)
    assert run(repository, trusted)[0] == ["A", "B"]
    assert run(repository, trusted)[0] == []
    repository.publish()
    assert isinstance(run(repository)[1], FoundTarget)


def test_a_document_that_can_not_be_had_or_is_not_believed_ends_the_search() -> None:
    repository = build(("targets", "A"), ("targets", "B"))
    put(repository, "B", b"app")
    trusted = believing(repository)
    whole = dict(repository.files)
    del repository.files["A.json"]
    assert reason_of(run(repository, trusted)[1]) is Reason.DELEGATION_MISSING
    repository.files["A.json"] = whole["B.json"]
    assert reason_of(run(repository, trusted)[1]) is Reason.DELEGATION_HASH_MISMATCH
    repository.files["A.json"] = b"{}"
    assert reason_of(run(repository, trusted)[1]) is Reason.INVALID_METADATA
    repository.files["A.json"] = whole["A.json"]
    assert isinstance(run(repository, trusted)[1], FoundTarget)


def test_an_expired_role_is_not_passed_over_in_favour_of_a_lower_one() -> None:
    repository = build(("targets", "A"), ("targets", "B"))
    put(repository, "B", b"app")
    stale = replace(repository.delegated["A"], version=9, expires=Instant(NOW - DAY))
    repository.delegated["A"] = stale
    repository.files["A.json"] = repository.signed(stale, [repository.delegation_keys["A"]])
    meta = {name: replace(meta, hashes={}, length=None) for name, meta in repository.snapshot.meta.items()}
    repository.publish_snapshot(meta={**meta, "A.json": replace(meta["A.json"], version=9)})
    assert reason_of(run(repository)[1]) is Reason.EXPIRED_METADATA


def test_nothing_is_searched_in_a_set_that_may_not_be_used() -> None:
    repository = build(("targets", "A"))
    trusted = believing(repository)
    with pytest.raises(StopIteration) as ended:
        next(search("app", trusted, now=Instant(NOW + 31 * DAY)))
    assert reason_of(ended.value.value) is Reason.EXPIRED_METADATA


def test_in_the_tuf_flavour_roles_of_hashed_bins_are_found() -> None:
    repository = UptaneRepository(flavour=Flavour.TUF)
    digest = "a172cedcae47474b615c54d510a5d84a8dea3032e958587430b413538be3f333"  # of "app"
    for name, prefix in (("bin-0", "0"), ("bin-a", digest[:2])):
        repository.delegate(name, [])
        entry = replace(repository.targets.delegations[-1], path_hash_prefixes=(prefix,))
        repository.targets = replace(repository.targets, delegations=(*repository.targets.delegations[:-1], entry))
    put(repository, "bin-a", b"app")
    asked, result = run(repository)
    assert isinstance(result, FoundTarget)
    assert asked == ["bin-a"]


ROLES = ["targets", "A", "B", "C", "D"]
DELEGATED = st.sampled_from(ROLES[1:])
EDGES = st.lists(st.tuples(st.sampled_from(ROLES), DELEGATED), max_size=8, unique=True)


@given(edges=EDGES, holders=st.sets(DELEGATED), terminating=st.sets(DELEGATED))
def test_any_graph_is_walked_as_the_rules_say_and_ends(
    edges: list[tuple[str, str]], holders: set[str], terminating: set[str]
) -> None:
    keys = {name: KeyHolder() for name in ROLES[1:]}
    repository = UptaneRepository()
    repository.delegation_keys = dict(keys)
    empty = replace(repository.targets, version=0, targets={})
    for name in ROLES:
        below = [to for above, to in edges if above == name]
        body = replace(
            empty,
            targets={"app": target_file("app", name.encode())} if name in holders else {},
            delegations=tuple(
                Delegation(
                    name=to,
                    keys=RoleKeys(key_ids=(keys[to].public_key.id,), threshold=1),
                    paths=("*",),
                    terminating=to in terminating,
                )
                for to in below
            ),
            delegation_keys={keys[to].public_key.id: keys[to].public_key for to in below},
        )
        if name == "targets":
            repository.targets = body
        else:
            repository.delegated[name] = body
    repository.publish()
    asked, result = run(repository)
    assert asked == expected_walk(edges, holders, terminating)
    assert isinstance(result, FoundTarget) is bool(asked and asked[-1] in holders)


def expected_walk(edges: list[tuple[str, str]], holders: set[str], terminating: set[str]) -> list[str]:
    """TUF's own description of the walk: a list of roles still to be asked, from which the front one is taken (5.6.7)."""
    to_visit, asked, visited = ["targets"], list[str](), {"targets"}
    while to_visit:
        role = to_visit.pop(0)
        if role != "targets":
            if role in visited:
                continue
            visited.add(role)
            asked.append(role)
            if role in holders:
                return asked
        children: list[str] = []
        for above, to in edges:
            if above == role:
                children.append(to)
                if to in terminating:
                    to_visit.clear()
                    break
        to_visit = [*children, *to_visit]
    return asked
