"""Patterns of policies: ``*`` is any run of characters, ``?`` one character, ``${name}`` a value that is always literal.

A pattern becomes one regular expression without any way to backtrack far: ``*`` cuts it into segments, each inner segment is
found leftmost inside an atomic group (leftmost is always good enough for a glob), the last one is looked for at the end. A
plain ``.*`` for each ``*`` would take seconds on a hostile text. Values come in by back-reference: the text that is matched is
the values joined by NUL, then the resource, so that one compiled expression serves every request whatever its values are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

VARIABLE_NAME_LENGTH_MAX: Final = 256


class MalformedPattern(ValueError):
    """A ``${`` that isn't closed, or a name that can't be one."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One ``${name}`` or ``${name, 'default'}``. ``name`` is already in its comparing form."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Wildcard:
    """``*`` (any run, the empty one too) or ``?`` (exactly one character)."""

    symbol: str


ANY: Final = Wildcard("*")
ONE: Final = Wildcard("?")

Part = str | Variable | Wildcard
Pattern = tuple[Part, ...]

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_NAME: Final = re.compile(r"""\s*([^\s,'"{}$*?]+(?:\[[^\]{}]*\])?)\s*(?:,\s*'([^'{}]*)'\s*)?""")


def key_name(name: str) -> str:
    """The form in which condition keys and variables are compared: lower case, but for an attribute's name in brackets."""
    head, bracket, tail = name.partition("[")
    return head.lower() + bracket + tail


def parse_pattern(text: str, *, wildcards: bool = True, variables: bool = True) -> Pattern:
    """Cut a pattern into its parts. With a switch off, that kind of symbol is plain text.

    ``${*}``, ``${?}`` and ``${$}`` stand for the plain characters; a ``$`` before anything but ``{`` is itself.

    Raises:
        MalformedPattern: ``${`` without an end, or with a name that can't be one.
    """
    parts: list[Part] = []
    plain: list[str] = []

    def end_plain() -> None:
        if plain:
            parts.append("".join(plain))
            plain.clear()

    at = 0
    while at < len(text):
        character = text[at]
        if variables and character == "$" and text.startswith("${", at):
            found = _VARIABLE.match(text, at)
            if found is None:
                raise MalformedPattern(f"The variable that begins at {text[at : at + 60]!r} has no end.")
            at = found.end()
            inner = found.group(1)
            if inner in ("*", "?", "$"):
                plain.append(inner)
                continue
            named = _NAME.fullmatch(inner)
            if named is None or len(inner) > VARIABLE_NAME_LENGTH_MAX:
                raise MalformedPattern(f"${{{inner[:60]}}} is no variable. A variable reads ${{prefix:name}}.")
            end_plain()
            parts.append(Variable(key_name(named.group(1)), named.group(2)))
            continue
        if wildcards and character in "*?":
            end_plain()
            if character == "?":
                parts.append(ONE)
            elif not parts or parts[-1] is not ANY:
                parts.append(ANY)
        else:
            plain.append(character)
        at += 1
    end_plain()
    return tuple(parts)


def variables_of(patterns: Sequence[Pattern]) -> tuple[Variable, ...]:
    """Every variable of the patterns, each once, in order of first sight."""
    return tuple(dict.fromkeys(part for pattern in patterns for part in pattern if isinstance(part, Variable)))


def expression_of(pattern: Pattern, group_of: Mapping[Variable, int]) -> str:
    """The body of a regular expression for one pattern; a variable becomes a reference to its group."""
    segments: list[list[str]] = [[]]
    for part in pattern:
        if part is ANY:
            segments.append([])
        elif isinstance(part, Variable):
            segments[-1].append(f"(?P=v{group_of[part]})")
        elif isinstance(part, str):
            segments[-1].append(re.escape(part))
        else:
            segments[-1].append(".")
    texts = ["".join(segment) for segment in segments]
    if len(texts) == 1:
        return texts[0] + r"\Z"
    inner = "".join(f"(?>.*?{text})" for text in texts[1:-1] if text)
    return f"{texts[0]}{inner}(?s:.*){texts[-1]}\\Z" if texts[-1] else f"{texts[0]}{inner}"


def compile_patterns(
    patterns: Sequence[Pattern], variables: Sequence[Variable], *, ignore_case: bool = False
) -> re.Pattern[str] | None:
    """One expression that matches if any pattern does; None for no patterns at all.

    The text to match is what ``prefix_of`` gives for the values of ``variables``, followed by the text itself.
    """
    if not patterns:
        return None
    group_of = {variable: number for number, variable in enumerate(variables, 1)}
    # Named references, since a number beyond 99 would be read as an octal character.
    head = "(?>" + "".join(rf"(?P<v{number}>[^\0]*)\0" for number in group_of.values()) + ")" if variables else ""
    distinct = dict.fromkeys(expression_of(pattern, group_of) for pattern in patterns)
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile(head + "(?:" + "|".join(distinct) + ")", flags)


def prefix_of(values: Sequence[str]) -> str:
    """The values, each followed by NUL. A value that holds a NUL is the caller's to refuse."""
    return "".join([value + "\0" for value in values])
