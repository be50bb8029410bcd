"""Others' vectors for topic names, filters and matching, in standard mode; and the exact list of what AWS mode changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overair.wire.topics import SubscriptionTrie, is_valid_filter, is_valid_topic, matches
from tests.support.vectors import vectors

FOLDER = vectors("mqtt-topics")
MATCH: list[dict[str, Any]] = json.loads((FOLDER / "match.json").read_text())
VALIDITY: list[dict[str, Any]] = json.loads((FOLDER / "validity.json").read_text())

DIFFERENT_IN_AWS_MODE = {
    ("sport/tennis/player1/#", "sport/tennis/player1"),
    ("$aws/things/d1/jobs/#", "$aws/things/d1/jobs"),
    ("a/+/#", "a/b"),
}
"""Told in docs/divergences.md: ``#`` does not match its parent level."""


@pytest.mark.parametrize("case", MATCH, ids=lambda case: f"{case['filter']} {case['topic']}")
def test_a_filter_matches_what_the_standard_says(case: dict[str, Any]) -> None:
    assert matches(case["filter"], case["topic"]) is case["match"]
    trie: SubscriptionTrie[str, int] = SubscriptionTrie()
    trie.add(case["filter"], "subscriber", 1)
    assert list(trie.match(case["topic"])) == ([("subscriber", 1)] if case["match"] else [])


def test_aws_mode_differs_in_the_named_cases_alone() -> None:
    different = set()
    for case in MATCH:
        trie: SubscriptionTrie[str, int] = SubscriptionTrie(parent_level=False)
        trie.add(case["filter"], "subscriber", 1)
        found = matches(case["filter"], case["topic"], parent_level=False)
        assert bool(list(trie.match(case["topic"]))) is found
        if found is not case["match"]:
            different.add((case["filter"], case["topic"]))
    assert different == DIFFERENT_IN_AWS_MODE


@pytest.mark.parametrize("case", VALIDITY, ids=lambda case: repr(case["text"])[:20] + case["kind"])
def test_a_name_is_valid_as_the_standard_says(case: dict[str, Any]) -> None:
    text = case["text"] if case["repeat"] is None else case["repeat"]["char"] * case["repeat"]["count"]
    check = is_valid_filter if case["kind"] == "filter" else is_valid_topic
    assert check(text) is case["valid"]
