"""Another wrapping key: every sealed secret of the records is sealed anew, row by row.

Cut anywhere, it goes on where it was: while the file holds both keys, either opens what it sealed (``wrapping``), so a row is
left alone once the new one opens it. The former key is forgotten only when no row is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from overair.basics.work import Tx
from overair.server.keyring.wrapping import SecretBox

ROWS_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """One sealed secret."""

    place: tuple[str, str]
    """Account and id: the order in which they are gone through."""
    context: str
    sealed: bytes = field(repr=False)


class SealedRows(Protocol):
    """A table with sealed secrets, of all accounts."""

    def sealed(self, tx: Tx, *, after: tuple[str, str] | None, limit: int) -> Sequence[SealedRow]:
        """In the order of their places, from just after one."""
        ...

    def put_sealed(self, tx: Tx, place: tuple[str, str], sealed: bytes) -> None: ...


class RunUnit(Protocol):
    """Does one unit of work (``SqlWork.run_blocking``)."""

    def __call__(self, unit: Callable[[Tx], Batch], /) -> Batch: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one unit did."""

    changed: int
    last: tuple[str, str] | None
    """Where the next one begins; None where there is none."""


def rewrap(box: SecretBox, tables: Sequence[SealedRows], run: RunUnit) -> int:
    """Seal anew what the former key sealed, at most ``ROWS_AT_ONCE`` rows in a unit; how many rows that were.

    Raises:
        KeyringRefused: a row opens by neither key.
    """
    count = 0
    for table in tables:
        batch = run(partial(_rewrap, box=box, table=table, after=None))
        count += batch.changed
        while batch.last is not None:
            batch = run(partial(_rewrap, box=box, table=table, after=batch.last))
            count += batch.changed
    return count


def _rewrap(tx: Tx, *, box: SecretBox, table: SealedRows, after: tuple[str, str] | None) -> Batch:
    rows = table.sealed(tx, after=after, limit=ROWS_AT_ONCE)
    former = [row for row in rows if not box.wraps(row.sealed, context=row.context)]
    for row in former:
        opened = box.unwrap(row.sealed, context=row.context)
        table.put_sealed(tx, row.place, box.wrap(opened, context=row.context))
    return Batch(changed=len(former), last=rows[-1].place if len(rows) == ROWS_AT_ONCE else None)
