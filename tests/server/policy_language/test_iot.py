from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.device_variables import connection_values
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate
from overair.server.policy_language.iot import CONNECT, DATA_PLANE_ACTIONS, PUBLISH, RECEIVE, SUBSCRIBE, PolicySet

PREFIX = "arn:aws:iot:us-east-1:123456789012:"


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], *resources: str, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": [PREFIX + resource for resource in resources], **more}


def deny(action: str | list[str], *resources: str, **more: Any) -> dict[str, Any]:
    return {**allow(action, *resources, **more), "Effect": "Deny"}


THING = "${iot:Connection.Thing.ThingName}"
OWN_TOPICS = document(
    allow(CONNECT, f"client/{THING}"),
    allow(SUBSCRIBE, f"topicfilter/$aws/things/{THING}/jobs/*", f"topicfilter/$aws/things/{THING}/streams/*"),
    allow([PUBLISH, RECEIVE], f"topic/$aws/things/{THING}/jobs/*", f"topic/$aws/things/{THING}/streams/*"),
)


def test_a_device_has_its_own_topics_and_nobody_elses() -> None:
    policies = PolicySet.parse([OWN_TOPICS])
    one = policies.bind(connection_values(client_id="d1", source_ip="", thing_name="d1"))
    ten = policies.bind(connection_values(client_id="d10", source_ip="", thing_name="d10"))
    assert one.allows(CONNECT, PREFIX + "client/d1")
    assert not one.allows(CONNECT, PREFIX + "client/d10")
    assert one.allows(PUBLISH, PREFIX + "topic/$aws/things/d1/jobs/j/update")
    assert not one.allows(PUBLISH, PREFIX + "topic/$aws/things/d10/jobs/j/update")
    assert ten.allows(PUBLISH, PREFIX + "topic/$aws/things/d10/jobs/j/update")
    assert one.allows(SUBSCRIBE, PREFIX + "topicfilter/$aws/things/d1/jobs/$next/get/+")
    assert not one.allows(SUBSCRIBE, PREFIX + "topicfilter/$aws/things/+/jobs/#")
    assert not one.allows("iot:RetainPublish", PREFIX + "topic/$aws/things/d1/jobs/j/update")


def test_a_connection_without_a_thing_gets_nothing_from_a_thing_policy() -> None:
    bound = PolicySet.parse([OWN_TOPICS]).bind(connection_values(client_id="d1", source_ip=""))
    assert not bound.allows(CONNECT, PREFIX + "client/d1")
    assert not bound.allows(CONNECT, PREFIX + "client/")
    assert not bound.allows(PUBLISH, PREFIX + "topic/$aws/things//jobs/j/update")


def test_a_resource_without_a_value_leaves_the_others_of_its_statement() -> None:
    bound = PolicySet.parse([document(allow(PUBLISH, f"topic/{THING}", "topic/open"))]).bind({})
    assert bound.allows(PUBLISH, PREFIX + "topic/open")
    assert not bound.allows(PUBLISH, PREFIX + "topic/")


