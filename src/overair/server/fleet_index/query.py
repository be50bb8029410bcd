"""The query language of fleet indexing: text → a tree of tests. Pure.

    query   := all ("OR" all)*                     all := one (["AND"] one)*
    one     := ("NOT" | "-") one | "(" query ")" | field ":" "(" query ")" | term
    term    := [field ":"] (word | "phrase") | field ":" range | field ("<" | ">" | "<=" | ">=") (word | "phrase")
    range   := ("[" | "{") bound "TO" bound ("]" | "}")            bound := word | "phrase" | "*"

Words may hold the wildcards ``*`` and ``?``; a backslash takes the next character literally; what stands in quotes is literal.
Operators are upper case. Names of fields are case sensitive, values are not. NOT binds closest, then AND, then OR. As AWS's
guide has it ("Query syntax" of fleet indexing), but for the bounds below.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final

from overair.basics.errors import InvalidRequest

QUERY_LENGTH_MAX: Final = 1_000
TERMS_MAX: Final = 32
DEPTH_MAX: Final = 16
WILDCARDS_MAX: Final = 8
"""In one word."""

OPERATORS: Final = frozenset({"AND", "OR", "NOT", "TO"})
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,15})(?:\.([0-9]{1,15}))?", re.ASCII)
_DIGITS_EXACT_MAX: Final = 15
"""More digits than these a double doesn't hold exactly: such a value is compared as text alone."""
_ENDS_WORD: Final = frozenset('()[]{}"<>')
_REFUSED: Final = frozenset("`@#%'/;,^~!&|")


class Wild(Enum):
    """A wildcard in a pattern."""

    ANY = "*"
    """Any characters, or none."""
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a field: its text in lower case, and the number that it reads as."""

    text: str
    number: float | None


@dataclass(frozen=True, slots=True)
class Equals:
    """The same text, or the same number."""

    value: Value


@dataclass(frozen=True, slots=True)
class Like:
    """A pattern of literal pieces and wildcards over the whole value."""

    parts: tuple[str | Wild, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    value: Value
    inclusive: bool


@dataclass(frozen=True, slots=True)
class Between:
    """Within a range that may be open at an end: by number where every bound is one, else by text in code-point order."""

    low: Bound | None
    high: Bound | None

    @property
    def by_number(self) -> bool:
        return all(bound is None or bound.value.number is not None for bound in (self.low, self.high))


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value."""


Test = Equals | Like | Between | Exists


@dataclass(frozen=True, slots=True)
class Term:
    """A test of one field; without one, of all fields of the registry. ``Exists`` without a field holds for everything."""

    field: str | None
    test: Test


@dataclass(frozen=True, slots=True)
class Not:
    part: Query


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Query, ...]


Query = Term | Not | AllOf | AnyOf
Document = Mapping[str, Sequence[Value]]
"""A thing or a group as the index sees it: the values of each field."""


def value_of(text: str) -> Value:
    """A value as it is compared."""
    return Value(text.lower(), number_of(text))


def number_of(text: str) -> float | None:
    """The number that a text reads as, if a double holds it exactly enough to be compared."""
    found = _NUMBER.fullmatch(text)
    if found is None or len((found[1] + (found[2] or "")).lstrip("0")) > _DIGITS_EXACT_MAX:
        return None
    return float(text)


def refused(message: str) -> InvalidRequest:
    """What a query that can't be understood is answered with."""
    return InvalidRequest(f"Invalid query: {message}", subject="query")


def terms(query: Query) -> Iterator[Term]:
    """Every term of a query."""
    match query:
        case Term():
            yield query
        case Not():
            yield from terms(query.part)
        case AllOf() | AnyOf():
            for part in query.parts:
                yield from terms(part)


