"""Condition operators: what each says of present, absent and many values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from overair.server.policy_language.conditions import MalformedCondition, context_of, parse_conditions


def holds(condition: dict[str, Any], **context: Any) -> bool:
    values = {name.replace("__", ":").replace("_", "-"): value for name, value in context.items()}
    return all(parsed.holds(context_of(values)) for parsed in parse_conditions(condition, variables=True))


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "expected"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", "a*", "ab", False),
        ("StringNotEquals", "a", "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringEqualsIgnoreCase", "Ä", "ä", True),
        ("StringNotEqualsIgnoreCase", "A", "a", False),
        ("StringLike", "a?c*", "abc", True),
        ("StringLike", "a?c*", "ac", False),
        ("StringNotLike", "a*", "abc", False),
        ("NumericEquals", "10", "10.0", True),
        ("NumericEquals", 10, "10", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", "10", "9", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "-1", "0", True),
        ("NumericGreaterThanEquals", "1.5", "1.4", False),
        ("NumericLessThan", "10", "nine", False),
        ("NumericLessThan", "10", "nan", False),
        ("DateEquals", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", True),
        ("DateNotEquals", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", True),
        ("DateGreaterThan", "1767225600", "2026-01-01T00:00:01Z", True),
        ("DateGreaterThanEquals", "2026-01-01", "2026-01-01T00:00:00Z", True),
        ("DateLessThanEquals", "2026-01-01T00:00:00Z", "yesterday", False),
        ("Bool", "true", "true", True),
        ("Bool", True, "True", True),
        ("Bool", "true", "1", False),
        ("BinaryEquals", "AQ==", "AQ==", True),
        ("IpAddress", "192.0.2.0/24", "192.0.2.255", True),
        ("IpAddress", "192.0.2.7", "192.0.2.7", True),
        ("IpAddress", "192.0.2.0/24", "192.0.3.1", False),
        ("IpAddress", "192.0.2.0/24", "2001:db8::1", False),
        ("IpAddress", "192.0.2.0/24", "nowhere", False),
        ("NotIpAddress", ["192.0.2.0/24", "2001:db8::/32"], "192.0.3.1", True),
        ("ArnEquals", "arn:aws:iot:*:123456789012:job/*", "arn:aws:iot:us-east-1:123456789012:job/a:b", True),
        ("ArnLike", "arn:aws:*:::job/a", "arn:aws:iot:us-east-1:123456789012:job/a", False),
        ("ArnLike", "*", "arn:aws:iot:us-east-1:123456789012:job/a", True),
        ("ArnLike", "arn:aws:iot:*:*:*", "no arn", False),
        ("ArnNotLike", "arn:aws:iot:*:*:job/*", "arn:aws:iot:us-east-1:1:thing/a", True),
        ("ArnNotEquals", "arn:aws:iot:*:*:job/*", "arn:aws:iot:us-east-1:1:job/a", False),
    ],
)
def test_an_operator_compares_one_value(operator: str, wanted: Any, given: str, expected: bool) -> None:
    assert holds({operator: {"k:key": wanted}}, k__key=given) is expected


NEGATED = {
    "StringNotEquals": "a",
    "StringNotLike": "a*",
    "NotIpAddress": "192.0.2.1",
    "NumericNotEquals": "1",
    "ArnNotLike": "arn:aws:a:b:c:d",
}
POSITIVE = {
    "StringEquals": "a",
    "StringLike": "*",
    "IpAddress": "0.0.0.0/0",
    "NumericEquals": "1",
    "Bool": "true",
    "DateLessThan": "2030-01-01",
}


@pytest.mark.parametrize(("operator", "wanted"), [*NEGATED.items(), *POSITIVE.items()])
def test_an_absent_key_meets_the_negated_operators_alone(operator: str, wanted: str) -> None:
    assert holds({operator: {"k:key": wanted}}) is (operator in NEGATED)
    assert holds({operator + "IfExists": {"k:key": wanted}})
    assert holds({"ForAllValues:" + operator: {"k:key": wanted}})
    assert not holds({"ForAnyValue:" + operator: {"k:key": wanted}})
    assert holds({operator: {"k:key": wanted}}, k__key=[]) is (operator in NEGATED), "no values is as absent"


@pytest.mark.parametrize(
    ("operator", "given", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "x"], False),
        ("ForAnyValue:StringEquals", ["x", "b"], True),
        ("ForAnyValue:StringEquals", ["x", "y"], False),
        ("ForAllValues:StringNotEquals", ["x", "y"], True),
        ("ForAllValues:StringNotEquals", ["x", "a"], False),
        ("ForAnyValue:StringNotEquals", ["a", "x"], True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], False),
        ("StringEquals", ["x", "a"], True),
        ("StringNotEquals", ["x", "a"], False),
        ("StringNotEquals", ["x", "y"], True),
    ],
)
def test_many_values_are_all_looked_at(operator: str, given: list[str], expected: bool) -> None:
    assert holds({operator: {"k:key": ["a", "b"]}}, k__key=given) is expected


def test_null_asks_whether_a_key_is_there() -> None:
    assert holds({"Null": {"k:key": "true"}})
    assert not holds({"Null": {"k:key": "true"}}, k__key="x")
    assert holds({"Null": {"k:key": False}}, k__key="x")
    assert not holds({"Null": {"k:key": "false"}})


def test_keys_are_compared_without_case_and_all_must_hold() -> None:
    assert holds({"StringEquals": {"K:Key": "a"}}, k__key="a")
    both = {"StringEquals": {"k:a": "1"}, "Bool": {"k:b": "true"}}
    assert holds(both, k__a="1", k__b="true")
    assert not holds(both, k__a="1", k__b="false")


def test_a_variable_in_a_value_is_literal_and_needs_one_value() -> None:
    condition = {"StringLike": {"k:path": "${k:user}/*"}}
    assert holds(condition, k__path="ann/x", k__user="ann")
    assert not holds(condition, k__path="ann/x", k__user="*")
    assert not holds(condition, k__path="/x")
    assert not holds(condition, k__path="ann/x", k__user=["ann", "ben"])
    assert holds({"StringEquals": {"k:path": "${k:user, 'nobody'}"}}, k__path="nobody")
    assert holds({"StringEquals": {"k:path": "${*}${?}${$}"}}, k__path="*?$")


@pytest.mark.parametrize(
    "condition",
    [
        [],
        "x",
        {"StringEqual": {"k:a": "b"}},
        {"NullIfExists": {"k:a": "true"}},
        {"ForAllValues:Null": {"k:a": "true"}},
        {"ForSomeValues:StringEquals": {"k:a": "b"}},
        {"StringEquals": "x"},
        {"StringEquals": {}},
        {"StringEquals": {"a": "b"}},
        {"StringEquals": {"k:a": {"b": 1}}},
        {"StringEquals": {"k:a": [None]}},
        {"StringEquals": {"k:a": ["x"] * 501}},
        {"IpAddress": {"k:a": "300.0.0.1"}},
        {"NumericEquals": {"k:a": "ten"}},
        {"DateLessThan": {"k:a": "soon"}},
        {"Bool": {"k:a": "yes"}},
        {"ArnLike": {"k:a": "not-an-arn"}},
        {"ArnLike": {"k:a": "arn:aws:iot:*:job/a"}},
    ],
)
def test_a_condition_that_cannot_be_one_is_refused(condition: Any) -> None:
    with pytest.raises(MalformedCondition):
        parse_conditions(condition, variables=True)
    json.dumps(condition)
