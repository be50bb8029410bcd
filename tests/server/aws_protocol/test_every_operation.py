"""Laws over every operation of every model, against botocore's own serialisers and parsers."""

from __future__ import annotations

import io
import random
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from botocore.awsrequest import HeadersDict
from botocore.model import ServiceModel as BotocoreModel
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.session import Session

from overair.basics.clock import Instant, as_datetime, from_datetime
from overair.basics.errors import InvalidRequest
from overair.server.aws_protocol.http_binding import Incoming, Outgoing, parse_query
from overair.server.aws_protocol.models import MODELS_DIRECTORY, SERVICES
from overair.server.aws_protocol.query import Query
from overair.server.aws_protocol.service import Service
from tests.support.model_values import Drawn, Unmatched, equal, seed_of

ROUNDS = 3
EVENT_STREAMS = {"SelectObjectContent", "WriteGetObjectResponse"}
"""An event stream, which the engine doesn't speak, and an operation that lives on a host name of its own; neither is served."""


@lru_cache
def service(name: str) -> Service:
    return Service(name)


@lru_cache
def botocore_model(name: str) -> BotocoreModel:
    session = Session()
    loader = session.get_component("data_loader")
    loader.search_paths.insert(0, str(MODELS_DIRECTORY))
    return BotocoreModel(loader.load_service_model(name, "service-2"), name)


def members_of(name: str, shape: str | None) -> dict[str, Any]:
    return dict(service(name).model.shapes[shape].get("members", {})) if shape else {}


def as_botocore(value: Any, shape: Any) -> Any:
    """Our values as botocore takes and gives them."""
    if shape.type_name == "structure":
        return {name: as_botocore(value[name], member) for name, member in shape.members.items() if name in value}
    if shape.type_name == "list":
        return [as_botocore(entry, shape.member) for entry in value]
    if shape.type_name == "map":
        return {key: as_botocore(entry, shape.value) for key, entry in value.items()}
    return as_datetime(Instant(value)) if shape.type_name == "timestamp" else value


def as_ours(value: Any, shape: Any) -> Any:
    if value is None:
        return None
    if shape.type_name == "structure":
        return {name: as_ours(value[name], member) for name, member in shape.members.items() if name in value}
    if shape.type_name == "list":
        return [as_ours(entry, shape.member) for entry in value]
    if shape.type_name == "map":
        return {key: as_ours(entry, shape.value) for key, entry in value.items()}
    if shape.type_name == "timestamp":
        return from_datetime(value)
    return value.read() if hasattr(value, "read") else value


def without_empty(value: Any) -> Any:
    """XML can't tell an empty structure, list or map from an absent one."""
    if isinstance(value, dict):
        kept = {name: without_empty(entry) for name, entry in value.items()}
        return {name: entry for name, entry in kept.items() if entry not in ({}, [], None, "", b"")}
    if isinstance(value, list):
        return [entry for entry in map(without_empty, value) if entry not in ({}, [], None, "", b"")]
    return value


CASES = [(name, operation) for name in SERVICES for operation in service(name).model.operations]


def ids(case: tuple[str, str]) -> str:
    return "-".join(case)


@pytest.mark.parametrize("name", SERVICES)
def test_what_botocore_sends_is_read_as_the_same_values(name: str) -> None:
    checked = 0
    for operation_name in service(name).model.operations:
        if operation_name not in EVENT_STREAMS:
            for round_number in range(ROUNDS):
                checked += _check_input(name, operation_name, random.Random(seed_of(operation_name, str(round_number))))
    assert checked >= 0.9 * ROUNDS * len(service(name).model.operations)


def _check_input(name: str, operation_name: str, chance: random.Random) -> int:
    ours = service(name)
    operation = ours.model.operations[operation_name]
    if operation.input_shape is None:
        return 1
    try:
        drawn = Drawn(ours.model.shapes, chance).value(operation.input_shape)
    except Unmatched:
        return 0
    theirs = botocore_model(name).operation_model(operation_name)
    for member, described in members_of(name, operation.input_shape).items():
        # Metadata comes back with header names in lower case, and these tests give every part of a map its own name.
        if described.get("location") == "headers" and member in drawn:
            drawn[member] = {key.lower(): value for key, value in drawn[member].items()}
        if described.get("location") == "header" and drawn.get(member) == []:
            del drawn[member]
    if ours.model.protocol in ("rest-xml", "query"):
        drawn = without_empty(drawn)
        if not set(ours.model.shapes[operation.input_shape].get("required", ())) <= drawn.keys():
            return 0
    for member in {"Expires", "ResponseExpires"} & drawn.keys():
        del drawn[member]  # a text to us, since clients may send anything there
    expected = dict(drawn)
    sent = dict(as_botocore(drawn, theirs.input_shape))
    serializer = create_serializer(theirs.service_model.metadata["protocol"], include_validation=False)
    request = serializer.serialize_to_request(sent, theirs)
    method, url_path = request["method"], request["url_path"]
    split = urlsplit(url_path)
    query_text = split.query
    if request.get("query_string"):
        given = request["query_string"]
        encoded = urlencode(list(given.items()) if isinstance(given, dict) else given, doseq=True, quote_via=quote)
        query_text = f"{query_text}&{encoded}" if query_text else encoded
    headers = {key.lower(): str(value) for key, value in request["headers"].items()}
    body = request.get("body", b"")
    if isinstance(body, dict):
        body = urlencode(body).encode()
    if isinstance(body, str):
        body = body.encode()
    query = parse_query(query_text.encode())
    if ours.is_query:
        query.update(parse_query(body))
    found, labels = ours.find(method, split.path.encode(), query, headers)
    alike = {candidate.name for candidate in ours.model.operations.values() if candidate.uri == operation.uri}
    assert found.name == operation_name or found.name in alike, (operation_name, found.name)
    if found.name != operation_name and found.input_shape != operation.input_shape:
        return 1  # deprecated twins and directory buckets share a path that nothing tells apart
    try:
        read = ours.codec.reader(operation)(Incoming(labels=labels, query=query, headers=headers), body)
    except InvalidRequest as refused:
        # What was taken out above for being empty may have been required further down.
        if "must not be null" not in refused.message:
            raise
        return 0
    if ours.model.protocol in ("rest-xml", "query"):
        read, expected = without_empty(read), without_empty(expected)
    for member, described in members_of(name, operation.input_shape).items():
        if ours.model.shapes[described["shape"]]["type"] == "map" and described.get("location") == "querystring":
            read.pop(member, None)
            expected.pop(member, None)
    assert equal(read, expected), f"{operation_name}: {read} != {expected}"
    return 1


