"""Laws for whatever policies there are: what narrows never widens, a Deny is final, the simulator says what a door does."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from overair.server.access.grants import Grants
from overair.server.access.service import granted_by_resource
from overair.server.access.simulation import Simulation, Source
from overair.server.policy_language.conditions import context_of
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Principal, Question, evaluate, together
from overair.server.policy_language.positions import statement_positions

ACCOUNT = "123456789012"
ANN, BEN = f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:user/ben"
RESOURCES = ("arn:aws:iot:us-east-1:123456789012:thing/a", "arn:aws:iot:us-east-1:123456789012:thing/b")
ACTIONS = ("iot:CreateThing", "iot:ListThings", "s3:GetObject")

elements = {
    "Action": st.sampled_from(["*", "iot:*", "iot:List*", "s3:GetObject", ["iot:CreateThing", "s3:*"]]),
    "Resource": st.sampled_from(["*", RESOURCES[0], "arn:aws:iot:*:*:thing/*", f"{RESOURCES[0][:-1]}${{aws:username}}"]),
    "Condition": st.sampled_from(
        [
            None,
            {"StringEquals": {"aws:username": "ann"}},
            {"Bool": {"aws:SecureTransport": "false"}},
            {"Null": {"aws:x": "false"}},
        ]
    ),
}


@st.composite
def statements(draw: st.DrawFn, *, principals: bool = False) -> dict[str, Any]:
    statement: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"]))}
    for name, values in elements.items():
        value = draw(values)
        negated = name != "Condition" and draw(st.integers(0, 7)) == 0
        if value is not None:
            statement[f"Not{name}" if negated else name] = value
    if principals:
        everyone = draw(st.sampled_from(["*", {"AWS": ANN}, {"AWS": [BEN]}, {"AWS": ACCOUNT}]))
        statement["NotPrincipal" if draw(st.integers(0, 5)) == 0 else "Principal"] = everyone
    return statement


def policies(*, principals: bool = False) -> st.SearchStrategy[list[tuple[str, CompiledPolicy]]]:
    kind = Kind.RESOURCE if principals else Kind.MANAGED

    def read(given: list[dict[str, Any]]) -> tuple[str, CompiledPolicy]:
        text = json.dumps({"Version": "2012-10-17", "Statement": given})
        return text, CompiledPolicy.parse(text, kind)

    return st.lists(st.lists(statements(principals=principals), min_size=1, max_size=3).map(read), max_size=3)


questions = st.builds(
    lambda action, resource, name: Question(
        action=action,
        resource=resource,
        context=context_of({"aws:SecureTransport": "true"} | ({} if name is None else {"aws:username": name})),
    ),
    st.sampled_from(ACTIONS),
    st.sampled_from(RESOURCES),
    st.sampled_from([None, "ann", "b"]),
)


def compiled(documents: list[tuple[str, CompiledPolicy]]) -> tuple[CompiledPolicy, ...]:
    return tuple(policy for _, policy in documents)


@given(identity=policies(), boundary=st.none() | policies(), session=st.none() | policies(), question=questions)
def test_what_narrows_never_widens_and_all_must_allow(identity: Any, boundary: Any, session: Any, question: Question) -> None:
    narrowing = [None if each is None else compiled(each) for each in (boundary, session)]
    grants = Grants(identity=compiled(identity), boundary=narrowing[0], session=narrowing[1])
    each = [evaluate(part, question) for part in (compiled(identity), *narrowing) if part is not None]
    if Decision.EXPLICIT_DENY in each:
        assert grants.decide(question) is Decision.EXPLICIT_DENY
    else:
        allowed = all(decision is Decision.ALLOW for decision in each)
        assert grants.decide(question) is (Decision.ALLOW if allowed else Decision.IMPLICIT_DENY)


@given(identity=policies(), more=policies(), question=questions)
def test_a_deny_is_final_and_the_order_of_policies_says_nothing(identity: Any, more: Any, question: Question) -> None:
    one, both = evaluate(compiled(identity), question), evaluate(compiled([*identity, *more]), question)
    if one is Decision.EXPLICIT_DENY:
        assert both is Decision.EXPLICIT_DENY
    if one is Decision.ALLOW:
        assert both is not Decision.IMPLICIT_DENY
    assert evaluate(compiled([*more, *identity]), question) is both


@given(identity=policies(), boundary=policies(), theirs=policies(principals=True), question=questions)
def test_a_resources_policy_never_gives_past_a_deny_and_past_a_boundary_only_by_name(
    identity: Any, boundary: Any, theirs: Any, question: Question
) -> None:
    grants = Grants(identity=compiled(identity), boundary=compiled(boundary))
    principal = Principal(account=ACCOUNT, arns=(ANN,))
    own, given = grants.decide(question), granted_by_resource(compiled(theirs), question, principal, grants)
    decision = together([own, given])
    if Decision.EXPLICIT_DENY in (own, given):
        assert decision is Decision.EXPLICIT_DENY
    if decision is Decision.ALLOW and evaluate(compiled(boundary), question) is not Decision.ALLOW:
        assert ANN in "".join(text for text, _ in theirs)


@given(identity=policies(), boundary=st.none() | policies(), theirs=policies(principals=True), question=questions)
def test_the_simulator_says_what_a_door_would_and_names_statements_that_are_there(
    identity: Any, boundary: Any, theirs: Any, question: Question
) -> None:
    def sources(documents: list[tuple[str, CompiledPolicy]]) -> list[Source]:
        return [Source(str(number), "none", text, policy) for number, (text, policy) in enumerate(documents)]

    principal = Principal(account=ACCOUNT, arns=(ANN,))
    bounding = None if boundary is None else compiled(boundary)
    grants = Grants(identity=compiled(identity), boundary=bounding)
    outcome = Simulation(
        identity=sources(identity),
        boundary=None if boundary is None else sources(boundary),
        resource=sources(theirs),
        principal=principal,
    ).ask(question)
    door = together([grants.decide(question), granted_by_resource(compiled(theirs), question, principal, grants)])
    assert outcome.decision is door
    for source, number in outcome.matched:
        (line, begin), (_, end) = statement_positions(source.text)[number]
        assert line == 1
        assert json.loads(source.text[begin - 1 : end - 1]) == json.loads(source.text)["Statement"][number]
