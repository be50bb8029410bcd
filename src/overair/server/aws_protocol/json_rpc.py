"""The JSON 1.1 protocol (acm): one path, the operation in ``X-Amz-Target``, every member in the body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from overair.server.aws_protocol.http_binding import Incoming, Outgoing
from overair.server.aws_protocol.models import OperationModel, ServiceModel
from overair.server.aws_protocol.rest_json import decode_json_object
from overair.server.aws_protocol.shapes import JsonShapes

_encode = msgspec.json.Encoder().encode


class JsonRpc:
    """Reads inputs and writes outputs of one service's operations."""

    def __init__(self, model: ServiceModel) -> None:
        self._shapes = JsonShapes(model.shapes)
        self._content_type = (b"content-type", f"application/x-amz-json-{model.json_version}".encode())

    def reader(self, operation: OperationModel) -> Callable[[Incoming, bytes], dict[str, Any]]:
        """Request → validated members. Raises ``Invalid`` and ``InvalidRequest``."""
        if operation.input_shape is None:
            return _read_nothing
        read_shape = self._shapes.reader(operation.input_shape)
        return lambda _, body: read_shape(decode_json_object(body))

    def writer(self, operation: OperationModel) -> Callable[[Mapping[str, Any], Outgoing], None]:
        """Members → body of the answer."""
        write_shape = None if operation.output_shape is None else self._shapes.writer(operation.output_shape)

        def write(members: Mapping[str, Any], outgoing: Outgoing) -> None:
            outgoing.headers.append(self._content_type)
            outgoing.body = b"{}" if write_shape is None else _encode(write_shape(members))

        return write


def _read_nothing(_: Incoming, body: bytes) -> dict[str, Any]:
    decode_json_object(body)
    return {}
