"""The query language: what it reads, what it refuses, and that it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest
from overair.server.fleet_index.fields import Index, resolve
from overair.server.fleet_index.matching import is_like, matches
from overair.server.fleet_index.query import (
    DEPTH_MAX,
    QUERY_LENGTH_MAX,
    TERMS_MAX,
    AllOf,
    AnyOf,
    Between,
    Bound,
    Equals,
    Exists,
    Like,
    Not,
    Term,
    Value,
    Wild,
    number_of,
    parse,
    value_of,
)

DOCUMENT = {
    "thingName": ["Pump-7"],
    "thingTypeName": ["pump"],
    "thingGroupNames": ["north", "plant:2"],
    "attributes.size": ["75"],
    "attributes.serial": ["abce"],
    "attributes.model": ["Alpha_1"],
    "attributes.version": ["1.10"],
    "connectivity.connected": ["false"],
    "connectivity.timestamp": ["1557651600123"],
    "jobs.ota-42": ["FAILED"],
}
VALUES = {field: [value_of(text) for text in texts] for field, texts in DOCUMENT.items()}


def term(field: str | None, text: str) -> Term:
    return Term(field, Equals(value_of(text)))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("*", Term(None, Exists())),
        ("abc", term(None, "abc")),
        ("thingName:My*", Term("thingName", Like(("my", Wild.ANY)))),
        ("thingName:ab?", Term("thingName", Like(("ab", Wild.ONE)))),
        ("thingName:a:b", term("thingName", "a:b")),
        ("attributes.x:*", Term("attributes.x", Exists())),
        ("a:1 b:2", AllOf((term("a", "1"), term("b", "2")))),
        ("a:1 AND b:2 OR c:3", AnyOf((AllOf((term("a", "1"), term("b", "2"))), term("c", "3")))),
        ("a:1 AND (b:2 OR c:3)", AllOf((term("a", "1"), AnyOf((term("b", "2"), term("c", "3")))))),
        ("NOT a:1 b:2", AllOf((Not(term("a", "1")), term("b", "2")))),
        ("thingName:(tv* AND -plasma)", AllOf((Term("thingName", Like(("tv", Wild.ANY))), Not(term("thingName", "plasma"))))),
        (
            "a.x : [75 TO 80}",
            Term("a.x", Between(Bound(value_of("75"), True), Bound(value_of("80"), False))),
        ),
        ("a:{* TO 5]", Term("a", Between(None, Bound(value_of("5"), True)))),
        ("a:[* TO *]", Term("a", Exists())),
        ("a>10", Term("a", Between(Bound(value_of("10"), False), None))),
        ("a <= 10", Term("a", Between(None, Bound(value_of("10"), True)))),
        ('a:["b c" TO "d"]', Term("a", Between(Bound(Value("b c", None), True), Bound(Value("d", None), True)))),
        ('"AND"', Term(None, Equals(Value("and", None)))),
        (r"a\:b:c\*d", term("a:b", "c*d")),
        ("android", term(None, "android")),
        ("a:-5", term("a", "-5")),
    ],
)
def test_a_query_is_read_as_the_guide_says(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("*", True),
        ("pump", True),
        ("PUMP-7", True),
        ("alpha?1", True),
        ("false", False),
        ("failed", False),
        ("thingName:pump*", True),
        ("thingName:*7", True),
        ("thingName:*mp*", True),
        ("thingName:pump", False),
        ("attributes.size:75.0", True),
        ('attributes.size:"75.0"', False),
        ("attributes.size:[70 TO 75]", True),
        ("attributes.size:{70 TO 75}", False),
        ("attributes.size>9", True),
        ('attributes.size>"9"', False),
        ("attributes.size>a", False),
        ('attributes.serial:["abcd" TO "abcf"]', True),
        ("attributes.serial>5", False),
        ("attributes.none:*", False),
        ("NOT attributes.none:*", True),
        ("attributes.version<1.2", True),
        ("connectivity.connected:false", True),
        ("connectivity.timestamp:[1557651600000 TO 1557867600000]", True),
        ("thingGroupNames:(north AND plant*)", True),
        ("thingGroupNames:plant:2", True),
        ("registry.thingTypeName:pump", True),
        ("jobs.ota-42:failed AND -attributes.model:beta", True),
        ("attributes.size:75 NOT attributes.size>80", True),
        ("(north OR south) (east OR 75)", True),
    ],
)
def test_a_document_meets_a_query_or_not(query: str, holds: bool) -> None:
    assert matches(resolve(parse(query), Index.THINGS), VALUES) is holds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a:",
        "a: AND b:1",
        "a:1 AND",
        "OR a:1",
        "a:1 OR",
        "NOT",
        "()",
        "(a:1",
        "a:1)",
        '"open',
        "a:[1 TO 2",
        "a:[1 2]",
        "a:[1* TO 2]",
        "[1 TO 2]",
        ">5",
        "a>*",
        "a*:1",
        "a:(b:1 >",
        "a:(b>1)",
        "+a",
        "- a",
        "a~2",
        "a^2",
        "/a.*/",
        "a && b",
        "a:b,c",
        "back\\",
        "a\0b",
        "a:" + "*b" * 9,
        "x" * (QUERY_LENGTH_MAX + 1),
        " ".join(["a"] * (TERMS_MAX + 1)),
        "(" * (DEPTH_MAX + 1) + "a" + ")" * (DEPTH_MAX + 1),
        "NOT " * (DEPTH_MAX + 1) + "a",
    ],
)
def test_what_is_no_query_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid query") as refused:
        parse(text)
    assert refused.value.subject == "query"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("shadow.reported.x:1", "no device shadows"),
        ("shadow.name.a.hasDelta:true", "no device shadows"),
        ("deviceDefender.violationCount:1", "no Device Defender"),
        ("registry.version>1", "aren't searchable"),
        ("thingType:pump", "has no field thingType"),
        ("attributes.:1", "has no field"),
        ("connectivity.node:x", "has no field"),
        ("thingGroupName:x", "has no field"),
    ],
)
def test_a_field_that_is_not_here_is_refused_by_name(query: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        resolve(parse(query), Index.THINGS)


def test_a_number_that_a_double_does_not_hold_is_text() -> None:
    assert number_of("12345678901234567") is None
    assert number_of("123456789012345") == 123456789012345.0
    assert number_of("-0.50") == -0.5
    assert [number_of(text) for text in ("1e5", "nan", "inf", "", "1.", ".5", "٣")] == [None] * 7


@given(st.text(alphabet='ab:.*?()[]{}<>="\\- \tANDORTO7', max_size=60))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        tree = parse(text)
        resolved = resolve(tree, Index.THINGS)
    except InvalidRequest:
        return
    assert matches(resolved, VALUES) in (True, False)


@given(st.lists(st.sampled_from(["a", "b", Wild.ANY, Wild.ONE]), min_size=1, max_size=8), st.text("ab", max_size=8))
def test_a_pattern_means_what_its_expression_means(parts: list[str | Wild], text: str) -> None:
    import re

    expression = "".join({Wild.ANY: ".*", Wild.ONE: "."}.get(part, part) if isinstance(part, Wild) else part for part in parts)
    assert is_like(tuple(parts), text) is (re.fullmatch(expression, text) is not None)


def test_a_hostile_pattern_takes_bounded_time() -> None:
    parts = (Wild.ANY, "a", Wild.ANY, "a", Wild.ANY, "a", Wild.ANY, "a", Wild.ANY, "a", Wild.ANY, "b")
    assert not is_like(parts, "a" * 800)
