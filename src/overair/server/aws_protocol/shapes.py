"""Structures, lists and maps of JSON bodies, compiled from a service model to closures.

Reading checks everything that the model states and leaves out what it doesn't know; JSON null counts as absent. Writing takes a
handler's members; None counts as absent, and a member that the model lacks is a programming error. Shapes may contain
themselves: a closure is made once for each shape and found through a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from overair.server.aws_protocol.rules import Invalid, length_check
from overair.server.aws_protocol.scalars import Read, Shape, json_scalar, json_written

Write = Callable[[Any], Any]


def wire_name(name: str, member: Mapping[str, Any]) -> str:
    """What a body calls a member."""
    found: str = member.get("locationName", name)
    return found


class JsonShapes:
    """Readers and writers of one model's shapes."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self._readers: dict[str, Read] = {}
        self._writers: dict[str, Write | None] = {}
        self._plain: dict[str, bool] = {}

    # Reading -------------------------------------------------------------------------------------------------------

    def reader(self, name: str) -> Read:
        """The closure that reads one shape from decoded JSON. It raises ``Invalid``."""
        found = self._readers.get(name)
        if found is not None:
            return found
        # A shape that contains itself finds this detour, which by the time of its first call leads to the real closure.
        self._readers[name] = lambda value: self._readers[name](value)
        shape = self._shapes[name]
        kind = shape["type"]
        scalar = json_scalar(shape)
        if scalar is not None:
            reader = scalar
        elif kind == "structure":
            reader = self._structure_reader(shape)
        elif kind == "list":
            reader = self._list_reader(shape)
        elif kind == "map":
            reader = self._map_reader(shape)
        else:
            raise RuntimeError(f"The shape {name} has the unknown type {kind}.")
        self._readers[name] = reader
        return reader

    def members_reader(self, shape: Shape, *, only: Callable[[Mapping[str, Any]], bool]) -> Callable[[Mapping[str, Any]], Any]:
        """Reads those members of a structure that ``only`` accepts, from a decoded JSON object into a new dict."""
        entries = [
            (name, wire_name(name, member), self.reader(member["shape"]), name in shape.get("required", ()))
            for name, member in shape.get("members", {}).items()
            if only(member)
        ]
        names = {wire: (name, read) for name, wire, read, _ in entries}
        required = tuple(name for name, _, _, needed in entries if needed)

        def read_members(value: Mapping[str, Any]) -> dict[str, Any]:
            result: dict[str, Any] = {}
            for wire, raw in value.items():
                entry = names.get(wire)
                if entry is None or raw is None:
                    continue
                name, read = entry
                try:
                    result[name] = read(raw)
                except Invalid as invalid:
                    raise invalid.within(name)  # noqa: B904 - the same exception, one step further out
            for name in required:
                if name not in result:
                    raise Invalid("Member must not be null", missing=True).within(name)
            return result

        return read_members

    def _structure_reader(self, shape: Shape) -> Read:
        if shape.get("document"):
            return lambda value: value
        read_members = self.members_reader(shape, only=_every)
        union = bool(shape.get("union"))

        def read(value: Any) -> Any:
            if type(value) is not dict:
                raise Invalid("Member must be an object")
            result = read_members(value)
            if union and len(result) != 1:
                raise Invalid("Exactly one member must be given")
            return result

        return read

    def _list_reader(self, shape: Shape) -> Read:
        read_entry = self.reader(shape["member"]["shape"])
        check = length_check(shape)

        def read(value: Any) -> Any:
            if type(value) is not list:
                raise Invalid("Member must be a list")
            if check is not None:
                check(len(value))
            result = []
            for index, raw in enumerate(value):
                try:
                    if raw is None:
                        raise Invalid("Member must not be null", missing=True)
                    result.append(read_entry(raw))
                except Invalid as invalid:
                    raise invalid.within(str(index + 1))  # noqa: B904 - the same exception, one step further out
            return result

        return read

    def _map_reader(self, shape: Shape) -> Read:
        read_key = self.reader(shape["key"]["shape"])
        read_value = self.reader(shape["value"]["shape"])
        check: Callable[[int], None] | None = length_check(shape)

        def read(value: Any) -> Any:
            if type(value) is not dict:
                raise Invalid("Member must be a map")
            if check is not None:
                check(len(value))
            result = {}
            for key, raw in value.items():
                if raw is None:
                    continue
                try:
                    result[read_key(key)] = read_value(raw)
                except Invalid as invalid:
                    raise invalid.within(key[:100])  # noqa: B904 - the same exception, one step further out
            return result

        return read

    # Writing -------------------------------------------------------------------------------------------------------

    def writer(self, name: str, *, timestamp_format: str | None = None) -> Write | None:
        """The closure that turns a handler's value into what a JSON encoder takes; None where nothing is to be done."""
        if timestamp_format is None and name in self._writers:
            return self._writers[name]
        shape = self._shapes[name]
        kind = shape["type"]
        if kind not in ("structure", "list", "map"):
            scalar = json_written(shape, timestamp_format)
            if timestamp_format is None:
                self._writers[name] = scalar
            return scalar

        def detour(value: Any) -> Any:
            write = self._writers[name]
            return value if write is None else write(value)

        self._writers[name] = detour
        if kind == "structure":
            writer: Write | None = self.members_writer(shape, only=_every)
        elif kind == "list":
            writer = self._list_writer(shape)
        else:
            writer = self._map_writer(shape)
        self._writers[name] = writer
        return writer

    def members_writer(
        self, shape: Shape, *, only: Callable[[Mapping[str, Any]], bool], skipping: frozenset[str] = frozenset()
    ) -> Write:
        """Writes those members that ``only`` accepts. Names in ``skipping`` belong elsewhere (headers) and are passed over."""
        entries: dict[str, tuple[str, Write | None]] = {}
        for name, member in shape.get("members", {}).items():
            if only(member):
                write = self.writer(member["shape"], timestamp_format=member.get("timestampFormat"))
                entries[name] = (wire_name(name, member), write)

        def write_members(value: Mapping[str, Any]) -> Any:
            result: dict[str, Any] = {}
            for name, raw in value.items():
                if raw is None:
                    continue
                entry = entries.get(name)
                if entry is None:
                    if name in skipping:
                        continue
                    raise RuntimeError(f"A handler gave the member {name!r}, which the model doesn't have.")
                wire, write = entry
                result[wire] = raw if write is None else write(raw)
            return result

        return write_members

    def _list_writer(self, shape: Shape) -> Write | None:
        write_entry = self.writer(shape["member"]["shape"])
        if write_entry is None:
            return list
        return lambda value: [write_entry(entry) for entry in value]

    def _map_writer(self, shape: Shape) -> Write | None:
        write_value = self.writer(shape["value"]["shape"])
        if write_value is None:
            return dict
        return lambda value: {key: write_value(entry) for key, entry in value.items()}


def _every(member: Mapping[str, Any]) -> bool:
    """Below the top level of a request or an answer, a member's place in the HTTP message means nothing."""
    return True
