"""Where the statements of a policy stand in its text."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Final

TEXTS_REMEMBERED: Final = 256

_SPACE: Final = re.compile(r"[ \t\r\n]*")

Position = tuple[int, int]
"""Line and column, from 1."""


@lru_cache(maxsize=TEXTS_REMEMBERED)
def statement_positions(text: str) -> tuple[tuple[Position, Position], ...]:
    """Where each statement of an accepted document begins and ends."""
    decoder = json.JSONDecoder()
    at = _past(text, text.index("{") + 1)
    spans: list[tuple[int, int]] = []
    while text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        begin = _past(text, _past(text, at) + 1)
        _, end = decoder.raw_decode(text, begin)
        if key == "Statement" and text[begin] == "[":
            item = _past(text, begin + 1)
            while text[item] != "]":
                _, after = decoder.raw_decode(text, item)
                spans.append((item, after))
                item = _past(text, after)
                item = _past(text, item + 1) if text[item] == "," else item
        elif key == "Statement":
            spans.append((begin, end))
        at = _past(text, end)
        at = _past(text, at + 1) if text[at] == "," else at
    return tuple((_position(text, begin), _position(text, end)) for begin, end in spans)


def _past(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _position(text: str, at: int) -> Position:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
