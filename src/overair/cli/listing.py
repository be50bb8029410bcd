"""Rows for people: names are never cut, so that they can be copied into the next command."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from overair.cli.output import console

LAST_WIDTH_MIN: Final = 24
_GAP: Final = "  "


def print_rows(headings: Sequence[str], rows: Sequence[Sequence[str | Text]], *, on: Console = console) -> None:
    """Columns side by side; the last one is wrapped into what room is left. A row that has no room is left to the terminal."""
    table = [[Text(heading, "bold") for heading in headings], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(row[column].cell_len for row in table) for column in range(len(headings) - 1)]
    begins = sum(widths) + len(_GAP) * len(widths)
    room = max(LAST_WIDTH_MIN, on.width - begins)
    for row in table:
        line = Text(no_wrap=True)
        for cell, width in zip(row, widths, strict=False):
            line.append(cell).append(" " * (width - cell.cell_len) + _GAP)
        last = row[-1]
        wrapped = textwrap.wrap(last.plain, room) or [""]
        line.append(wrapped[0], last.style)
        line.rstrip()
        on.print(line, soft_wrap=True)
        for following in wrapped[1:]:
            on.print(Text(" " * begins + following, last.style), soft_wrap=True)


def moment(value: datetime | None) -> str | None:
    """A time as documents have it: UTC, whole seconds, whatever the machine's own zone is."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="seconds")


def for_people(told: str | None) -> str:
    """The same without its zone, under a heading that names it."""
    return "" if told is None else told[:19].replace("T", " ")


def _text(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
