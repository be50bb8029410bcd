"""The operators' door over real sockets: who is let in, where a request leads, what is read of it and what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from overair.basics.errors import NotAuthenticated
from overair.basics.ids import RandomIds
from overair.basics.redacted import Redacted
from overair.server.access.model import NewKeys
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.aws_protocol.body import UNPROVED_SIZE_BYTES_MAX
from overair.server.rest.door import RestDoor
from overair.server.rest.oauth import IssuedToken
from overair.server.rest.operations import RestAnswer, route
from tests.server.rest.conftest import NOTE_SIZE_BYTES_MAX, SECRET, UPLOAD_SIZE_BYTES_MAX, Notes
from tests.support.listening import EventLoopThread
from tests.support.rest_door import Reply, RestWorld

MEMBERS = {"code", "description", "cause", "errorId"}


def document(*actions: str, resource: str = "*") -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": resource}]}
    )


def user(world: RestWorld, *actions: str, resource: str = "*") -> NewKeys:
    name = "u" + RandomIds().token(12)
    return world.room.user(name, p=document(*actions, resource=resource)) if actions else world.room.user(name)


# Who asks ---------------------------------------------------------------------------------------------------------------


def test_a_signature_in_header_or_query_and_a_bearer_token_stand_for_the_same_principal(world: RestWorld, notes: Notes) -> None:
    ann = user(world, "overair:DescribeRequest")
    told = [
        world.signed("POST", "/api/v1/requests/a.json?x=1", body=b'{"b": 2}', keys=ann),
        world.bearing("POST", "/api/v1/requests/a.json?x=1", body=b'{"b": 2}', token=world.token(ann)),
        # Botocore presigns requests without a body alone.
        world.signed("GET", "/api/v1/requests/a.json?x=1", keys=ann, in_query=True),
    ]
    for reply in told:
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"] == "application/json"
        assert (reply.json["labels"], reply.json["query"]) == ({"name": "a"}, {"x": "1"})
    assert [reply.json["body"] for reply in told] == [{"b": 2}, {"b": 2}, None]
    (principal,) = {reply.json["principal"] for reply in told}
    assert principal.startswith("arn:aws:iam::123456789012:user/u")


@pytest.mark.parametrize("target", ["/api/v1/notes/a", "/api/v1/nothing", "/api/v1/uploads/x", "/api/v1/a%00b"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_whoever_is_not_proved_hears_how_to_prove_himself_and_nothing_else(world: RestWorld, target: str, method: str) -> None:
    reply = world.ask(method, target, body=b"x" if method == "PUT" else None)
    assert (reply.status, reply.code) == (401, "missing_credentials")
    assert set(reply.json) == MEMBERS
    assert reply.headers["www-authenticate"] == 'Bearer realm="overair"'
    assert reply.headers["x-request-id"] == reply.json["errorId"]


def test_a_wrong_secret_a_changed_body_and_another_service_prove_nobody(world: RestWorld, notes: Notes) -> None:
    ann = user(world, "overair:*")
    stranger = NewKeys(key_id=ann.key_id, secret=world.root.secret, created=ann.created)
    for reply in (
        world.signed("PUT", "/api/v1/notes/a", body=b"one", keys=stranger),
        world.signed("PUT", "/api/v1/notes/a", body=b"one", sent=b"two", keys=ann),
        world.bearing("PUT", "/api/v1/notes/a", body=b"one", token="nobody-knows-it"),
        world.bearing("PUT", "/api/v1/notes/a", body=b"one", token="ü"),
    ):
        assert reply.status == 401, reply.body
        assert reply.code in ("invalid_credentials", "invalid_token")
    assert notes.notes == {}
    assert notes.handled == []


def test_an_operator_without_one_permission_is_refused_exactly_what_needs_it(world: RestWorld, notes: Notes) -> None:
    calls = {
        "overair:PutNote": ("PUT", "/api/v1/notes/a"),
        "overair:GetNote": ("GET", "/api/v1/notes/a"),
        "overair:DescribeRequest": ("POST", "/api/v1/requests/a.json"),
        "overair:PutUpload": ("PUT", "/api/v1/uploads/a"),
    }
    for missing in calls:
        keys = user(world, *[action for action in calls if action != missing])
        token = world.token(keys)
        for action, (method, target) in calls.items():
            for reply in (world.signed(method, target, keys=keys), world.bearing(method, target, token=token)):
                assert (reply.status == 403) == (action == missing), (missing, action, reply.body)
                if action == missing:
                    assert reply.code == "access_denied"
                    assert f"is not authorized to perform: {action} on resource: " in reply.json["description"]


def test_a_right_to_one_name_is_no_right_to_another_nor_can_the_query_pose_as_the_path(world: RestWorld, notes: Notes) -> None:
    one = user(world, "overair:PutNote", resource="arn:aws:iot:us-east-1:123456789012:uptanenote/mine/*")
    assert world.signed("PUT", "/api/v1/notes/mine/a", body=b"x", keys=one).status == 204
    for target in ("/api/v1/notes/yours/a", "/api/v1/notes/yours/a?name=mine%2Fa", "/api/v1/notes/mine"):
        assert world.signed("PUT", target, body=b"x", keys=one).status == 403
    assert set(notes.notes) == {"mine/a"}


def test_what_changes_leaves_one_audit_record_with_the_resource_and_what_is_refused_leaves_none(
    world: RestWorld, notes: Notes
) -> None:
    before = world.records()
    ann = user(world, "overair:PutNote")
    reply = world.bearing("PUT", "/api/v1/notes/audited", body=b"x", token=world.token(ann))
    assert reply.status == 204
    assert world.signed("GET", "/api/v1/notes/audited", keys=ann).status == 403
    assert world.signed("PUT", "/api/v1/notes/audited", body=b"{" * (NOTE_SIZE_BYTES_MAX + 1), keys=ann).status == 413
    (record,) = [record for record in world.records() if record not in before]
    assert (record.service, record.operation, record.access_key_id) == ("overair", "PutNote", ann.key_id)
    assert record.resource == "arn:aws:iot:us-east-1:123456789012:uptanenote/audited"
    assert record.request_id == reply.headers["x-request-id"]
    assert record.source_ip == "127.0.0.1"


# Where it leads ---------------------------------------------------------------------------------------------------------


def test_another_method_is_told_which_ones_there_are_and_an_unknown_path_that_it_is_none(world: RestWorld) -> None:
    for reply in (world.signed("DELETE", "/api/v1/notes/a"), world.bearing("DELETE", "/api/v1/notes/a")):
        assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, PUT")
    for reply in (world.signed("GET", "/api/v1/nothing"), world.bearing("GET", "/api/v1/nothing")):
        assert (reply.status, reply.code) == (404, "unknown_path")
        assert set(reply.json) == MEMBERS


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/v1/notes/a%00b", 400, "invalid_path"),
        ("/api/v1/notes/%ff", 400, "invalid_path"),
        ("/api/v1/notes/..%2f/%2e%2e/x", 400, "invalid_path"),
        ("/api/v1/notes/" + "x" * 5000, 414, "path_too_long"),
        ("/api/v1/notes/a?x=%ff", 400, "invalid_request"),
        ("/api/v1/notes/a?x=%00", 400, "invalid_request"),
        ("/api/v1/notes/a?x=1&x=2", 400, "invalid_request"),
        ("/api/v1/notes/a?" + "&".join(f"p{number}=1" for number in range(1100)), 400, "invalid_request"),
    ],
)
def test_paths_and_queries_that_can_not_be_read_are_the_senders_fault(
    world: RestWorld, target: str, status: int, code: str
) -> None:
    reply = world.bearing("GET", target)
    assert (reply.status, reply.code) == (status, code)


def test_the_parameters_of_a_signature_are_no_part_of_the_query(world: RestWorld) -> None:
    reply = world.signed("GET", "/api/v1/requests/a.json?x=1", in_query=True)
    assert reply.json["query"] == {"x": "1"}


def test_head_is_a_get_without_its_body(world: RestWorld, notes: Notes) -> None:
    notes.notes["a"] = b"x" * 2500
    whole, head = world.bearing("GET", "/api/v1/notes/a"), world.bearing("HEAD", "/api/v1/notes/a")
    assert (whole.status, whole.body, head.status, head.body) == (200, b"x" * 2500, 200, b"")
    for name in ("content-length", "content-type", "accept-ranges", "etag"):
        assert head.headers[name] == whole.headers[name]
    described = world.bearing("HEAD", "/api/v1/requests/a.json")
    assert (described.status, described.body) == (200, b"")
    assert int(described.headers["content-length"]) > 0
    missing = world.bearing("HEAD", "/api/v1/notes/b")
    assert (missing.status, missing.body) == (404, b"")


def test_a_connection_is_kept_from_request_to_request(world: RestWorld, notes: Notes) -> None:
    token = world.token()
    ask = f"PUT /api/v1/notes/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: 3\r\n%s\r\nabc"
    refused = "GET /api/v1/notes/nothing HTTP/1.1\r\nhost: a\r\n\r\n"
    said = world.raw((ask % "" + refused + ask % "connection: close\r\n").encode())
    assert said.count(b"HTTP/1.1 204 ") == 2
    assert said.count(b"HTTP/1.1 401 ") == 1


def test_metrics_are_told_of_every_answer_by_operation(world: RestWorld, notes: Notes) -> None:
    world.observed.clear()
    world.bearing("PUT", "/api/v1/notes/a", body=b"x", token=world.token())
    world.signed("GET", "/api/v1/nothing")
    world.signed("GET", "/api/v1/failures/unforeseen")
    assert world.observed == [
        ("rest", "IssueToken", 200),
        ("rest", "PutNote", 204),
        ("rest", "-", 404),
        ("rest", "Fail", 500),
    ]


# What is read -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["signed", "bearing"])
@pytest.mark.parametrize("size", [0, 1, NOTE_SIZE_BYTES_MAX])
def test_a_body_is_read_whole_up_to_its_routes_bound(world: RestWorld, notes: Notes, how: str, size: int) -> None:
    reply = getattr(world, how)("PUT", "/api/v1/notes/a", body=b"x" * size)
    assert (reply.status, reply.headers["x-note-size"]) == (204, str(size))
    assert notes.notes["a"] == b"x" * size


@pytest.mark.parametrize("how", ["signed", "bearing"])
def test_a_byte_more_is_refused_before_the_handler_is_asked(world: RestWorld, notes: Notes, how: str) -> None:
    reply = getattr(world, how)("PUT", "/api/v1/notes/a", body=b"x" * (NOTE_SIZE_BYTES_MAX + 1))
    assert (reply.status, reply.code) == (413, "entity_too_large")
    assert notes.handled == []


def test_the_bound_holds_for_a_body_in_chunks_that_declares_no_length(world: RestWorld, notes: Notes) -> None:
    for size, status in ((NOTE_SIZE_BYTES_MAX, 204), (NOTE_SIZE_BYTES_MAX + 1, 413)):
        reply = world.bearing("PUT", "/api/v1/notes/a", body=iter([b"x" * 1000] * (size // 1000) + [b"x" * (size % 1000)]))
        assert reply.status == status
    assert notes.handled == ["arn:aws:iam::123456789012:root"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": 1, "a": 2}', b"[1]", b"\xff", b"[" * 100_000, b'{"a": NaN}', b"{} {}"])
def test_json_is_read_strictly(world: RestWorld, body: bytes) -> None:
    reply = world.bearing("POST", "/api/v1/requests/a.json", body=body)
    if body:
        assert (reply.status, reply.code, reply.json["field"]) == (400, "invalid_entity", "body")
    else:
        assert reply.json["body"] is None


def test_a_body_that_ends_early_leaves_nothing(world: RestWorld, notes: Notes) -> None:
    token = world.token()
    head = f"host: a\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n"
    for target in ("notes/a", "uploads/a"):
        assert world.raw(f"PUT /api/v1/{target} HTTP/1.1\r\n{head}only a part".encode(), then_close=True) == b""
    assert notes.notes == {}


def test_a_request_whose_end_could_be_read_in_two_ways_reaches_no_handler(world: RestWorld, notes: Notes) -> None:
    head = f"PUT /api/v1/notes/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {world.token()}\r\n"
    for framing in (
        "content-length: 3\r\ntransfer-encoding: chunked",
        "content-length: 3\r\ncontent-length: 4",
        "content-length: +3",
    ):
        assert world.raw(f"{head}{framing}\r\n\r\n0\r\n\r\n".encode()).startswith(b"HTTP/1.1 400 ")
    assert notes.handled == []


# Uploads ----------------------------------------------------------------------------------------------------------------


def test_an_upload_streams_unsigned_under_a_token_and_signed_or_not_under_a_signature(world: RestWorld, notes: Notes) -> None:
    body = bytes(range(256)) * 2000
    hashed = hashlib.sha256(body).hexdigest()
    replies: list[Reply] = [
        world.bearing("PUT", "/api/v1/uploads/a", body=body),
        world.signed("PUT", "/api/v1/uploads/b", body=body, headers={"x-amz-content-sha256": hashed}),
        world.signed("PUT", "/api/v1/uploads/c", body=body, headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}),
    ]
    for reply in replies:
        assert (reply.status, reply.json) == (200, {"length": len(body), "declared": len(body)}), reply.body
    assert [notes.notes[name] for name in "abc"] == [body] * 3
    chunked = world.bearing("PUT", "/api/v1/uploads/d", body=iter([body[:1000], body[1000:]]))
    assert chunked.json == {"length": len(body), "declared": None}
    assert world.signed("PUT", "/api/v1/uploads/e").json == {"length": 0, "declared": 0}


def test_bytes_that_are_not_those_that_were_signed_are_refused_and_leave_nothing(world: RestWorld, notes: Notes) -> None:
    before = world.records()
    hashed = hashlib.sha256(b"what was meant").hexdigest()
    wrong = world.signed(
        "PUT", "/api/v1/uploads/a", body=b"what was meant", sent=b"what came over", headers={"x-amz-content-sha256": hashed}
    )
    assert (wrong.status, wrong.code) == (400, "digest_mismatch")
    digest = world.bearing("PUT", "/api/v1/uploads/a", body=b"abc", content_md5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert (digest.status, digest.code) == (400, "digest_mismatch")
    unsaid = world.signed("PUT", "/api/v1/uploads/a", body=b"abc")
    assert unsaid.status == 401
    assert "x-amz-content-sha256" in unsaid.json["description"]
    assert (notes.notes, world.records()) == ({}, before)


def test_aws_chunked_framing_is_taken_off_and_each_signature_in_it_is_held_to(world: RestWorld, notes: Notes) -> None:
    data = b"abc" * 100
    framed = b"12c\r\n" + data + b"\r\n0\r\n\r\n"
    headers = {
        "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(len(data)),
    }
    assert world.signed("PUT", "/api/v1/uploads/a", body=framed, headers=headers).json == {"length": 300, "declared": 300}
    signed = {**headers, "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}
    reply = world.signed("PUT", "/api/v1/uploads/b", body=framed, headers=signed)
    assert reply.status == 401
    assert "chunk-signature" in reply.json["description"]
    assert set(notes.notes) == {"a"}


@pytest.mark.parametrize("declares", [True, False])
def test_an_upload_beyond_its_bound_is_refused(world: RestWorld, notes: Notes, declares: bool) -> None:
    body = b"x" * (UPLOAD_SIZE_BYTES_MAX + 1)
    reply = world.bearing("PUT", "/api/v1/uploads/a", body=body if declares else iter([body]))
    assert (reply.status, reply.code) == (413, "entity_too_large")
    assert notes.notes == {}


def expecting(world: RestWorld, target: str, *, authorised: bool) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", world.port), timeout=20)
    proof = f"authorization: Bearer {world.token()}\r\n" if authorised else ""
    connection.sendall(f"PUT {target} HTTP/1.1\r\nhost: a\r\n{proof}expect: 100-continue\r\ncontent-length: 3\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize("target", ["/api/v1/notes/a", "/api/v1/uploads/a"])
def test_who_waits_to_be_told_to_go_on_is_told_so_once_he_may(world: RestWorld, notes: Notes, target: str) -> None:
    with expecting(world, target, authorised=True) as connection:
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 20")
    assert notes.notes == {"a": b"abc"}


@pytest.mark.parametrize(
    ("target", "authorised", "status"),
    [
        ("/api/v1/notes/a", False, b"401"),
        ("/api/v1/nothing", True, b"404"),
        ("/api/v1/uploads/refused", True, b"409"),
    ],
)
def test_who_waits_and_is_refused_sends_nothing_and_the_connection_ends(
    world: RestWorld, target: str, authorised: bool, status: bytes
) -> None:
    with expecting(world, target, authorised=authorised) as connection:
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 " + status)
    assert b"100 Continue" not in said
    assert b"\r\nconnection: close\r\n" in said


def test_an_upload_that_says_that_it_is_too_large_is_refused_before_it_is_sent(world: RestWorld, notes: Notes) -> None:
    with socket.create_connection(("127.0.0.1", world.port), timeout=20) as connection:
        head = f"PUT /api/v1/uploads/a HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {world.token()}\r\nexpect: 100-continue\r\n"
        connection.sendall(f"{head}content-length: {UPLOAD_SIZE_BYTES_MAX + 1}\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in said


def test_a_refused_upload_that_is_small_is_swallowed_and_behind_a_large_one_the_connection_ends(world: RestWorld) -> None:
    token = world.token()
    for size, closes in ((1000, False), (900_000_000, True)):
        with socket.create_connection(("127.0.0.1", world.port), timeout=20) as connection:
            head = f"PUT /api/v1/nothing HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-length: {size}\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 1000)
            said = connection.recv(65536)
            assert said.startswith(b"HTTP/1.1 404 ")
            assert (b"\r\nconnection: close\r\n" in said) is closes


# What is answered -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "length"),
    [
        ("bytes=0-0", 206, "bytes 0-0/2500", 1),
        ("bytes=2000-", 206, "bytes 2000-2499/2500", 500),
        ("bytes=-7", 206, "bytes 2493-2499/2500", 7),
        ("bytes=100-99999", 206, "bytes 100-2499/2500", 2400),
        ("bytes=0-1,5-6", 200, None, 2500),
        ("items=0-1", 200, None, 2500),
        ("bytes=9-3", 200, None, 2500),
        ("bytes=2500-", 416, "bytes */2500", None),
        ("bytes=-0", 416, "bytes */2500", None),
    ],
)
def test_one_range_is_answered_as_one(
    world: RestWorld, notes: Notes, asked: str, status: int, content_range: str | None, length: int | None
) -> None:
    note = notes.notes["a"] = bytes(number % 251 for number in range(2500))
    reply = world.bearing("GET", "/api/v1/notes/a", range=asked)
    assert (reply.status, reply.headers.get("content-range")) == (status, content_range)
    if status == 416:
        assert reply.code == "range_not_satisfiable"
        return
    assert reply.headers["accept-ranges"] == "bytes"
    first = int(content_range.split()[1].partition("-")[0]) if content_range else 0
    assert reply.body == note[first : first + len(reply.body)]
    assert len(reply.body) == length


def test_a_range_of_another_version_gets_the_whole_and_head_knows_no_ranges(world: RestWorld, notes: Notes) -> None:
    notes.notes["a"] = b"x" * 2500
    same = world.bearing("GET", "/api/v1/notes/a", range="bytes=5-", if_range='"e1"')
    other = world.bearing("GET", "/api/v1/notes/a", range="bytes=5-", if_range='"e0"')
    assert (same.status, len(same.body), other.status, len(other.body)) == (206, 2495, 200, 2500)
    head = world.bearing("HEAD", "/api/v1/notes/a", range="bytes=5-")
    assert (head.status, head.headers["content-length"]) == (200, "2500")


def test_a_refusal_names_code_field_hint_and_the_request(world: RestWorld) -> None:
    reply = world.bearing("GET", "/api/v1/notes/nothing")
    assert reply.status == 404
    assert reply.json == {
        "code": "missing_entity",
        "description": "There is no such note.",
        "cause": None,
        "errorId": reply.headers["x-request-id"],
        "field": "name",
        "hint": "Put it first.",
    }


def test_several_broken_rules_are_told_in_one_answer(world: RestWorld) -> None:
    reply = world.bearing("GET", "/api/v1/failures/several")
    assert (reply.status, reply.code, reply.json["cause"]) == (400, "invalid_offline_targets", {"n": 1})
    assert reply.json["errors"] == [{"code": "too_short", "field": "a", "description": "A.", "hint": "Longer."}]


def test_an_unforeseen_failure_tells_nothing_but_where_the_log_has_it(
    world: RestWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = world.bearing("GET", "/api/v1/failures/unforeseen")
    assert (reply.status, reply.code) == (500, "internal_server_error")
    assert set(reply.json) == MEMBERS
    assert SECRET.encode() not in reply.body
    assert b"RuntimeError" not in reply.body
    logged = capsys.readouterr().out
    assert reply.json["errorId"] in logged
    assert SECRET in logged


def test_an_answer_that_breaks_off_is_shorter_than_it_said(world: RestWorld) -> None:
    token = world.token()
    said = world.raw(f"GET /api/v1/failures/midway HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n".encode())
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"content-length: 1000" in head
    assert body == b"x" * 10


def test_a_stream_is_closed_when_nobody_is_left_to_read_it(world: RestWorld, notes: Notes) -> None:
    token = world.token()
    with socket.create_connection(("127.0.0.1", world.port), timeout=20) as connection:
        head = f"GET /api/v1/failures/endless HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert notes.closed.wait(20)


def test_a_peer_that_goes_while_nothing_has_to_wait_is_noticed_all_the_same(
    world: RestWorld, notes: Notes, thread: EventLoopThread
) -> None:
    """Neither the stream nor sending to nobody ever waits here: without a turn of the loop's own it would stand still."""

    class ForUs:
        async def authenticate(self, request: HttpRequest) -> Authentication:
            return Authentication(caller=world.room.caller("root"), service="overair", payload="UNSIGNED-PAYLOAD")

    door = RestDoor(authenticator=ForUs(), tokens=Nobodys(), authoriser=world.room.authoriser, ids=RandomIds())
    door.add(notes)
    claim = b"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/overair/aws4_request, SignedHeaders=host, Signature=00"
    pieces: list[bytes] = []

    async def ask() -> None:
        gone = asyncio.Event()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                pieces.append(message["body"])
                gone.set()
                # A loop that never gets its turn could not even be stopped by a test.
                assert len(pieces) < 1000, "the peer is gone, and nobody noticed"

        scope = {"type": "http", "method": "GET", "path": "/api/v1/failures/endless", "query_string": b""}
        await door({**scope, "headers": [(b"authorization", claim)]}, receive, send)

    notes.closed.clear()
    thread.run(ask())
    assert 1 <= len(pieces) < 10
    assert notes.closed.is_set()