@pytest.mark.parametrize("client_id", ["*", "a*", "?", "+", "#", "$x", "a\0b"])
def test_a_client_id_that_looks_like_a_pattern_widens_nothing_and_escapes_no_deny(client_id: str) -> None:
    policies = PolicySet.parse([document(allow(PUBLISH, "topic/${iot:ClientId}/data"))])
    bound = policies.bind({"iot:ClientId": client_id})
    assert not bound.allows(PUBLISH, PREFIX + "topic/other/data")
    assert not bound.allows(PUBLISH, PREFIX + f"topic/{client_id}/data")
    denied = PolicySet.parse([document(allow(PUBLISH, "topic/*"), deny(PUBLISH, "topic/${iot:ClientId}/data"))])
    if "\0" not in client_id:
        assert not denied.bind({"iot:ClientId": client_id}).allows(PUBLISH, PREFIX + f"topic/{client_id}/data")
    assert denied.bind({"iot:ClientId": client_id}).allows(PUBLISH, PREFIX + "topic/other/data")


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        ("plain", True),
        ("with space", True),
        ("a/b", True),
        ('a,b=c;"<>\\', True),
        ("{}", True),
        (".*", False),
        ("näme", True),
        ("x" * 1024, True),
        ("x" * 1025, False),
        *((f"a{each}b", False) for each in "*$+?#"),
    ],
)
def test_what_happens_to_values_with_special_characters(value: str, is_taken: bool) -> None:
    name = "iot:Certificate.Subject.CommonName"
    own = f"topic/${{{name}}}/data"
    allowing = PolicySet.parse([document(allow(PUBLISH, own))]).bind({name: value})
    assert allowing.allows(PUBLISH, PREFIX + f"topic/{value}/data") is is_taken
    assert not allowing.allows(PUBLISH, PREFIX + "topic/${iot:Certificate.Subject.CommonName}/data")
    assert not allowing.allows(PUBLISH, PREFIX + "topic/aXb/data")
    denying = PolicySet.parse([document(allow(PUBLISH, "topic/*"), deny(PUBLISH, own))]).bind({name: value})
    assert not denying.allows(PUBLISH, PREFIX + f"topic/{value}/data")
    assert denying.allows(PUBLISH, PREFIX + "topic/aXb/data")


def test_a_policy_may_ask_which_variables_a_certificate_has() -> None:
    named = {"ForAnyValue:StringEquals": {"iot:Certificate.AvailableKeys": "iot:Certificate.Subject.CommonName"}}
    policies = PolicySet.parse([document(allow(CONNECT, "client/*", Condition=named))])
    for keys, allowed in (
        (("iot:Certificate.Id", "iot:Certificate.Subject.CommonName"), True),
        (("iot:Certificate.Id",), False),
    ):
        assert policies.bind({"iot:Certificate.AvailableKeys": keys}).allows(CONNECT, PREFIX + "client/d") is allowed


def test_a_condition_on_the_connection_is_decided_when_it_is_bound() -> None:
    policies = PolicySet.parse(
        [document(allow(CONNECT, "client/*", Condition={"Bool": {"iot:Connection.Thing.IsAttached": "true"}}))]
    )
    assert policies.bind(connection_values(client_id="d", source_ip="", thing_name="d")).allows(CONNECT, PREFIX + "client/d")
    assert not policies.bind(connection_values(client_id="d", source_ip="")).allows(CONNECT, PREFIX + "client/d")


