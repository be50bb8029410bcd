"""The REST-XML protocol (s3): members in URI, query, headers, and a body of XML, text or streamed bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.http_binding import Incoming, Outgoing, input_binder, output_placer
from overair.server.aws_protocol.models import OperationModel, ServiceModel
from overair.server.aws_protocol.rules import Invalid
from overair.server.aws_protocol.scalars import Shape
from overair.server.aws_protocol.xml_documents import escape, read_xml
from overair.server.aws_protocol.xml_shapes import XmlShapes

XML: Final = (b"content-type", b"application/xml")
_JSON: Final = (b"content-type", b"application/json")
DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NO_SHAPE: Final[Shape] = {"type": "structure", "members": {}}


class RestXml:
    """Reads inputs and writes outputs of one service's operations."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._xml = XmlShapes(model.shapes)

    def streams_input(self, operation: OperationModel) -> bool:
        """Whether the operation's body is a blob that a handler reads as it comes."""
        shape = self._shape(operation.input_shape)
        payload = shape.get("payload")
        return payload is not None and bool(shape["members"][payload].get("streaming"))

    def reader(self, operation: OperationModel) -> Callable[[Incoming, Any], dict[str, Any]]:
        """Request → validated members. Raises ``Invalid`` and ``InvalidRequest``. A streaming payload is put in as given."""
        shape = self._shape(operation.input_shape)
        bind = input_binder(self._model.shapes, shape)
        payload = shape.get("payload")
        if payload is None:

            def read_bound(incoming: Incoming, _: Any) -> dict[str, Any]:
                members: dict[str, Any] = {}
                bind(incoming, members)
                return members

            return read_bound
        read_payload = self._payload_reader(shape["members"][payload])
        required = payload in shape.get("required", ())

        def read(incoming: Incoming, body: Any) -> dict[str, Any]:
            members: dict[str, Any] = {}
            bind(incoming, members)
            if body == b"":
                if required:
                    raise InvalidRequest(
                        f"The request's body is empty; it must be the XML of {payload}.", subject="malformed-body"
                    )
                return members
            try:
                members[payload] = read_payload(body)
            except Invalid as invalid:
                # What is wrong inside a document is MalformedXML to S3, whatever rule of the model it breaks.
                raise InvalidRequest(invalid.within(payload).describe(), subject="malformed-body") from None
            return members

        return read

    def _payload_reader(self, member: Mapping[str, Any]) -> Callable[[Any], Any]:
        shape = self._model.shapes[member["shape"]]
        if member.get("streaming"):
            return lambda body: body
        if shape["type"] == "structure":
            root = member.get("locationName", member["shape"])
            read_element = self._xml.reader(member["shape"])

            def read_document(body: bytes) -> Any:
                element = read_xml(body)
                if element.name != root:
                    raise InvalidRequest(
                        f"The document's root is {element.name[:100]!r}; it must be {root!r}.", subject="malformed-body"
                    )
                return read_element(element)

            return read_document
        if shape["type"] == "blob":
            return lambda body: body
        return _utf8

    def writer(self, operation: OperationModel) -> Callable[[Mapping[str, Any], Outgoing], None]:
        """Members → headers and body of the answer."""
        shape = self._shape(operation.output_shape)
        place, located = output_placer(self._model.shapes, shape)
        payload = shape.get("payload")
        if payload is not None:
            return self._payload_writer(shape["members"][payload], payload, place)
        body_members = [name for name in shape.get("members", {}) if name not in located]
        if not body_members:
            return place
        name = operation.output_shape or ""
        root = self._model.root_elements.get(name, name)
        opening = f'{DECLARATION}<{root} xmlns="{escape(self._model.xml_namespace)}">'
        if operation.name in self._model.unwrapped:
            return self._unwrapped_writer(opening, root, body_members[0], place)
        write_contents = self._xml.contents_writer(name, skipping=located)

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            place(members, outgoing)
            parts = [opening]
            write_contents(members, parts)
            parts.append(f"</{root}>")
            outgoing.headers.append(XML)
            outgoing.body = "".join(parts).encode("utf-8")

        return write

    def _unwrapped_writer(
        self, opening: str, root: str, only: str, place: Callable[[Mapping[str, Any], Outgoing], None]
    ) -> Callable[[Mapping[str, Any], Outgoing], None]:
        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            place(members, outgoing)
            outgoing.headers.append(XML)
            outgoing.body = f"{opening}{escape(str(members.get(only) or ''))}</{root}>".encode()

        return write

    def _payload_writer(
        self, member: Mapping[str, Any], payload: str, place: Callable[[Mapping[str, Any], Outgoing], None]
    ) -> Callable[[Mapping[str, Any], Outgoing], None]:
        shape = self._model.shapes[member["shape"]]
        if shape["type"] != "structure":

            def write_raw(members: Mapping[str, Any], outgoing: Outgoing) -> None:
                place(members, outgoing)
                value = members.get(payload)
                if isinstance(value, str):
                    outgoing.headers.append(_JSON)
                    outgoing.body = value.encode("utf-8")
                elif isinstance(value, bytes):
                    outgoing.body = value

            return write_raw
        root = member.get("locationName", member["shape"])
        reference = {**member, "xmlNamespace": member.get("xmlNamespace") or {"uri": self._model.xml_namespace}}
        write_element = self._xml.element_writer(root, reference)

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            place(members, outgoing)
            parts = [DECLARATION]
            write_element(members.get(payload) or {}, parts)
            outgoing.headers.append(XML)
            outgoing.body = "".join(parts).encode("utf-8")

        return write

    def _shape(self, name: str | None) -> Shape:
        return _NO_SHAPE if name is None else self._model.shapes[name]


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("The request's body must be UTF-8 text.", subject="malformed-body") from None
