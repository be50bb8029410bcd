"""The query protocol (iam, sts): form parameters in, XML out.

``Tags.member.1.Key=a`` is read into a tree of dotted names first, then by shape. A list may be given empty as ``Tags=``.
Answers wrap: ``<CreateRoleResponse><CreateRoleResult>…</CreateRoleResult><ResponseMetadata>…``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from overair.server.aws_protocol.http_binding import Incoming, Outgoing
from overair.server.aws_protocol.models import OperationModel, ServiceModel
from overair.server.aws_protocol.rules import Invalid, length_check
from overair.server.aws_protocol.scalars import Shape, text_scalar
from overair.server.aws_protocol.xml_documents import escape
from overair.server.aws_protocol.xml_shapes import XmlShapes

DEPTH_MAX: Final = 16
XML: Final = (b"content-type", b"text/xml;charset=utf-8")
_INDEX_DIGITS_MAX: Final = 6

Tree = dict[str, Any]
"""By name: a text, or a deeper tree; the text of a name that also has deeper ones stands under the empty name."""
ReadNode = Callable[[Any], Any]


class Query:
    """Reads inputs and writes outputs of one service's operations. The parameters are in ``Incoming.query``."""

    def __init__(self, model: ServiceModel) -> None:
        self._model = model
        self._xml = XmlShapes(model.shapes, iso_format="iso8601-short")
        self._readers: dict[str, ReadNode] = {}

    def reader(self, operation: OperationModel) -> Callable[[Incoming, bytes], dict[str, Any]]:
        """Request → validated members. Raises ``Invalid``."""
        if operation.input_shape is None:
            return lambda _, __: {}
        read_shape = self._reader(operation.input_shape)

        def read(incoming: Incoming, _: bytes) -> dict[str, Any]:
            members: dict[str, Any] = read_shape(_tree(incoming.query))
            return members

        return read

    def _reader(self, name: str) -> ReadNode:
        found = self._readers.get(name)
        if found is not None:
            return found
        self._readers[name] = lambda node: self._readers[name](node)
        shape = self._model.shapes[name]
        kind = shape["type"]
        if kind == "structure":
            reader = self._structure_reader(shape)
        elif kind == "list":
            reader = self._list_reader(shape)
        elif kind == "map":
            reader = self._map_reader(shape)
        else:
            read_text = text_scalar(shape)
            reader = lambda node: read_text(_text(node))  # noqa: E731 - the closure is the product here
        self._readers[name] = reader
        return reader

    def _structure_reader(self, shape: Shape) -> ReadNode:
        members = [
            (name, member.get("locationName", name), self._reader(member["shape"]))
            for name, member in shape.get("members", {}).items()
        ]
        required = frozenset(shape.get("required", ()))

        def read(node: Any) -> Any:
            if type(node) is not dict:
                raise Invalid("Member must be a structure")
            result: dict[str, Any] = {}
            for name, wire, read_member in members:
                child = node.get(wire)
                if child is None:
                    if name in required:
                        raise Invalid("Member must not be null", missing=True).within(name)
                    continue
                result[name] = _within(name, read_member, child)
            return result

        return read

    def _list_reader(self, shape: Shape) -> ReadNode:
        read_entry = self._reader(shape["member"]["shape"])
        entry_name = shape["member"].get("locationName", "member")
        flat = bool(shape.get("flattened"))
        check = length_check(shape)

        def read(node: Any) -> Any:
            if node == "":
                return []
            entries = _indexed(node if flat else _child(node, entry_name))
            if check is not None:
                check(len(entries))
            return [_within(str(index + 1), read_entry, entry) for index, entry in enumerate(entries)]

        return read

    def _map_reader(self, shape: Shape) -> ReadNode:
        read_key = self._reader(shape["key"]["shape"])
        read_value = self._reader(shape["value"]["shape"])
        key_name = shape["key"].get("locationName", "key")
        value_name = shape["value"].get("locationName", "value")
        flat = bool(shape.get("flattened"))
        check = length_check(shape)

        def read(node: Any) -> Any:
            if node == "":
                return {}
            entries = _indexed(node if flat else _child(node, "entry"))
            if check is not None:
                check(len(entries))
            return {read_key(_child(entry, key_name)): read_value(_child(entry, value_name)) for entry in entries}

        return read

    def writer(self, operation: OperationModel) -> Callable[[Mapping[str, Any], Outgoing], None]:
        """Members → an XML answer; the request id is put in where ``{request_id}`` stands by ``finish``."""
        name = operation.name
        contents = None if operation.output_shape is None else self._xml.contents_writer(operation.output_shape)
        wrapper = operation.result_wrapper
        opening = f'<{name}Response xmlns="{escape(self._model.xml_namespace)}">'

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            parts = [opening]
            if wrapper:
                parts.append(f"<{wrapper}>")
            if contents is not None:
                contents(members, parts)
            if wrapper:
                parts.append(f"</{wrapper}>")
            outgoing.headers.append(XML)
            outgoing.body = "".join(parts).encode("utf-8")

        return write

    @staticmethod
    def finish(operation: OperationModel, outgoing: Outgoing, request_id: str) -> None:
        """Close the document with the request's id."""
        outgoing.body += (
            f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation.name}Response>"
        ).encode()


def _tree(query: Mapping[str, list[str]]) -> Tree:
    root: Tree = {}
    for dotted, values in query.items():
        if len(values) > 1:
            raise Invalid("Member must be given once").within(dotted[:100])
        path = dotted.split(".")
        if len(path) > DEPTH_MAX:
            raise Invalid(f"A parameter's name has at most {DEPTH_MAX} parts").within(dotted[:100])
        node = root
        for part in path[:-1]:
            below = node.get(part)
            if type(below) is not dict:
                below = {} if below is None else {"": below}
                node[part] = below
            node = below
        last = path[-1]
        if type(node.get(last)) is dict:
            node[last][""] = values[0]
        else:
            node[last] = values[0]
    return root


def _text(node: Any) -> str:
    if type(node) is not str:
        raise Invalid("Member must be a single value")
    return node


def _child(node: Any, name: str) -> Any:
    child = node.get(name) if type(node) is dict else None
    if child is None:
        raise Invalid(f"Member must be given as .{name}…")
    return child


def _indexed(node: Any) -> list[Any]:
    if type(node) is not dict or not all(key.isascii() and key.isdigit() and len(key) <= _INDEX_DIGITS_MAX for key in node):
        raise Invalid("Member must be a numbered list: .1, .2, …")
    return [node[key] for key in sorted(node, key=int)]


def _within(name: str, read: ReadNode, value: Any) -> Any:
    try:
        return read(value)
    except Invalid as invalid:
        raise invalid.within(name)  # noqa: B904 - the same exception, one step further out
