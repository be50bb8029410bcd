"""JSON as aktualizr writes it: members in the order of their names' bytes, no white space, everything beyond ASCII escaped.

Written out by hand, so that a fault of the server's own encoder can't hide here. See ``docs/aktualizr-wire.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def text_of(value: object) -> str:
    """The one spelling of a value; what is sent, signed and hashed."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case Mapping():
            names = sorted(value, key=lambda name: name.encode("utf-8"))
            return "{" + ",".join(f"{_quoted(name)}:{text_of(value[name])}" for name in names) + "}"
        case list() | tuple():
            return "[" + ",".join(text_of(item) for item in value) + "]"
        case _:
            raise TypeError(f"aktualizr never writes a {type(value).__name__}")


def bytes_of(value: object) -> bytes:
    return text_of(value).encode("ascii")


def parse(data: bytes) -> Any:
    """As tolerant as jsoncpp: white space, the last of two members with one name, raw UTF-8.

    Raises:
        ValueError: no JSON.
    """
    return json.loads(data)


def _quoted(text: str) -> str:
    written = []
    for character in text:
        if character in _ESCAPES:
            written.append(_ESCAPES[character])
            continue
        point = ord(character)
        if 0x20 <= point <= 0x7F:
            written.append(character)
        elif point <= 0xFFFF:
            written.append(f"\\u{point:04x}")
        else:
            point -= 0x10000
            written.append(f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}")
    return '"' + "".join(written) + '"'
