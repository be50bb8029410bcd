"""Where a list goes on: opaque tokens that hold the position of the last row given.

The text matches the model's strictest pattern (``Marker``: ``[A-Za-z0-9+/]+={0,2}``, at most 1024 characters). A token
grants nothing: it only says after which row to read on, inside the caller's own account.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from overair.basics.errors import InvalidRequest

PAGE_TOKEN_LENGTH_MAX: Final = 1_024
PAGE_SIZE_DEFAULT: Final = 100
_INTEGER_BEYOND: Final = 1 << 63

Position = TypeVar("Position", bound=tuple[str | int, ...])
Row = TypeVar("Row")


def page_token(position: tuple[str | int, ...]) -> str:
    """The token for a position."""
    return base64.b64encode(msgspec.json.encode(position)).decode("ascii")


def read_page_token(token: str | None, kind: type[Position], *, name: str = "nextToken") -> Position | None:
    """The position in a token; None for none.

    Raises:
        InvalidRequest: not a token that this list gave. Subject ``page-token``.
    """
    if token is None:
        return None
    try:
        if len(token) > PAGE_TOKEN_LENGTH_MAX:
            raise ValueError
        position = msgspec.json.decode(base64.b64decode(token, validate=True), type=kind, strict=True)
        if any("\0" in part if isinstance(part, str) else abs(part) >= _INTEGER_BEYOND for part in position):
            raise ValueError  # no row can stand there, and no database would take it
        return position
    except (ValueError, binascii.Error, msgspec.MsgspecError, UnicodeError):
        raise InvalidRequest(
            f"{name} isn't a token that this operation gave. Send the one from the last answer unchanged, or none.",
            subject="page-token",
        ) from None


def cut(rows: Sequence[Row], limit: int, position: Callable[[Row], tuple[str | int, ...]]) -> tuple[Sequence[Row], str | None]:
    """The page and the token of the next one, from up to ``limit + 1`` rows; no token on the last page."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, page_token(position(page[-1]))
