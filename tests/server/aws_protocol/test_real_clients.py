"""The engine as boto3 sees it: every protocol, over a real port."""

from __future__ import annotations

import base64
import io
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import urllib3
from botocore.exceptions import ClientError

from overair.basics.clock import Instant
from overair.basics.errors import AlreadyExists, NotFound, Unavailable
from overair.server.aws_protocol.authentication import current_operation
from overair.server.aws_protocol.operations import Answer, Caller, Members, Request, operation
from tests.support.engine_door import KNOWN_KEY, UNKNOWN_KEY, RunningDoor, running_door

MOMENT = Instant(1_767_225_600_250)


class Handlers:
    """A few meanings; each remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Request]] = []
        self.stored: dict[str, bytes] = {}

    def _note(self, name: str, request: Request) -> None:
        self.asked.append((name, request))

    @operation("iot", "CreateThing")
    async def create_thing(self, caller: Caller, request: Request) -> Members:
        self._note("CreateThing", request)
        assert current_operation.get() is not None
        if request["thingName"] == "taken":
            raise AlreadyExists("Thing taken already exists.", details={"resourceId": "taken", "resourceArn": "arn:x"})
        if request["thingName"] == "broken":
            raise ZeroDivisionError("secret detail")
        if request["thingName"] == "full":
            raise Unavailable("The disk is full.", subject="storage")
        return {"thingName": request["thingName"], "thingArn": "arn:aws:iot:thing", "thingId": None}

    @operation("iot", "DescribeJobExecution")
    async def describe_job_execution(self, caller: Caller, request: Request) -> Members:
        self._note("iot", request)
        return {"execution": {"jobId": request["jobId"], "status": "QUEUED", "queuedAt": MOMENT, "executionNumber": 3}}

    @operation("iot-jobs-data", "DescribeJobExecution")
    async def describe_job_execution_data(self, caller: Caller, request: Request) -> Members:
        self._note("iot-jobs-data", request)
        return {"execution": {"jobId": request["jobId"], "jobDocument": '{"a":1}', "queuedAt": 1_767_225_600}}

    @operation("iot-jobs-data", "StartNextPendingJobExecution")
    async def start_next(self, caller: Caller, request: Request) -> Members:
        self._note("start-next", request)
        return {}

    @operation("iot-data", "Publish")
    async def publish(self, caller: Caller, request: Request) -> None:
        self._note("Publish", request)

    @operation("acm", "ImportCertificate")
    async def import_certificate(self, caller: Caller, request: Request) -> Members:
        self._note("ImportCertificate", request)
        return {"CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/1"}

    @operation("acm", "DescribeCertificate")
    async def describe_certificate(self, caller: Caller, request: Request) -> Members:
        raise NotFound("No such certificate.", subject="certificate")

    @operation("iam", "CreateRole")
    async def create_role(self, caller: Caller, request: Request) -> Members:
        self._note("CreateRole", request)
        return {
            "Role": {
                "Path": "/",
                "RoleName": request["RoleName"],
                "RoleId": "AROA1",
                "Arn": "arn:aws:iam::123456789012:role/r",
                "CreateDate": MOMENT,
                "AssumeRolePolicyDocument": "%7B%22a%22%3A%20%22%26%22%7D",
                "Tags": [{"Key": "<k>", "Value": "v & w"}],
            }
        }

    @operation("iam", "DeleteRole")
    async def delete_role(self, caller: Caller, request: Request) -> None:
        raise NotFound("The role with name r cannot be found.", subject="iam")

    @operation("sts", "GetCallerIdentity")
    async def get_caller_identity(self, caller: Caller, request: Request) -> Members:
        return {"UserId": "U", "Account": "123456789012", "Arn": caller.principal_arn}

    @operation("overair", "ExplainThing")
    async def explain_thing(self, caller: Caller, request: Request) -> Members:
        return {"reasons": [f"{request['thingName']} has no execution"]}

    @operation("s3", "PutObject")
    async def put_object(self, caller: Caller, request: Request) -> Members:
        data = b"".join([piece async for piece in request["Body"]])
        self._note("PutObject", {**request, "checksums": dict(request["Body"].checksums)})
        self.stored[request["Key"]] = data
        return {"ETag": '"e"', "VersionId": "v1"}

    @operation("s3", "GetObject")
    async def get_object(self, caller: Caller, request: Request) -> Answer:
        if request["Key"] not in self.stored:
            raise NotFound("The specified key does not exist.", subject="key", details={"Key": request["Key"]})
        data = self.stored[request["Key"]]

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        return Answer(
            members={
                "ContentLength": len(data),
                "LastModified": Instant(1_767_225_600_000),
                "ETag": '"e"',
                "Metadata": {"Colour": "blå"},
                "ContentType": "text/plain",
            },
            stream=pieces(),
        )

    @operation("s3", "HeadObject")
    async def head_object(self, caller: Caller, request: Request) -> Members:
        if request["Key"] not in self.stored:
            raise NotFound("The specified key does not exist.", subject="key")
        return {"ContentLength": len(self.stored[request["Key"]]), "ContentType": "text/plain"}

    @operation("s3", "ListObjectsV2")
    async def list_objects(self, caller: Caller, request: Request) -> Members:
        self._note("ListObjectsV2", request)
        return {
            "Name": request["Bucket"],
            "IsTruncated": False,
            "Contents": [{"Key": "a<b>&c", "Size": 3, "LastModified": MOMENT}, {"Key": "d", "Size": 0}],
            "CommonPrefixes": [{"Prefix": "p/"}],
            "KeyCount": 2,
        }

    @operation("s3", "DeleteObjects")
    async def delete_objects(self, caller: Caller, request: Request) -> Members:
        self._note("DeleteObjects", request)
        return {"Deleted": [{"Key": entry["Key"]} for entry in request["Delete"]["Objects"]]}

    @operation("s3", "CreateBucket")
    async def create_bucket(self, caller: Caller, request: Request) -> Members:
        self._note("CreateBucket", request)
        return {"Location": "/" + request["Bucket"]}

    @operation("s3", "GetBucketLocation")
    async def get_bucket_location(self, caller: Caller, request: Request) -> Members:
        return {"LocationConstraint": "eu-west-1" if request["Bucket"] == "eur" else None}

    @operation("s3", "PutBucketPolicy")
    async def put_bucket_policy(self, caller: Caller, request: Request) -> None:
        self._note("PutBucketPolicy", request)

    @operation("s3", "GetBucketPolicy")
    async def get_bucket_policy(self, caller: Caller, request: Request) -> Members:
        return {"Policy": '{"Version":"2012-10-17"}'}

    @operation("s3", "CreateMultipartUpload")
    async def create_multipart_upload(self, caller: Caller, request: Request) -> Members:
        return {"UploadId": "u/1", "Key": request["Key"], "Bucket": request["Bucket"]}

    @operation("s3", "UploadPart")
    async def upload_part(self, caller: Caller, request: Request) -> Members:
        data = b"".join([piece async for piece in request["Body"]])
        self._note("UploadPart", {**request, "size": len(data)})
        return {"ETag": '"p"'}

    @operation("s3", "CompleteMultipartUpload")
    async def complete(self, caller: Caller, request: Request) -> Members:
        self._note("CompleteMultipartUpload", request)
        return {"ETag": '"c"'}

    @operation("s3", "CopyObject")
    async def copy_object(self, caller: Caller, request: Request) -> Members:
        return {"CopyObjectResult": {"ETag": '"copy"', "LastModified": MOMENT}}

    @operation("s3", "DeleteObject")
    async def delete_object(self, caller: Caller, request: Request) -> Members:
        return {"DeleteMarker": True, "VersionId": "m"}


async def healthz(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[RunningDoor, Handlers]]:
    handlers = Handlers()
    with running_door(handlers, plain_routes={"/healthz": healthz}) as door:
        yield door, handlers


@pytest.fixture
def door(world: tuple[RunningDoor, Handlers]) -> RunningDoor:
    return world[0]


@pytest.fixture
def handlers(world: tuple[RunningDoor, Handlers]) -> Handlers:
    world[1].asked.clear()
    return world[1]


def refused(call: Any, **arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"].get("Message", "")


def test_a_thing_is_created_with_what_was_asked(door: RunningDoor, handlers: Handlers) -> None:
    answer = door.client("iot").create_thing(thingName="dev:1", attributePayload={"attributes": {"a": "b"}, "merge": True})
    assert (answer["thingName"], answer["thingArn"]) == ("dev:1", "arn:aws:iot:thing")
    assert answer["ResponseMetadata"]["RequestId"]
    expected = {"thingName": "dev:1", "attributePayload": {"attributes": {"a": "b"}, "merge": True}}
    assert handlers.asked == [("CreateThing", expected)]


def test_a_refusal_has_code_status_and_members_of_the_model(door: RunningDoor, handlers: Handlers) -> None:
    client = door.client("iot")
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException) as caught:
        client.create_thing(thingName="taken")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 409
    assert (response["resourceId"], response["resourceArn"]) == ("taken", "arn:x")
    assert response["Error"]["Message"] == "Thing taken already exists."


def test_an_unforeseen_failure_leaks_nothing(door: RunningDoor, handlers: Handlers) -> None:
    status, code, message = refused(door.client("iot").create_thing, thingName="broken")
    assert (status, code) == (500, "InternalFailureException")
    assert "secret" not in message
    assert "Zero" not in message


def test_no_room_left_is_503(door: RunningDoor, handlers: Handlers) -> None:
    assert refused(door.client("iot").create_thing, thingName="full")[:2] == (503, "ServiceUnavailableException")


def test_a_name_that_breaks_its_pattern_is_told_so(door: RunningDoor, handlers: Handlers) -> None:
    status, code, message = refused(door.client("iot", parameter_validation=False).create_thing, thingName="a b")
    assert (status, code) == (400, "InvalidRequestException")
    assert "'a b' at 'thingName'" in message
    assert "[a-zA-Z0-9:_-]+" in message


def test_an_operation_that_overair_lacks_is_named(door: RunningDoor, handlers: Handlers) -> None:
    for service, call, arguments, expected in (
        (
            "iot",
            "create_topic_rule",
            {"ruleName": "r", "topicRulePayload": {"sql": "s", "actions": []}},
            "NotImplementedException",
        ),
        ("s3", "put_bucket_website", {"Bucket": "bkt", "WebsiteConfiguration": {}}, "NotImplemented"),
        ("iam", "list_groups", {}, "NotImplemented"),
        ("acm", "get_account_configuration", {}, "NotImplementedException"),
    ):
        status, code, message = refused(getattr(door.client(service), call), **arguments)
        assert (status, code) == (400, expected)
        assert "".join(part.title() for part in call.split("_")) in message


def test_two_services_with_one_path_are_told_apart_by_the_signature(door: RunningDoor, handlers: Handlers) -> None:
    control = door.client("iot").describe_job_execution(jobId="j", thingName="t")
    device = door.client("iot-jobs-data").describe_job_execution(jobId="$next", thingName="t")
    assert control["execution"]["queuedAt"].timestamp() == 1_767_225_600.25
    assert device["execution"]["jobDocument"] == '{"a":1}'
    assert [name for name, _ in handlers.asked] == ["iot", "iot-jobs-data"]
    assert handlers.asked[1][1]["jobId"] == "$next"


def test_start_next_is_a_literal_path(door: RunningDoor, handlers: Handlers) -> None:
    door.client("iot-jobs-data").start_next_pending_job_execution(thingName="t", statusDetails={"k": "v"})
    assert handlers.asked == [("start-next", {"thingName": "t", "statusDetails": {"k": "v"}})]


def test_a_topic_is_one_encoded_segment_and_the_payload_raw(door: RunningDoor, handlers: Handlers) -> None:
    door.client("iot-data").publish(
        topic="a/b c", qos=1, payload=b"\x00\xff", retain=True, userProperties='[{"deviceName":"alpha"}]'
    )
    assert handlers.asked[0][1] == {
        "topic": "a/b c",
        "qos": 1,
        "retain": True,
        "payload": b"\x00\xff",
        "userProperties": '[{"deviceName":"alpha"}]',
    }


def test_acm_reads_blobs_and_refuses_in_its_own_way(door: RunningDoor, handlers: Handlers) -> None:
    client = door.client("acm")
    client.import_certificate(Certificate=b"c", PrivateKey=b"k", Tags=[{"Key": "a", "Value": "b"}])
    assert handlers.asked[0][1] == {"Certificate": b"c", "PrivateKey": b"k", "Tags": [{"Key": "a", "Value": "b"}]}
    arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_certificate(CertificateArn=arn)


def test_iam_answers_wrapped_xml(door: RunningDoor, handlers: Handlers) -> None:
    client = door.client("iam")
    tags = [{"Key": "k1", "Value": "v1"}, {"Key": "k2", "Value": "v @ w"}]
    role = client.create_role(RoleName="r", AssumeRolePolicyDocument='{"a":"&"}', Tags=tags)["Role"]
    assert role["AssumeRolePolicyDocument"] == {"a": "&"}
    assert role["Tags"] == [{"Key": "<k>", "Value": "v & w"}]
    assert role["CreateDate"].timestamp() == 1_767_225_600.25
    assert handlers.asked[0][1]["Tags"] == tags
    with pytest.raises(client.exceptions.NoSuchEntityException) as caught:
        client.delete_role(RoleName="r")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert caught.value.response["ResponseMetadata"]["RequestId"]
    assert door.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_our_own_service_is_a_client_once_its_model_is_found(door: RunningDoor, handlers: Handlers) -> None:
    assert door.client("overair").explain_thing(thingName="t")["reasons"] == ["t has no execution"]


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_uploads_and_downloads_pass_whole(door: RunningDoor, handlers: Handlers, algorithm: str) -> None:
    client = door.client("s3")
    data = bytes(range(256)) * 1000
    client.put_object(
        Bucket="bkt", Key="dir/a b+ü", Body=io.BytesIO(data), Metadata={"colour": "red"}, ChecksumAlgorithm=algorithm
    )
    request = handlers.asked[0][1]
    assert request["Metadata"] == {"colour": "red"}
    assert request["checksums"].keys() == {algorithm.lower()}
    answer = client.get_object(Bucket="bkt", Key="dir/a b+ü")
    assert answer["Body"].read() == data
    assert answer["ContentType"] == "text/plain"
    assert answer["LastModified"].timestamp() == 1_767_225_600
    assert client.head_object(Bucket="bkt", Key="dir/a b+ü")["ContentLength"] == len(data)


def test_a_missing_key_is_told_with_and_without_a_body(door: RunningDoor, handlers: Handlers) -> None:
    client = door.client("s3")
    with pytest.raises(client.exceptions.NoSuchKey) as caught:
        client.get_object(Bucket="bkt", Key="none")
    assert caught.value.response["Error"]["Key"] == "none"
    assert refused(client.head_object, Bucket="bkt", Key="none")[:2] == (404, "404")


def test_lists_of_objects_keep_their_order_and_escapes(door: RunningDoor, handlers: Handlers) -> None:
    answer = door.client("s3").list_objects_v2(Bucket="bkt", MaxKeys=5, Prefix="x y")
    assert [entry["Key"] for entry in answer["Contents"]] == ["a<b>&c", "d"]
    assert answer["CommonPrefixes"] == [{"Prefix": "p/"}]
    assert handlers.asked[0][1]["MaxKeys"] == 5
    assert handlers.asked[0][1]["Prefix"] == "x y"


def test_sub_resources_of_one_path_reach_their_own_operation(door: RunningDoor, handlers: Handlers) -> None:
    client = door.client("s3")
    client.create_bucket(Bucket="eur", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert handlers.asked[0][1]["CreateBucketConfiguration"] == {"LocationConstraint": "eu-west-1"}
    assert client.get_bucket_location(Bucket="eur")["LocationConstraint"] == "eu-west-1"
    assert client.get_bucket_location(Bucket="us-bkt")["LocationConstraint"] is None
    client.put_bucket_policy(Bucket="eur", Policy='{"a":1}')
    assert handlers.asked[1][1]["Policy"] == '{"a":1}'
    assert client.get_bucket_policy(Bucket="eur")["Policy"] == '{"Version":"2012-10-17"}'
    upload = client.create_multipart_upload(Bucket="eur", Key="k")["UploadId"]
    client.upload_part(Bucket="eur", Key="k", UploadId=upload, PartNumber=2, Body=b"part")
    part = handlers.asked[2][1]
    assert (part["UploadId"], part["PartNumber"], part["size"]) == ("u/1", 2, 4)
    parts = [{"ETag": '"p"', "PartNumber": 2}, {"ETag": '"q"', "PartNumber": 3}]
    client.complete_multipart_upload(Bucket="eur", Key="k", UploadId=upload, MultipartUpload={"Parts": parts})
    assert handlers.asked[3][1]["MultipartUpload"] == {"Parts": parts}
    copied = client.copy_object(Bucket="eur", Key="k2", CopySource={"Bucket": "eur", "Key": "k"})
    assert copied["CopyObjectResult"]["ETag"] == '"copy"'
    assert client.delete_object(Bucket="eur", Key="k")["DeleteMarker"] is True
    deleted = client.delete_objects(Bucket="eur", Delete={"Objects": [{"Key": "a"}, {"Key": "<b>"}]})["Deleted"]
    assert [entry["Key"] for entry in deleted] == ["a", "<b>"]


def test_a_checksum_that_does_not_hold_is_refused(door: RunningDoor, handlers: Handlers) -> None:
    wrong = base64.b64encode(bytes(4)).decode()
    status, code, _ = refused(door.client("s3").put_object, Bucket="bkt", Key="k", Body=b"hello", ChecksumCRC32=wrong)
    assert (status, code) == (400, "BadDigest")
    assert "k" not in handlers.stored


def test_a_body_other_than_the_signed_one_is_refused(door: RunningDoor, handlers: Handlers) -> None:
    status, body = raw(door, "PUT", "/bkt/k", b"hello", **{"x-amz-content-sha256": "0" * 64}, **authorization("s3"))
    assert status == 400
    assert b"<Code>XAmzContentSHA256Mismatch</Code>" in body


def authorization(service: str) -> dict[str, str]:
    scope = f"AKIATEST000000000000/20260101/us-east-1/{service}/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"}


def raw(door: RunningDoor, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    response = urllib3.request(method, door.url + path, body=body, headers=headers, retries=False, redirect=False)
    return response.status, response.data


def test_the_unsigned_are_told_how_in_the_language_of_the_path(door: RunningDoor, handlers: Handlers) -> None:
    status, body = raw(door, "GET", "/things/t")
    assert (status, b"Missing Authentication Token" in body) == (403, True)
    status, body = raw(door, "GET", "/some-bucket/key")
    assert (status, b"<Code>AccessDenied</Code>" in body) == (403, True)


def test_an_unknown_key_is_refused_in_each_language(door: RunningDoor, handlers: Handlers) -> None:
    key = {"access_key_id": UNKNOWN_KEY}
    assert refused(door.client("iot", **key).list_things)[:2] == (403, "UnrecognizedClientException")
    assert refused(door.client("sts", **key).get_caller_identity)[:2] == (403, "InvalidClientTokenId")
    assert refused(door.client("s3", **key).list_buckets)[:2] == (403, "InvalidAccessKeyId")


def test_plain_routes_need_no_signature(door: RunningDoor, handlers: Handlers) -> None:
    assert raw(door, "GET", "/healthz") == (200, b"ok")


def test_a_body_over_its_limit_is_refused_without_being_read(door: RunningDoor, handlers: Handlers) -> None:
    status, body = raw(door, "POST", "/things/t", b"x" * (1024 * 1024 + 1), **authorization("iot"))
    assert (status, b"larger than" in body) == (413, True)


def test_a_body_that_is_not_json_is_refused(door: RunningDoor, handlers: Handlers) -> None:
    for body in (b"{", b"[]", b'{"a":1,"a":2}', b"\xff", b'{"thingTypeName":3}', b'{"attributePayload":[]}'):
        status, answer = raw(door, "POST", "/things/t", body, **authorization("iot"))
        assert status == 400, answer


def test_xml_with_a_document_type_is_refused(door: RunningDoor, handlers: Handlers) -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><Delete><Object><Key>&b;</Key></Object></Delete>'
    status, answer = raw(door, "POST", "/bkt?delete", bomb, **authorization("s3"))
    assert (status, b"MalformedXML" in answer) == (400, True)


def test_who_may_not_is_denied(door: RunningDoor, handlers: Handlers) -> None:
    door.authoriser.denied.add("ExplainThing")
    try:
        assert refused(door.client("overair").explain_thing, thingName="t")[:2] == (403, "AccessDeniedException")
    finally:
        door.authoriser.denied.clear()


def begin_upload(door: RunningDoor, size_bytes: int, key: str) -> socket.socket:
    """The head of an upload that waits to be told to go on."""
    client = socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=10)
    scope = f"{key}/20260101/us-east-1/s3/aws4_request"
    client.sendall(
        f"PUT /bkt/waiting HTTP/1.1\r\nhost: a\r\ncontent-length: {size_bytes}\r\nexpect: 100-continue\r\n"
        f"x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nauthorization: AWS4-HMAC-SHA256 Credential={scope}, "
        f"SignedHeaders=host, Signature={'0' * 64}\r\n\r\n".encode()
    )
    return client


def test_an_upload_is_let_go_on_only_once_its_sender_is_known(door: RunningDoor, handlers: Handlers) -> None:
    with begin_upload(door, 5, KNOWN_KEY) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"hello")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert handlers.stored["waiting"] == b"hello"
    with begin_upload(door, 4 * 1024**3, UNKNOWN_KEY) as client:
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"connection: close" in answer
    with begin_upload(door, 6 * 1024**3, KNOWN_KEY) as client:
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert b"<Code>EntityTooLarge</Code>" in answer


def test_a_client_that_leaves_in_the_middle_leaves_nothing(door: RunningDoor, handlers: Handlers) -> None:
    with begin_upload(door, 100, KNOWN_KEY) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"half of it")
    assert raw(door, "GET", "/healthz") == (200, b"ok")
    assert not any(name == "PutObject" for name, _ in handlers.asked)
