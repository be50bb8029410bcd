"""Conditions of policies: operators, keys, values.

Keys are joined by AND, values of one key by OR (for the negated operators by NOR). A key that the request doesn't have makes
a positive operator false and a negated one true; ``…IfExists`` makes it true either way. ``ForAllValues:`` and
``ForAnyValue:`` look at each value of the request. Reference: IAM user guide, "Condition operators" and"Multivalued keys".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from overair.server.policy_language.long_texts import LONG_LENGTH, TEXT_LENGTH_MAX, LongText
from overair.server.policy_language.patterns import (
    ANY,
    Pattern,
    Variable,
    compile_patterns,
    key_name,
    parse_pattern,
    prefix_of,
    variables_of,
)

OPERATORS_MAX: Final = 50
KEYS_MAX: Final = 100
VALUES_MAX: Final = 500

Context = Mapping[str, tuple[str, ...]]
"""Condition keys of one request in their comparing form (``patterns.key_name``) and their values; absent keys are absent."""


class MalformedCondition(ValueError):
    """An operator, a key or a value that can't be one."""


def context_of(values: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """A context from names in any case; a single value may stand as itself. Of a value longer than any that policies are
    about, such as a user agent that somebody made up, the beginning counts."""
    return {
        key_name(name): (value[:TEXT_LENGTH_MAX],)
        if isinstance(value, str)
        else tuple([each[:TEXT_LENGTH_MAX] for each in value])
        for name, value in values.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One operator over one key."""

    operator: str
    """The base form: ``StringLike`` in ``ForAnyValue:StringLikeIfExists``."""
    quantifier: str
    """``ForAllValues``, ``ForAnyValue`` or empty."""
    if_exists: bool
    key: str
    values: tuple[Pattern, ...]

    def holds(self, context: Context) -> bool:
        """Whether the request meets this condition."""
        found = context.get(self.key)
        if self.operator == "Null":
            return any((not found) == (_text(value, context) or "").lower().startswith("t") for value in self.values)
        matcher, negated = OPERATORS[self.operator]
        if not found:
            return self.if_exists or (self.quantifier == "ForAllValues") or (negated and not self.quantifier)

        def matches(value: str) -> bool:
            return any(matcher(value, pattern, context) for pattern in self.values)

        if self.quantifier == "ForAllValues":
            return all(matches(value) != negated for value in found)
        if self.quantifier == "ForAnyValue":
            return any(matches(value) != negated for value in found)
        return not any(map(matches, found)) if negated else any(map(matches, found))


def value_of(variable: Variable, context: Context) -> str | None:
    """What a variable stands for: the single value of its key, else its default, else nothing."""
    found = context.get(variable.name)
    if found is not None and len(found) == 1 and "\0" not in found[0]:
        return found[0]
    return variable.default


def _text(pattern: Pattern, context: Context) -> str | None:
    """A pattern without wildcards as text; None where a variable has no value."""
    texts = []
    for part in pattern:
        if isinstance(part, Variable):
            value = value_of(part, context)
            if value is None:
                return None
            texts.append(value)
        else:
            texts.append(part if isinstance(part, str) else part.symbol)
    return "".join(texts)


@lru_cache(maxsize=2048)
def _compiled(pattern: Pattern) -> tuple[re.Pattern[str], tuple[Variable, ...]]:
    variables = variables_of([pattern])
    expression = compile_patterns([pattern], variables)
    assert expression is not None
    return expression, variables


def matches_pattern(text: str, pattern: Pattern, context: Context) -> bool:
    """Whether a text is what the pattern says, with this request's values in its variables."""
    expression, variables = _compiled(pattern)
    values = []
    for variable in variables:
        value = value_of(variable, context)
        if value is None:
            return False
        values.append(value)
    if len(text) > LONG_LENGTH:
        return LongText(text).matches(pattern, dict(zip(variables, values, strict=True)))
    return expression.match(prefix_of(values) + text) is not None


def _string_equals(value: str, pattern: Pattern, context: Context) -> bool:
    return value == _text(pattern, context)


def _string_equals_ignoring_case(value: str, pattern: Pattern, context: Context) -> bool:
    text = _text(pattern, context)
    return text is not None and value.casefold() == text.casefold()


def _arn_like(value: str, pattern: Pattern, context: Context) -> bool:
    # Each of the six parts is compared on its own: a * doesn't reach over a colon, but for the last part.
    if pattern == (ANY,):
        return True
    wanted = _arn_parts(pattern)
    given = value.split(":", 5)
    return len(wanted) == len(given) == 6 and all(
        matches_pattern(text, part, context) for text, part in zip(given, wanted, strict=True)
    )


@lru_cache(maxsize=2048)
def _arn_parts(pattern: Pattern) -> tuple[Pattern, ...]:
    parts: list[list[str | Variable | object]] = [[]]
    for piece in pattern:
        if not isinstance(piece, str):
            parts[-1].append(piece)
            continue
        while len(parts) < 6 and ":" in piece:
            before, _, piece = piece.partition(":")
            if before:
                parts[-1].append(before)
            parts.append([])
        if piece:
            parts[-1].append(piece)
    return tuple(tuple(part) for part in parts)  # type: ignore[arg-type]


def _bool(value: str, pattern: Pattern, context: Context) -> bool:
    text = _text(pattern, context)
    return text is not None and value.lower() == text.lower() and value.lower() in ("true", "false")


def _address(value: str, pattern: Pattern, context: Context) -> bool:
    text = _text(pattern, context)
    if text is None:
        return False
    try:
        return ipaddress.ip_address(value) in _network(text)
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})")


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise ValueError(text)
    return float(text)


