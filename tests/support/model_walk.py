"""Requests of every kind for every operation: what a model allows, and what it doesn't, signed and sent."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ParamValidationError
from botocore.model import ServiceModel as BotocoreModel
from botocore.serialize import create_serializer
from botocore.session import Session

from overair.basics.clock import Instant, as_datetime
from overair.server.aws_protocol.models import MODELS_DIRECTORY, SERVICES, ServiceModel, load_model
from tests.support.model_values import Drawn, Unmatched

JUNK: tuple[Any, ...] = (
    "",
    " ",
    "\0",
    "a" * 3000,
    "../..",
    "$next",
    "ü💥\u202e",
    "%00%2F",
    "arn:aws:iot:us-east-1:123456789012:thing/x",
    "arn:aws:::::",
    "{not json",
    '{"Version":"2012-10-17","Statement":[]}',
    -1,
    0,
    2**31,
    2**63,
    -(2**63) - 1,
    1e308,
    1.5,
    True,
    None,
    [],
    {},
    [[[]]],
    {"a": {"b": [1]}},
    [None],
)
NOT_SENT = {"SelectObjectContent", "WriteGetObjectResponse"}


@dataclass
class Wire:
    """One request before it is signed."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes


@dataclass
class ModelWalk:
    """Draws requests; ``names`` are values that exist on the server, by lower-case member name."""

    names: dict[str, str]
    chance: random.Random
    spoils: bool = True
    """Whether requests are also broken on their way, beside being drawn wrong."""
    models: dict[str, ServiceModel] = field(default_factory=lambda: {name: load_model(name) for name in SERVICES})
    _theirs: dict[str, BotocoreModel] = field(default_factory=dict)

    def operations(self) -> list[tuple[str, str]]:
        return [(name, op) for name, model in self.models.items() for op in model.operations if op not in NOT_SENT]

    def request(self, service: str, operation: str) -> Wire:
        """One request: sometimes right, mostly broken in one place or two."""
        model = self.models[service]
        shape = model.operations[operation].input_shape
        drawn: dict[str, Any] = {}
        well_meant = self.chance.random() < 0.5
        left_out = self.chance.choice((0.6, 0.8, 0.95) if well_meant else (0.3, 0.95))
        for _ in range(5):
            try:
                drawn = Drawn(model.shapes, self.chance, empty_lists=True, left_out=left_out).value(shape) if shape else {}
                break
            except Unmatched:
                continue
        for member in drawn:
            known = self.names.get(member.lower())
            if known is not None and isinstance(drawn[member], str) and (well_meant or self.chance.random() < 0.8):
                drawn[member] = known
        wire = self._serialised(service, operation, drawn)
        for _ in range(0 if well_meant or not self.spoils else self.chance.choice((0, 1, 1, 2))):
            self._break(wire)
        return wire

    def _botocore(self, service: str) -> BotocoreModel:
        if service not in self._theirs:
            loader = Session().get_component("data_loader")
            loader.search_paths.insert(0, str(MODELS_DIRECTORY))
            self._theirs[service] = BotocoreModel(loader.load_service_model(service, "service-2"), service)
        return self._theirs[service]

    def _serialised(self, service: str, operation: str, drawn: dict[str, Any]) -> Wire:
        theirs = self._botocore(service)
        serializer = create_serializer(theirs.metadata["protocol"], include_validation=False)
        model = theirs.operation_model(operation)
        for member in {"Expires", "ResponseExpires"} & drawn.keys():
            drawn[member] = Instant(1_800_000_000_000)  # a text to us, a moment to botocore
        values = _dated(drawn, model.input_shape) if model.input_shape is not None else {}
        try:
            made = serializer.serialize_to_request(values, model)
        except (ParamValidationError, KeyError, TypeError, AttributeError):
            made = serializer.serialize_to_request({}, model) if service in ("acm", "iam", "sts") else None
        if made is None:
            return Wire("GET", "/", [], {}, b"")
        path, _, literal = made["url_path"].partition("?")
        given = made.get("query_string") or {}
        pairs = list(given.items()) if isinstance(given, dict) else list(given)
        query = [(name, str(each)) for name, value in pairs for each in (value if isinstance(value, list) else [value])]
        if literal:
            query += [(part.partition("=")[0], part.partition("=")[2]) for part in literal.split("&")]
        body = made.get("body", b"")
        if isinstance(body, dict):
            body = urlencode(body)
        if isinstance(body, str):
            body = body.encode()
        # A length that isn't the body's only makes the server wait for the rest: that is a matter of time, not of input.
        headers = {name: str(value) for name, value in made["headers"].items() if name.lower() != "content-length"}
        return Wire(made["method"], path, query, headers, body if isinstance(body, bytes) else b"")

    def _break(self, wire: Wire) -> None:
        chance = self.chance
        place = chance.choice(("body", "body", "query", "path", "header", "method", "raw"))
        junk = chance.choice(JUNK)
        text = junk if isinstance(junk, str) else json.dumps(junk)
        if place == "body" and wire.body[:1] == b"{":
            try:
                document = json.loads(wire.body)
            except ValueError:
                return  # broken already
            wire.body = json.dumps(self._spoiled(document, junk)).encode("utf-8", "replace")
        elif place == "body" and wire.body:
            cut = chance.randrange(len(wire.body))
            wire.body = wire.body[:cut] + text.encode() + wire.body[cut + chance.randrange(6) :]
        elif place == "query" and wire.query:
            index = chance.randrange(len(wire.query))
            wire.query[index] = (wire.query[index][0], text)
        elif place == "query":
            wire.query.append((chance.choice(("maxResults", "versionId", "marker", "uploads", "x")), text))
        elif place == "path":
            segments = wire.path.split("/")
            segments[chance.randrange(1, len(segments)) if len(segments) > 1 else 0] = quote(text[:200], safe="")
            wire.path = "/" + "/".join(segments).removeprefix("/")
        elif place == "header" and wire.headers:
            wire.headers[chance.choice(sorted(wire.headers))] = text.encode("ascii", "replace").decode()[:500].replace("\0", "")
        elif place == "method":
            wire.method = chance.choice(("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"))
        else:
            wire.body = chance.randbytes(chance.randrange(60))

    def _spoiled(self, document: Any, junk: Any) -> Any:
        if isinstance(document, dict) and document and self.chance.random() < 0.85:
            name = self.chance.choice(sorted(document))
            return {**document, name: self._spoiled(document[name], junk)}
        if isinstance(document, list) and document and self.chance.random() < 0.7:
            index = self.chance.randrange(len(document))
            return [*document[:index], self._spoiled(document[index], junk), *document[index + 1 :]]
        return junk


def _dated(value: Any, shape: Any) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        return {name: _dated(value[name], member) for name, member in shape.members.items() if name in value}
    if shape.type_name == "list":
        return [_dated(entry, shape.member) for entry in value]
    if shape.type_name == "map":
        return {key: _dated(entry, shape.value) for key, entry in value.items()}
    return as_datetime(Instant(value)) if shape.type_name == "timestamp" and isinstance(value, int) else value


def signed(wire: Wire, url: str, key: dict[str, str], *, service: str, region: str) -> tuple[str, dict[str, str]]:
    """The whole URL and the headers, signed as botocore signs."""
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in wire.query)
    whole = url + (wire.path or "/") + (f"?{query}" if query else "")
    request = AWSRequest(method=wire.method, url=whole, data=wire.body, headers=dict(wire.headers))
    credentials = Credentials(key["access_key_id"], key["secret_access_key"])
    (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, region).add_auth(request)
    return whole, {name: str(value) for name, value in request.headers.items()}
