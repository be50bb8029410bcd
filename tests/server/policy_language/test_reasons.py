"""Which statement of a device's policies decides, in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from overair.basics.clock import Instant
from overair.server.policy_language.document import Effect
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.iot import PUBLISH, SUBSCRIBE, PolicySet
from overair.server.policy_language.reasons import reasons

STEM = "arn:aws:iot:us-east-1:123456789012:"
NOW: Callable[[], Instant] = lambda: Instant(1_767_225_600_000)  # noqa: E731
OWN = f"""{{
  "Version": "2012-10-17",
  "Statement": [
    {{"Sid": "Own", "Effect": "Allow", "Action": "iot:Publish",
      "Resource": "{STEM}topic/${{iot:Connection.Thing.ThingName}}/*"}},
    {{"Effect": "Allow", "Action": "iot:*", "Resource": "{STEM}topic/shared",
      "Condition": {{"IpAddress": {{"aws:SourceIp": "192.0.2.0/24"}}}}}},
    {{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "*"}},
    {{"Sid": "Never", "Effect": "Deny", "Action": "iot:Publish", "Resource": "{STEM}topic/*/secret"}}
  ]
}}"""


def test_the_statement_that_allows_and_the_one_that_denies_are_named_with_their_lines() -> None:
    values = {"iot:Connection.Thing.ThingName": "dev-1", "aws:SourceIp": "192.0.2.7"}
    found = reasons([("own", OWN)], values, PUBLISH, f"{STEM}topic/dev-1/secret", now=NOW)
    assert found.decision is Decision.EXPLICIT_DENY
    assert [(each.number, each.sid, each.line, each.effect, each.applies) for each in found.statements] == [
        (1, "Own", 4, Effect.ALLOW, True),
        (2, "", 6, Effect.ALLOW, False),
        (4, "Never", 9, Effect.DENY, True),
    ]
    assert found.statements[1].why == "it is about other resources"
    assert found.missing == ()


def test_what_is_in_a_statements_way_is_said_in_the_documents_own_words() -> None:
    nobody = reasons([("own", OWN)], {}, PUBLISH, f"{STEM}topic/shared", now=NOW)
    assert nobody.decision is Decision.IMPLICIT_DENY
    assert [each.why for each in nobody.statements[:2]] == [
        "this connection has no value for ${iot:Connection.Thing.ThingName}",
        "its condition IpAddress on aws:SourceIp doesn't hold of nothing",
    ]
    assert nobody.missing == ("aws:SourceIp", "iot:Connection.Thing.ThingName")
    elsewhere = reasons([("own", OWN)], {"aws:SourceIp": "198.51.100.1"}, PUBLISH, f"{STEM}topic/shared", now=NOW)
    assert elsewhere.statements[1].why == "its condition IpAddress on aws:SourceIp doesn't hold of '198.51.100.1'"
    odd = reasons([("own", OWN)], {"iot:Connection.Thing.ThingName": "a+b"}, PUBLISH, f"{STEM}topic/a+b/x", now=NOW)
    assert odd.statements[0].why.startswith("the value of ${iot:Connection.Thing.ThingName} holds one of * $ + ? #")


RESOURCE = st.sampled_from(
    [f"{STEM}topic/a", f"{STEM}topic/${{iot:ClientId}}", f"{STEM}topic/*", f"{STEM}topic/${{k:none}}", "*"]
)
STATEMENT = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Deny"]),
        "Action": st.sampled_from([PUBLISH, SUBSCRIBE, "iot:*"]),
        "Resource": st.lists(RESOURCE, min_size=1, max_size=2),
    },
    optional={
        "Condition": st.sampled_from(
            [
                {"StringEquals": {"iot:ClientId": "a"}},
                {"Bool": {"iot:Connection.Thing.IsAttached": "true"}},
                {"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}},
            ]
        )
    },
)


@settings(max_examples=150, deadline=None)
@given(
    statements=st.lists(STATEMENT, max_size=5), client=st.sampled_from(["a", "b", "*"]), topic=st.sampled_from(["a", "b", "*"])
)
def test_the_statements_that_apply_make_up_the_gateways_decision(
    statements: list[dict[str, Any]], client: str, topic: str
) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=1)
    values = {"iot:ClientId": client}
    resource = f"{STEM}topic/{topic}"
    found = reasons([("p", document)], values, PUBLISH, resource, now=NOW)
    applying = {each.effect for each in found.statements if each.applies}
    told = Decision.EXPLICIT_DENY if Effect.DENY in applying else Decision.ALLOW if applying else Decision.IMPLICIT_DENY
    assert told is found.decision is PolicySet.parse([document]).bind(values, now=NOW).decide(PUBLISH, resource)
    assert all(bool(each.why) is not each.applies for each in found.statements)
