"""Requests signed by botocore itself, and each way of getting it wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import botocore.auth
import botocore.session
import pytest
from botocore.auth import HmacV1QueryAuth, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock, as_datetime
from overair.basics.errors import NotAuthenticated
from overair.basics.ids import AccountId
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.model import KeyStatus, NewKeys
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.storage.schema import metadata
from overair.server.storage.work import SqlWork, open_sqlite
from tests.support.access import AccessRoom, build_access_room


@pytest.fixture
def room(work: SqlWork, place: Place, clock: SettableClock) -> AccessRoom:
    return build_access_room(work, place, clock)


@contextmanager
def botocore_thinks_it_is(moment: datetime) -> Iterator[None]:
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=naive):
        yield


def credentials(keys: NewKeys) -> Credentials:
    return Credentials(keys.key_id, keys.secret.reveal(), keys.token.reveal() if keys.token else None)


def received(request: AWSRequest, *, streaming: bool = False) -> HttpRequest:
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    body = prepared.body or b""
    body = body.encode() if isinstance(body, str) else body
    headers = [
        (name.lower().encode(), value if isinstance(value, bytes) else str(value).encode())
        for name, value in prepared.headers.items()
    ]
    if not any(name == b"host" for name, _ in headers):
        headers.append((b"host", parts.netloc.encode()))
    return HttpRequest(
        method=prepared.method,
        raw_path=parts.path.encode(),
        query_string=parts.query.encode(),
        headers=headers,
        body_sha256=None if streaming else sha256(body).hexdigest(),
        source_ip="192.0.2.7",
        secure=True,
        request_id="r-1",
    )


def signed(
    room: AccessRoom,
    keys: NewKeys,
    *,
    service: str = "iot",
    region: str = "us-east-1",
    method: str = "POST",
    path: str = "/things/a%3Ab",
    body: bytes = b'{"a":1}',
    at: datetime | None = None,
    headers: dict[str, str] | None = None,
    auth: Any = SigV4Auth,
    **options: Any,
) -> HttpRequest:
    request = AWSRequest(method=method, url=f"https://127.0.0.1:9443{path}", data=body, headers=headers or {})
    with botocore_thinks_it_is(at or as_datetime(room.clock.now())):
        auth(credentials(keys), service, region, **options).add_auth(request)
    return received(request)


def authenticate(room: AccessRoom, request: HttpRequest) -> Authentication:
    return asyncio.run(room.authenticator.authenticate(request))


def refusal(room: AccessRoom, request: HttpRequest) -> str:
    with pytest.raises(NotAuthenticated) as caught:
        authenticate(room, request)
    return caught.value.subject


def without(request: HttpRequest, name: bytes) -> HttpRequest:
    return replace(request, headers=[(field, value) for field, value in request.headers if field != name])


def with_header(request: HttpRequest, name: bytes, value: bytes) -> HttpRequest:
    return replace(request, headers=[*[(f, v) for f, v in request.headers if f != name], (name, value)])


def test_a_user_is_known_by_his_signature(room: AccessRoom) -> None:
    keys = room.user("ann")
    proved = authenticate(room, signed(room, keys))
    caller = proved.caller
    assert proved.service == "iot"
    assert caller.principal_arn == "arn:aws:iam::123456789012:user/ann"
    assert (caller.access_key_id, caller.is_root, caller.source_ip, caller.request_id) == (
        keys.key_id,
        False,
        "192.0.2.7",
        "r-1",
    )
    assert caller.now == room.clock.now()
    assert caller.context["aws:username"] == ("ann",)
    assert caller.context["aws:SecureTransport"] == ("true",)
    assert authenticate(room, signed(room, keys)).caller == caller, "a repeat inside the window is accepted"


def test_the_root_is_known_by_its_key(room: AccessRoom) -> None:
    keys = room.work.run_blocking(lambda tx: room.identities.create_key(tx, room.place.account, ""))
    caller = authenticate(room, signed(room, keys)).caller
    assert (caller.principal_arn, caller.is_root) == ("arn:aws:iam::123456789012:root", True)


@pytest.mark.parametrize(
    "path", ["/", "/things/a%3Ab", "/things/%24next/jobs//x", "/a/../b", "/x?b=2&a=1&a=0&c=%20%2B&d", "/tags/arn%3Aaws%3A%2Fx"]
)
def test_paths_and_queries_are_read_as_botocore_signs_them(room: AccessRoom, path: str) -> None:
    assert authenticate(room, signed(room, room.user("ann"), path=path)).service == "iot"


@pytest.mark.parametrize(
    "key", ["a", "a%20b", "dir//x/../y", "%2Fabs", "sn%C3%B6", "a~b", "a%2Bb", "-._~", "a%2Ab%28%29%21%27"]
)
def test_object_keys_are_read_as_botocore_signs_them(room: AccessRoom, key: str) -> None:
    keys = room.user("ann")
    path = f"/bucket/{key}"
    assert authenticate(room, signed(room, keys, service="s3", path=path, auth=S3SigV4Auth)).service == "s3"
    presigned = signed(room, keys, service="s3", method="GET", path=path, body=b"", auth=S3SigV4QueryAuth, expires=60)
    assert authenticate(room, presigned).presigned


def test_every_change_of_a_signed_request_is_noticed(room: AccessRoom) -> None:
    keys = room.user("ann")
    good = signed(
        room,
        keys,
        headers={"X-Amz-Target": "CertificateManager.ListCertificates", "Content-Type": "application/x-amz-json-1.1"},
        service="acm",
        path="/",
    )
    authenticate(room, good)
    for changed in (
        replace(good, method="PUT"),
        replace(good, raw_path=b"/other"),
        replace(good, query_string=b"a=1"),
        replace(good, body_sha256=sha256(b"other").hexdigest()),
        with_header(good, b"x-amz-target", b"CertificateManager.DeleteCertificate"),
        with_header(good, b"host", b"elsewhere"),
        with_header(good, b"x-amz-date", b"20260101T000001Z"),
    ):
        assert refusal(room, changed) == "signature"


def test_what_is_not_signed_or_not_readable_is_told_apart(room: AccessRoom) -> None:
    keys = room.user("ann")
    good = signed(room, keys)
    assert refusal(room, without(good, b"authorization")) == "missing-token"
    assert refusal(room, with_header(good, b"authorization", b"Basic YTpi")) == "missing-token"
    assert refusal(room, with_header(good, b"authorization", b"AWS4-HMAC-SHA256 nonsense")) == "malformed-signature"
    assert refusal(room, without(good, b"x-amz-date")) == "undated"
    assert refusal(room, replace(good, headers=[*good.headers, (b"x-amz-unsigned", b"1")])) == "unsigned-headers"
    wrong = replace(keys, secret=type(keys.secret)("x" * 40))
    assert refusal(room, signed(room, wrong)) == "signature"
    assert refusal(room, signed(room, replace(keys, key_id=type(keys.key_id)("AKIAUNKNOWN")))) == "access-key"
    assert refusal(room, signed(room, keys, service="dynamodb")) == "service-scope"


def test_a_scope_that_reads_in_two_ways_is_refused(room: AccessRoom) -> None:
    keys = room.user("ann")
    twofold = replace(keys, key_id=type(keys.key_id)(f"{keys.key_id}/20260101/us-east-1/s3/aws4_request"))
    assert refusal(room, signed(room, twofold, service="iam")) == "malformed-signature"
    unread = replace(signed(room, keys), body_sha256=None)
    assert refusal(room, unread) == "malformed-signature", "the engine took it for a request to the object store"


def test_another_region_is_refused_naming_ours(room: AccessRoom) -> None:
    keys = room.user("ann")
    with pytest.raises(NotAuthenticated) as caught:
        authenticate(room, signed(room, keys, region="eu-west-1"))
    assert caught.value.subject == "region"
    assert "'us-east-1'" in caught.value.message
    assert caught.value.details == {"Region": "us-east-1"}


def test_iam_and_sts_are_signed_for_their_own_region_everywhere(work: SqlWork, clock: SettableClock, place: Place) -> None:
    room = build_access_room(work, Place("eu-west-1", place.account), clock)
    keys = room.user("ann")
    for service in ("iam", "sts"):
        for region in ("us-east-1", "eu-west-1"):
            assert authenticate(room, signed(room, keys, service=service, region=region)).caller.place.region == "eu-west-1"
    assert refusal(room, signed(room, keys, service="iot", region="us-east-1")) == "region"


@pytest.mark.parametrize(
    ("service", "auth", "minutes", "subject"),
    [("iot", SigV4Auth, 5, "expired"), ("s3", S3SigV4Auth, 15, "time-skew"), ("iot", SigV4QueryAuth, 5, "expired")],
)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_window_is_five_minutes_and_fifteen_for_objects(
    room: AccessRoom, service: str, auth: Any, minutes: int, subject: str, sign: int
) -> None:
    keys = room.user("ann")
    now = as_datetime(room.clock.now())
    options: dict[str, Any] = {"method": "GET", "body": b"", "service": service, "auth": auth}
    edge = timedelta(minutes=minutes)
    authenticate(room, signed(room, keys, at=now + sign * edge, **options))
    assert refusal(room, signed(room, keys, at=now + sign * (edge + timedelta(seconds=1)), **options)) == subject


def test_a_presigned_object_request_lives_for_its_own_time(room: AccessRoom) -> None:
    keys = room.user("ann")
    request = signed(room, keys, service="s3", method="GET", body=b"", path="/b/k", auth=S3SigV4QueryAuth, expires=7200)
    room.clock.advance(milliseconds=7_200_000)
    proved = authenticate(room, request)
    assert (proved.payload, proved.presigned) == ("UNSIGNED-PAYLOAD", True)
    room.clock.advance(milliseconds=1)
    assert refusal(room, request) == "presigned-expired"
    for expires in (b"0", b"604801", b"-1", b"x", b"1.5"):
        bent = replace(request, query_string=request.query_string.replace(b"X-Amz-Expires=7200", b"X-Amz-Expires=" + expires))
        assert refusal(room, bent) == "malformed-query"
    longest = signed(room, keys, service="s3", method="GET", body=b"", path="/b/k", auth=S3SigV4QueryAuth, expires=604_800)
    authenticate(room, longest)
    room.clock.advance(milliseconds=1000)
    tomorrow = as_datetime(room.clock.now()) + timedelta(days=1)
    ahead = signed(
        room, keys, service="s3", method="GET", body=b"", path="/b/k", auth=S3SigV4QueryAuth, expires=60, at=tomorrow
    )
    assert refusal(room, ahead) == "not-yet-valid"


def test_a_presigned_link_covers_its_headers(room: AccessRoom) -> None:
    keys = room.user("ann")
    request = signed(room, keys, service="s3", method="PUT", body=b"", path="/b/k", auth=S3SigV4QueryAuth, expires=60)
    sneaky = replace(request, headers=[*request.headers, (b"x-amz-copy-source", b"/secret/key")])
    assert refusal(room, sneaky) == "unsigned-headers"


def version_2(
    room: AccessRoom, keys: NewKeys, *, method: str = "GET", path: str = "/b/k%20y?versionId=v1", expires: int = 3600
) -> HttpRequest:
    request = AWSRequest(method=method, url=f"https://127.0.0.1:9443{path}")
    with mock.patch.object(time, "time", return_value=room.clock.now() / 1000):
        HmacV1QueryAuth(credentials(keys), expires=expires).add_auth(request)
    return received(request, streaming=True)


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_version_2_opens_one_object_and_can_be_switched_off(room: AccessRoom, method: str) -> None:
    keys = room.user("ann")
    request = version_2(room, keys, method=method)
    proved = authenticate(room, request)
    assert (proved.service, proved.presigned, proved.payload) == ("s3", True, "UNSIGNED-PAYLOAD")
    assert proved.caller.principal_arn.endswith("user/ann")
    assert refusal(room, replace(request, raw_path=b"/b/other")) == "signature"
    assert refusal(room, replace(request, query_string=request.query_string.replace(b"v1", b"v2"))) == "signature"
    assert refusal(room, replace(request, method="PUT" if method == "GET" else "GET")) == "signature"
    assert refusal(room, replace(request, method="DELETE")) == "signature-version"
    strict = SignatureAuthenticator(room.work, room.credentials, clock=room.clock, region="us-east-1", presigned_v2=False)
    with pytest.raises(NotAuthenticated) as caught:
        asyncio.run(strict.authenticate(request))
    assert caught.value.subject == "signature-version"
    room.clock.advance(milliseconds=3_600_000)
    authenticate(room, request)
    room.clock.advance(milliseconds=1000)
    assert refusal(room, request) == "presigned-expired"


def test_version_2_parameters_that_cannot_be_read_are_refused(room: AccessRoom) -> None:
    good = version_2(room, room.user("ann"))
    for old, new in (
        (b"Expires=", b"Expires=x"),
        (b"Signature=", b"Signature=%00"),
        (b"AWSAccessKeyId=", b"AWSAccessKeyId=&q="),
    ):
        assert refusal(room, replace(good, query_string=good.query_string.replace(old, new))) in (
            "malformed-signature",
            "missing-token",
        )
    doubled = replace(good, query_string=good.query_string + b"&Expires=9999999999")
    assert refusal(room, doubled) == "malformed-signature"


TRUST = """{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "sts:AssumeRole",
    "Principal": {"AWS": "arn:aws:iam::123456789012:user/ann"}}}"""


def test_a_session_needs_its_token_and_ends(room: AccessRoom) -> None:
    room.user("ann")
    room.work.run_blocking(lambda tx: room.identities.create_role(tx, room.place.account, "shipper", TRUST))
    assumed = room.work.run_blocking(
        lambda tx: room.sessions.assume(tx, room.caller("ann"), "arn:aws:iam::123456789012:role/shipper", "s1", duration_s=900)
    )
    caller = authenticate(room, signed(room, assumed.keys)).caller
    assert caller.principal_arn == "arn:aws:sts::123456789012:assumed-role/shipper/s1"
    assert caller.session_name == "s1"
    assert caller.context["aws:PrincipalArn"] == ("arn:aws:iam::123456789012:role/shipper",)
    assert refusal(room, signed(room, replace(assumed.keys, token=None))) == "access-key"
    bent = replace(assumed.keys, token=type(assumed.keys.secret)("x" * 128))
    assert refusal(room, signed(room, bent)) == "session-token"
    keys = room.user("ben")
    assert refusal(room, signed(room, replace(keys, token=assumed.keys.token))) == "session-token"
    room.clock.advance(milliseconds=900_000)
    assert refusal(room, signed(room, assumed.keys)) == "expired-token"


def test_a_switched_off_or_deleted_key_opens_nothing_from_then_on(room: AccessRoom) -> None:
    keys = room.user("ann")
    account = room.place.account
    authenticate(room, signed(room, keys))
    room.work.run_blocking(lambda tx: room.identities.set_key_status(tx, account, "ann", keys.key_id, KeyStatus.INACTIVE))
    assert refusal(room, signed(room, keys)) == "access-key"
    room.work.run_blocking(lambda tx: room.identities.set_key_status(tx, account, "ann", keys.key_id, KeyStatus.ACTIVE))
    authenticate(room, signed(room, keys))
    room.work.run_blocking(lambda tx: room.identities.delete_key(tx, account, "ann", keys.key_id))
    assert refusal(room, signed(room, keys)) == "access-key"


def test_the_body_is_held_to_what_was_said_of_it(room: AccessRoom) -> None:
    keys = room.user("ann")
    put = signed(room, keys, service="s3", method="PUT", path="/b/k", auth=S3SigV4Auth)
    streamed = replace(put, body_sha256=None)
    assert authenticate(room, streamed).payload == sha256(b'{"a":1}').hexdigest()
    assert refusal(room, replace(put, body_sha256=sha256(b"x").hexdigest())) == "content-sha256"
    assert refusal(room, without(put, b"x-amz-content-sha256")) == "content-sha256-missing"
    assert refusal(room, with_header(put, b"x-amz-content-sha256", b"STREAMING-NONSENSE")) == "content-sha256-unknown"
    assert refusal(room, with_header(put, b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")) == "signature"


def test_secrets_do_not_show(room: AccessRoom) -> None:
    keys = room.user("ann")
    authenticate(room, signed(room, keys))
    credential = room.credentials.remembered(keys.key_id)
    assert credential is not None
    assert keys.secret.reveal() not in f"{keys!r} {credential!r} {credential}"
    with room.work.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM access_keys").all()
    assert keys.secret.reveal() not in repr(rows)
    assert not any(
        keys.secret.reveal().encode() in bytes(value) for row in rows for value in row if isinstance(value, bytes | memoryview)
    )


HEADER_WORDS = (
    "AWS4-HMAC-SHA256_ Credential= AKIA /20260101/ us-east-1/ iot/ s3/ aws4_request ,_ SignedHeaders= host; x-amz-date"
)
QUERY_WORDS = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256& X-Amz-Credential= & %2F %FF X-Amz-Date=20260101T000000Z& X-Amz-SignedHeaders=host& "
    "X-Amz-Signature= X-Amz-Expires=60& Expires=1& AWSAccessKeyId=AKIA& Signature= AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D"
)
WORDS = st.sampled_from([*HEADER_WORDS.replace("_", " ").split(" "), *QUERY_WORDS.split(" "), "0" * 64, "\xff", "\x00", " "])
GARBLED = st.lists(WORDS, max_size=14).map(lambda words: "".join(words).encode("latin-1")) | st.binary(max_size=60)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(authorization=st.none() | GARBLED, query=GARBLED, token=st.none() | GARBLED, path=GARBLED, streaming=st.booleans())
def test_whatever_is_sent_is_refused_as_not_proved_and_as_nothing_worse(
    quick_room: AccessRoom, authorization: bytes | None, query: bytes, token: bytes | None, path: bytes, streaming: bool
) -> None:
    fields = [(b"host", b"h"), (b"x-amz-date", b"20260101T000000Z"), (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")]
    fields += [] if authorization is None else [(b"authorization", authorization)]
    fields += [] if token is None else [(b"x-amz-security-token", token)]
    request = HttpRequest(
        method="GET",
        raw_path=path,
        query_string=query,
        headers=fields,
        body_sha256=sha256(b"").hexdigest(),
        source_ip="",
        secure=True,
        request_id="",
    )
    with pytest.raises(NotAuthenticated):
        authenticate(quick_room, request)


@pytest.fixture(scope="module")
def quick_room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AccessRoom]:
    clock = SettableClock(Instant(1_767_225_600_000))
    work = open_sqlite(tmp_path_factory.mktemp("quick") / "records.sqlite3", clock=clock)
    metadata.create_all(work.engine)
    room = build_access_room(work, Place("us-east-1", AccountId("123456789012")), clock)
    room.user("ann")
    yield room
    work.close()