def test_a_condition_on_the_time_is_asked_at_each_message() -> None:
    until = {"Condition": {"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}}
    policies = PolicySet.parse([document(allow(PUBLISH, "topic/a", **until))])
    now = [Instant(1767225599000)]
    bound = policies.bind({}, now=lambda: now[0])
    assert bound.allows(PUBLISH, PREFIX + "topic/a")
    now[0] = Instant(1767225600000)
    assert not bound.allows(PUBLISH, PREFIX + "topic/a")
    assert not policies.bind({}).allows(PUBLISH, PREFIX + "topic/a")
    denying = PolicySet.parse([document(allow(PUBLISH, "topic/*"), deny(PUBLISH, "topic/a", **until))])
    assert not denying.bind({}).allows(PUBLISH, PREFIX + "topic/a"), "who can't tell the time can't lift a deny by it"


def test_policies_of_one_set_add_up_and_a_deny_of_any_wins() -> None:
    bound = PolicySet.parse([document(allow("iot:*", "*")), document(deny([PUBLISH], "topic/a"))]).bind({})
    assert bound.decide(PUBLISH, PREFIX + "topic/a") is Decision.EXPLICIT_DENY
    assert bound.allows(PUBLISH, PREFIX + "topic/b")
    assert bound.allows("iot:DescribeJobExecution", PREFIX + "thing/t")


def test_an_empty_set_allows_nothing() -> None:
    bound = PolicySet([]).bind({})
    for action in (*DATA_PLANE_ACTIONS, "iot:UpdateJobExecution"):
        assert bound.decide(action, "*") is Decision.IMPLICIT_DENY


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ('{"Version":"2012-10-17"}', "Statement"),
        ('{"Statement":[]}', "Version"),
        ('{"Version":"2012-10-17","Statement":[],"Extra":1}', "Extra"),
        ('{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}', "twice"),
        (document({"Effect": "allow", "Action": "iot:Publish", "Resource": "*"}), "Effect"),
        (document({"Effect": "Allow", "Resource": "*"}), "Action"),
        (document({"Effect": "Allow", "Action": "Publish", "Resource": "*"}), "action"),
        (document({"Effect": "Allow", "Action": [], "Resource": "*"}), "Action"),
        (document({"Effect": "Allow", "Action": "iot:Publish"}), "Resource"),
        (document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "topic/a"}), "ARN"),
        (document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "*", "Principal": "*"}), "Principal"),
        (document({"Effect": "Allow", "NotAction": "iot:Publish", "Resource": "*"}), "NotAction"),
        (document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:::topic/${"}), "end"),
        (document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "*", "Condition": {"Like": {}}}), "Like"),
        (document({"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:::" + "x" * 2048}), "2048"),
    ],
)
def test_a_malformed_document_is_refused_with_its_rule(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_policy(text, Kind.DEVICE)
    assert caught.value.subject == "policy"
    assert says in caught.value.message


RESOURCES = st.sampled_from(
    [
        f"topic/{THING}/*",
        "topic/a",
        "topic/*",
        "topic/a/?",
        "topic/${iot:ClientId}",
        "topic/*/a/*",
        "client/${iot:ClientId}",
        "*",
    ]
)
STATEMENT = st.builds(
    lambda effect, action, resources, condition: {
        "Effect": effect,
        "Action": action,
        "Resource": ["*" if r == "*" else PREFIX + r for r in resources],
        **({"Condition": condition} if condition else {}),
    },
    st.sampled_from(["Allow", "Allow", "Deny"]),
    st.sampled_from([PUBLISH, "iot:*", "iot:p*", [PUBLISH, RECEIVE], "*", "IOT:RECEIVE"]),
    st.lists(RESOURCES, min_size=1, max_size=3),
    st.sampled_from([None, None, {"StringEquals": {"iot:ClientId": ["a", "b"]}}, {"Null": {"iot:ClientId": "true"}}]),
)
NAMES = st.none() | st.sampled_from(["a", "b", "thing-1", "a/b"])


@settings(max_examples=400)
@given(
    policies=st.lists(st.lists(STATEMENT, max_size=4), max_size=3),
    client=NAMES,
    thing=NAMES,
    action=st.sampled_from(DATA_PLANE_ACTIONS),
    resource=st.sampled_from(["topic/a", "topic/a/b", "topic/thing-1/x", "client/a", "topic//a/", "topic/b", "client/"]),
)
def test_the_compiled_set_decides_as_the_general_evaluator(
    policies: list[list[dict[str, Any]]], client: str | None, thing: str | None, action: str, resource: str
) -> None:
    documents = [document(*statements) for statements in policies]
    values = {
        name: value
        for name, value in (("iot:ClientId", client), ("iot:Connection.Thing.ThingName", thing))
        if value is not None
    }
    bound = PolicySet.parse(documents).bind(values)
    general = [CompiledPolicy.parse(text, Kind.MANAGED) for text in documents]
    question = Question(action=action, resource=PREFIX + resource, context=context_of(values))
    assert bound.decide(action, PREFIX + resource) is evaluate(general, question)
    assert bound.allows(action, PREFIX + resource) is (evaluate(general, question) is Decision.ALLOW)
