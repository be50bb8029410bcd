"""One service as the dispatcher sees it: its model, its router, and those of its operations that a room gave a meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.http_binding import Incoming, Outgoing
from overair.server.aws_protocol.json_rpc import JsonRpc
from overair.server.aws_protocol.models import OperationModel, ServiceModel, load_model
from overair.server.aws_protocol.operations import Handler
from overair.server.aws_protocol.query import Query
from overair.server.aws_protocol.rest_json import RestJson
from overair.server.aws_protocol.rest_xml import RestXml
from overair.server.aws_protocol.router import BadPath, Labels, Router

KIB: Final = 1024
BODY_SIZES_BYTES_MAX: Final[Mapping[str, int]] = {
    # The largest body of each service that is read whole, before anything in it is parsed.
    "iot": 1024 * KIB,
    "iot-data": 256 * KIB,
    "iot-jobs-data": 256 * KIB,
    "signer": 1024 * KIB,
    "acm": 4096 * KIB,
    "s3": 4096 * KIB,
    "iam": 512 * KIB,
    "sts": 256 * KIB,
    "overair": 1024 * KIB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundOperation:
    """An operation with its meaning and its compiled codec."""

    model: OperationModel
    handler: Handler
    read: Callable[[Incoming, Any], dict[str, Any]]
    write: Callable[[Mapping[str, Any], Outgoing], None]


Codec = RestJson | RestXml | JsonRpc | Query


def _codec(model: ServiceModel) -> Codec:
    if model.protocol == "rest-json":
        return RestJson(model)
    if model.protocol == "rest-xml":
        return RestXml(model)
    return JsonRpc(model) if model.protocol == "json" else Query(model)


class Service:
    """One of the services at the operator's door."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: ServiceModel = load_model(name)
        self.body_size_bytes_max = BODY_SIZES_BYTES_MAX[name]
        self.bound: dict[str, BoundOperation] = {}
        protocol = self.model.protocol
        self.is_rest = protocol.startswith("rest-")
        self.is_query = protocol == "query"
        self.codec = _codec(self.model)
        self._router = Router(self.model) if self.is_rest else None

    def bind(self, operation: str, handler: Handler) -> None:
        """Give an operation its meaning.

        Raises:
            RuntimeError: the model has no such operation, or it has a meaning already.
        """
        model = self.model.operations.get(operation)
        if model is None:
            raise RuntimeError(f"The model of {self.name} has no operation {operation!r}.")
        if operation in self.bound:
            raise RuntimeError(f"Two rooms give {self.name} {operation} a meaning.")
        self.bound[operation] = BoundOperation(
            model=model, handler=handler, read=self.codec.reader(model), write=self.codec.writer(model)
        )

    def streams_input(self, operation: OperationModel) -> bool:
        """Whether the operation's handler reads the body as it comes."""
        return isinstance(self.codec, RestXml) and self.codec.streams_input(operation)

    def find(
        self, method: str, raw_path: bytes, query: Mapping[str, list[str]], headers: Mapping[str, str]
    ) -> tuple[OperationModel, Labels]:
        """The operation that a request names, whether or not it has a meaning, with its URI labels.

        For query services ``query`` holds the form's parameters too.

        Raises:
            InvalidRequest: there is no such operation; subject ``unknown-operation``. Or the path is malformed; ``key``.
        """
        if self._router is not None:
            try:
                found = self._router.route(method, raw_path, query, headers)
            except BadPath as error:
                raise InvalidRequest(str(error), subject="key") from None
            if found is None:
                shown = raw_path[:200].decode("latin-1")
                raise InvalidRequest(f"The service {self.name} has no operation {method} {shown}.", subject="unknown-operation")
            return found
        name = self._named(query) if self.is_query else self._targeted(headers)
        operation = self.model.operations.get(name)
        if operation is None:
            raise InvalidRequest(f"The service {self.name} has no operation {name[:100]!r}.", subject="unknown-operation")
        return operation, {}

    def _named(self, query: Mapping[str, list[str]]) -> str:
        version = query.get("Version", [self.model.api_version])[0]
        action = query.get("Action", [""])[0]
        if version != self.model.api_version:
            raise InvalidRequest(
                f"Could not find operation {action[:100]} for version {version[:40]}; this is {self.model.api_version}.",
                subject="unknown-operation",
            )
        return action

    def _targeted(self, headers: Mapping[str, str]) -> str:
        prefix, _, name = headers.get("x-amz-target", "").partition(".")
        return name if prefix == self.model.target_prefix else ""
