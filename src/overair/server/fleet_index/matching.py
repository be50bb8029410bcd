"""Whether one document meets a query: what SQL says of many, said of one. Pure."""

from __future__ import annotations

from overair.server.fleet_index.fields import is_searched_without_field
from overair.server.fleet_index.query import (
    AllOf,
    AnyOf,
    Between,
    Bound,
    Document,
    Equals,
    Exists,
    Like,
    Not,
    Query,
    Term,
    Test,
    Value,
    Wild,
)


def matches(query: Query, document: Document) -> bool:
    """Whether a document meets a query whose fields were resolved (``fields.resolve``)."""
    match query:
        case AllOf():
            return all(matches(part, document) for part in query.parts)
        case AnyOf():
            return any(matches(part, document) for part in query.parts)
        case Not():
            return not matches(query.part, document)
        case Term():
            return _has(query, document)


def _has(term: Term, document: Document) -> bool:
    if term.field is not None:
        return any(_holds(term.test, value) for value in document.get(term.field, ()))
    if isinstance(term.test, Exists):
        return True
    searched = (values for field, values in document.items() if is_searched_without_field(field))
    return any(_holds(term.test, value) for values in searched for value in values)


def _holds(test: Test, value: Value) -> bool:
    match test:
        case Exists():
            return True
        case Equals():
            wanted = test.value
            return value.text == wanted.text or (wanted.number is not None and value.number == wanted.number)
        case Like():
            return is_like(test.parts, value.text)
        case Between():
            return _within(test, value)


def _within(test: Between, value: Value) -> bool:
    def holds(bound: Bound | None, *, is_low: bool) -> bool:
        if bound is None:
            return True
        if test.by_number:
            if value.number is None:
                return False
            assert bound.value.number is not None
            difference = value.number - bound.value.number
        else:
            difference = (value.text > bound.value.text) - (value.text < bound.value.text)
        return (bound.inclusive and difference == 0) or (difference > 0 if is_low else difference < 0)

    return holds(test.low, is_low=True) and holds(test.high, is_low=False)


def is_like(parts: tuple[str | Wild, ...], text: str) -> bool:
    """Whether the pattern spans the whole text, in time bounded by the product of their lengths."""
    pattern: list[str | Wild] = []
    for part in parts:
        pattern.extend([part] if isinstance(part, Wild) else part)
    at, mark, resume = 0, -1, 0
    position = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] is Wild.ANY:
            mark, resume = at, position
            at += 1
        elif at < len(pattern) and (pattern[at] is Wild.ONE or pattern[at] == text[position]):
            at += 1
            position += 1
        elif mark >= 0:
            # Let the last '*' take one character more.
            at, resume = mark + 1, resume + 1
            position = resume
        else:
            return False
    return all(part is Wild.ANY for part in pattern[at:])
