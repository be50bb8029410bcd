"""Where the REST protocols put members outside the body: URI labels, query, headers, status; for both directions.

Shared by REST-JSON and REST-XML. The body is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus

from overair.server.aws_protocol.rules import Invalid, length_check
from overair.server.aws_protocol.scalars import Shape, TextRead, text_scalar, text_written

QUERY_PARAMETERS_MAX: Final = 1_000

Query = dict[str, list[str]]
HeaderPairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """The parts of a request that a protocol reads, its body aside."""

    labels: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]
    """By lower-case name; a field that came several times is joined by commas."""


@dataclass(slots=True)
class Outgoing:
    """An answer ready to be sent."""

    status_code: int
    headers: HeaderPairs = field(default_factory=list)
    body: bytes = b""


def parse_query(raw: bytes) -> Query:
    """A query string as lists of values by name.

    Raises:
        Invalid: too many parameters, or not UTF-8 once decoded.
    """
    result: Query = {}
    if not raw:
        return result
    parts = raw.split(b"&")
    if len(parts) > QUERY_PARAMETERS_MAX:
        raise Invalid(f"A request has at most {QUERY_PARAMETERS_MAX} parameters")
    for part in parts:
        if not part:
            continue
        name, _, value = part.partition(b"=")
        result.setdefault(_decoded(name), []).append(_decoded(value))
    return result


def _decoded(part: bytes) -> str:
    try:
        if b"%" not in part and b"+" not in part:
            return part.decode("ascii")
        return unquote_plus(part.decode("ascii"), errors="strict")
    except UnicodeDecodeError:
        raise Invalid("Parameters must be UTF-8, percent-encoded") from None


Bind = Callable[[Incoming, dict[str, Any]], None]


def input_binder(shapes: Mapping[str, Shape], shape: Shape) -> Bind:
    """What moves an input's located members from a request into a dict. It raises ``Invalid``."""
    required = frozenset(shape.get("required", ()))
    binds: list[Bind] = []
    for name, member in shape.get("members", {}).items():
        location = member.get("location")
        if location is not None:
            binds.append(_bind_one(shapes, name, member, location, name in required))

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        for one in binds:
            one(incoming, members)

    return bind


def _bind_one(shapes: Mapping[str, Shape], name: str, member: Mapping[str, Any], location: str, required: bool) -> Bind:
    wire: str = member.get("locationName", name)
    shape = shapes[member["shape"]]
    if location == "headers":
        return _bind_prefix(shapes, name, wire, shape)
    if location == "querystring":
        return _bind_query(shapes, name, wire, shape, required)
    if location == "header" and shape["type"] == "list":
        return _bind_header_list(shapes, name, wire, shape)
    read = text_scalar(shape, json_value=bool(member.get("jsonvalue")))
    lower = wire.lower()

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        raw = incoming.labels.get(wire) if location == "uri" else incoming.headers.get(lower)
        if raw is None or (raw == "" and location == "header"):
            if required:
                raise Invalid("Member must not be null", missing=True).within(name)
            return
        members[name] = _read(read, raw, name)

    return bind


def _read(read: TextRead, raw: str, name: str) -> Any:
    try:
        return read(raw)
    except Invalid as invalid:
        raise invalid.within(name)  # noqa: B904 - the same exception, one step further out


def _bind_prefix(shapes: Mapping[str, Shape], name: str, prefix: str, shape: Shape) -> Bind:
    read = text_scalar(shapes[shape["value"]["shape"]])
    lower = prefix.lower()

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        found = {
            header[len(lower) :]: _read(read, value, name)
            for header, value in incoming.headers.items()
            if header.startswith(lower)
        }
        if found:
            members[name] = found

    return bind


def _bind_header_list(shapes: Mapping[str, Shape], name: str, wire: str, shape: Shape) -> Bind:
    read = text_scalar(shapes[shape["member"]["shape"]])
    lower = wire.lower()

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        raw = incoming.headers.get(lower)
        if raw:
            members[name] = [_read(read, part.strip(), name) for part in raw.split(",")]

    return bind


