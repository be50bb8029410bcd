"""Which statement of a device's policies allowed or denied, and what kept the others from it.

Whether a statement applies is asked of the set that the gateway asks, with that statement alone in it; so the answer can't
differ from what the gateway does. Only the words about a statement that doesn't apply are made here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.server.policy_language.conditions import Condition, Context, context_of, value_of
from overair.server.policy_language.document import Effect, Kind, Policy, Statement, parse_policy
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.iot import VALUE_LENGTH_MAX, PolicySet, is_fit
from overair.server.policy_language.patterns import compile_patterns
from overair.server.policy_language.positions import statement_positions

_VALUE_SHOWN_MAX: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementReason:
    """What one statement has to say about a question."""

    policy: str
    number: int
    """Within its policy, from 1."""
    sid: str
    line: int
    """Where it begins in the policy's text, from 1."""
    effect: Effect
    applies: bool
    why: str
    """Where it doesn't apply: what is in its way; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """A decision with every statement that is about the action."""

    decision: Decision
    statements: tuple[StatementReason, ...]
    missing: tuple[str, ...]
    """Variables and condition keys that those statements look at and the connection has no value for."""


def reasons(
    policies: Sequence[tuple[str, str]],
    values: Mapping[str, str | Sequence[str]],
    action: str,
    resource: str,
    *,
    now: Callable[[], Instant],
) -> Reasons:
    """Judge ``action`` on the resource's ARN by named documents, as the gateway would for a connection with these values."""
    parsed = [(name, text, parse_policy(text, Kind.DEVICE)) for name, text in policies]
    decision = PolicySet(policy for _, _, policy in parsed).bind(values, now=now).decide(action, resource)
    moment = as_datetime(now())
    timed = {"aws:CurrentTime": moment.isoformat(), "aws:EpochTime": str(int(moment.timestamp()))}
    context = context_of({**values, **timed})

    def applies(statement: Statement) -> bool:
        alone = PolicySet([Policy(kind=Kind.DEVICE, statements=(statement,))])
        return alone.bind(values, now=now).decide(action, resource) is not Decision.IMPLICIT_DENY

    found: list[StatementReason] = []
    missing: dict[str, None] = {}
    for name, text, policy in parsed:
        positions = statement_positions(text)
        for number, statement in enumerate(policy.statements):
            actions = compile_patterns(statement.actions, (), ignore_case=True)
            if actions is None or not actions.match(action):
                continue
            missing |= dict.fromkeys(_spelt(key, text) for key in _lacking(statement, context))
            does = applies(statement)
            reaches = does or applies(replace(statement, conditions=()))
            found.append(
                StatementReason(
                    policy=name,
                    number=number + 1,
                    sid=statement.sid,
                    line=positions[number][0][0],
                    effect=statement.effect,
                    applies=does,
                    why="" if does else _obstacle(statement, text, context, reaches=reaches),
                )
            )
    return Reasons(decision=decision, statements=tuple(found), missing=tuple(sorted(missing)))


def _lacking(statement: Statement, context: Context) -> Iterable[str]:
    yield from (variable.name for variable in statement.variables if value_of(variable, context) is None)
    yield from (condition.key for condition in statement.conditions if condition.key not in context)


def _obstacle(statement: Statement, text: str, context: Context, *, reaches: bool) -> str:
    if reaches:
        return next(_unmet(condition, text, context) for condition in statement.conditions if not condition.holds(context))
    for variable in statement.variables:
        value = value_of(variable, context)
        name = _spelt(variable.name, text)
        if value is None:
            return f"this connection has no value for ${{{name}}}"
        if statement.effect is Effect.ALLOW and not is_fit(value):
            rule = f"holds one of * $ + ? # or has more than {VALUE_LENGTH_MAX} characters"
            return f"the value of ${{{name}}} {rule}: no Allow takes it in"
    return "it is about other resources"


def _unmet(condition: Condition, text: str, context: Context) -> str:
    key = _spelt(condition.key, text)
    value = context.get(condition.key)
    of = "nothing" if value is None else repr(", ".join(value)[:_VALUE_SHOWN_MAX])
    return f"its condition {condition.operator} on {key} doesn't hold of {of}"


def _spelt(key: str, text: str) -> str:
    """A key as the document spells it: its comparing form is in lower case."""
    found = re.search(re.escape(key), text, re.IGNORECASE)
    return key if found is None else found.group()
