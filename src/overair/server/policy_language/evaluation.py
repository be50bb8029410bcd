"""What a set of policies says about one request. Pure.

Order: an explicit Deny anywhere wins; else one Allow suffices; else it is an implicit deny. Actions are compared without
regard to case, resources with. Reference: IAM user guide, "Policy evaluation logic".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from overair.server.policy_language.conditions import Context, value_of
from overair.server.policy_language.document import Effect, Kind, Policy, Principals, Statement, parse_policy
from overair.server.policy_language.long_texts import LONG_LENGTH, TEXT_LENGTH_MAX, LongText
from overair.server.policy_language.patterns import Variable, compile_patterns, prefix_of


class Decision(Enum):
    """The three answers; the values are the words of IAM's policy simulator."""

    ALLOW = "allowed"
    EXPLICIT_DENY = "explicitDeny"
    IMPLICIT_DENY = "implicitDeny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, as a resource or trust policy sees it: an identity of an account, or a service."""

    account: str = ""
    arns: tuple[str, ...] = ()
    """Every ARN that names this identity: a role's session answers to the session's and to the role's."""
    is_root: bool = False
    service: str = ""
    """``iot.amazonaws.com``; then there is no ARN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request to be judged."""

    action: str
    resource: str
    context: Context


class CompiledStatement:
    """A statement ready to be asked. Expressions are compiled when first needed."""

    __slots__ = ("_actions", "_resources", "_statement", "_variables")

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._variables: tuple[Variable, ...] = statement.variables
        self._actions: re.Pattern[str] | None = None
        self._resources: re.Pattern[str] | None = None

    @property
    def effect(self) -> Effect:
        return self._statement.effect

    @property
    def principals(self) -> Principals | None:
        return self._statement.principals

    def applies(self, question: Question) -> bool:
        """Whether action, resource and conditions all match (the principal is another question)."""
        statement = self._statement
        if self._actions is None:
            # Several threads may come here at once: whoever sees the actions must see the resources too.
            self._resources = compile_patterns(statement.resources, self._variables)
            self._actions = compile_patterns(statement.actions, (), ignore_case=True)
        assert self._actions is not None
        if (self._actions.match(question.action) is not None) == statement.actions_negated:
            return False
        if len(question.resource) > TEXT_LENGTH_MAX or not self._covers(question):
            return False
        return all(condition.holds(question.context) for condition in statement.conditions)

    def looks_at(self, prefix: str) -> bool:
        """Whether it depends on a condition key that begins so (in its comparing form)."""
        keys = [condition.key for condition in self._statement.conditions]
        return any(key.startswith(prefix) for key in (*keys, *(variable.name for variable in self._variables)))

    def lacking(self, question: Question) -> set[str]:
        """Condition keys that this statement looks at and the request doesn't have, if it is about the request's action. In
        their comparing form."""
        self.applies(question)
        assert self._actions is not None
        if (self._actions.match(question.action) is not None) == self._statement.actions_negated:
            return set()
        keys = {variable.name for variable in self._variables if variable.default is None}
        if self._covers(question):
            keys |= {condition.key for condition in self._statement.conditions}
        return {key for key in keys if key not in question.context}

    def _covers(self, question: Question) -> bool:
        assert self._resources is not None
        values = []
        for variable in self._variables:
            value = value_of(variable, question.context)
            if value is None:
                # A pattern with this variable matches nothing; the statement's other resources still may.
                return self._covers_one_by_one(question)
            values.append(value)
        if len(question.resource) > LONG_LENGTH:
            value_by_variable = dict(zip(self._variables, values, strict=True))
            is_named = LongText(question.resource).matches_any(self._statement.resources, value_by_variable)
            return is_named != self._statement.resources_negated
        found = self._resources.match(prefix_of(values) + question.resource if values else question.resource)
        return (found is not None) != self._statement.resources_negated

    def _covers_one_by_one(self, question: Question) -> bool:
        known = {variable for variable in self._variables if value_of(variable, question.context) is not None}
        usable = [
            pattern
            for pattern in self._statement.resources
            if all(part in known for part in pattern if isinstance(part, Variable))
        ]
        if len(usable) < len(self._statement.resources) and self._statement.resources_negated:
            # "All but this one", and which one isn't known: an Allow must not reach further than was meant, a Deny not less.
            return self._statement.effect is Effect.DENY
        variables = [variable for variable in self._variables if variable in known]
        values = [value_of(variable, question.context) or "" for variable in variables]
        if len(question.resource) > LONG_LENGTH:
            return LongText(question.resource).matches_any(usable, dict(zip(variables, values, strict=True)))
        expression = compile_patterns(usable, variables)
        return expression is not None and expression.match(prefix_of(values) + question.resource) is not None


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A document ready to be asked."""

    statements: tuple[CompiledStatement, ...]

    def looks_at(self, prefix: str) -> bool:
        """Whether any statement depends on a condition key that begins so."""
        return any(statement.looks_at(prefix) for statement in self.statements)

    @classmethod
    def of(cls, policy: Policy) -> CompiledPolicy:
        return cls(tuple(CompiledStatement(statement) for statement in policy.statements))

    @classmethod
    def parse(cls, text: str, kind: Kind) -> CompiledPolicy:
        """Read and compile a document. Raises InvalidRequest with subject ``policy``."""
        return cls.of(parse_policy(text, kind))


def evaluate(policies: Iterable[CompiledPolicy], question: Question) -> Decision:
    """What identity policies (or any policies whose principal is settled) decide together."""
    decision = Decision.IMPLICIT_DENY
    for policy in policies:
        for statement in policy.statements:
            if statement.effect is Effect.ALLOW:
                if decision is Decision.IMPLICIT_DENY and statement.applies(question):
                    decision = Decision.ALLOW
            elif statement.applies(question):
                return Decision.EXPLICIT_DENY
    return decision


def evaluate_for(policies: Iterable[CompiledPolicy], question: Question, principal: Principal) -> Decision:
    """What resource or trust policies decide for one principal."""
    decision = Decision.IMPLICIT_DENY
    for policy in policies:
        for statement in policy.statements:
            principals = statement.principals
            if principals is None or not names(principals, principal, statement.effect):
                continue
            if not statement.applies(question):
                continue
            if statement.effect is Effect.DENY:
                return Decision.EXPLICIT_DENY
            decision = Decision.ALLOW
    return decision


def allows_by_name(policies: Iterable[CompiledPolicy], question: Question, arn: str) -> bool:
    """Whether a resource policy allows it to this very ARN, and not only to everyone, an account or the role behind it: such a
    grant isn't narrowed by a permissions boundary or a session policy."""
    return any(
        statement.effect is Effect.ALLOW
        and statement.principals is not None
        and not statement.principals.negated
        and arn in statement.principals.aws
        and statement.applies(question)
        for policy in policies
        for statement in policy.statements
    )


