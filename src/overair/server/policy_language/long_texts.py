"""Patterns against long texts, in steps that grow with the text alone: expressions can't promise that (``patterns``).

An expression looks for each segment between two ``*`` from every place anew, which a hostile text of 64 KiB makes into
seconds. Here a segment without ``?`` is found by ``str.find``, which is linear, and one with ``?`` by a number whose bits are
the places where it may still begin: each character of the pattern clears some. It is slower to begin with, so short texts
aren't brought here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from overair.server.policy_language.patterns import ANY, Pattern, Variable

_MARK: Final = "\x01"
_OTHER: Final = "\x00"
_DIGITS: Final = bytes(ord("1") if octet == ord(_MARK) else ord("0") for octet in range(256))

LONG_LENGTH: Final = 256
"""Texts with more characters than this are matched here."""

TEXT_LENGTH_MAX: Final = 2048
"""Characters of a resource's ARN, or of what a condition compares. Nothing here has a longer name, so nothing is allowed on
one; of a longer value, which only a client can have made up, the beginning is compared. That bounds what the worst pattern
costs: no more of its characters than that can stand in such a text, and each clears a number of so many bits."""

_Segment = list[str | None]
"""Characters that are neither ``*`` nor a variable any more: text, and None for each ``?``."""


class LongText:
    """One text that patterns are held against."""

    __slots__ = ("_places", "steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = 0
        """Passes over the text so far, in characters looked at: what a test holds to its bound."""
        self._places: dict[str, int] = {}

    def matches_any(self, patterns: Iterable[Pattern], values: Mapping[Variable, str]) -> bool:
        """Whether one of the patterns matches; each of their variables must have a value."""
        return any(self.matches(pattern, values) for pattern in patterns)

    def matches(self, pattern: Pattern, values: Mapping[Variable, str]) -> bool:
        """Whether the whole text is what the pattern says."""
        segments = _segments(pattern, values)
        first, last = segments[0], segments[-1]
        end = len(self.text)
        if len(segments) == 1:
            return _length(first) == end and self._stands(first, 0)
        at = _length(first)
        end -= _length(last)
        if at > end or not self._stands(first, 0) or not self._stands(last, end):
            return False
        for segment in segments[1:-1]:
            found = self._find(segment, at, end)
            if found < 0:
                return False
            # Leftmost is always good enough: it leaves the most for those that follow.
            at = found + _length(segment)
        return True

    def _stands(self, segment: _Segment, at: int) -> bool:
        for piece in segment:
            if piece is not None:
                self.steps += len(piece)
                if not self.text.startswith(piece, at):
                    return False
            at += 1 if piece is None else len(piece)
        return True

    def _find(self, segment: _Segment, at: int, end: int) -> int:
        """Where the segment begins first within ``at`` … ``end``, or -1."""
        if not segment:
            return at
        if len(segment) == 1 and segment[0] is not None:
            found = self.text.find(segment[0], at, end)
            self.steps += (found if found >= 0 else end) - at
            return found
        room = end - at - _length(segment) + 1
        if room <= 0:
            return -1
        candidates = ((1 << room) - 1) << at
        offset = 0
        for piece in segment:
            for character in piece or "":
                self.steps += len(self.text) >> 3  # a bit for each character is looked at
                candidates &= self._places_of(character) >> offset
                if not candidates:
                    return -1
                offset += 1
            offset += piece is None
        return (candidates & -candidates).bit_length() - 1

    def _places_of(self, character: str) -> int:
        """A number with a bit for each place where the character stands, the lowest for the first."""
        found = self._places.get(character)
        if found is None:
            self.steps += len(self.text)
            # By whole passes of the library's: a loop over the places would take twenty times as long.
            marked = self.text.replace(_MARK, _OTHER).replace(character, _MARK)
            digits = marked.encode("latin-1", "replace").translate(_DIGITS)
            found = self._places[character] = int(digits[::-1], 2)
        return found


def _segments(pattern: Pattern, values: Mapping[Variable, str]) -> list[_Segment]:
    segments: list[_Segment] = [[]]
    for part in pattern:
        if part is ANY:
            segments.append([])
            continue
        segment = segments[-1]
        if isinstance(part, (str, Variable)):
            text = part if isinstance(part, str) else values[part]
            if segment and segment[-1] is not None:
                segment[-1] += text
            elif text:
                segment.append(text)
        else:
            segment.append(None)
    return segments


def _length(segment: _Segment) -> int:
    return sum(1 if piece is None else len(piece) for piece in segment)
