"""XML as trees of elements: read strictly from outside, and escaped on the way out.

Document type declarations are refused, and with them every entity but XML's own five.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from overair.basics.errors import InvalidRequest

DEPTH_MAX: Final = 32
ELEMENTS_MAX: Final = 200_000
"""CompleteMultipartUpload names up to 10,000 parts with some elements each."""
_NEEDS_ESCAPE: Final = re.compile(r"[&<>\"\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_ESCAPES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


@dataclass(slots=True)
class Element:
    """One element: its name without prefix, its attributes as spelled, its text and its children."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Element] = field(default_factory=list)


class _Refused(Exception):
    pass


def read_xml(body: bytes) -> Element:
    """Read one document.

    Raises:
        InvalidRequest: with subject ``malformed-body``: not well-formed, a declaration of types or entities, or too large.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    builder = _Builder()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, _Refused, ValueError, LookupError) as error:
        raise InvalidRequest(f"The XML of the request is not well-formed: {error}", subject="malformed-body") from None
    if builder.root is None:
        raise InvalidRequest("The request has no XML document.", subject="malformed-body")
    return builder.root


def _refuse_doctype(*_: object) -> None:
    raise _Refused("a document type declaration is not accepted")


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if len(self._open) >= DEPTH_MAX or self._count > ELEMENTS_MAX:
            raise _Refused(f"more than {DEPTH_MAX} levels or {ELEMENTS_MAX} elements")
        element = Element(name.rpartition(":")[2], attributes)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        self._open[-1].text += data


def escape(text: str) -> str:
    """Text for an element or an attribute. Characters that XML reads differently, or not at all, become references."""
    if _NEEDS_ESCAPE.search(text) is None:
        return text
    return _NEEDS_ESCAPE.sub(lambda found: _ESCAPES.get(found[0]) or f"&#x{ord(found[0]):X};", text)
