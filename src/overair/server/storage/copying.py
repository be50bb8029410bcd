"""All records from one database into another, of whatever kind: what a backup of PostgreSQL and a restore into it are made of.

Rooms' tables are the same on both, so a row read by one dialect is a row that the other one writes. The source is read in one
transaction, which sees one moment; the target is filled in one, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Table, func, select, text
from sqlalchemy.engine import Connection

from overair.basics.errors import OverairError
from overair.server.storage.schema import outbox

ROWS_AT_ONCE: Final = 500
NOT_COPIED: Final = frozenset({"nodes"})
"""Who was up is no record: none of them is up where the copy goes."""


class CopyRefused(OverairError):
    """These records can't be copied. The message is the one line that an operator sees."""


def copy_rows(source: Connection, target: Connection, tables: Sequence[Table]) -> int:
    """Copy every row; how many there were. ``tables`` in an order in which each may be filled.

    Raises:
        CopyRefused: the target holds rows already.
    """
    kept = [table for table in tables if table.name not in NOT_COPIED]
    for table in kept:
        if target.execute(select(func.count()).select_from(table)).scalar_one():
            raise CopyRefused(f"The database isn't empty: its table {table.name} holds rows. Name an empty database.")
    copied = 0
    for table in kept:
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table)).mappings()
        for batch in rows.partitions(ROWS_AT_ONCE):
            target.execute(table.insert(), [dict(row) for row in batch])
            copied += len(batch)
    _go_on_counting(target, kept)
    return copied


def _go_on_counting(target: Connection, tables: Iterable[Table]) -> None:
    """The outbox's numbers are given out by the database: it goes on after those that came with the rows."""
    if target.dialect.name == "postgresql" and outbox.name in {table.name for table in tables}:
        sequence = f"pg_get_serial_sequence('{outbox.name}', 'id')"
        target.execute(
            text(f"SELECT setval({sequence}, (SELECT coalesce(max(id), 0) + 1 FROM {outbox.name}), false)")  # noqa: S608
        )
