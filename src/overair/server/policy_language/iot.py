"""Policies of devices, compiled for the gateway: one check for every message, both ways.

A ``PolicySet`` is what is attached to one certificate or to thousands; it compiles once. ``bind`` puts one connection's values
into it, which costs microseconds: values are matched by back-reference, so the expressions are shared by every device.
Reference: AWS IoT developer guide, "AWS IoT Core policies", "policy variables" (wire reference §8.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from overair.basics.clock import Instant, as_datetime
from overair.server.policy_language.conditions import Context, context_of, value_of
from overair.server.policy_language.document import Effect, Kind, Policy, Statement, parse_policy
from overair.server.policy_language.evaluation import Decision
from overair.server.policy_language.long_texts import LONG_LENGTH, TEXT_LENGTH_MAX, LongText
from overair.server.policy_language.patterns import Pattern, Variable, compile_patterns, prefix_of, variables_of

CONNECT: Final = "iot:Connect"
PUBLISH: Final = "iot:Publish"
SUBSCRIBE: Final = "iot:Subscribe"
RECEIVE: Final = "iot:Receive"
RETAIN_PUBLISH: Final = "iot:RetainPublish"
DATA_PLANE_ACTIONS: Final = (CONNECT, PUBLISH, SUBSCRIBE, RECEIVE, RETAIN_PUBLISH)

NOT_SUBSTITUTED: Final = frozenset("*$+?#")
"""A value with one of these isn't put into an Allow: a client can't choose a name that widens its own policy. In a Deny it is
compared as plain text, so that such a name doesn't slip out from under it either."""

VALUE_LENGTH_MAX: Final = 1024
"""Characters of a value; a longer one is treated like one of those."""

PLANS_MAX: Final = 256
"""Different combinations of (which variables have values, which conditions hold) remembered for one set."""

_TIME_KEYS: Final = frozenset({"aws:currenttime", "aws:epochtime"})

Match = Callable[[str], "re.Match[str] | None"]
Matchers = tuple[Match | None, Match | None]
"""(what is allowed, what is denied) for one action."""
_Usable = tuple[Statement, tuple[Pattern, ...], "re.Pattern[str]"]
"""A statement, those of its resources whose variables have values, and its actions."""


def is_fit(value: str) -> bool:
    """Whether a value may be put into an Allow."""
    return len(value) <= VALUE_LENGTH_MAX and NOT_SUBSTITUTED.isdisjoint(value)


class _Plan:
    """The expressions for one combination of usable patterns. Subject: the values, NUL after each, then the resource."""

    __slots__ = ("_statements", "_variables", "matchers")

    def __init__(self, statements: Sequence[_Usable], variables: Sequence[Variable]) -> None:
        self._statements = statements
        self._variables = variables
        self.matchers: dict[str, Matchers] = {}
        for action in DATA_PLANE_ACTIONS:
            self.compile(action)

    def _chosen(self, action: str) -> dict[Effect, list[Pattern]]:
        chosen: dict[Effect, list[Pattern]] = {Effect.ALLOW: [], Effect.DENY: []}
        for statement, patterns, actions in self._statements:
            if actions.match(action):
                chosen[statement.effect].extend(patterns)
        return chosen

    def decide_long(self, action: str, resource: str, values: Sequence[str]) -> Decision:
        """What the expressions would say of a resource that is too long for them."""
        if len(resource) > TEXT_LENGTH_MAX:
            return Decision.IMPLICIT_DENY
        value_by_variable = dict(zip(self._variables, values, strict=True))
        chosen, text = self._chosen(action), LongText(resource)
        if text.matches_any(chosen[Effect.DENY], value_by_variable):
            return Decision.EXPLICIT_DENY
        return Decision.ALLOW if text.matches_any(chosen[Effect.ALLOW], value_by_variable) else Decision.IMPLICIT_DENY

    def compile(self, action: str) -> Matchers:
        chosen = self._chosen(action)
        allow = compile_patterns(chosen[Effect.ALLOW], self._variables)
        deny = compile_patterns(chosen[Effect.DENY], self._variables)
        found = (allow.match if allow else None, deny.match if deny else None)
        if len(self.matchers) < PLANS_MAX:
            self.matchers[action] = found
        return found


