"""Values without parts, compiled from their shapes to closures: from and to JSON, and from and to text.

Text serves URI labels, query parameters, headers, XML and form bodies. Every reading closure raises only ``Invalid``.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from overair.server.aws_protocol.rules import Invalid, length_check, number_bounds, range_error, string_check
from overair.server.aws_protocol.timestamps import (
    NotATimestamp,
    from_text,
    from_unix_seconds,
    to_http_date,
    to_iso,
    to_iso_short,
    to_unix_seconds,
)
from overair.wire.strict_json import MalformedJson, decode

Shape = Mapping[str, Any]
Read = Callable[[Any], Any]
TextRead = Callable[[str], Any]

_INTEGER_DIGITS_MAX: Final = 20
_JSON_VALUE_SIZE_BYTES_MAX: Final = 64 * 1024
NOT_A_TIMESTAMP: Final = "Member must be a timestamp: seconds since 1970, ISO 8601 or an HTTP date"
NOT_BASE64: Final = "Member must be Base64"


# From JSON -----------------------------------------------------------------------------------------------------------


def json_scalar(shape: Shape) -> Read | None:
    """The reader of one scalar shape from decoded JSON; None where the shape has parts."""
    kind = shape["type"]
    if kind in ("string", "character"):
        return _json_string(shape)
    if kind == "boolean":
        return _json_boolean
    if kind in ("integer", "long"):
        return _json_integer(shape)
    if kind in ("float", "double"):
        return _json_number(shape)
    if kind == "timestamp":
        return _json_timestamp
    if kind == "blob":
        return _json_blob(shape)
    return None


def _json_string(shape: Shape) -> Read:
    check = string_check(shape)

    def read(value: Any) -> Any:
        if type(value) is not str:
            raise Invalid("Member must be a string")
        check(value)
        return value

    return read


def _json_boolean(value: Any) -> Any:
    if type(value) is not bool:
        raise Invalid("Member must be true or false")
    return value


def _json_integer(shape: Shape) -> Read:
    """Of a shape that is patched as ``spelt``, digits in a string are as good: the vendor's guide shows it so."""
    least, greatest = number_bounds(shape)
    spelt = _text_integer(shape) if shape.get("spelt") else None

    def read(value: Any) -> Any:
        if spelt is not None and isinstance(value, str):
            return spelt(value)
        if type(value) is not int:
            raise Invalid("Member must be an integer")
        if not least <= value <= greatest:
            raise range_error(value, least, greatest)
        return value

    return read


def _json_number(shape: Shape) -> Read:
    least, greatest = number_bounds(shape)

    def read(value: Any) -> Any:
        if value in ("NaN", "Infinity", "-Infinity"):
            raise Invalid("Member must be a finite number")
        if type(value) is not float and type(value) is not int:
            raise Invalid("Member must be a number")
        if not least <= value <= greatest:
            raise range_error(value, least, greatest)
        return float(value)

    return read


def _json_timestamp(value: Any) -> Any:
    try:
        if type(value) is int or type(value) is float:
            return from_unix_seconds(value)
        if type(value) is str:
            return from_text(value)
    except NotATimestamp:
        pass
    raise Invalid(NOT_A_TIMESTAMP)


def _json_blob(shape: Shape) -> Read:
    check = length_check(shape)

    def read(value: Any) -> Any:
        if type(value) is not str:
            raise Invalid(NOT_BASE64)
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Invalid(NOT_BASE64) from None
        if check is not None:
            check(len(data))
        return data

    return read


# From text -----------------------------------------------------------------------------------------------------------


def text_scalar(shape: Shape, *, json_value: bool = False) -> TextRead:
    """The reader of one scalar shape from text. ``json_value``: a header that carries Base64 of a JSON text."""
    kind = shape["type"]
    if json_value:
        return _text_json_value
    if kind in ("string", "character"):
        return _text_string(shape)
    if kind == "boolean":
        return _text_boolean
    if kind in ("integer", "long"):
        return _text_integer(shape)
    if kind in ("float", "double"):
        return _text_number(shape)
    if kind == "timestamp":
        return _text_timestamp
    if kind == "blob":
        return _json_blob(shape)
    raise RuntimeError(f"A {kind} has no text form.")


def _text_string(shape: Shape) -> TextRead:
    check = string_check(shape)

    def read(value: str) -> Any:
        check(value)
        return value

    return read


def _text_boolean(value: str) -> Any:
    if value in ("true", "True"):
        return True
    if value in ("false", "False"):
        return False
    raise Invalid("Member must be true or false", value=value)


def _text_integer(shape: Shape) -> TextRead:
    least, greatest = number_bounds(shape)

    def read(value: str) -> Any:
        digits = value[1:] if value[:1] == "-" else value
        if not (digits.isascii() and digits.isdigit() and len(digits) <= _INTEGER_DIGITS_MAX):
            raise Invalid("Member must be an integer", value=value)
        number = int(value)
        if not least <= number <= greatest:
            raise range_error(number, least, greatest)
        return number

    return read


def _text_number(shape: Shape) -> TextRead:
    least, greatest = number_bounds(shape)

    def read(value: str) -> Any:
        try:
            number = float(value) if len(value) <= 40 else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise Invalid("Member must be a number", value=value)
        if not least <= number <= greatest:
            raise range_error(number, least, greatest)
        return number

    return read


def _text_timestamp(value: str) -> Any:
    try:
        return from_text(value)
    except NotATimestamp:
        raise Invalid(NOT_A_TIMESTAMP, value=value) from None


def _text_json_value(value: str) -> Any:
    try:
        return decode(base64.b64decode(value, validate=True), size_bytes_max=_JSON_VALUE_SIZE_BYTES_MAX)
    except (binascii.Error, ValueError, MalformedJson):
        raise Invalid("Member must be Base64 of a JSON text") from None


# To JSON and to text -------------------------------------------------------------------------------------------------


def json_written(shape: Shape, format_name: str | None) -> Callable[[Any], Any] | None:
    """What turns a handler's scalar into what JSON holds; None where it already is that."""
    kind = shape["type"]
    if kind == "timestamp":
        spelling = format_name or shape.get("timestampFormat") or "unixTimestamp"
        return to_unix_seconds if spelling == "unixTimestamp" else _TIMESTAMP_TEXTS[spelling]
    if kind == "blob":
        return lambda value: base64.b64encode(value).decode("ascii")
    return None


def text_written(shape: Shape, format_name: str, *, json_value: bool = False) -> Callable[[Any], str]:
    """What turns a handler's scalar into text; ``format_name`` says how this place spells timestamps by default."""
    kind = shape["type"]
    if json_value:
        return lambda value: base64.b64encode(msgspec.json.encode(value)).decode("ascii")
    if kind == "boolean":
        return lambda value: "true" if value else "false"
    if kind == "timestamp":
        return _TIMESTAMP_TEXTS[shape.get("timestampFormat", format_name)]
    if kind == "blob":
        return lambda value: base64.b64encode(value).decode("ascii")
    return str


_TIMESTAMP_TEXTS: Final[Mapping[str, Callable[[Any], str]]] = {
    "iso8601": to_iso,
    "iso8601-short": to_iso_short,
    "rfc822": to_http_date,
    "unixTimestamp": lambda instant: str(to_unix_seconds(instant)),
}
