"""Deleting rows so that their bytes are gone, not only out of sight."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, delete, insert, not_, select

from overair.basics.work import Tx
from overair.server.storage.statements import sql_tx


def erase(tx: Tx, table: Table, condition: Any) -> int:
    """Delete rows and every stale copy of them in the table's pages; how many there were. For small tables of secrets.

    SQLite moves rows from page to page and leaves old bytes behind where it does: so the whole table is written anew into
    pages that were overwritten with zeros. What the log still holds goes with ``SqlWork.scrub`` after the commit. PostgreSQL
    only marks the rows here; there ``scrub`` writes the table anew.
    """
    unit = sql_tx(tx)
    connection = unit.connection
    if connection.dialect.name != "sqlite":
        return connection.execute(delete(table).where(condition)).rowcount
    before = connection.execute(select(*table.primary_key.columns).where(condition)).all()
    if not before:
        return 0
    kept = [dict(row) for row in connection.execute(select(table).where(not_(condition))).mappings()]
    (was,) = unit.driver.execute("PRAGMA secure_delete").fetchone()
    unit.driver.execute("PRAGMA secure_delete=ON")
    try:
        connection.execute(delete(table))
        if kept:
            connection.execute(insert(table), kept)
    finally:
        unit.driver.execute(f"PRAGMA secure_delete={int(was)}")
    return len(before)