def _moment(text: str) -> float:
    """Seconds since 1970 from ISO 8601 or from a number of seconds."""
    if _NUMBER.fullmatch(text):
        return float(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


Matcher = Callable[[str, Pattern, Context], bool]


def _ordered(read: Callable[[str], float], holds: Callable[[float, float], bool]) -> Matcher:
    def matcher(value: str, pattern: Pattern, context: Context) -> bool:
        text = _text(pattern, context)
        if text is None:
            return False
        try:
            return holds(read(value), read(text))
        except (ValueError, OverflowError):
            return False

    return matcher


def _comparisons(prefix: str, read: Callable[[str], float]) -> dict[str, tuple[Matcher, bool]]:
    equal = _ordered(read, lambda left, right: left == right)
    return {
        f"{prefix}Equals": (equal, False),
        f"{prefix}NotEquals": (equal, True),
        f"{prefix}LessThan": (_ordered(read, lambda left, right: left < right), False),
        f"{prefix}LessThanEquals": (_ordered(read, lambda left, right: left <= right), False),
        f"{prefix}GreaterThan": (_ordered(read, lambda left, right: left > right), False),
        f"{prefix}GreaterThanEquals": (_ordered(read, lambda left, right: left >= right), False),
    }


OPERATORS: Final[Mapping[str, tuple[Matcher, bool]]] = {
    "StringEquals": (_string_equals, False),
    "StringNotEquals": (_string_equals, True),
    "StringEqualsIgnoreCase": (_string_equals_ignoring_case, False),
    "StringNotEqualsIgnoreCase": (_string_equals_ignoring_case, True),
    "StringLike": (matches_pattern, False),
    "StringNotLike": (matches_pattern, True),
    "ArnEquals": (_arn_like, False),
    "ArnLike": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnNotLike": (_arn_like, True),
    "Bool": (_bool, False),
    "BinaryEquals": (_string_equals, False),
    "IpAddress": (_address, False),
    "NotIpAddress": (_address, True),
    **_comparisons("Numeric", _number),
    **_comparisons("Date", _moment),
}
"""Operator → (does one value of the request match one of the policy, is the operator its negation)."""

_OPERATOR: Final = re.compile(r"(?:(ForAllValues|ForAnyValue):)?([A-Za-z]+?)(IfExists)?")
_KEY: Final = re.compile(r"[A-Za-z0-9-]+:[^\s\0]{1,256}")
_WITH_WILDCARDS: Final = frozenset({"StringLike", "StringNotLike", "ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"})


def parse_conditions(given: object, *, variables: bool) -> tuple[Condition, ...]:
    """Read a ``Condition`` element.

    Raises:
        MalformedCondition: an operator or a key that can't be one, or a value that its operator can't read.
    """
    if not isinstance(given, dict) or len(given) > OPERATORS_MAX:
        raise MalformedCondition(f"Condition must be an object of at most {OPERATORS_MAX} operators")
    parsed = []
    for name, keys in given.items():
        found = _OPERATOR.fullmatch(name)
        quantifier, operator, if_exists = found.groups() if found else ("", "", "")
        if operator not in OPERATORS and not (operator == "Null" and not quantifier and not if_exists):
            raise MalformedCondition(f"{name[:60]!r} is no condition operator")
        if not isinstance(keys, dict) or not 1 <= len(keys) <= KEYS_MAX:
            raise MalformedCondition(f"{name} must be an object of 1 to {KEYS_MAX} keys")
        for key, value in keys.items():
            if not _KEY.fullmatch(key):
                raise MalformedCondition(f"{key[:60]!r} is no condition key; a key reads prefix:name")
            values = value if isinstance(value, list) else [value]
            if len(values) > VALUES_MAX:
                raise MalformedCondition(f"{key[:60]} has {len(values)} values, at most {VALUES_MAX} are read")
            texts = [_value(operator, key, item) for item in values]
            patterns = [parse_pattern(text, wildcards=operator in _WITH_WILDCARDS, variables=variables) for text in texts]
            for text, pattern in zip(texts, patterns, strict=True):
                _check_value(operator, text, pattern)
            parsed.append(
                Condition(
                    operator=operator,
                    quantifier=quantifier or "",
                    if_exists=bool(if_exists),
                    key=key_name(key),
                    values=tuple(patterns),
                )
            )
    return tuple(parsed)


def _value(operator: str, key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return value
    raise MalformedCondition(f"a value of {operator} {key[:60]} must be a string, a number or a Boolean")


def _check_value(operator: str, text: str, pattern: Pattern) -> None:
    if variables_of([pattern]):
        return
    try:
        if operator in ("Bool", "Null") and text.lower() not in ("true", "false"):
            raise ValueError
        if operator in ("IpAddress", "NotIpAddress"):
            _network(text)
        elif operator.startswith("Numeric"):
            _number(text)
        elif operator.startswith("Date"):
            _moment(text)
        elif operator.startswith("Arn") and len(_arn_parts(pattern)) != 6 and text != "*":
            raise ValueError
    except (ValueError, OverflowError):
        raise MalformedCondition(f"{operator} can't read {text[:80]!r}") from None
