"""Structures, lists and maps in XML, compiled from a service model to closures: S3's bodies and the answers of query services.

A flattened list is its entries, repeated without a wrapper; another list wraps entries named ``member`` unless the model says
otherwise. Maps are ``entry`` elements of ``key`` and ``value``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from overair.server.aws_protocol.rules import Invalid, length_check
from overair.server.aws_protocol.scalars import Shape, text_scalar, text_written
from overair.server.aws_protocol.xml_documents import Element, escape

ReadElement = Callable[[Element], Any]
WriteElement = Callable[[Any, list[str]], None]
"""(value, parts): append the element, tags included."""


class XmlShapes:
    """Readers and writers of one model's shapes. ``iso_format`` is how timestamps are spelled by default."""

    def __init__(self, shapes: Mapping[str, Shape], *, iso_format: str = "iso8601") -> None:
        self._shapes = shapes
        self._iso_format = iso_format
        self._readers: dict[str, ReadElement] = {}
        self._contents: dict[str, WriteElement] = {}

    # Names ---------------------------------------------------------------------------------------------------------

    def _is_flat(self, reference: Mapping[str, Any]) -> bool:
        shape = self._shapes[reference["shape"]]
        return shape["type"] in ("list", "map") and bool(reference.get("flattened") or shape.get("flattened"))

    def _name(self, name: str, reference: Mapping[str, Any]) -> str:
        shape = self._shapes[reference["shape"]]
        if shape["type"] == "list" and self._is_flat(reference):
            entry = shape["member"].get("locationName")
            if entry is not None:
                return str(entry)
        return str(reference.get("locationName", name))

    # Reading -------------------------------------------------------------------------------------------------------

    def reader(self, name: str) -> ReadElement:
        """The closure that reads one shape from an element. It raises ``Invalid``."""
        found = self._readers.get(name)
        if found is not None:
            return found
        self._readers[name] = lambda element: self._readers[name](element)
        shape = self._shapes[name]
        kind = shape["type"]
        if kind == "structure":
            reader = self._structure_reader(shape)
        elif kind == "list":
            reader = self._list_reader(shape)
        elif kind == "map":
            raise RuntimeError("No input of the XML protocol has a map in its body.")
        else:
            read_text = text_scalar(shape)
            reader = lambda element: read_text(element.text)  # noqa: E731 - the closure is the product here
        self._readers[name] = reader
        return reader

    def _structure_reader(self, shape: Shape) -> ReadElement:
        plain: dict[str, tuple[str, ReadElement]] = {}
        flat: dict[str, tuple[str, ReadElement, Callable[[int], None] | None]] = {}
        attributes: dict[str, tuple[str, Callable[[str], Any]]] = {}
        for name, member in shape.get("members", {}).items():
            target = self._shapes[member["shape"]]
            if member.get("xmlAttribute"):
                attributes[member.get("locationName", name)] = (name, text_scalar(target))
            elif self._is_flat(member):
                entry = (name, self.reader(target["member"]["shape"]), length_check(target))
                flat[member.get("locationName", name)] = entry
                flat[self._name(name, member)] = entry
            else:
                plain[member.get("locationName", name)] = (name, self.reader(member["shape"]))
        required = tuple(shape.get("required", ()))

        def read(element: Element) -> Any:
            result: dict[str, Any] = {}
            for spelled, value in element.attributes.items():
                if spelled in attributes:
                    name, read_text = attributes[spelled]
                    result[name] = _within(name, read_text, value)
            for child in element.children:
                if child.name in flat:
                    name, read_entry, _ = flat[child.name]
                    result.setdefault(name, []).append(_within(name, read_entry, child))
                elif child.name in plain:
                    name, read_child = plain[child.name]
                    if name in result:
                        raise Invalid("Member must be given once").within(name)
                    result[name] = _within(name, read_child, child)
            for name, _, check in flat.values():
                if check is not None and name in result:
                    _within(name, check, len(result[name]))
            for name in required:
                if name not in result:
                    raise Invalid("Member must not be null", missing=True).within(name)
            return result

        return read

    def _list_reader(self, shape: Shape) -> ReadElement:
        read_entry = self.reader(shape["member"]["shape"])
        entry_name = shape["member"].get("locationName", "member")
        check = length_check(shape)

        def read(element: Element) -> Any:
            if check is not None:
                check(len(element.children))
            return [
                _within(str(index + 1), read_entry, child)
                for index, child in enumerate(element.children)
                if child.name == entry_name
            ]

        return read

    # Writing -------------------------------------------------------------------------------------------------------

    def contents_writer(self, name: str, *, skipping: frozenset[str] = frozenset()) -> WriteElement:
        """The closure that appends what stands inside a structure's element; members in ``skipping`` belong elsewhere."""
        if not skipping and name in self._contents:
            return self._contents[name]
        if not skipping:
            self._contents[name] = lambda value, parts: self._contents[name](value, parts)
        shape = self._shapes[name]
        members = [
            (member_name, self.element_writer(self._name(member_name, member), member))
            for member_name, member in shape.get("members", {}).items()
            if member_name not in skipping and not member.get("xmlAttribute")
        ]
        known = frozenset(shape.get("members", {}))

        def write(value: Mapping[str, Any], parts: list[str]) -> None:
            if not value.keys() <= known:
                raise RuntimeError(f"A handler gave members that the model doesn't have: {sorted(value.keys() - known)}.")
            for member_name, write_member in members:
                member_value = value.get(member_name)
                if member_value is not None:
                    write_member(member_value, parts)

        if not skipping:
            self._contents[name] = write
        return write

    def element_writer(self, name: str, reference: Mapping[str, Any]) -> WriteElement:
        """The closure that appends one member with its tags."""
        shape = self._shapes[reference["shape"]]
        kind = shape["type"]
        close = f"</{name}>"
        if kind == "structure":
            return self._structure_writer(name, reference, shape)
        if kind == "list":
            return self._list_writer(name, reference, shape)
        if kind == "map":
            return self._map_writer(name, reference, shape)
        opening = f"<{name}>"
        described = {**shape, **({"timestampFormat": reference["timestampFormat"]} if "timestampFormat" in reference else {})}
        write_text = text_written(described, self._iso_format)

        def write(value: Any, parts: list[str]) -> None:
            parts.append(opening + escape(write_text(value)) + close)

        return write

    def _structure_writer(self, name: str, reference: Mapping[str, Any], shape: Shape) -> WriteElement:
        write_contents = self.contents_writer(reference["shape"])
        attributes = [
            (member_name, member.get("locationName", member_name))
            for member_name, member in shape.get("members", {}).items()
            if member.get("xmlAttribute")
        ]
        namespace = reference.get("xmlNamespace") or shape.get("xmlNamespace")
        declared = ""
        if namespace:
            prefix = f":{namespace['prefix']}" if namespace.get("prefix") else ""
            declared = f' xmlns{prefix}="{escape(namespace["uri"])}"'

        def write(value: Any, parts: list[str]) -> None:
            spelled = "".join(
                f' {attribute}="{escape(str(value[member_name]))}"'
                for member_name, attribute in attributes
                if value.get(member_name) is not None
            )
            parts.append(f"<{name}{declared}{spelled}>")
            write_contents(value, parts)
            parts.append(f"</{name}>")

        return write

    def _list_writer(self, name: str, reference: Mapping[str, Any], shape: Shape) -> WriteElement:
        flat = self._is_flat(reference)
        entry_name = name if flat else shape["member"].get("locationName", "member")
        write_entry = self.element_writer(entry_name, {**shape["member"], "locationName": entry_name})

        def write(value: Any, parts: list[str]) -> None:
            if not flat:
                parts.append(f"<{name}>")
            for entry in value:
                write_entry(entry, parts)
            if not flat:
                parts.append(f"</{name}>")

        return write

    def _map_writer(self, name: str, reference: Mapping[str, Any], shape: Shape) -> WriteElement:
        flat = self._is_flat(reference)
        write_key = self.element_writer(shape["key"].get("locationName", "key"), shape["key"])
        write_value = self.element_writer(shape["value"].get("locationName", "value"), shape["value"])
        entry_name = name if flat else "entry"

        def write(value: Any, parts: list[str]) -> None:
            if not flat:
                parts.append(f"<{name}>")
            for key, entry in value.items():
                parts.append(f"<{entry_name}>")
                write_key(key, parts)
                write_value(entry, parts)
                parts.append(f"</{entry_name}>")
            if not flat:
                parts.append(f"</{name}>")

        return write


def _within(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except Invalid as invalid:
        raise invalid.within(name)  # noqa: B904 - the same exception, one step further out