class BoundPolicySet:
    """A policy set with one connection's values: what this connection may do. Immutable; safe to share."""

    __slots__ = ("_matchers", "_plan", "_plan_now", "_prefix")

    def __init__(self, prefix: str, plan: _Plan, plan_now: Callable[[], _Plan] | None) -> None:
        self._prefix = prefix
        self._plan = plan
        self._plan_now = plan_now
        self._matchers = plan.matchers

    def allows(self, action: str, resource: str) -> bool:
        """Whether ``action`` (spelt as in ``DATA_PLANE_ACTIONS``) on the resource's ARN is allowed and not denied."""
        if len(resource) > LONG_LENGTH:
            return self.decide(action, resource) is Decision.ALLOW
        if self._plan_now is None:
            found = self._matchers.get(action)
            allow, deny = found if found is not None else self._plan.compile(action)
        else:
            plan = self._plan_now()
            allow, deny = plan.matchers.get(action) or plan.compile(action)
        if allow is None:
            return False
        subject = self._prefix + resource
        return allow(subject) is not None and (deny is None or deny(subject) is None)

    def decide(self, action: str, resource: str) -> Decision:
        """The same, telling an explicit deny from an implicit one."""
        plan = self._plan if self._plan_now is None else self._plan_now()
        if len(resource) > LONG_LENGTH:
            return plan.decide_long(action, resource, self._prefix.split("\0")[:-1])
        allow, deny = plan.matchers.get(action) or plan.compile(action)
        subject = self._prefix + resource
        if deny is not None and deny(subject):
            return Decision.EXPLICIT_DENY
        return Decision.ALLOW if allow is not None and allow(subject) else Decision.IMPLICIT_DENY


class PolicySet:
    """The policies attached to a principal, compiled. Equal sets of documents should share one instance."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._statements: list[tuple[Statement, re.Pattern[str]]] = []
        for policy in policies:
            assert policy.kind is Kind.DEVICE
            for statement in policy.statements:
                actions = compile_patterns(statement.actions, (), ignore_case=True)
                assert actions is not None
                self._statements.append((statement, actions))
        patterns = [pattern for statement, _ in self._statements for pattern in statement.resources]
        self._variables = variables_of(patterns)
        self._conditional = tuple(
            (number, statement) for number, (statement, _) in enumerate(self._statements) if statement.conditions
        )
        self._timed = any(
            condition.key in _TIME_KEYS for _, statement in self._conditional for condition in statement.conditions
        )
        self._plans: dict[tuple[frozenset[int], frozenset[int], frozenset[int]], _Plan] = {}

    @classmethod
    def parse(cls, documents: Iterable[str]) -> PolicySet:
        """Read and compile documents. Raises InvalidRequest with subject ``policy``."""
        return cls([parse_policy(document, Kind.DEVICE) for document in documents])

    def bind(self, values: Mapping[str, str | Sequence[str]], *, now: Callable[[], Instant] | None = None) -> BoundPolicySet:
        """Put one connection's values in.

        ``values`` are variables and condition keys by name, such as ``iot:ClientId`` (``device_variables`` makes them); what a
        connection doesn't have is absent. ``now`` is asked only by policies that have a condition on the time; without it such
        an Allow doesn't hold and such a Deny does.
        """
        context = context_of(values)
        found = [value_of(variable, context) for variable in self._variables]
        unknown = frozenset(number for number, value in enumerate(found) if value is None)
        unfit = frozenset(number for number, value in enumerate(found) if value is not None and not is_fit(value))
        prefix = prefix_of([value or "" for value in found])
        plan = self._plan(unknown, unfit, context, timeless=self._timed)
        if not self._timed or now is None:
            return BoundPolicySet(prefix, plan, None)

        def plan_now() -> _Plan:
            moment = as_datetime(now())
            timed = {**context, "aws:currenttime": (moment.isoformat(),), "aws:epochtime": (str(int(moment.timestamp())),)}
            return self._plan(unknown, unfit, timed, timeless=False)

        return BoundPolicySet(prefix, plan, plan_now)

    def _plan(self, unknown: frozenset[int], unfit: frozenset[int], context: Context, *, timeless: bool) -> _Plan:
        failing = frozenset(number for number, statement in self._conditional if not _holds(statement, context, timeless))
        key = (unknown, unfit, failing)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS_MAX:
                self._plans.clear()
            plan = self._plans[key] = self._compile(unknown, unfit, failing)
        return plan

    def _compile(self, unknown: frozenset[int], unfit: frozenset[int], failing: frozenset[int]) -> _Plan:
        usable = []
        number_of = {variable: number for number, variable in enumerate(self._variables)}
        for index, (statement, actions) in enumerate(self._statements):
            if index in failing:
                continue
            missing = unknown | unfit if statement.effect is Effect.ALLOW else unknown
            patterns = tuple(
                pattern
                for pattern in statement.resources
                if not any(isinstance(part, Variable) and number_of[part] in missing for part in pattern)
            )
            usable.append((statement, patterns, actions))
        return _Plan(usable, self._variables)


def _holds(statement: Statement, context: Context, timeless: bool) -> bool:
    for condition in statement.conditions:
        if timeless and condition.key in _TIME_KEYS:
            if statement.effect is Effect.ALLOW:
                return False
        elif not condition.holds(context):
            return False
    return True
