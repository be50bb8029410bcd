"""The REST-JSON protocol (iot, iot-data, iot-jobs-data, signer, overair): members in URI, query, headers and a JSON body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.http_binding import Incoming, Outgoing, input_binder, output_placer
from overair.server.aws_protocol.models import OperationModel, ServiceModel
from overair.server.aws_protocol.rules import Invalid
from overair.server.aws_protocol.scalars import Shape
from overair.server.aws_protocol.shapes import JsonShapes
from overair.wire.strict_json import MalformedJson, decode

JSON: Final = (b"content-type", b"application/json")
_BYTES: Final = (b"content-type", b"application/octet-stream")
_NO_SHAPE: Final[Shape] = {"type": "structure", "members": {}}

_encode = msgspec.json.Encoder().encode


def decode_json_object(body: bytes) -> dict[str, Any]:
    """A request's JSON body; an empty one counts as an empty object.

    Raises:
        InvalidRequest: with subject ``malformed-body``.
    """
    if not body:
        return {}
    try:
        value = decode(body, size_bytes_max=len(body))
    except MalformedJson as error:
        raise InvalidRequest(f"The request's body can't be read. {error}", subject="malformed-body") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("The request's body must be a JSON object.", subject="malformed-body")
    return value


class RestJson:
    """Reads inputs and writes outputs of one service's operations."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._shapes = JsonShapes(model.shapes)

    def reader(self, operation: OperationModel) -> Callable[[Incoming, bytes], dict[str, Any]]:
        """Request → validated members. Raises ``Invalid`` and ``InvalidRequest``."""
        shape = self._shape(operation.input_shape)
        bind = input_binder(self._model.shapes, shape)
        payload = shape.get("payload")
        if payload is not None:
            return self._payload_reader(shape, payload, bind)
        read_members = self._shapes.members_reader(shape, only=lambda member: "location" not in member)
        has_body = any("location" not in member for member in shape.get("members", {}).values())

        def read(incoming: Incoming, body: bytes) -> dict[str, Any]:
            members: dict[str, Any] = read_members(decode_json_object(body)) if has_body else {}
            bind(incoming, members)
            return members

        return read

    def _payload_reader(
        self, shape: Shape, payload: str, bind: Callable[[Incoming, dict[str, Any]], None]
    ) -> Callable[[Incoming, bytes], dict[str, Any]]:
        member = self._model.shapes[shape["members"][payload]["shape"]]
        required = payload in shape.get("required", ())
        read_structure = self._shapes.reader(shape["members"][payload]["shape"]) if member["type"] == "structure" else None

        def read(incoming: Incoming, body: bytes) -> dict[str, Any]:
            members: dict[str, Any] = {}
            bind(incoming, members)
            if not body:
                if required:
                    raise Invalid("Member must not be null", missing=True).within(payload)
            elif read_structure is not None:
                try:
                    members[payload] = read_structure(decode_json_object(body))
                except Invalid as invalid:
                    raise invalid.within(payload)  # noqa: B904 - the same exception, one step further out
            elif member["type"] == "blob":
                members[payload] = body
            else:
                members[payload] = _text(body)
            return members

        return read

    def writer(self, operation: OperationModel) -> Callable[[Mapping[str, Any], Outgoing], None]:
        """Members → headers and body of the answer."""
        shape = self._shape(operation.output_shape)
        place, located = output_placer(self._model.shapes, shape)
        payload = shape.get("payload")
        if payload is not None:
            return self._payload_writer(shape, payload, place)
        write_members = self._shapes.members_writer(shape, only=lambda member: "location" not in member, skipping=located)
        modelled = operation.output_shape is not None

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            if located:
                place(members, outgoing)
            outgoing.headers.append(JSON)
            outgoing.body = _encode(write_members(members)) if modelled else b""

        return write

    def _payload_writer(
        self, shape: Shape, payload: str, place: Callable[[Mapping[str, Any], Outgoing], None]
    ) -> Callable[[Mapping[str, Any], Outgoing], None]:
        name = shape["members"][payload]["shape"]
        kind = self._model.shapes[name]["type"]
        write_structure = self._shapes.writer(name) if kind == "structure" else None

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            place(members, outgoing)
            value = members.get(payload)
            if write_structure is not None:
                outgoing.headers.append(JSON)
                outgoing.body = _encode(write_structure(value or {}))
            else:
                outgoing.headers.append(_BYTES)
                outgoing.body = b"" if value is None else value if isinstance(value, bytes) else str(value).encode()

        return write

    def _shape(self, name: str | None) -> Shape:
        return _NO_SHAPE if name is None else self._model.shapes[name]


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("The request's body must be UTF-8 text.", subject="malformed-body") from None
