"""Policies of identities and resources. Input: an octet that chooses the kind, a document, then action, resource, and names and
values of the request's context by turns, NUL between them.

Held: only ``InvalidRequest`` refuses a document; the order of statements doesn't matter, twice the same says the same, with
white space and escapes elsewhere it says the same, a denial of everything wins; long names are judged as short ones are.
"""

from __future__ import annotations

import json

from overair.basics.errors import InvalidRequest
from overair.server.policy_language import evaluation
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate
from overair.server.policy_language.long_texts import TEXT_LENGTH_MAX
from tests.fuzz.refusals import says_why

KINDS = [kind for kind in Kind if kind is not Kind.DEVICE]
DENY_ALL = CompiledPolicy.parse('{"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}}', Kind.MANAGED)


def fuzz_one(data: bytes) -> None:
    if not data:
        return
    kind = KINDS[data[0] % len(KINDS)]
    text, *rest = data[1:].decode("utf-8", "replace").split("\0")
    try:
        policy = CompiledPolicy.parse(text, kind)
    except InvalidRequest as refused:
        says_why(refused, subject="policy")
        return
    action, resource, *pairs = (*rest, "", "")[: max(2, min(len(rest), 12))]
    question = Question(action=action, resource=resource, context=context_of(dict(zip(pairs[::2], pairs[1::2], strict=False))))
    decision = evaluate([policy], question)
    assert evaluate([policy, policy], question) is decision
    assert evaluate([CompiledPolicy(policy.statements[::-1])], question) is decision
    assert evaluate([policy, DENY_ALL], question) is (Decision.EXPLICIT_DENY if len(resource) <= TEXT_LENGTH_MAX else decision)
    document = json.loads(text)
    assert evaluate([CompiledPolicy.parse(json.dumps(document, separators=(",", ":")), kind)], question) is decision
    # The other matcher of the two: as if this name were a long one.
    before, evaluation.LONG_LENGTH = evaluation.LONG_LENGTH, -1
    try:
        assert evaluate([CompiledPolicy.parse(text, kind)], question) is decision, "the two matchers disagree"
    finally:
        evaluation.LONG_LENGTH = before
