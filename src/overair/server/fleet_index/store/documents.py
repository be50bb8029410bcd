"""Documents and the values of their fields: written one by one, asked all at once."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, distinct, func, insert, or_, select

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.fleet_index.fields import Field, FieldType, Index, plain
from overair.server.fleet_index.model import NODE, Entry, Found, Statistics
from overair.server.fleet_index.query import Query, number_of
from overair.server.fleet_index.store.conditions import BEYOND, condition, documents_that_meet
from overair.server.fleet_index.store.tables import fleet_documents, fleet_values
from overair.server.storage.work import HotStatement, sql

_documents, _values = fleet_documents, fleet_values

_ENTRIES: Final = HotStatement(
    select(_values.c.field, _values.c.text, _values.c.shown).where(
        _values.c.account == bindparam("b_account"),
        _values.c.index_name == bindparam("b_index"),
        _values.c.name == bindparam("b_name"),
    )
)
_INSERT_DOCUMENT: Final = HotStatement(insert(_documents), columns=[column.name for column in _documents.columns])
_INSERT_VALUE: Final = HotStatement(insert(_values), columns=[column.name for column in _values.columns])
_DELETE_VALUE: Final = HotStatement(
    delete(_values).where(
        _values.c.account == bindparam("b_account"),
        _values.c.index_name == bindparam("b_index"),
        _values.c.field == bindparam("b_field"),
        _values.c.text == bindparam("b_text"),
        _values.c.name == bindparam("b_name"),
        _values.c.shown == bindparam("b_shown"),
    )
)


class SqlDocumentStore:
    """``ports.DocumentStore`` in SQL."""

    # One document ---------------------------------------------------------------------------------------------------------

    def lock(self, tx: Tx, account: AccountId, index: Index, name: str) -> bool:
        query = select(_documents.c.name).where(*_is(_documents, account, index), _documents.c.name == name)
        return sql(tx).execute(query.with_for_update()).first() is not None

    def insert(self, tx: Tx, account: AccountId, index: Index, name: str) -> None:
        _INSERT_DOCUMENT.run(tx, account=account, index_name=index.value, name=name)

    def delete(self, tx: Tx, account: AccountId, index: Index, name: str) -> None:
        for table in (_values, _documents):
            sql(tx).execute(delete(table).where(*_is(table, account, index), table.c.name == name))

    def entries(self, tx: Tx, account: AccountId, index: Index, name: str) -> Sequence[Entry]:
        rows = _ENTRIES.all(tx, b_account=account, b_index=index.value, b_name=name)
        return [(field, shown or text) for field, text, shown in rows]

    def change(
        self,
        tx: Tx,
        account: AccountId,
        index: Index,
        name: str,
        *,
        gone: Collection[Entry],
        new: Collection[Entry],
    ) -> None:
        for field, shown in gone:
            text, kept = _kept(shown)
            _DELETE_VALUE.run(tx, b_account=account, b_index=index.value, b_field=field, b_text=text, b_name=name, b_shown=kept)
        for field, shown in new:
            text, kept = _kept(shown)
            _INSERT_VALUE.run(
                tx,
                account=account,
                index_name=index.value,
                field=field,
                text=text,
                name=name,
                shown=kept,
                number=number_of(shown),
            )

    def empty(self, tx: Tx, account: AccountId, index: Index, *, limit: int) -> bool:
        query = select(_documents.c.name).where(*_is(_documents, account, index)).order_by(_documents.c.name).limit(limit)
        names = [name for (name,) in sql(tx).execute(query)]
        for table in (_values, _documents):
            sql(tx).execute(delete(table).where(*_is(table, account, index), table.c.name.in_(names)))
        return len(names) == limit

    def connected_elsewhere(self, tx: Tx, account: AccountId, *, living: Collection[str], limit: int) -> Sequence[str]:
        # The gaps between the living, as ranges: whoever is connected now is passed over without a look.
        names = sorted(living)
        gaps = [and_(_values.c.text > low, _values.c.text < high) for low, high in pairwise(["", *names, BEYOND])]
        query = select(_values.c.name).where(*_is(_values, account, Index.THINGS), _values.c.field == NODE, or_(*gaps))
        return [name for (name,) in sql(tx).execute(query.limit(limit))]

    # Many documents -------------------------------------------------------------------------------------------------------

    def search(self, tx: Tx, account: AccountId, index: Index, query: Query, *, after: str, limit: int) -> Sequence[str]:
        wanted = documents_that_meet(account, index, query).where(_documents.c.name > after)
        return [name for (name,) in sql(tx).execute(wanted.order_by(_documents.c.name).limit(limit))]

    def those_that_meet(self, tx: Tx, account: AccountId, index: Index, query: Query, names: Sequence[str]) -> frozenset[str]:
        wanted = select(_documents.c.name).where(
            *_is(_documents, account, index),
            _documents.c.name.in_(names),
            condition(query, account, index, leads=False),
        )
        return frozenset(name for (name,) in sql(tx).execute(wanted))

    def found(self, tx: Tx, account: AccountId, index: Index, names: Sequence[str]) -> Sequence[Found]:
        rows = sql(tx).execute(
            select(_values.c.name, _values.c.field, _values.c.text, _values.c.shown).where(
                *_is(_values, account, index), _values.c.name.in_(names)
            )
        )
        entries: dict[str, list[Entry]] = {}
        for name, field, text, shown in rows:
            entries.setdefault(name, []).append((field, shown or text))
        return [Found(name=name, entries=entries.get(name, ())) for name in names]

    def count(self, tx: Tx, account: AccountId, index: Index, query: Query) -> int:
        wanted = documents_that_meet(account, index, query).subquery()
        return int(sql(tx).execute(select(func.count()).select_from(wanted)).scalar_one())

    # Aggregates -----------------------------------------------------------------------------------------------------------

    def statistics(self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field) -> Statistics:
        rows = self._rows(account, index, query, field)
        if field.type is FieldType.STRING:
            return Statistics(
                count=int(sql(tx).execute(select(func.count(distinct(_values.c.name))).where(*rows)).scalar_one())
            )
        number = _number(field)
        # PostgreSQL adds doubles to doubles; a mean first and the squares of distances after it lose no digits to each other.
        count, total, low, high, squares = (
            sql(tx)
            .execute(
                select(
                    func.count(number), func.sum(number), func.min(number), func.max(number), func.sum(number * number)
                ).where(*rows, number.is_not(None))
            )
            .one()
        )
        if not count:
            return Statistics(count=0)
        average = total / count
        distances = select(func.sum((number - average) * (number - average))).where(*rows, number.is_not(None))
        return Statistics(
            count=count,
            total=total,
            minimum=low,
            maximum=high,
            average=average,
            sum_of_squares=squares,
            variance=sql(tx).execute(distances).scalar_one() / count,
        )

    def cardinality(self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field) -> int:
        rows = self._rows(account, index, query, field)
        return int(sql(tx).execute(select(func.count(distinct(_values.c.text))).where(*rows)).scalar_one())

    def percentiles(
        self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field, percents: Sequence[float]
    ) -> Sequence[tuple[float, float]]:
        rows, number = self._rows(account, index, query, field), _number(field)
        rows.append(number.is_not(None))
        count = int(sql(tx).execute(select(func.count()).select_from(_values).where(*rows)).scalar_one())
        if not count:
            return []
        found: list[tuple[float, float]] = []
        for percent in percents:
            place = percent / 100 * (count - 1)
            below = math.floor(place)
            pair = [value for (value,) in sql(tx).execute(select(number).where(*rows).order_by(number).offset(below).limit(2))]
            found.append((percent, pair[0] + (place - below) * (pair[-1] - pair[0])))
        return found

    def buckets(
        self, tx: Tx, account: AccountId, index: Index, query: Query, field: Field, *, limit: int
    ) -> Sequence[tuple[str, int]]:
        rows = self._rows(account, index, query, field)
        # Any of the ways in which it is written; the empty one is the text itself.
        written = case((func.max(_values.c.shown) == "", _values.c.text), else_=func.max(_values.c.shown))
        count = func.count(distinct(_values.c.name))
        wanted = select(written, count).where(*rows).group_by(_values.c.text).order_by(count.desc(), _values.c.text)
        return [(key, int(found)) for key, found in sql(tx).execute(wanted.limit(limit))]

    def _rows(self, account: AccountId, index: Index, query: Query, field: Field) -> list[ColumnElement[bool]]:
        return [
            *_is(_values, account, index),
            _values.c.field == plain(field.name),
            _values.c.name.in_(documents_that_meet(account, index, query)),
        ]


def _number(field: Field) -> ColumnElement[Any]:
    if field.type is FieldType.BOOLEAN:
        return case((_values.c.text == "true", 1.0), (_values.c.text == "false", 0.0))
    number: ColumnElement[Any] = _values.c.number
    return number


def _is(table: Any, account: AccountId, index: Index) -> tuple[ColumnElement[bool], ...]:
    return table.c.account == account, table.c.index_name == index.value


def _kept(shown: str) -> tuple[str, str]:
    """The text that is compared, and what is kept beside it of how it was written."""
    text = shown.lower()
    return text, "" if text == shown else shown
