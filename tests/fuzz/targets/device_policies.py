"""Device policies and what they say. Input: a document, a client id, a thing's name, then names of topics, NUL between them.

Held: only ``InvalidRequest`` refuses a document; the compiled expressions, the matcher for long texts and the statements that
``reasons`` names say the same of each name; one statement more that denies everything denies everything.
"""

from __future__ import annotations

import json

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.server.policy_language.document import Effect
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.iot import DATA_PLANE_ACTIONS, PolicySet
from overair.server.policy_language.reasons import reasons
from tests.fuzz.refusals import says_why

NOW = Instant(1_767_225_600_000)
DENY_ALL = json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})


def now() -> Instant:
    return NOW


def fuzz_one(data: bytes) -> None:
    document, *rest = data.decode("utf-8", "replace").split("\0")
    try:
        policies = PolicySet.parse([document])
    except InvalidRequest as refused:
        says_why(refused, subject="policy")
        return
    client, thing, *names = (*rest, "", "")[: max(2, min(len(rest), 6))]
    values = {"iot:ClientId": client, "iot:Connection.Thing.ThingName": thing, "aws:SourceIp": "192.0.2.1"}
    bound = policies.bind(values, now=now)
    denied = PolicySet.parse([document, DENY_ALL]).bind(values, now=now)
    for name in [*names, ""]:
        resource = f"arn:aws:iot:us-east-1:123456789012:topic/{name}"
        for action in DATA_PLANE_ACTIONS:
            decision = bound.decide(action, resource)
            assert bound.allows(action, resource) is (decision is Decision.ALLOW)
            assert denied.decide(action, resource) is Decision.EXPLICIT_DENY or len(resource) > 2048
            plan = bound._plan if bound._plan_now is None else bound._plan_now()
            texts = bound._prefix.split("\0")[:-1]
            assert plan.decide_long(action, resource, texts) is decision, "the two matchers disagree"
            named = reasons([("p", document)], values, action, resource, now=now)
            assert named.decision is decision
            effects = {each.effect for each in named.statements if each.applies}
            assert (Effect.DENY in effects) is (decision is Decision.EXPLICIT_DENY)
            assert (effects == {Effect.ALLOW}) is (decision is Decision.ALLOW)