# Registration -----------------------------------------------------------------------------------------------------------


def test_two_rooms_with_one_route_are_refused_at_start_up(world: RestWorld) -> None:
    class Twin:
        @route("GET", "/api/v1/notes/{other:path}", operation="GetTwin")
        async def get(self, caller: Any, request: Any) -> RestAnswer:
            return RestAnswer()

    room = world.room
    door = RestDoor(authenticator=room.authenticator, tokens=Nobodys(), authoriser=room.authoriser, ids=RandomIds())
    door.add(Notes(world.audited))
    assert {(bound.method, bound.operation) for bound, _ in door.bound} >= {("PUT", "PutNote"), ("GET", "DescribeRequest")}
    with pytest.raises(RuntimeError, match="/api/v1/notes/"):
        door.add(Twin())


def test_a_signature_for_another_service_leads_elsewhere_even_on_a_path_of_plain_rest(world: RestWorld) -> None:
    """The engine of AWS operations knows the bucket ``api``; this front asks it, and a signature for ``overair`` stays here."""
    elsewhere = world.signed("GET", "/api/v1/notes/a", service="s3", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert b"<Error>" in elsewhere.body
    assert world.signed("GET", "/api/v1/notes/a").code == "missing_entity"
    assert b"<Error>" in world.ask("GET", "/api/v1/notes/a?AWSAccessKeyId=AKIA&Signature=x&Expires=1").body
    assert b"<Error>" in world.ask("GET", "/api/v1/notes/a", headers={"authorization": "AWS AKIA:x"}).body


def test_whoever_is_proved_for_another_service_is_not_for_this_one(world: RestWorld, thread: EventLoopThread) -> None:
    """Behind the front, which goes by what a request says of itself, the door goes by what was proved."""

    class ForAnother:
        async def authenticate(self, request: HttpRequest) -> Authentication:
            return Authentication(caller=world.room.caller("root"), service="iot", payload="UNSIGNED-PAYLOAD")

    door = RestDoor(authenticator=ForAnother(), tokens=Nobodys(), authoriser=world.room.authoriser, ids=RandomIds())
    door.add(Notes(world.audited))
    claim = b"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/overair/aws4_request, SignedHeaders=host, Signature=00"
    sent = asked(thread, door, "GET", "/api/v1/notes/a", [(b"authorization", claim)], b"")
    assert sent[0]["status"] == 401
    assert b"invalid_credentials" in sent[1]["body"]


def asked(
    thread: EventLoopThread, door: RestDoor, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> list[Any]:
    """What the door sends for one request, without a port in between."""
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    thread.run(door(scope, receive, send))
    return sent


def test_bodies_of_unproved_senders_are_held_within_one_bound(world: RestWorld, notes: Notes, thread: EventLoopThread) -> None:
    door = RestDoor(authenticator=world.room.authenticator, tokens=Nobodys(), authoriser=world.room.authoriser, ids=RandomIds())
    door.add(notes)
    door._unproved.take(UNPROVED_SIZE_BYTES_MAX - 3)
    claim = b"AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/overair/aws4_request, SignedHeaders=host, Signature=00"
    for body, status in ((b"abcd", 503), (b"abc", 401)):
        headers = [(b"authorization", claim), (b"content-length", str(len(body)).encode())]
        assert asked(thread, door, "PUT", "/api/v1/notes/a", headers, body)[0]["status"] == status
    door._unproved.give_back(UNPROVED_SIZE_BYTES_MAX - 3)
    assert door._unproved.size_bytes == 0


class Nobodys:
    """No token is anybody's."""

    async def issue(self, client_id: str, client_secret: Redacted[str]) -> IssuedToken | None:
        return None

    async def authenticate(self, token: str, request: HttpRequest) -> Any:
        raise NotAuthenticated("Nobody's.", subject="bearer-token")


def test_a_request_that_poses_as_two_services_is_believed_by_neither(world: RestWorld, notes: Notes) -> None:
    """The front goes by the scope that it reads first; the signature is checked over the one that it names."""
    credentials = Credentials(world.root.key_id, world.root.secret.reveal())
    request = AWSRequest(
        method="PUT", url=world.url + "/api/v1/notes/a", data=b"x", headers={"x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    )
    SigV4Auth(credentials, "s3", "us-east-1").add_auth(request)
    authorization = request.headers["Authorization"].replace(
        "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 X-Credential=AKIA/20260101/us-east-1/overair/aws4_request, ", 1
    )
    headers = {**dict(request.headers.items()), "Authorization": authorization}
    assert world.ask("PUT", "/api/v1/notes/a", body=b"x", headers=headers).status in (400, 401, 403)
    assert notes.handled == []
