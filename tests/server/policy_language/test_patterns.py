from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.server.policy_language.conditions import matches_pattern
from overair.server.policy_language.patterns import ANY, ONE, MalformedPattern, Variable, parse_pattern
from tests.support.globs import glob_matches

PIECE = st.sampled_from(["*", "?", "a", "b", ".", "+", "/", "\\", "${v}", "${w}", "${*}", "${?}", "$", "\n", "#"])
PIECES = st.lists(PIECE, max_size=12)
TEXT = st.text(alphabet="ab.+/\\*?$\n#{", max_size=14)


def tokens(pieces: list[str], values: dict[str, str]) -> list[str] | None:
    found: list[str] = []
    for piece in pieces:
        if piece in ("*", "?"):
            found.append(piece)
        elif piece in ("${*}", "${?}"):
            found.append("=" + piece[2])
        elif piece in ("${v}", "${w}"):
            if piece[2] not in values:
                return None
            found.extend("=" + character for character in values[piece[2]])
        else:
            found.append("=" + piece)
    return found


@settings(max_examples=1500)
@given(pieces=PIECES, text=TEXT, v=st.none() | TEXT, w=st.none() | TEXT)
def test_a_compiled_pattern_matches_what_the_two_pointer_glob_matches(
    pieces: list[str], text: str, v: str | None, w: str | None
) -> None:
    values = {name: value for name, value in (("v", v), ("w", w)) if value is not None}
    # "$" before "{" would begin a variable; the alphabet of pieces can't make one by accident but for "$" + "{…".
    wanted = tokens(pieces, values)
    context = {name: (value,) for name, value in values.items()}
    assert matches_pattern(text, parse_pattern("".join(pieces)), context) is (wanted is not None and glob_matches(wanted, text))


@settings(max_examples=500)
@given(pieces=PIECES, v=TEXT, w=TEXT, runs=st.lists(TEXT, min_size=12, max_size=12))
def test_a_text_made_from_the_pattern_matches(pieces: list[str], v: str, w: str, runs: list[str]) -> None:
    fill = iter(runs)
    parts = {"?": "b", "${v}": v, "${w}": w, "${*}": "*", "${?}": "?"}
    text = "".join(next(fill) if piece == "*" else parts.get(piece, piece) for piece in pieces)
    assert matches_pattern(text, parse_pattern("".join(pieces)), {"v": (v,), "w": (w,)})


def test_a_pattern_is_cut_into_its_parts() -> None:
    assert parse_pattern("a**b?${aws:UserName}$c") == ("a", ANY, "b", ONE, Variable("aws:username"), "$c")
    assert parse_pattern("${aws:username, 'nobody'}") == (Variable("aws:username", "nobody"),)
    assert parse_pattern("${iot:Connection.Thing.Attributes[Env]}") == (Variable("iot:connection.thing.attributes[Env]"),)


@pytest.mark.parametrize("text", ["${", "a${b", "${}", "${a b}", "${a${b}}"])
def test_a_variable_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(MalformedPattern):
        parse_pattern(text)


def test_more_than_a_hundred_variables_are_told_apart() -> None:
    pattern = parse_pattern("".join(f"${{k:{number}}}-" for number in range(150)))
    context = {f"k:{number}": (str(number),) for number in range(150)}
    text = "".join(f"{number}-" for number in range(150))
    assert matches_pattern(text, pattern, context)
    assert not matches_pattern(text.replace("149", "148"), pattern, context)


def test_a_hostile_pattern_takes_no_time() -> None:
    pattern = parse_pattern("*a*a*a*a*a*a*a*a*b")
    begin = time.process_time()
    assert not matches_pattern("a" * 65_000, pattern, {})
    assert time.process_time() - begin < 1
