"""What a model demands of a value, compiled to closures: type, length, range, pattern, enumeration.

Lengths count characters for strings, bytes for blobs, entries for lists and maps. A pattern must match the whole value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

Check = Callable[[Any], None]

_BOUNDS: Final = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_VALUE_SHOWN_MAX: Final = 100

# POSIX and Unicode classes that the models use, as the inside of a character class of ``re``; letters and numbers are computed.
_CLASSES: Final = {
    "Z": r" \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    "C": r"\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\uffff",
    "Cntrl": r"\x00-\x1f\x7f",
    "Graph": r"!-~",
    "Upper": "A-Z",
    "Digit": "0-9",
    "Alnum": "A-Za-z0-9",
    "Alpha": "A-Za-z",
    "Punct": r"!-/:-@\[-`{-~",
    "ASCII": r"\x00-\x7f",
    "Print": " -~",
    "Space": r"\s",
}


class Invalid(Exception):
    """A value breaks a rule of the model. ``path`` grows from the inside out while the exception rises."""

    def __init__(self, reason: str, *, value: object = None, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.value = value
        self.missing = missing
        self.path: list[str] = []

    def within(self, name: str) -> Invalid:
        self.path.append(name)
        return self

    def describe(self) -> str:
        """One sentence for people: which member, which value, which rule."""
        where = ".".join(reversed(self.path)) or "the request"
        if self.missing:
            return f"1 validation error detected: Value at '{where}' failed to satisfy constraint: {self.reason}"
        shown = "" if self.value is None else f" '{str(self.value)[:_VALUE_SHOWN_MAX]}'"
        return f"1 validation error detected: Value{shown} at '{where}' failed to satisfy constraint: {self.reason}"


@lru_cache(maxsize=1024)
def translated(pattern: str) -> re.Pattern[str]:
    """A model's pattern, which is written for Java, as ours."""
    text = re.sub(r"\\u10000-\\u10FFFF", lambda _: r"\U00010000-\U0010FFFF", pattern)
    return re.compile(_expand_classes(text))


def _expand_classes(pattern: str) -> str:
    """Replace every ``\\p{…}``: inside brackets by its ranges, outside by a class of its own."""
    result: list[str] = []
    inside = False
    index = 0
    while index < len(pattern):
        character = pattern[index]
        if character == "\\" and pattern[index + 1] == "p":
            end = pattern.index("}", index)
            name = pattern[index + 3 : end]
            ranges = _letters() if name == "L" else _numbers() if name == "N" else _CLASSES[name]
            result.append(ranges if inside else f"[{ranges}]")
            index = end + 1
            continue
        if character == "\\":
            result.append(pattern[index : index + 2])
            index += 2
            continue
        if character == "[" and not inside:
            inside = True
        elif character == "[":
            result.append("\\")  # Java would open a nested class; no model has one, so it's a literal
        elif character == "]" and inside and result[-1] not in ("[", "^"):
            inside = False
        result.append(character)
        index += 1
    return "".join(result)


@lru_cache(maxsize=1)
def _letters() -> str:
    return _ranges(str.isalpha)


@lru_cache(maxsize=1)
def _numbers() -> str:
    return _ranges(str.isnumeric)


def _ranges(belongs: Callable[[str], bool]) -> str:
    """The code points of the Basic Multilingual Plane and the next that ``belongs`` holds for, as ranges of a class."""
    ranges: list[str] = []
    start: int | None = None
    for code in range(0x20000 + 1):
        if code < 0x20000 and belongs(chr(code)):
            if start is None:
                start = code
        elif start is not None:
            ranges.append(f"\\U{start:08x}-\\U{code - 1:08x}")
            start = None
    return "".join(ranges) + "\\U00020000-\\U000323af" * (belongs is str.isalpha)


def string_check(shape: Mapping[str, Any]) -> Callable[[str], None]:
    """A closure that raises ``Invalid`` unless a ``str`` keeps the shape's length, pattern and enumeration."""
    shortest: int = shape.get("min", 0)
    longest: int = shape.get("max", 1 << 62)
    allowed = frozenset(shape["enum"]) if shape.get("enum") else None
    pattern: str | None = shape.get("pattern")
    compiled = translated(pattern) if pattern else None
    # A pattern that is tied to the start alone is meant as a prefix; every other one describes the whole value.
    match = None if compiled is None else (compiled.match if _is_prefix(pattern or "") else compiled.fullmatch)
    hidden = bool(shape.get("sensitive"))

    def check(value: str) -> None:
        if not shortest <= len(value) <= longest:
            rule = (
                f"Member must have length less than or equal to {longest}"
                if len(value) > longest
                else f"Member must have length greater than or equal to {shortest}"
            )
            raise Invalid(rule, value=None if hidden else value)
        if match is not None and match(value) is None:
            raise Invalid(f"Member must satisfy regular expression pattern: {pattern}", value=None if hidden else value)
        if allowed is not None and value not in allowed:
            raise Invalid(f"Member must satisfy enum value set: [{', '.join(sorted(allowed))}]", value=value)
        if "\0" in value:
            raise Invalid("Member must not contain a NUL character")

    return check


def _is_prefix(pattern: str) -> bool:
    return pattern.startswith("^") and not pattern.endswith("$") and "|" not in pattern


def number_bounds(shape: Mapping[str, Any]) -> tuple[float, float]:
    """Least and greatest value: the model's, within the type's."""
    least, greatest = _BOUNDS.get(shape["type"], (float("-inf"), float("inf")))
    return max(shape.get("min", least), least), min(shape.get("max", greatest), greatest)


def range_error(value: object, least: float, greatest: float) -> Invalid:
    """The refusal of a number or a count out of range."""
    rule = "less than or equal to" if isinstance(value, (int, float)) and value > greatest else "greater than or equal to"
    bound = greatest if rule.startswith("less") else least
    return Invalid(f"Member must have value {rule} {bound:g}", value=value)


def length_check(shape: Mapping[str, Any]) -> Callable[[int], None] | None:
    """For blobs, lists and maps; None where the shape has no bounds."""
    if "min" not in shape and "max" not in shape:
        return None
    shortest: int = shape.get("min", 0)
    longest: int = shape.get("max", 1 << 62)

    def check(length: int) -> None:
        if length < shortest:
            raise Invalid(f"Member must have length greater than or equal to {shortest}")
        if length > longest:
            raise Invalid(f"Member must have length less than or equal to {longest}")

    return check
