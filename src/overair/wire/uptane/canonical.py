"""Canonical JSON, in the two forms that are signed in the field (Uptane reference §4.1, §7.1), and the reader before it.

``ESCAPED`` is what aktualizr and OTA Connect's servers hash and sign: sorted keys, no white space, every character outside of
printable ASCII as ``\\uxxxx``. ``OLPC`` is what TUF's clients use: only the quote and the backslash are escaped. Both know
integers and no other numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from overair.wire import strict_json
from overair.wire.uptane.refusals import MetadataRefused, Reason

DEPTH_MAX: Final = 32
INTEGER_MAX: Final = 2**53 - 1
"""What every JSON reader keeps exactly; also the largest length and version that a document may say."""
VERSION_MAX: Final = 2**31 - 1

# In the text of a document: numbers that may be no integers that everybody keeps. Inside a string it may look so, too.
_NUMBER_TO_LOOK_AT: Final = re.compile(rb"[:\[,]\s*-?(?:[0-9]{16,}|[0-9]+[.eE])")
_ESCAPED_BY_ONE_FORM_ONLY: Final = re.compile(r'\\[^"\\]')

Json = Mapping[str, object]


class CanonicalForm(StrEnum):
    """How the bytes that are signed are spelt."""

    ESCAPED = "escaped"
    OLPC = "olpc"


def canonical(value: object, form: CanonicalForm = CanonicalForm.ESCAPED, *, checked: bool = False) -> bytes:
    """The one spelling of a value made of dict, list, str, int, bool and None.

    Args:
        checked: It is, or is part of, what ``read`` or this function has let through already.

    Raises:
        MetadataRefused: INVALID_METADATA: a float, U+007F (which clients and servers spell differently), a lone surrogate.
    """
    if form is CanonicalForm.OLPC:
        if checked or _is_plain(value):
            escaped = _escaped(value)
            if _ESCAPED_BY_ONE_FORM_ONLY.search(escaped) is None:
                return escaped.encode("ascii")
        try:
            return _olpc(value).encode("utf-8")
        except UnicodeEncodeError:
            raise MetadataRefused(Reason.INVALID_METADATA, "A string holds half of a surrogate pair.") from None
    if not checked:
        _refuse_ambiguous(value)
    return _escaped(value).encode("ascii")


def read(data: bytes, *, size_bytes_max: int) -> dict[str, object]:
    """Read one JSON object: no key twice, no float, no integer beyond ``INTEGER_MAX``, at most ``DEPTH_MAX`` levels.

    Raises:
        MetadataRefused: OVERSIZED, or INVALID_METADATA with the path of the member.
    """
    if len(data) > size_bytes_max:
        raise MetadataRefused(Reason.OVERSIZED, f"The document has {len(data)} bytes; at most {size_bytes_max} are read.")
    try:
        value = strict_json.decode_object(data, size_bytes_max=size_bytes_max, depth_max=DEPTH_MAX)
    except strict_json.MalformedJson as error:
        raise MetadataRefused(Reason.INVALID_METADATA, str(error)) from None
    if not _reads_plain(data):
        _refuse_ambiguous(value)
    return value


def _escaped(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _refuse_ambiguous(value: object) -> None:
    """What two readers could understand in two ways is refused before anything is made of it."""
    if not _is_plain(value):
        _find_ambiguous(value, path="")


def _reads_plain(data: bytes) -> bool:
    """``_is_plain`` of what a JSON text says, by the text alone: False where only a closer look can tell."""
    return data.isascii() and b"\x7f" not in data and b"\\u" not in data and _NUMBER_TO_LOOK_AT.search(data) is None


def _is_plain(value: object) -> bool:
    """Whether nobody could misread this: plain ASCII, and integers that every reader keeps. False too where only a closer look
    can tell. Documents have thousands of members, nearly all of them plain."""
    waiting: list[object] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is str:
            if not item.isascii() or "\x7f" in item:
                return False
        elif type(item) is dict:
            if not all(type(name) is str and name.isascii() and "\x7f" not in name for name in item):
                return False
            waiting.extend(item.values())
        elif type(item) is list:
            waiting.extend(item)
        elif type(item) is int:
            if abs(item) > INTEGER_MAX:
                return False
        elif item is not None and type(item) is not bool:
            return False
    return True


def _find_ambiguous(value: object, *, path: str) -> None:
    match value:
        case bool() | None:
            return
        case str():
            _refuse_ambiguous_text(value, path)
        case int():
            if abs(value) > INTEGER_MAX:
                raise MetadataRefused(Reason.INVALID_METADATA, "An integer is too large to be kept exactly.", field=path)
        case Mapping():
            for name, member in value.items():
                _refuse_ambiguous_text(name, path)
                _find_ambiguous(member, path=f"{path}.{name[:64]}" if path else name[:64])
        case list() | tuple():
            for number, item in enumerate(value):
                _find_ambiguous(item, path=f"{path}[{number}]")
        case _:
            raise MetadataRefused(
                Reason.INVALID_METADATA,
                f"A {type(value).__name__} has no canonical form: only integers are numbers.",
                field=path,
            )


def _refuse_ambiguous_text(text: object, path: str) -> None:
    if not isinstance(text, str):
        raise MetadataRefused(Reason.INVALID_METADATA, "A key is no string.", field=path)
    if text.isascii():
        if "\x7f" in text:
            raise MetadataRefused(Reason.INVALID_METADATA, "A string holds U+007F, which is signed in two ways.", field=path)
        return
    if "\x7f" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise MetadataRefused(Reason.INVALID_METADATA, "A string holds U+007F or half of a surrogate pair.", field=path)


def _olpc(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _olpc_text(value)
        case Mapping():
            return "{" + ",".join(f"{_olpc_text(name)}:{_olpc(value[name])}" for name in sorted(value)) + "}"
        case list() | tuple():
            return "[" + ",".join(_olpc(item) for item in value) + "]"
        case _:
            raise MetadataRefused(
                Reason.INVALID_METADATA, f"A {type(value).__name__} has no canonical form: only integers are numbers."
            )


def _olpc_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
