"""Stream operations through boto3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from overair.basics.errors import AccessDenied
from overair.basics.work import Tx
from overair.server.aws_protocol.operations import Caller
from overair.server.streams.operator_api import StreamOperations
from tests.support.operator_door import operator_door
from tests.support.streams_room import ROLE, StreamsRoom

ARN = "arn:aws:iot:us-east-1:123456789012:stream/s"


class Rights:
    allowed = True

    def require_pass_role(self, tx: Tx, caller: Caller, role_arn: str) -> None:
        if not self.allowed:
            raise AccessDenied(f"not authorized to perform: iam:PassRole on resource: {role_arn}", subject="action")


@pytest.fixture
def rights() -> Rights:
    return Rights()


@pytest.fixture
def iot(room: StreamsRoom, rights: Rights) -> Iterator[Any]:
    operations = StreamOperations(work=room.work, streams=room.streams, rights=rights)
    with operator_door(room.place, room.clock, operations) as door:
        yield door.client("iot")


def file(file_id: int = 0, key: str = "k", version: str | None = None) -> dict[str, Any]:
    location = {"bucket": "b", "key": key} | ({} if version is None else {"version": version})
    return {"fileId": file_id, "s3Location": location}


def code_of(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value.response["Error"]["Code"])


def test_a_stream_lives_through_its_operations(room: StreamsRoom, iot: Any) -> None:
    version = room.buckets.put("b", "k", b"abc")
    made = iot.create_stream(streamId="s", files=[file(7), file(0, version=version)], roleArn=ROLE, description="d")
    made.pop("ResponseMetadata")
    assert made == {"streamId": "s", "streamArn": ARN, "description": "d", "streamVersion": 1}
    told = iot.describe_stream(streamId="s")["streamInfo"]
    assert told.pop("createdAt").timestamp() == told.pop("lastUpdatedAt").timestamp() == 1767225600
    assert told == {
        "streamId": "s",
        "streamArn": ARN,
        "streamVersion": 1,
        "description": "d",
        "files": [file(7), file(0, version=version)],
        "roleArn": ROLE,
    }
    assert iot.update_stream(streamId="s", files=told["files"], description="e")["streamVersion"] == 2
    (listed,) = iot.list_streams()["streams"]
    assert listed == {"streamId": "s", "streamArn": ARN, "streamVersion": 2, "description": "e"}
    iot.delete_stream(streamId="s")
    for call in (iot.describe_stream, iot.delete_stream, iot.update_stream):
        assert code_of(call, streamId="s") == "ResourceNotFoundException"
    assert iot.create_stream(streamId="s", files=[file()], roleArn=ROLE)["streamVersion"] == 3


def test_streams_are_listed_page_by_page(room: StreamsRoom, iot: Any) -> None:
    room.buckets.put("b", "k", b"abc")
    for name in ("c", "a", "b"):
        iot.create_stream(streamId=name, files=[file()], roleArn=ROLE)
    first = iot.list_streams(maxResults=2)
    assert [stream["streamId"] for stream in first["streams"]] == ["a", "b"]
    second = iot.list_streams(maxResults=2, nextToken=first["nextToken"])
    assert [stream["streamId"] for stream in second["streams"]] == ["c"]
    assert "nextToken" not in second
    assert [stream["streamId"] for stream in iot.list_streams(ascendingOrder=False)["streams"]] == ["c", "b", "a"]
    assert code_of(iot.list_streams, nextToken="nonsense") == "InvalidRequestException"


def test_refusals_have_the_models_codes(room: StreamsRoom, iot: Any, rights: Rights) -> None:
    room.buckets.put("b", "k", b"abc")
    create = iot.create_stream
    assert code_of(create, streamId="s", files=[file(key="none")], roleArn=ROLE) == "ResourceNotFoundException"
    assert code_of(create, streamId="s", files=[file(version="v9")], roleArn=ROLE) == "ResourceNotFoundException"
    assert code_of(create, streamId="s", files=[file(), file()], roleArn=ROLE) == "InvalidRequestException"
    assert code_of(create, streamId="s", files=[file()], roleArn=ROLE + "-other") == "InvalidRequestException"
    room.grants.actions = ()
    assert code_of(create, streamId="s", files=[file()], roleArn=ROLE) == "AccessDeniedException"
    room.grants.actions = ("s3:GetObject",)
    rights.allowed = False
    assert code_of(create, streamId="s", files=[file()], roleArn=ROLE) == "AccessDeniedException"
    rights.allowed = True
    create(streamId="s", files=[file()], roleArn=ROLE)
    with pytest.raises(iot.exceptions.ResourceAlreadyExistsException) as caught:
        create(streamId="s", files=[file()], roleArn=ROLE)
    assert (caught.value.response["resourceId"], caught.value.response["resourceArn"]) == ("s", ARN)
    rights.allowed = False
    assert iot.update_stream(streamId="s", description="x")["streamVersion"] == 2
    assert code_of(iot.update_stream, streamId="s", roleArn=ROLE) == "AccessDeniedException"
