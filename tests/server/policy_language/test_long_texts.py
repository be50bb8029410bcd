"""Patterns against texts that are too long for an expression."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate
from overair.server.policy_language.iot import CONNECT, PUBLISH, PolicySet
from overair.server.policy_language.long_texts import LONG_LENGTH, TEXT_LENGTH_MAX, LongText
from overair.server.policy_language.patterns import Pattern, Variable, parse_pattern
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
    assert everything.allows(CONNECT, "x" * TEXT_LENGTH_MAX)
    assert not everything.allows(CONNECT, "x" * (TEXT_LENGTH_MAX + 1))
    general = [
        CompiledPolicy.parse('{"Statement":{"Effect":"Allow","Action":"*","NotResource":"arn:aws:s3:::y"}}', Kind.MANAGED)
    ]
    for length, said in ((TEXT_LENGTH_MAX, Decision.ALLOW), (TEXT_LENGTH_MAX + 1, Decision.IMPLICIT_DENY)):
        assert evaluate(general, Question(action="s3:GetObject", resource="x" * length, context={})) is said


def test_of_a_value_that_somebody_made_up_its_beginning_counts() -> None:
    condition = {"StringLike": {"aws:UserAgent": "bot*"}}
    statement = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}
    denying = [CompiledPolicy.parse(json.dumps({"Statement": statement}), Kind.MANAGED)]
    context = context_of({"aws:UserAgent": "bot" + "x" * (64 * 1024)})
    assert context == {"aws:useragent": ("bot" + "x" * (TEXT_LENGTH_MAX - 3),)}
    assert evaluate(denying, Question(action="s3:GetObject", resource="x", context=context)) is Decision.EXPLICIT_DENY


WORST_STEPS = 800_000
"""Characters, and eighths of them, that are looked at: some 0.3 ms. The longest text that is asked about has 2,048; as many
characters of a pattern can be looked for in it at most, and each takes an eighth of its length."""
LONGEST = max(kind.length_max for kind in Kind)


@cache
def hostile_patterns() -> tuple[Pattern, ...]:
    """As long as a text, and as long as a document of any kind has room for; each bad for a matcher of some sort."""
    units = ["a?", "a?b?", "a" * 30 + "?", "*a?", "*ab*a?", "a?" * 500 + "*"]
    long = [("*" + unit * LONGEST)[: LONGEST - 10] + "b*" for unit in units]
    texts = ["*" + unit * (2000 // len(unit)) + end for unit in units for end in ("", "b*", "*c")]
    return tuple(parse_pattern(text) for text in (*long, *texts))


@pytest.mark.parametrize("text", ["a", "ab", "a" * 500 + "b", "abc", "".join(map(chr, range(97, 123)))], ids=len)
def test_no_pattern_that_can_be_stored_takes_long_over_any_text_that_is_asked_about(text: str) -> None:
    longest = (text * TEXT_LENGTH_MAX)[:TEXT_LENGTH_MAX]
    for pattern in hostile_patterns():
        held = LongText(longest)
        held.matches(pattern, {})
        assert held.steps <= WORST_STEPS, (pattern[:20], len(pattern), held.steps)