@pytest.mark.parametrize("name", SERVICES)
def test_what_we_answer_is_parsed_by_botocore_as_the_same_values(name: str) -> None:
    for operation_name in service(name).model.operations:
        if operation_name not in EVENT_STREAMS and not service(name).model.operations[operation_name].deprecated:
            for round_number in range(ROUNDS):
                _check_output(name, operation_name, random.Random(seed_of(operation_name, str(round_number))))


def _check_output(name: str, operation_name: str, chance: random.Random) -> None:
    ours = service(name)
    operation = ours.model.operations[operation_name]
    theirs = botocore_model(name).operation_model(operation_name)
    outgoing = Outgoing(operation.status_code)
    write = ours.codec.writer(operation)
    if operation.output_shape is None:
        write({}, outgoing)
        assert outgoing.body in (b"", b"{}") or ours.is_query
        return
    try:
        drawn = Drawn(ours.model.shapes, chance, tricky=True).value(operation.output_shape)
    except Unmatched:
        drawn = {}
    for member, described in members_of(name, operation.output_shape).items():
        if described.get("location") == "headers" and member in drawn:
            drawn[member] = {f"k{index}": "v" for index, _ in enumerate(drawn[member])}
        if described.get("location") == "header" and isinstance(drawn.get(member), str):
            drawn[member] = drawn[member].encode("ascii", "replace").decode().strip() or "x"
        if described.get("location") == "statusCode":
            drawn[member] = 200
    drawn = {member: value for member, value in drawn.items() if member != "Expires"}  # botocore rewrites it to a string twin
    write(drawn, outgoing)
    if ours.is_query:
        assert isinstance(ours.codec, Query)
        ours.codec.finish(operation, outgoing, "req-1")
    headers = HeadersDict({key.decode().lower(): value.decode("latin-1") for key, value in outgoing.headers})
    shape = theirs.output_shape
    streaming = theirs.has_streaming_output
    response = {
        "status_code": outgoing.status_code,
        "headers": headers,
        "body": io.BytesIO(outgoing.body) if streaming else outgoing.body,
    }
    parser = create_parser(theirs.service_model.metadata["protocol"])
    if operation_name == "GetBucketLocation":
        assert (drawn.get("LocationConstraint") or "").encode() in outgoing.body
        return
    parsed = parser.parse(response, shape)
    metadata = parsed.pop("ResponseMetadata")
    if ours.is_query:
        assert metadata["RequestId"] == "req-1"
    read, expected = as_ours(parsed, shape), drawn
    if streaming:
        payload = theirs.get_streaming_output().name if hasattr(theirs.get_streaming_output(), "name") else "Body"
        for member in [member for member in expected if isinstance(expected[member], bytes)]:
            assert outgoing.body == expected[member], payload
            read[member] = expected[member]
    read.pop("Expires", None)
    assert equal(without_empty(read), without_empty(expected)), f"{operation_name}: {read} != {expected}"


def test_every_operation_compiles() -> None:
    for name in SERVICES:
        ours = service(name)
        for operation in ours.model.operations.values():
            if operation.name not in EVENT_STREAMS:
                ours.codec.reader(operation)
                ours.codec.writer(operation)


def test_an_unknown_operation_fails_at_start_up() -> None:
    async def handler(*_: Any) -> None: ...

    ours = Service("sts")
    with pytest.raises(RuntimeError, match="no operation 'GetCallerIdentitty'"):
        ours.bind("GetCallerIdentitty", handler)
    ours.bind("GetCallerIdentity", handler)
    with pytest.raises(RuntimeError, match="Two rooms"):
        ours.bind("GetCallerIdentity", handler)


def test_a_member_that_the_model_lacks_is_a_programming_error() -> None:
    write = service("iot").codec.writer(service("iot").model.operations["CreateThing"])
    with pytest.raises(RuntimeError, match="thingNam"):
        write({"thingNam": "x"}, Outgoing(200))
