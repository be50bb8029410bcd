"""Which target names a delegation is for.

The Uptane flavour matches as ``fnmatch(3)`` without flags does, since aktualizr asks the C library (Uptane reference §4.5):
``*`` and ``?`` match ``/`` too, a backslash escapes. The TUF flavour matches segment by segment, or by the hash of the name.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Delegation

PATTERNS_KEPT_MAX: Final = 4096

_Fits = Callable[[str], bool]
"""Whether one character fits."""


def delegates(delegation: Delegation, name: str, flavour: Flavour) -> bool:
    """Whether this delegation is for the target ``name``."""
    if flavour is Flavour.UPTANE:
        return any(matches_anywhere(pattern, name) for pattern in delegation.paths)
    if delegation.path_hash_prefixes:
        digest = hashlib.sha256(name.encode("utf-8")).hexdigest()
        return any(digest.startswith(prefix.lower()) for prefix in delegation.path_hash_prefixes)
    return any(_matches_by_segment(pattern, name) for pattern in delegation.paths)


def matches_anywhere(pattern: str, name: str) -> bool:
    """As ``fnmatch(pattern, name, 0)`` of the C library in its own locale.

    What C libraries understand in different ways matches nothing: a bracket that isn't closed, a range that runs backwards,
    classes of characters (``[[:digit:]]``), a backslash at the end.
    """
    pieces = _pieces(pattern)
    if pieces is None:
        return False
    return _matches(pieces, name)


def _matches(pieces: Sequence[_Fits | None], name: str) -> bool:
    """None stands for ``*``. Goes back to the last one only, so that it takes at most pattern times name."""
    at = place = 0
    last_star, resume = -1, 0
    while place < len(name):
        piece = pieces[at] if at < len(pieces) else _nothing
        if piece is None:
            last_star, resume = at, place
            at += 1
        elif piece(name[place]):
            at += 1
            place += 1
        elif last_star >= 0:
            resume += 1
            at, place = last_star + 1, resume
        else:
            return False
    return all(piece is None for piece in pieces[at:])


@lru_cache(maxsize=PATTERNS_KEPT_MAX)
def _pieces(pattern: str) -> tuple[_Fits | None, ...] | None:
    """The pattern in pieces for one character each; None when it can match nothing."""
    pieces: list[_Fits | None] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            pieces.append(None)
        elif character == "?":
            pieces.append(_anything)
        elif character == "\\":
            if at == len(pattern):
                return None
            pieces.append(pattern[at].__eq__)
            at += 1
        elif character == "[":
            end = _end_of_bracket(pattern, at)
            piece = _bracket(pattern[at:end]) if end is not None else None
            if end is None or piece is None:
                return None
            pieces.append(piece)
            at = end + 1
        else:
            pieces.append(character.__eq__)
    return tuple(pieces)


def _end_of_bracket(pattern: str, start: int) -> int | None:
    """Where the ``]`` stands that closes the bracket, whose first character is at ``start``; None: nowhere."""
    at = start + 1 if pattern[start : start + 1] in ("!", "^") else start
    first = at
    while at < len(pattern):
        if pattern[at] == "]" and at > first:
            return at
        at += 2 if pattern[at] == "\\" else 1
    return None


def _bracket(inside: str) -> _Fits | None:
    negated = inside[:1] in ("!", "^")
    members = inside[1:] if negated else inside
    if any(mark in members for mark in ("[:", "[=", "[.")):
        return None
    single: set[str] = set()
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(members):
        low, at = _member(members, at)
        if members[at : at + 1] == "-" and at + 1 < len(members):
            high, at = _member(members, at + 1)
            if high < low:
                return None
            ranges.append((low, high))
        else:
            single.add(low)
    return lambda character: (character in single or any(low <= character <= high for low, high in ranges)) is not negated


def _member(members: str, at: int) -> tuple[str, int]:
    if members[at] == "\\" and at + 1 < len(members):
        return members[at + 1], at + 2
    return members[at], at + 1


def _anything(_character: str) -> bool:
    return True


def _nothing(_character: str) -> bool:
    return False


def _matches_by_segment(pattern: str, name: str) -> bool:
    patterns, names = pattern.split("/"), name.split("/")
    return len(patterns) == len(names) and all(
        fnmatch.fnmatchcase(each, against) for against, each in zip(patterns, names, strict=True)
    )