@lru_cache(maxsize=1024)
def parse(text: str) -> Query:
    """Read a query.

    Raises:
        InvalidRequest: it isn't one, or breaks a bound. Subject ``query``.
    """
    if len(text) > QUERY_LENGTH_MAX:
        raise refused(f"it has {len(text)} characters; {QUERY_LENGTH_MAX} are allowed.")
    if "\0" in text:
        raise refused("a NUL character can't be looked for.")
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over the characters."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._terms = 0

    def whole(self) -> Query:
        if not self._peek():
            raise refused("it is empty. '*' means everything.")
        query = self._any_of(None, 0)
        if self._peek():
            raise refused(f"{self._rest()} was not expected here.")
        return query

    # Structure ------------------------------------------------------------------------------------------------------------

    def _any_of(self, field: str | None, depth: int) -> Query:
        parts = [self._all_of(field, depth)]
        while self._takes_operator("OR"):
            parts.append(self._all_of(field, depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _all_of(self, field: str | None, depth: int) -> Query:
        parts = [self._one(field, depth)]
        while True:
            if not self._takes_operator("AND") and (self._peek() in ("", ")") or self._operator() == "OR"):
                return parts[0] if len(parts) == 1 else AllOf(tuple(parts))
            parts.append(self._one(field, depth))

    def _one(self, field: str | None, depth: int) -> Query:
        if depth >= DEPTH_MAX:
            raise refused(f"it is nested more than {DEPTH_MAX} deep.")
        if self._takes_operator("NOT"):
            return Not(self._one(field, depth + 1))
        if self._peek() == "-":
            self._at += 1
            if self._text[self._at : self._at + 1].strip() == "":
                raise refused("'-' must be followed at once by what it excludes.")
            return Not(self._one(field, depth + 1))
        if self._peek() == "(":
            return self._group(field, depth)
        if (operator := self._operator()) is not None:
            raise refused(f"{operator} stands where a term was expected. Put the word in quotes to look for it.")
        return self._term(field, depth)

    def _group(self, field: str | None, depth: int) -> Query:
        self._at += 1
        if self._peek() == ")":
            raise refused("'()' holds nothing.")
        query = self._any_of(field, depth + 1)
        if self._peek() != ")":
            raise refused("a '(' isn't closed.")
        self._at += 1
        return query

    # Terms ----------------------------------------------------------------------------------------------------------------

    def _term(self, field: str | None, depth: int) -> Query:
        char = self._peek()
        if char == '"':
            return self._made(field, Equals(Value(self._phrase().lower(), None)))
        if char in ("[", "{"):
            return self._range(field)
        if char in ("<", ">"):
            return self._comparison(field)
        if not char or char in _ENDS_WORD or char == ":":
            raise refused(f"a term was expected at {self._rest()}." if char else "it ends where a term was expected.")
        if char == "+":
            raise refused("'+' has no meaning here: every term counts already.")
        parts = self._word(in_value=field is not None)
        if field is None and self._peek() in (":", "<", ">"):
            named = self._field_name(parts)
            if self._peek() != ":":
                return self._comparison(named)
            self._at += 1
            if self._peek() == "(":
                return self._group(named, depth)
            if self._peek() in ("", ")") or self._operator() is not None:
                raise refused(f"the field {named[:64]} has no value.")
            return self._of_field(named)
        if field is not None and self._peek() in ("<", ">"):
            raise refused("a field inside the parentheses of another one isn't allowed.")
        return self._made(field, _word_test(parts))

    def _of_field(self, field: str) -> Query:
        char = self._peek()
        if char == '"':
            return self._made(field, Equals(Value(self._phrase().lower(), None)))
        if char in ("[", "{"):
            return self._range(field)
        if char in ("<", ">"):
            return self._comparison(field)
        return self._made(field, _word_test(self._word(in_value=True)))

    def _comparison(self, field: str | None) -> Query:
        below = self._text[self._at] == "<"
        self._at += 1
        inclusive = self._text[self._at : self._at + 1] == "="
        self._at += inclusive
        bound = self._bound(inclusive)
        if bound is None:
            raise refused("a comparison needs a value, not '*'.")
        return self._made(_required(field), Between(None, bound) if below else Between(bound, None))

    def _range(self, field: str | None) -> Query:
        low_inclusive = self._text[self._at] == "["
        self._at += 1
        low = self._bound(low_inclusive)
        if not self._takes_operator("TO"):
            raise refused(
                "a range is written [low TO high], with square brackets for included bounds and curly ones for others."
            )
        at = self._at
        high = self._bound(True)
        if self._peek() not in ("]", "}"):
            raise refused(f"the range that ends with {self._text[at : at + 20]!r} isn't closed by ']' or '}}'.")
        if high is not None and self._peek() == "}":
            high = Bound(high.value, False)
        self._at += 1
        return self._made(_required(field), Exists() if low is None and high is None else Between(low, high))

    def _bound(self, inclusive: bool) -> Bound | None:
        if self._peek() == '"':
            return Bound(Value(self._phrase().lower(), None), inclusive)
        parts = self._word(in_value=True)
        if parts == (Wild.ANY,):
            return None
        if any(isinstance(part, Wild) for part in parts):
            raise refused("a bound has no wildcards, but for '*' alone: no bound.")
        return Bound(value_of("".join(str(part) for part in parts)), inclusive)

    def _made(self, field: str | None, test: Test) -> Term:
        self._terms += 1
        if self._terms > TERMS_MAX:
            raise refused(f"it has more than {TERMS_MAX} terms.")
        return Term(field, test)

    # Characters -----------------------------------------------------------------------------------------------------------

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _rest(self) -> str:
        return repr(self._text[self._at : self._at + 20])

    def _operator(self) -> str | None:
        self._peek()
        end = self._at
        while end < len(self._text) and self._text[end].isalpha():
            end += 1
        word = self._text[self._at : end]
        follows = self._text[end : end + 1]
        return word if word in OPERATORS and (not follows or follows.isspace() or follows in _ENDS_WORD) else None

    def _takes_operator(self, name: str) -> bool:
        if self._operator() != name:
            return False
        self._at += len(name)
        return True

    def _word(self, *, in_value: bool) -> tuple[str | Wild, ...]:
        """Up to white space or a character with a meaning; a colon is part of a value, and ends a field's name."""
        self._peek()
        parts: list[str | Wild] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char.isspace() or char in _ENDS_WORD or (char == ":" and not in_value):
                break
            self._at += 1
            if char == "\\":
                if self._at >= len(self._text):
                    raise refused("it ends with a backslash.")
                char = self._text[self._at]
                self._at += 1
            elif char in "*?":
                wild = Wild(char)
                if wild is not Wild.ANY or parts[-1:] != [Wild.ANY]:
                    parts.append(wild)
                continue
            elif char in _REFUSED:
                raise refused(f"the character {char!r} must be escaped with a backslash, or stand in quotes.")
            if parts and isinstance(parts[-1], str):
                parts[-1] += char
            else:
                parts.append(char)
        if not parts:
            raise refused(f"a value was expected at {self._rest()}.")
        return tuple(parts)

    def _phrase(self) -> str:
        self._at += 1
        found: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == '"':
                return "".join(found)
            if char == "\\" and self._at < len(self._text):
                char = self._text[self._at]
                self._at += 1
            found.append(char)
        raise refused("a quote isn't closed.")

    def _field_name(self, parts: tuple[str | Wild, ...]) -> str:
        if any(isinstance(part, Wild) for part in parts):
            raise refused("a field's name has no wildcards.")
        return "".join(str(part) for part in parts)


def _word_test(parts: tuple[str | Wild, ...]) -> Test:
    if parts == (Wild.ANY,):
        return Exists()
    wildcards = sum(isinstance(part, Wild) for part in parts)
    if wildcards > WILDCARDS_MAX:
        raise refused(f"a word has at most {WILDCARDS_MAX} wildcards.")
    if wildcards:
        return Like(tuple(part if isinstance(part, Wild) else part.lower() for part in parts))
    return Equals(value_of("".join(str(part) for part in parts)))


def _required(field: str | None) -> str:
    if field is None:
        raise refused("a range or comparison needs a field: attributes.size>5.")
    return field