def names(principals: Principals, principal: Principal, effect: Effect) -> bool:
    """Whether a statement is about this principal.

    Naming an account hands the decision to the account's own policies: such an Allow by itself grants its root user alone,
    such a Deny denies everyone of the account. NotPrincipal is read so that it never gives more than it says: what an Allow
    leaves out by an account is everyone of it; what a Deny spares by an account is its root user alone, and of a role's
    sessions those whose session and role both are named.
    """
    if principals.everyone:
        return not principals.negated
    denies = effect is Effect.DENY
    enough = all if principals.negated and denies else any
    named = (bool(principal.service) and principal.service in principals.services) or (
        bool(principal.arns) and enough(arn in principals.aws for arn in principal.arns)
    )
    if not named and principal.account:
        whole_account = principal.account in principals.aws or f"arn:aws:iam::{principal.account}:root" in principals.aws
        named = whole_account and (principal.is_root or denies != principals.negated)
    return named != principals.negated


def together(decisions: Sequence[Decision]) -> Decision:
    """Several kinds of policy in one account: any explicit Deny wins, then any Allow."""
    if Decision.EXPLICIT_DENY in decisions:
        return Decision.EXPLICIT_DENY
    return Decision.ALLOW if Decision.ALLOW in decisions else Decision.IMPLICIT_DENY