def _bind_query(shapes: Mapping[str, Shape], name: str, wire: str, shape: Shape, required: bool) -> Bind:
    if shape["type"] == "map":
        return _bind_query_map(shapes, name, shape)
    many = shape["type"] == "list"
    read = text_scalar(shapes[shape["member"]["shape"]] if many else shape)
    check = length_check(shape) if many else None

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        values = incoming.query.get(wire)
        if values is None:
            if required:
                raise Invalid("Member must not be null", missing=True).within(name)
            return
        if many:
            if check is not None:
                _read(lambda _: check(len(values)), "", name)
            members[name] = [_read(read, value, name) for value in values]
            return
        if len(values) > 1:
            raise Invalid("Member must be given once").within(name)
        members[name] = _read(read, values[0], name)

    return bind


def _bind_query_map(shapes: Mapping[str, Shape], name: str, shape: Shape) -> Bind:
    """A map in the query is every parameter that no other member names; a list of values where its values are lists."""
    value_shape = shapes[shape["value"]["shape"]]
    many = value_shape["type"] == "list"
    read = text_scalar(shapes[value_shape["member"]["shape"]] if many else value_shape)

    def bind(incoming: Incoming, members: dict[str, Any]) -> None:
        members[name] = {
            key: [_read(read, value, name) for value in values] if many else _read(read, values[-1], name)
            for key, values in incoming.query.items()
        }

    return bind


# Answers -------------------------------------------------------------------------------------------------------------

Place = Callable[[Mapping[str, Any], Outgoing], None]


def output_placer(shapes: Mapping[str, Shape], shape: Shape) -> tuple[Place, frozenset[str]]:
    """What moves an output's located members into headers and status, and the names of those members."""
    places: list[Place] = []
    located: set[str] = set()
    for name, member in shape.get("members", {}).items():
        location = member.get("location")
        if location is None:
            continue
        located.add(name)
        places.append(_place_one(shapes, name, member, location))

    def place(members: Mapping[str, Any], outgoing: Outgoing) -> None:
        for one in places:
            one(members, outgoing)

    return place, frozenset(located)


def _place_one(shapes: Mapping[str, Shape], name: str, member: Mapping[str, Any], location: str) -> Place:
    wire: str = member.get("locationName", name)
    shape = shapes[member["shape"]]
    if location == "statusCode":

        def place_status(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            if members.get(name) is not None:
                outgoing.status_code = int(members[name])

        return place_status
    if location == "headers":
        write_value = text_written(shapes[shape["value"]["shape"]], "rfc822")

        def place_prefix(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            for key, value in (members.get(name) or {}).items():
                outgoing.headers.append((header_bytes(wire + key), header_bytes(write_value(value))))

        return place_prefix
    if shape["type"] == "list":
        write_entry = text_written(shapes[shape["member"]["shape"]], "rfc822")

        def place_list(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            if members.get(name):
                text = ", ".join(write_entry(entry) for entry in members[name])
                outgoing.headers.append((header_bytes(wire), header_bytes(text)))

        return place_list
    write = text_written(
        {**shape, **({"timestampFormat": member["timestampFormat"]} if "timestampFormat" in member else {})},
        "rfc822",
        json_value=bool(member.get("jsonvalue")),
    )
    encoded_name = wire.encode("ascii")

    def place(members: Mapping[str, Any], outgoing: Outgoing) -> None:
        value = members.get(name)
        if value is not None:
            outgoing.headers.append((encoded_name, header_bytes(write(value))))

    return place


def header_bytes(text: str) -> bytes:
    """A header's text as bytes: Latin-1 where it fits, else UTF-8; what would end the line early becomes a space."""
    if "\r" in text or "\n" in text or "\0" in text:
        text = text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
