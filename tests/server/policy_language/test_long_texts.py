"""Patterns against texts that are too long for an expression."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate
from overair.server.policy_language.iot import CONNECT, PUBLISH, RESOURCE_LENGTH_MAX, PolicySet
from overair.server.policy_language.long_texts import LONG_LENGTH, LongText
from overair.server.policy_language.patterns import Variable, parse_pattern
from tests.support.globs import glob_matches

PIECE = st.sampled_from(["*", "*", "?", "a", "b", "aa", "ab", "/", "${v}", "${*}", "${?}"])
TEXT = st.text(alphabet="ab/*?", max_size=30)
V = Variable("v")
STEM = "arn:aws:iot:us-east-1:123456789012:"


def tokens(pieces: list[str], value: str) -> list[str]:
    found: list[str] = []
    for piece in pieces:
        if piece in ("*", "?"):
            found.append(piece)
        else:
            text = value if piece == "${v}" else piece[2] if piece.startswith("$") else piece
            found.extend("=" + character for character in text)
    return found


@settings(max_examples=1000)
@given(pieces=st.lists(PIECE, max_size=12), text=TEXT, value=st.text(alphabet="ab*", max_size=3))
def test_a_long_text_is_matched_as_a_short_one_is(pieces: list[str], text: str, value: str) -> None:
    pattern = parse_pattern("".join(pieces))
    assert LongText(text).matches(pattern, {V: value}) is glob_matches(tokens(pieces, value), text)


@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["*", "?", "a", "b", "a" * 40, "a?" * 20, "ab" * 15, "${v}"]), max_size=20),
    unit=st.sampled_from(["a", "ab", "aab", "a" * 39 + "b", "abc"]),
)
def test_a_text_of_twice_the_length_takes_no_more_than_twice_the_steps(pieces: list[str], unit: str) -> None:
    pattern = parse_pattern("".join(pieces))
    values: Mapping[Variable, str] = {V: "a" * 20 + "b"}
    width = sum(len(part) if isinstance(part, str) else 21 for part in pattern)
    for length in (512, 1024, 2048, 8192):
        text = LongText((unit * length)[:length])
        text.matches(pattern, values)
        # Once over the text for all that is found in it, once for each of the two characters that stand beside a "?" …
        bound = 4 * length + width
        # … and an eighth of it for each character of such a segment: so much does the document's own length allow.
        bound += (length // 8 + 1) * width if any(piece == "?" or "?" in piece for piece in pieces) else 0
        assert text.steps <= bound


@pytest.mark.parametrize("name", ["x" * 200, "x" * 600, "x" * 1500])
def test_gateway_and_evaluator_say_the_same_of_names_of_any_length(name: str) -> None:
    document = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "iot:*", "Resource": [f"{STEM}topic/${{iot:ClientId}}/*", f"{STEM}topic/b/*x?x"]},
                {"Effect": "Deny", "Action": PUBLISH, "Resource": f"{STEM}topic/*/${{iot:ClientId}}"},
            ],
        }
    )
    values = {"iot:ClientId": "c-1"}
    bound = PolicySet.parse([document]).bind(values)
    general = [CompiledPolicy.parse(document, Kind.MANAGED)]
    for topic, said in (
        (f"c-1/{name}", Decision.ALLOW),
        (f"b/{name}", Decision.ALLOW),
        (f"c-2/{name}", Decision.IMPLICIT_DENY),
        (f"c-1/{name}/c-1", Decision.EXPLICIT_DENY),
    ):
        resource = f"{STEM}topic/{topic}"
        assert bound.decide(PUBLISH, resource) is said
        assert bound.allows(PUBLISH, resource) is (said is Decision.ALLOW)
        assert evaluate(general, Question(action=PUBLISH, resource=resource, context=context_of(values))) is said


def test_nothing_is_allowed_on_a_name_that_nothing_can_have() -> None:
    everything = PolicySet.parse(['{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}']).bind(
        {}
    )
    assert everything.allows(CONNECT, "x" * LONG_LENGTH)
    assert everything.allows(CONNECT, "x" * RESOURCE_LENGTH_MAX)
    assert not everything.allows(CONNECT, "x" * (RESOURCE_LENGTH_MAX + 1))
