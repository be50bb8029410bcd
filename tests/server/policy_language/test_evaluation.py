"""Principals, negated elements, documents of every kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overair.basics.errors import InvalidRequest
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import (
    CompiledPolicy,
    Decision,
    Principal,
    Question,
    evaluate,
    evaluate_for,
    together,
)

ACCOUNT = "123456789012"
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/r/s"
AS_ANN = Principal(account=ACCOUNT, arns=(ANN,))
AS_SESSION = Principal(account=ACCOUNT, arns=(SESSION, ROLE))
AS_ROOT = Principal(account=ACCOUNT, arns=(f"arn:aws:iam::{ACCOUNT}:root",), is_root=True)
AS_SERVICE = Principal(service="iot.amazonaws.com")
EVERYONE = (AS_ANN, AS_SESSION, AS_ROOT, AS_SERVICE)


def policy(*statements: dict[str, Any], kind: Kind = Kind.MANAGED, version: str = "2012-10-17") -> CompiledPolicy:
    return CompiledPolicy.parse(json.dumps({"Version": version, "Statement": list(statements)}), kind)


def asked(action: str = "s3:GetObject", resource: str = "arn:aws:s3:::b/k", **context: str) -> Question:
    return Question(action=action, resource=resource, context=context_of(context))


def who(principal: Any, effect: str = "Allow", element: str = "Principal") -> set[str]:
    resource_policy = policy({"Effect": effect, element: principal, "Action": "s3:*", "Resource": "*"}, kind=Kind.RESOURCE)
    names = ("ann", "session", "root", "service")
    found = [evaluate_for([resource_policy], asked(), principal) is not Decision.IMPLICIT_DENY for principal in EVERYONE]
    return {name for name, yes in zip(names, found, strict=True) if yes}


def test_a_statement_is_about_whom_its_principal_names() -> None:
    assert who("*") == {"ann", "session", "root", "service"}
    assert who({"AWS": "*"}) == {"ann", "session", "root", "service"}
    assert who({"AWS": ANN}) == {"ann"}
    assert who({"AWS": [ANN, ROLE]}) == {"ann", "session"}
    assert who({"AWS": SESSION}) == {"session"}
    assert who({"Service": "iot.amazonaws.com"}) == {"service"}
    assert who({"Service": "lambda.amazonaws.com"}) == set()
    assert who({"AWS": "999999999999"}) == set()


@pytest.mark.parametrize("account", [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"])
def test_naming_the_account_allows_its_root_and_denies_all_of_it(account: str) -> None:
    assert who({"AWS": account}) == {"root"}
    assert who({"AWS": account}, effect="Deny") == {"ann", "session", "root"}


def test_not_principal_is_everybody_else() -> None:
    assert who({"AWS": ANN}, effect="Deny", element="NotPrincipal") == {"session", "root", "service"}
    assert who("*", effect="Deny", element="NotPrincipal") == set()


def test_not_resource_with_an_unknown_value_reaches_no_further_than_meant() -> None:
    statement = {"Action": "s3:*", "NotResource": "arn:aws:s3:::b/${aws:username}/*"}
    allowing = policy({"Effect": "Allow", **statement})
    assert evaluate([allowing], asked(resource="arn:aws:s3:::b/ben/x", **{"aws:username": "ann"})) is Decision.ALLOW
    assert evaluate([allowing], asked(resource="arn:aws:s3:::b/ann/x", **{"aws:username": "ann"})) is Decision.IMPLICIT_DENY
    assert evaluate([allowing], asked()) is Decision.IMPLICIT_DENY
    assert evaluate([policy({"Effect": "Deny", **statement})], asked()) is Decision.EXPLICIT_DENY


def test_other_resources_of_a_statement_still_match_where_one_has_no_value() -> None:
    two = policy({"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::${aws:username}/*", "arn:aws:s3:::b/*"]})
    assert evaluate([two], asked()) is Decision.ALLOW
    assert evaluate([two], asked(resource="arn:aws:s3:::c/k")) is Decision.IMPLICIT_DENY


def test_before_2012_a_variable_was_plain_text() -> None:
    old = policy({"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::b/${aws:username}"}, version="2008-10-17")
    assert evaluate([old], asked(resource="arn:aws:s3:::b/ann", **{"aws:username": "ann"})) is Decision.IMPLICIT_DENY
    assert evaluate([old], asked(resource="arn:aws:s3:::b/${aws:username}")) is Decision.ALLOW


def test_any_explicit_deny_wins_and_then_any_allow() -> None:
    allow, explicit, implicit = Decision.ALLOW, Decision.EXPLICIT_DENY, Decision.IMPLICIT_DENY
    assert together([allow, explicit]) is explicit
    assert together([implicit, allow]) is allow
    assert together([implicit]) is implicit


STATEMENT = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        (Kind.MANAGED, {**STATEMENT, "Principal": "*"}),
        (Kind.RESOURCE, STATEMENT),
        (Kind.RESOURCE, {**STATEMENT, "Principal": "ann"}),
        (Kind.RESOURCE, {**STATEMENT, "Principal": {}}),
        (Kind.RESOURCE, {**STATEMENT, "Principal": {"AWS": "ann"}}),
        (Kind.RESOURCE, {**STATEMENT, "Principal": {"AWS": "arn:aws:iam::123456789012:user/*", "Other": "x"}}),
        (Kind.RESOURCE, {**STATEMENT, "Principal": {"Service": "iot.example.com"}}),
        (Kind.RESOURCE, {**STATEMENT, "Principal": "*", "NotPrincipal": "*"}),
        (Kind.TRUST, {**STATEMENT, "Principal": "*"}),
        (Kind.MANAGED, {**STATEMENT, "NotAction": "s3:*"}),
        (Kind.MANAGED, {**STATEMENT, "NotResource": "*"}),
        (Kind.MANAGED, {**STATEMENT, "Resource": 5}),
        (Kind.MANAGED, {**STATEMENT, "Sid": "ä"}),
        (Kind.MANAGED, {**STATEMENT, "Action": ""}),
        (Kind.MANAGED, {**STATEMENT, "Resource": "b/k"}),
        (Kind.MANAGED, {**STATEMENT, "Resource": "arn:aws:s3"}),
        (Kind.MANAGED, "Allow"),
    ],
)
def test_a_document_that_breaks_its_kinds_grammar_is_refused(kind: Kind, statement: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}), kind)
    assert caught.value.subject == "policy"
    assert kind.word in caught.value.message


def test_length_is_counted_without_white_space_and_sids_are_used_once() -> None:
    resource = "arn:aws:s3:::" + "x" * 1900
    text = json.dumps({"Version": "2012-10-17", "Statement": [{**STATEMENT, "Resource": resource}]}, indent=60)
    parse_policy(text, Kind.INLINE_USER)
    with pytest.raises(InvalidRequest, match="2048"):
        parse_policy(text.replace("x" * 1900, "x" * 2000), Kind.INLINE_USER)
    twice = [{**STATEMENT, "Sid": "a"}, {**STATEMENT, "Sid": "a"}]
    with pytest.raises(InvalidRequest, match="Sid"):
        parse_policy(json.dumps({"Version": "2012-10-17", "Statement": twice}), Kind.MANAGED)


WORDS = ["Version", "Statement", "Effect", "Action", "Resource", "Principal", "Condition", "StringLike", "k:a"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.text(max_size=200) | JSON.map(json.dumps), st.sampled_from(list(Kind)))
def test_arbitrary_text_is_refused_with_its_own_error_or_evaluates(text: str, kind: Kind) -> None:
    try:
        compiled = CompiledPolicy.parse(text, kind)
    except InvalidRequest:
        return
    evaluate([compiled], asked())
    evaluate_for([compiled], asked(), AS_ANN)
