"""The policy evaluation vectors, by the general evaluator and, where the documents are ones of devices, by the compiled set."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from overair.basics.clock import from_datetime
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate
from overair.server.policy_language.iot import PolicySet
from tests.support.vectors import vectors

CASES: list[dict[str, Any]] = json.loads((vectors("policy-evaluation") / "cases.json").read_text())
EXPECTED = {"allow": Decision.ALLOW, "explicitDeny": Decision.EXPLICIT_DENY, "implicitDeny": Decision.IMPLICIT_DENY}


def is_of_devices(case: dict[str, Any]) -> bool:
    statements = [statement for policy in case["policies"] for statement in policy["Statement"]]
    return not any("NotAction" in statement or "NotResource" in statement for statement in statements)


def test_all_39_cases_are_there_and_most_fit_both_evaluators() -> None:
    assert len(CASES) == 39
    assert sum(map(is_of_devices, CASES)) == 36


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_general_evaluator_decides_as_published(case: dict[str, Any]) -> None:
    policies = [CompiledPolicy.parse(json.dumps(policy), Kind.MANAGED) for policy in case["policies"]]
    question = Question(action=case["action"], resource=case["resource"], context=context_of(case["context"]))
    assert evaluate(policies, question) is EXPECTED[case["expect"]]


@pytest.mark.parametrize("case", [case for case in CASES if is_of_devices(case)], ids=lambda case: case["name"])
def test_the_compiled_set_decides_as_published(case: dict[str, Any]) -> None:
    bound = PolicySet.parse([json.dumps(policy) for policy in case["policies"]]).bind(case["context"], now=None)
    if "aws:CurrentTime" in case["context"]:
        moment = from_datetime(datetime.fromisoformat(case["context"]["aws:CurrentTime"]))
        bound = PolicySet.parse([json.dumps(policy) for policy in case["policies"]]).bind({}, now=lambda: moment)
    assert bound.decide(case["action"], case["resource"]) is EXPECTED[case["expect"]]
    assert bound.allows(case["action"], case["resource"]) is (case["expect"] == "allow")
