"""The functions of provisioning templates: their forms, checked when a template is read, and their values.

There are no loops and every intermediate value is bounded, so a template costs little whatever stands in it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from overair.basics.errors import InvalidRequest

TEXT_LENGTH_MAX: Final = 65_536
"""Of any value that comes about while a template is worked out: a certificate's PEM may be one."""

_SUBSTITUTION: Final = re.compile(r"\$\{(!?)([^}]*)\}")

Value = str | list["Value"] | dict[str, "Value"]


def refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="template")


def unresolved(message: str) -> InvalidRequest:
    return InvalidRequest(message, subject="parameters")


def check_expression(value: object, where: str, known: set[str]) -> None:
    """Every function is one that we know, in its form, and every Ref names a parameter."""
    if isinstance(value, list):
        for item in value:
            check_expression(item, where, known)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref" and len(value) == 1:
                if not isinstance(inner, str) or inner not in known:
                    raise refused(f"{where} refers to {inner!r:.100}, which is no parameter of this template.")
                continue
            if key.startswith("Fn::"):
                if len(value) != 1 or key not in _FUNCTIONS:
                    raise refused(f"{where} has {key[:60]!r}. Functions are {', '.join(_FUNCTIONS)}, each alone in its object.")
                _check_form(key, inner, where, known)
            check_expression(inner, where, known)
    elif not isinstance(value, str | bool | int | float | None):
        raise refused(f"{where} holds a value that can't be read.")


def _check_form(name: str, argument: object, where: str, known: set[str]) -> None:
    sizes = {"Fn::Join": 2, "Fn::Select": 2, "Fn::FindInMap": 3, "Fn::Split": 2}
    if name in sizes and (not isinstance(argument, list) or len(argument) != sizes[name]):
        raise refused(f"{where}: {name} takes a list of {sizes[name]} values.")
    if name == "Fn::Sub":
        pattern, local = argument, {}
        if isinstance(argument, list):
            if len(argument) != 2 or not isinstance(argument[1], dict):
                raise refused(f"{where}: Fn::Sub takes a text, or a list of a text and an object.")
            pattern, local = argument
        if not isinstance(pattern, str):
            raise refused(f"{where}: the first value of Fn::Sub must be text.")
        for literal, variable in _SUBSTITUTION.findall(pattern):
            if not literal and variable not in known and variable not in local:
                raise refused(
                    f"{where}: Fn::Sub names ${{{variable[:100]}}}, which is no parameter. Write ${{!…}} for the text."
                )


class Scope:
    """What a template's names stand for."""

    def __init__(self, values: Mapping[str, str], mappings: Mapping[str, Mapping[str, Mapping[str, Value]]]) -> None:
        self.values = values
        self.mappings = mappings

    def name(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise unresolved(f"The template needs {name[:100]}, which this certificate or request doesn't have.") from None

    def evaluate(self, value: object) -> Value:
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return [self.evaluate(each) for each in value]
        if isinstance(value, dict):
            if len(value) == 1:
                [(key, inner)] = value.items()
                if key == "Ref" and isinstance(inner, str):
                    return self.name(inner)
                if key in _FUNCTIONS:
                    return bounded(_FUNCTIONS[key](self, inner))
            return {key: self.evaluate(inner) for key, inner in value.items()}
        return msgspec.json.encode(value).decode()

    def text(self, value: object, where: str) -> str:
        found = self.evaluate(value)
        if not isinstance(found, str):
            raise unresolved(f"{where} must come to a text.")
        return found

    def texts(self, value: object, where: str) -> list[str]:
        found = self.evaluate(value)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise unresolved(f"{where} must come to a list of texts.")
        return [each for each in found if isinstance(each, str)]


def bounded(value: Value) -> Value:
    size = len(value) if isinstance(value, str) else sum(len(each) for each in value)
    if size > TEXT_LENGTH_MAX:
        raise unresolved(f"A value of the template comes to more than {TEXT_LENGTH_MAX} characters.")
    return value


def _join(scope: Scope, argument: object) -> Value:
    delimiter, parts = _arguments(argument)
    return scope.text(delimiter, "The delimiter of Fn::Join").join(scope.texts(parts, "The values of Fn::Join"))


def _select(scope: Scope, argument: object) -> Value:
    position, choices = _arguments(argument)
    index, found = scope.evaluate(position), scope.texts(choices, "The choices of Fn::Select")
    if not isinstance(index, str) or not index.isascii() or not index.isdigit() or len(index) > 6 or int(index) >= len(found):
        raise unresolved(f"Number {index!r:.20} of {len(found)} values was asked of Fn::Select; they are counted from 0.")
    return found[int(index)]


def _find_in_map(scope: Scope, argument: object) -> Value:
    name, first, second = (scope.text(each, "A key of Fn::FindInMap") for each in _arguments(argument))
    try:
        return scope.mappings[name][first][second]
    except KeyError:
        raise unresolved(f"Fn::FindInMap finds nothing under {name[:60]}, {first[:60]}, {second[:60]}.") from None


def _split(scope: Scope, argument: object) -> Value:
    delimiter, source = (scope.text(each, "A value of Fn::Split") for each in _arguments(argument))
    if not delimiter:
        raise unresolved("The delimiter of Fn::Split is empty.")
    return list(scope.text(source, "The source of Fn::Split").split(delimiter))


def _substitute(scope: Scope, argument: object) -> Value:
    pattern: object = argument
    local: dict[str, str] = {}
    if isinstance(argument, list):
        pattern, given = argument
        local = {name: scope.text(value, f"{name} of Fn::Sub") for name, value in given.items()}
    assert isinstance(pattern, str)  # looked at when the template was read

    length = len(pattern)

    def put(found: re.Match[str]) -> str:
        nonlocal length
        literal, name = found.groups()
        if literal:
            return f"${{{name}}}"
        value = local[name] if name in local else scope.name(name)
        length += len(value)
        if length > TEXT_LENGTH_MAX:
            raise unresolved(f"Fn::Sub comes to more than {TEXT_LENGTH_MAX} characters.")
        return value

    return _SUBSTITUTION.sub(put, pattern)


def _arguments(argument: object) -> Sequence[object]:
    assert isinstance(argument, list)  # looked at when the template was read
    return argument


_FUNCTIONS: Final[Mapping[str, Callable[[Scope, object], Value]]] = {
    "Fn::Join": _join,
    "Fn::Select": _select,
    "Fn::FindInMap": _find_in_map,
    "Fn::Split": _split,
    "Fn::Sub": _substitute,
}
