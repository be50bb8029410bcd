"""Statements compiled once and run on the driver's own connection.

SQLAlchemy's execution costs more than SQLite's: a version-checked UPDATE runs at twice the rate when its text is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, TableValuedAlias, Text, bindparam, cast, func
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.selectable import Select

from overair.basics.work import Tx
from overair.server.storage.transaction import SqlTx

_Row = tuple[Any, ...]


class _Compiled:
    """One statement's text and parameters in one dialect."""

    __slots__ = ("constants", "names", "positional", "processors", "results", "text")

    def __init__(self, statement: Any, columns: Sequence[str] | None, dialect: Dialect) -> None:
        compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=columns)
        if any(bind.expanding or bind.literal_execute for bind in compiled.binds.values()):
            raise RuntimeError("A hot statement can't hold a list of values (IN): its text would change. Use sql(tx).execute.")
        self.constants = {name: bind.effective_value for name, bind in compiled.binds.items() if not bind.required}
        processors: dict[str, Any] = dict(compiled._bind_processors)
        self.positional = compiled.positional
        names = compiled.positiontup if compiled.positional else list(compiled.binds)
        assert names is not None
        self.text = str(compiled)
        self.names = tuple(names)
        # Few values need one, and few columns: those are named by their place.
        self.processors = tuple((place, processors[name]) for place, name in enumerate(names) if name in processors)
        results: list[Callable[[Any], Any] | None] = []
        if isinstance(statement, Select):
            results = [
                column.type.dialect_impl(dialect).result_processor(dialect, None) for column in statement.selected_columns
            ]
        self.results = tuple((place, process) for place, process in enumerate(results) if process is not None)

    def bind(self, values: dict[str, Any]) -> Any:
        given = {**self.constants, **values} if self.constants else values
        try:
            bound = [given[name] for name in self.names]
        except KeyError as missing:
            raise RuntimeError(f"The hot statement needs a value for {missing.args[0]!r}.") from None
        for place, process in self.processors:
            bound[place] = process(bound[place])
        return bound if self.positional else dict(zip(self.names, bound, strict=True))

    def row(self, raw: _Row) -> _Row:
        if not self.results:
            return raw
        values = list(raw)
        for place, process in self.results:
            values[place] = process(values[place])
        return tuple(values)


class HotStatement:
    """A Core statement for the paths that devices wait on. Made once, at import, beside its table.

    ``bindparam`` names that aren't columns mark the values (``b_version``); an ``insert(table)`` takes its columns' names, or
    those of ``columns``.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, *, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def _for(self, transaction: SqlTx) -> _Compiled:
        dialect = transaction.connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            # Two threads may both compile at first; either's work is right.
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, self._columns, dialect)
        return compiled

    def run(self, tx: Tx, /, **values: Any) -> int:
        """Execute; returns how many rows were touched."""
        transaction = tx if isinstance(tx, SqlTx) else sql_tx(tx)
        compiled = self._for(transaction)
        rowcount: int = transaction.driver.execute(compiled.text, compiled.bind(values)).rowcount
        return rowcount

    def run_many(self, tx: Tx, rows: Sequence[dict[str, Any]], /) -> None:
        """Execute once for each row of values, in order, on one cursor."""
        transaction = tx if isinstance(tx, SqlTx) else sql_tx(tx)
        compiled = self._for(transaction)
        transaction.driver.cursor().executemany(compiled.text, [compiled.bind(values) for values in rows])

    def first(self, tx: Tx, /, **values: Any) -> _Row | None:
        """The first row, as a plain tuple in the order of the selected columns, or None."""
        transaction = tx if isinstance(tx, SqlTx) else sql_tx(tx)
        compiled = self._for(transaction)
        raw = transaction.driver.execute(compiled.text, compiled.bind(values)).fetchone()
        return None if raw is None else compiled.row(raw)

    def all(self, tx: Tx, /, **values: Any) -> list[_Row]:
        """Every row, as plain tuples."""
        transaction = tx if isinstance(tx, SqlTx) else sql_tx(tx)
        compiled = self._for(transaction)
        return [compiled.row(raw) for raw in transaction.driver.execute(compiled.text, compiled.bind(values)).fetchall()]


def listed(name: str) -> Mapping[str, TableValuedAlias]:
    """By dialect, a table of the strings (``value``) in the JSON array that a statement gets under ``name``: a hot statement
    holds no list of values, but it may hold one text of them."""
    return {
        "sqlite": func.json_each(bindparam(name, type_=Text)).table_valued("value"),
        "postgresql": func.json_array_elements_text(cast(bindparam(name, type_=Text), JSON)).table_valued("value"),
    }


def sql_tx(tx: Tx) -> SqlTx:
    """The unit of work that a ``Tx`` is, when it is one of ours or wraps one in ``inner``."""
    while not isinstance(tx, SqlTx):
        inner = getattr(tx, "inner", None)
        if inner is None:
            raise RuntimeError(f"{type(tx).__name__} is no unit of work of this storage.")
        tx = inner
    return tx
