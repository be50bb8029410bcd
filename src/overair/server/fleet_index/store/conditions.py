"""A query as a condition in SQL, for both databases: the tree of ``query.py`` over the rows of ``fleet_values``."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, exists, not_, or_, select, true

from overair.basics.ids import AccountId
from overair.server.fleet_index.fields import ATTRIBUTES, SEARCHED_WITHOUT_FIELD, Index
from overair.server.fleet_index.query import (
    AllOf,
    AnyOf,
    Between,
    Equals,
    Exists,
    Like,
    Not,
    Query,
    Term,
    Test,
    Wild,
)
from overair.server.fleet_index.store.tables import fleet_documents, fleet_values

BEYOND: Final = "\U0010ffff"
"""Sorts after every character that a value has."""
_ESCAPE: Final = "\\"
_SQL_WILD: Final = {Wild.ANY: "%", Wild.ONE: "_"}


def documents_that_meet(account: AccountId, index: Index, query: Query) -> Select[Any]:
    """The names of an index's documents that meet a query whose fields were resolved."""
    return select(fleet_documents.c.name).where(
        fleet_documents.c.account == account,
        fleet_documents.c.index_name == index.value,
        condition(query, account, index),
    )


def condition(query: Query, account: AccountId, index: Index, *, leads: bool = True) -> ColumnElement[bool]:
    """What a row of ``fleet_documents`` must be.

    ``leads``: the part must hold for the whole to hold, so the database may begin with its names; else each document is asked
    whether it has the value, which needs no list of all the names that have it.
    """
    match query:
        case AllOf():
            return and_(*(condition(part, account, index, leads=leads) for part in query.parts))
        case AnyOf():
            return or_(*(condition(part, account, index, leads=False) for part in query.parts))
        case Not():
            return not_(condition(query.part, account, index, leads=False))
        case Term(field=None, test=Exists()):
            return true()
        case Term():
            value = fleet_values.alias()
            rows = [value.c.account == account, value.c.index_name == index.value, _of_field(value, query.field)]
            held = _holds(value, query.test)
            if held is not None:
                rows.append(held)
            if leads:
                return fleet_documents.c.name.in_(select(value.c.name).where(*rows))
            return exists(select(1).where(*rows, value.c.name == fleet_documents.c.name))


def _of_field(value: Any, field: str | None) -> ColumnElement[bool]:
    if field is not None:
        equal: ColumnElement[bool] = value.c.field == field
        return equal
    return or_(
        value.c.field.in_(sorted(SEARCHED_WITHOUT_FIELD)),
        and_(value.c.field >= ATTRIBUTES, value.c.field < ATTRIBUTES + BEYOND),
    )


def _holds(value: Any, test: Test) -> ColumnElement[bool] | None:
    match test:
        case Exists():
            return None
        case Equals():
            same: ColumnElement[bool] = value.c.text == test.value.text
            return same if test.value.number is None else or_(same, value.c.number == test.value.number)
        case Like():
            return _like(value, test)
        case Between():
            column = value.c.number if test.by_number else value.c.text
            bounds: list[ColumnElement[bool]] = []
            for bound, is_low in ((test.low, True), (test.high, False)):
                if bound is None:
                    continue
                limit: Any = bound.value.number if test.by_number else bound.value.text
                if is_low:
                    bounds.append(column >= limit if bound.inclusive else column > limit)
                else:
                    bounds.append(column <= limit if bound.inclusive else column < limit)
            return and_(*bounds)


def _like(value: Any, test: Like) -> ColumnElement[bool]:
    pattern = "".join(_SQL_WILD[part] if isinstance(part, Wild) else _escaped(part) for part in test.parts)
    like: ColumnElement[bool] = value.c.text.like(pattern, escape=_ESCAPE)
    first = test.parts[0]
    if isinstance(first, Wild):
        return like
    # Said as a range too, so that the walk along the key begins and ends at the prefix.
    return and_(value.c.text >= first, value.c.text < first + BEYOND, like)


def _escaped(text: str) -> str:
    for char in (_ESCAPE, "%", "_"):
        text = text.replace(char, _ESCAPE + char)
    return text
