"""What would be decided, and by which statement? The simulator asks the same evaluator as the doors do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.server.access.grants import Grants
from overair.server.access.service import granted_by_resource
from overair.server.policy_language.document import Kind, parse_policy
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Principal, Question, evaluate, together
from overair.server.policy_language.patterns import key_name

INPUTS_MAX: Final = 100
"""Documents in one list of a request."""
JUDGEMENTS_MAX: Final = 100_000
"""Statements that one page looks at, over all its questions: a page may be shorter than was asked for."""
TEXTS_REMEMBERED: Final = 256
_VARIABLE: Final = re.compile(r"\$\{\s*([^\s{}*?$,']+)")


@dataclass(frozen=True, slots=True)
class Source:
    """One policy that takes part, and what answers call it."""

    policy_id: str
    kind: str
    """``user``, ``group``, ``role``, ``aws-managed``, ``user-managed``, ``resource`` or ``none``."""
    text: str
    policy: CompiledPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one question came to."""

    decision: Decision
    matched: Sequence[tuple[Source, int]]
    """Statements that apply, by their number in the document."""
    missing: Sequence[str]
    """Condition keys that a statement about this action looks at and that no value was given for."""
    allowed_by_boundary: bool | None
    """None where nothing bounds."""


def sources_of(inputs: Sequence[str], *, name: str, kind: str = "none") -> list[Source]:
    """Documents that came with a request.

    Raises:
        InvalidRequest: one can't be read, or there are too many. Subject ``iam-input``.
    """
    if len(inputs) > INPUTS_MAX:
        raise InvalidRequest(f"{name} has {len(inputs)} policies, at most {INPUTS_MAX} are read.", subject="iam-input")
    read = Kind.RESOURCE if kind == "resource" else Kind.MANAGED
    found = []
    for number, text in enumerate(inputs, 1):
        try:
            policy = CompiledPolicy.of(parse_policy(text, read))
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}.{number}: {error.message}", subject="iam-input") from None
        found.append(Source(f"{name}.{number}", kind, text, policy))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Whose policies are asked, and what narrows them."""

    identity: Sequence[Source]
    boundary: Sequence[Source] | None = None
    resource: Sequence[Source] = ()
    principal: Principal | None = None
    """Who asks, as the resource's policy sees it."""

    @property
    def questions_max(self) -> int:
        """How many questions fit into one page; one always does."""
        statements = sum(len(each.policy.statements) for each in (*self.identity, *(self.boundary or ()), *self.resource))
        return max(1, JUDGEMENTS_MAX // max(1, statements))

    def ask(self, question: Question) -> Outcome:
        """Decide one question as a door would."""
        bounding = None if self.boundary is None else tuple(source.policy for source in self.boundary)
        grants = Grants(identity=tuple(source.policy for source in self.identity), boundary=bounding)
        decisions = [grants.decide(question)]
        if self.resource and self.principal is not None:
            theirs = [source.policy for source in self.resource]
            decisions.append(granted_by_resource(theirs, question, self.principal, grants))
        everyone = [*self.identity, *(self.boundary or ()), *self.resource]
        names = {key_name(name): name for source in everyone for name in context_keys(source.text)}
        missing = {key for source in everyone for statement in source.policy.statements for key in statement.lacking(question)}
        return Outcome(
            decision=together(decisions),
            matched=[
                (source, number)
                for source in (*self.identity, *self.resource)
                for number, statement in enumerate(source.policy.statements)
                if statement.applies(question)
            ],
            missing=sorted(names.get(key, key) for key in missing),
            allowed_by_boundary=None if bounding is None else evaluate(bounding, question) is Decision.ALLOW,
        )


@lru_cache(maxsize=TEXTS_REMEMBERED)
def context_keys(text: str) -> tuple[str, ...]:
    """The condition keys that an accepted document looks at, as it writes them: in conditions and as variables."""
    document = json.loads(text)
    statements = document.get("Statement", ())
    found: dict[str, str] = {}
    for statement in statements if isinstance(statements, list) else [statements]:
        for keys in statement.get("Condition", {}).values():
            found |= {key_name(key): key for key in keys}
        for value in _strings(statement):
            for name in _VARIABLE.findall(value):
                found.setdefault(key_name(name), name)
    return tuple(sorted(found.values()))


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
