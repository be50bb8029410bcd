"""What is wrong with a request to the object store is told by the code that S3 has for it: on the operator's port, and, for
presigned links, on the device port too."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest

from overair.wire import sigv4
from tests.support.raw_requests import Draft, Heard, RawPort, Wire
from tests.support.server_process import ServerProcess

KEY = "negative/list.bin"
CONTENT = b"what only its reader may see"


@dataclass(kw_only=True)
class Place:
    """The ports, and a request that is in order."""

    server: ServerProcess
    ports: dict[str, RawPort]
    bucket: str
    keys: dict[str, dict[str, Any]]

    def draft(self, port: str = "operator", **changes: Any) -> Draft:
        root = self.server.root_key()
        given: dict[str, Any] = {
            "host": self.ports[port].host,
            "key_id": root["access_key_id"],
            "secret": root["secret_access_key"],
            "region": self.server.endpoints["region"],
            "path": f"/{self.bucket}/{KEY}",
        }
        return Draft(**(given | changes))

    def send(self, wire: Wire, port: str = "operator") -> Heard:
        return self.ports[port].send(wire)


@pytest.fixture(scope="module")
def place(server: ServerProcess) -> Iterator[Place]:
    ca_file, bucket = server.endpoints["ca_file"], server.endpoints["bucket"]
    server.client("s3").put_object(Bucket=bucket, Key=KEY, Body=CONTENT)
    ports = {
        "operator": RawPort(server.endpoints["operator_url"], ca_file),
        "device": RawPort(server.endpoints["device_url"], ca_file),
    }
    yield Place(server=server, ports=ports, bucket=bucket, keys=keys_of_each_kind(server))
    for port in ports.values():
        port.close()


def keys_of_each_kind(server: ServerProcess) -> dict[str, dict[str, Any]]:
    iam, name = server.client("iam"), f"negative-{uuid.uuid4().hex[:12]}"
    iam.create_user(UserName=name)
    inactive, deleted = (iam.create_access_key(UserName=name)["AccessKey"] for _ in range(2))
    iam.update_access_key(UserName=name, AccessKeyId=inactive["AccessKeyId"], Status="Inactive")
    iam.delete_access_key(UserName=name, AccessKeyId=deleted["AccessKeyId"])
    trust = {"Effect": "Allow", "Principal": {"AWS": server.endpoints["account"]}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(
        RoleName=name,
        PolicyName="read",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        ),
    )
    user_key = iam.create_access_key(UserName=name)["AccessKey"]
    iam.put_user_policy(
        UserName=name,
        PolicyName="assume",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}]}
        ),
    )
    sts = server.client("sts", aws_access_key_id=user_key["AccessKeyId"], aws_secret_access_key=user_key["SecretAccessKey"])
    one, two = (sts.assume_role(RoleArn=role, RoleSessionName=f"s{n}")["Credentials"] for n in range(2))

    def of(key: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"key_id": key["AccessKeyId"], "secret": key["SecretAccessKey"], **more}

    return {
        "unknown": {"key_id": "AKIAIOSFODNN7EXAMPLE", "secret": "x" * 40},
        "inactive": of(inactive),
        "deleted": of(deleted),
        "session": of(one, token=one["SessionToken"]),
        "without its token": of(one),
        "with another session's token": of(one, token=two["SessionToken"]),
        "with a token that is none": of(one, token="bm9uZQ=="),
        "with a token though it needs none": of(user_key, token=one["SessionToken"]),
    }


NOTHING: Callable[[Any], None] = lambda _: None  # noqa: E731


def _without_host(draft: Draft) -> None:
    draft.signed = ["x-amz-content-sha256", "x-amz-date"]


def _set(**changes: Any) -> Callable[[Draft], None]:
    def change(draft: Draft) -> None:
        for name, value in changes.items():
            setattr(draft, name, value)

    return change


def _header(name: str, value: str | None) -> Callable[[Wire], None]:
    return lambda wire: wire.bend(name, value)


def _added(name: str, value: str) -> Callable[[Wire], None]:
    return lambda wire: wire.headers.append((name, value))


def _again(name: str) -> Callable[[Wire], None]:
    return lambda wire: wire.headers.append((name, dict(wire.headers)[name]))


def _in_authorization(old: str, new: str) -> Callable[[Wire], None]:
    def change(wire: Wire) -> None:
        present = dict(wire.headers)["authorization"]
        assert old in present
        wire.bend("authorization", present.replace(old, new))

    return change


def _wrong_signature(wire: Wire) -> None:
    present = dict(wire.headers)["authorization"]
    wire.bend("authorization", present[:-1] + ("0" if present[-1] != "0" else "1"))


def _cut_signature(wire: Wire) -> None:
    wire.bend("authorization", dict(wire.headers)["authorization"][:-1])


def _days_ago(draft: Draft) -> None:
    draft.scope_date = (draft.at - timedelta(days=1)).strftime("%Y%m%d")


IN_ORDER = ["host", "x-amz-content-sha256", "x-amz-date"]
MALFORMED, MISMATCH, DENIED = (400, "AuthorizationHeaderMalformed"), (403, "SignatureDoesNotMatch"), (403, "AccessDenied")

BY_HEADER: dict[str, tuple[Callable[[Draft], None], Callable[[Wire], None], tuple[int, str]]] = {
    "host unsigned": (_without_host, NOTHING, DENIED),
    "unsigned x-amz-meta": (NOTHING, _added("x-amz-meta-a", "b"), DENIED),
    "unsigned x-amz-acl": (NOTHING, _added("x-amz-acl", "private"), DENIED),
    "unsigned x-amz-copy-source": (_set(method="PUT"), _added("x-amz-copy-source", "/a/b"), DENIED),
    "signed header changed": (_set(headers=[("range", "bytes=0-1")]), _header("range", "bytes=0-2"), MISMATCH),
    "signed header doubled": (_set(headers=[("range", "bytes=0-1")]), _again("range"), MISMATCH),
    "signed header missing": (_set(headers=[("range", "bytes=0-1")]), _header("range", None), MISMATCH),
    "another host": (NOTHING, _header("host", "example.com"), MISMATCH),
    "SignedHeaders unsorted": (_set(signed=IN_ORDER[::-1]), NOTHING, MALFORMED),
    "SignedHeaders doubled": (_set(signed=["host", *IN_ORDER]), NOTHING, MALFORMED),
    "SignedHeaders in capitals": (NOTHING, _in_authorization("SignedHeaders=host", "SignedHeaders=Host"), MALFORMED),
    "Authorization doubled": (NOTHING, _again("authorization"), MALFORMED),
    "date doubled": (NOTHING, _again("x-amz-date"), MALFORMED),
    "body's hash doubled": (NOTHING, _again("x-amz-content-sha256"), MALFORMED),
    "no date": (_set(signed=["host", "x-amz-content-sha256"]), _header("x-amz-date", None), DENIED),
    "date that is none": (NOTHING, _header("x-amz-date", "yesterday"), DENIED),
    "scope of another day": (_days_ago, NOTHING, MALFORMED),
    "scope of another region": (_set(region="mars-north-1"), NOTHING, MALFORMED),
    "scope of another service": (_set(service="dynamodb"), NOTHING, MALFORMED),
    "scope without its end": (_set(terminator="aws3_request"), NOTHING, MALFORMED),
    "scope cut short": (NOTHING, _in_authorization("/s3/aws4_request", "/s3"), MALFORMED),
    "signature wrong": (NOTHING, _wrong_signature, MISMATCH),
    "signature cut": (NOTHING, _cut_signature, MALFORMED),
    "secret wrong": (_set(secret="x" * 40), NOTHING, MISMATCH),
    "method changed": (_set(method="HEAD"), lambda wire: setattr(wire, "method", "GET"), MISMATCH),
    "query added": (NOTHING, lambda wire: setattr(wire, "query", "versionId=null"), MISMATCH),
    "query changed": (_set(query="partNumber=1"), lambda wire: setattr(wire, "query", "partNumber=2"), MISMATCH),
    "body changed": (
        _set(method="PUT", body=b"one"),
        lambda wire: setattr(wire, "body", b"two"),
        (400, "XAmzContentSHA256Mismatch"),
    ),
    "body's hash missing": (
        _set(signed=["host", "x-amz-date"]),
        _header("x-amz-content-sha256", None),
        (400, "InvalidRequest"),
    ),
    "body's hash changed to none": (NOTHING, _header("x-amz-content-sha256", sigv4.UNSIGNED_PAYLOAD), MISMATCH),
    "body's hash in a word that isn't known": (_set(payload="STREAMING-NONSENSE"), NOTHING, (400, "InvalidArgument")),
    "algorithm of another version": (_set(algorithm="AWS4-HMAC-SHA512"), NOTHING, DENIED),
    "version 2 in the header": (NOTHING, _header("authorization", "AWS AKIA:c2ln"), (400, "InvalidRequest")),
    "no signature": (NOTHING, _header("authorization", None), DENIED),
    "header and query together": (
        NOTHING,
        lambda wire: setattr(wire, "query", "X-Amz-Algorithm=AWS4-HMAC-SHA256"),
        (400, "InvalidArgument"),
    ),
    "header and version 2's query together": (
        NOTHING,
        lambda wire: setattr(wire, "query", "AWSAccessKeyId=AKIA&Expires=1&Signature=c2ln"),
        (400, "InvalidArgument"),
    ),
}


@pytest.mark.parametrize("case", BY_HEADER)
def test_a_request_signed_in_its_header_is_refused_by_s3s_code(place: Place, case: str) -> None:
    before, after, expected = BY_HEADER[case]
    draft = place.draft()
    before(draft)
    wire = draft.by_header()
    after(wire)
    heard = place.send(wire)
    assert (heard.status, heard.code) == expected, heard.text
    assert CONTENT not in heard.body


def test_the_request_that_each_refusal_bends_is_in_order(place: Place) -> None:
    assert place.send(place.draft().by_header()).body == CONTENT
    for port in place.ports:
        assert place.send(place.draft(port).by_query(), port).body == CONTENT
        assert place.send(place.draft(port, expires="604800").by_query(), port).body == CONTENT
        assert place.send(
            place.draft(port, expires="1000", at=datetime.now(UTC) - timedelta(seconds=800)).by_query(), port
        ).body
        assert place.send(place.draft(port, **place.keys["session"]).by_query(), port).body == CONTENT


def test_another_region_or_an_unsigned_header_is_named(place: Place) -> None:
    assert (
        f"<Region>{place.server.endpoints['region']}</Region>"
        in place.send(place.draft(region="mars-north-1").by_header()).text
    )
    wire = place.draft().by_header()
    wire.headers.append(("x-amz-meta-a", "b"))
    assert "<HeadersNotSigned>x-amz-meta-a</HeadersNotSigned>" in place.send(wire).text


def test_a_signature_for_another_service_of_this_server_opens_no_object(place: Place) -> None:
    heard = place.send(place.draft(service="iot").by_header())
    assert heard.status in (403, 404)
    assert CONTENT not in heard.body
    for port in place.ports:
        heard = place.send(place.draft(port, service="iot").by_query(), port)
        assert 400 <= heard.status < 500
        assert CONTENT not in heard.body


@pytest.mark.parametrize("seconds", [901, 3600, -960, -86_400])
def test_a_header_dated_more_than_a_quarter_of_an_hour_away_is_too_skewed(place: Place, seconds: int) -> None:
    heard = place.send(place.draft(at=datetime.now(UTC) - timedelta(seconds=seconds)).by_header())
    assert (heard.status, heard.code) == (403, "RequestTimeTooSkewed")


def _query(old: str, new: str) -> Callable[[Wire], None]:
    def change(wire: Wire) -> None:
        assert old in wire.query
        wire.query = wire.query.replace(old, new)

    return change


def _doubled(name: str) -> Callable[[Wire], None]:
    def change(wire: Wire) -> None:
        wire.query += "&" + next(part for part in wire.query.split("&") if part.startswith(name + "="))

    return change


def _left_out(name: str) -> Callable[[Wire], None]:
    def change(wire: Wire) -> None:
        wire.query = "&".join(part for part in wire.query.split("&") if not part.startswith(name + "="))

    return change


def _wrong_end(wire: Wire) -> None:
    wire.query = wire.query[:-1] + ("0" if wire.query[-1] != "0" else "1")


QUERY = (400, "AuthorizationQueryParametersError")

BY_QUERY: dict[str, tuple[Callable[[Draft], None], Callable[[Wire], None], tuple[int, str]]] = {
    "Expires 0": (_set(expires="0"), NOTHING, QUERY),
    "Expires negative": (_set(expires="-1"), NOTHING, QUERY),
    "Expires 604801": (_set(expires="604801"), NOTHING, QUERY),
    "Expires no number": (_set(expires="soon"), NOTHING, QUERY),
    "Expires in other digits": (_set(expires="６０"), NOTHING, QUERY),
    "Expires missing": (_set(expires=None), NOTHING, QUERY),
    "Expires changed": (NOTHING, _query("X-Amz-Expires=60", "X-Amz-Expires=600"), MISMATCH),
    **{
        f"{name} doubled": (NOTHING, _doubled(name), QUERY)
        for name in (
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-SignedHeaders",
            "X-Amz-Expires",
            "X-Amz-Signature",
        )
    },
    **{
        f"{name} missing": (NOTHING, _left_out(name), QUERY)
        for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Signature")
    },
    "algorithm unknown": (_set(algorithm="AWS4-HMAC-SHA512"), NOTHING, QUERY),
    "date that is none": (_set(timestamp="20260230T000000Z"), NOTHING, (400, "AuthorizationQueryParametersError")),
    "date that can't be read": (_set(timestamp="yesterday"), NOTHING, QUERY),
    "scope of another day": (_days_ago, NOTHING, QUERY),
    "scope of another region": (_set(region="mars-north-1"), NOTHING, QUERY),
    "scope of another service": (_set(service="dynamodb"), NOTHING, QUERY),
    "scope without its end": (_set(terminator="aws3_request"), NOTHING, QUERY),
    "host unsigned": (_set(signed=[]), NOTHING, QUERY),
    "host left out of what is signed": (_set(headers=[("range", "bytes=0-1")], signed=["range"]), NOTHING, DENIED),
    "unsigned x-amz header": (NOTHING, _added("x-amz-meta-a", "b"), DENIED),
    "signed header changed": (_set(headers=[("range", "bytes=0-1")]), _header("range", "bytes=0-2"), MISMATCH),
    "signed header doubled": (_set(headers=[("range", "bytes=0-1")]), _again("range"), MISMATCH),
    "signed header missing": (_set(headers=[("range", "bytes=0-1")]), _header("range", None), MISMATCH),
    "SignedHeaders unsorted": (_set(headers=[("range", "bytes=0-1")], signed=["range", "host"]), NOTHING, QUERY),
    "another host": (NOTHING, _header("host", "example.com"), MISMATCH),
    "signature wrong": (NOTHING, _wrong_end, MISMATCH),
    "signature cut": (NOTHING, lambda wire: setattr(wire, "query", wire.query[:-1]), QUERY),
    "version named afterwards": (NOTHING, lambda wire: setattr(wire, "query", wire.query + "&versionId=null"), MISMATCH),
    "type named afterwards": (
        NOTHING,
        lambda wire: setattr(wire, "query", wire.query + "&response-content-type=text/html"),
        MISMATCH,
    ),
    "past its time": (_set(at=datetime.now(UTC) - timedelta(seconds=3_600), expires="60"), NOTHING, DENIED),
    "before its time": (_set(at=datetime.now(UTC) + timedelta(seconds=3_600)), NOTHING, DENIED),
    "query and header together": (NOTHING, _added("authorization", "AWS4-HMAC-SHA256 x"), (400, "InvalidArgument")),
    "query of both versions": (
        NOTHING,
        lambda wire: setattr(wire, "query", wire.query + "&AWSAccessKeyId=AKIA&Expires=1&Signature=c2ln"),
        (400, "InvalidArgument"),
    ),
}


@pytest.mark.parametrize("port", ["operator", "device"])
@pytest.mark.parametrize("case", BY_QUERY)
def test_a_presigned_link_is_refused_by_s3s_code(place: Place, case: str, port: str) -> None:
    before, after, expected = BY_QUERY[case]
    draft = place.draft(port)
    before(draft)
    wire = draft.by_query()
    after(wire)
    heard = place.send(wire, port)
    assert (heard.status, heard.code) == expected, heard.text
    assert CONTENT not in heard.body


BY_KEY = {
    "unknown": (403, "InvalidAccessKeyId"),
    "inactive": (403, "InvalidAccessKeyId"),
    "deleted": (403, "InvalidAccessKeyId"),
    "without its token": (403, "InvalidAccessKeyId"),
    "with another session's token": (400, "InvalidToken"),
    "with a token that is none": (400, "InvalidToken"),
    "with a token though it needs none": (400, "InvalidToken"),
}


@pytest.mark.parametrize("way", ["header", "operator", "device"])
@pytest.mark.parametrize("kind", BY_KEY)
def test_a_key_that_is_not_good_is_refused_by_s3s_code(place: Place, kind: str, way: str) -> None:
    port = "operator" if way == "header" else way
    draft = place.draft(port, **place.keys[kind])
    heard = place.send(draft.by_header() if way == "header" else draft.by_query(), port)
    assert (heard.status, heard.code) == BY_KEY[kind]


SAME_TO_A_CARELESS_READER = {
    "doubled slash": "a//b",
    "dot segment": "a/./b",
    "parent segment": "x/../a/b",
    "encoded slash": "a%2Fb",
    "slash encoded twice": "a%252Fb",
    "leading slash": "/a/b",
    "trailing slash": "a/b/",
    "encoded letter of the other case": "A/b",
}
OTHER_SPELLINGS = {
    "plus for a space": ("p%20q", "p+q"),
    "space for a plus": ("p%2Bq", "p%20q"),
    "decomposed for composed": ("%C3%A9", "e%CC%81"),
    "composed for decomposed": ("e%CC%81", "%C3%A9"),
    "percent sign for what it encodes": ("%25C3%25A9", "%C3%A9"),
}
SPELLINGS = {**{name: ("a/b", other) for name, other in SAME_TO_A_CARELESS_READER.items()}, **OTHER_SPELLINGS}


@pytest.mark.parametrize("way", ["header", "operator", "device"])
@pytest.mark.parametrize("case", SPELLINGS)
def test_a_signature_for_one_spelling_of_a_key_is_none_for_another(place: Place, case: str, way: str) -> None:
    signed, sent = SPELLINGS[case]
    port = "operator" if way == "header" else way
    draft = place.draft(port, path=f"/{place.bucket}/{signed}")
    wire = draft.by_header() if way == "header" else draft.by_query()
    wire.path = f"/{place.bucket}/{sent}"
    heard = place.send(wire, port)
    assert (heard.status, heard.code) == MISMATCH


def test_keys_that_look_alike_are_objects_of_their_own(place: Place) -> None:
    keys = [
        "a/b",
        "a//b",
        "a/./b",
        "x/../a/b",
        "a%2Fb",
        "a%252Fb",
        "/a/b",
        "a/b/",
        "p q",
        "p+q",
        "é",
        "e\u0301",
        "%C3%A9",
        "A/b",
    ]
    home = f"alike-{uuid.uuid4().hex}"
    for number, key in enumerate(keys):
        path = f"/{place.bucket}/{home}/{quote(key, safe='/-._~')}"
        assert place.send(place.draft(method="PUT", path=path, body=b"%d" % number).by_header()).status == 200
    for number, key in enumerate(keys):
        path = f"/{place.bucket}/{home}/{quote(key, safe='/-._~')}"
        assert place.send(place.draft(path=path).by_header()).body == b"%d" % number
        for port in place.ports:
            assert place.send(place.draft(port, path=path).by_query(), port).body == b"%d" % number
    listed = place.server.client("s3").list_objects_v2(Bucket=place.bucket, Prefix=home)["Contents"]
    assert {each["Key"].removeprefix(f"{home}/") for each in listed} == set(keys)


@pytest.mark.parametrize("port", ["operator", "device"])
@pytest.mark.parametrize("path", ["//{bucket}/{key}", "/./{bucket}/{key}", "/%2F{bucket}/{key}", "/{bucket}%2F{key}"])
def test_a_path_whose_bucket_two_readers_could_see_differently_gives_nothing(place: Place, path: str, port: str) -> None:
    heard = place.send(place.draft(port, path=path.format(bucket=place.bucket, key=KEY)).by_query(), port)
    assert 400 <= heard.status < 500, heard.text
    assert CONTENT not in heard.body


@pytest.mark.parametrize("word", [sigv4.UNSIGNED_PAYLOAD, *sorted(sigv4.STREAMING_PAYLOADS)])
@pytest.mark.parametrize("service", ["iot", "acm", "iam"])
def test_a_body_that_the_signature_leaves_open_is_refused_on_the_control_plane(place: Place, word: str, service: str) -> None:
    thing = f"unsigned-{uuid.uuid4().hex}"
    asked: dict[str, dict[str, Any]] = {
        "iot": {"path": f"/things/{thing}", "body": b"{}"},
        "acm": {
            "path": "/",
            "body": b"{}",
            "headers": [
                ("x-amz-target", "CertificateManager.ListCertificates"),
                ("content-type", "application/x-amz-json-1.1"),
            ],
        },
        "iam": {
            "path": "/",
            "body": f"Action=CreateUser&Version=2010-05-08&UserName={thing}".encode(),
            "headers": [("content-type", "application/x-www-form-urlencoded")],
        },
    }
    region = "us-east-1" if service == "iam" else place.server.endpoints["region"]
    draft = place.draft(method="POST", service=service, payload=word, **{"region": region, **asked[service]})
    heard = place.send(draft.by_header())
    code = {"iot": "InvalidSignatureException", "acm": "InvalidSignatureException", "iam": "SignatureDoesNotMatch"}[service]
    assert (heard.status, heard.code) == (400 if service == "acm" else 403, code), heard.text
    silent = draft.by_header()
    silent.headers = [(name, value) for name, value in silent.headers if name != "x-amz-content-sha256"]
    assert place.send(silent).code == code
    assert place.send(draft.other(payload=None).by_header()).status == 200, "the same with its body signed"


# Chunks --------------------------------------------------------------------------------------------------------------

PIECES = [b"a" * 65_536, b"b" * 1_000, b""]


def _chunked(
    place: Place, key: str, *, word: str = sigv4.STREAMING_SIGNED, decoded: int | None = None, trailer: bool = False
) -> tuple[Wire, list[tuple[bytes, str]], sigv4.ChunkSignatures]:
    """The request without its body, the signed chunks, and the chain behind them."""
    headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", str(sum(map(len, PIECES)) if decoded is None else decoded)),
    ]
    if trailer:
        headers.append(("x-amz-trailer", "x-amz-checksum-sha256"))
    wire = place.draft(method="PUT", path=f"/{place.bucket}/{key}", payload=word, headers=headers).by_header()
    fields = [(name.encode(), value.encode()) for name, value in wire.headers]
    request = sigv4.SignableRequest(method="PUT", path=wire.path.encode(), query=b"", headers=fields)
    claim = sigv4.read_claim(request)
    assert claim is not None
    chain = sigv4.chunk_signatures(claim, secret=place.server.root_key()["secret_access_key"])
    return wire, [(piece, chain.next(sha256(piece).hexdigest())) for piece in PIECES], chain


def _body(chunks: list[tuple[bytes, str]], *, end: bytes = b"\r\n") -> bytes:
    framed = [
        b"%x;chunk-signature=%s\r\n" % (len(piece), sign.encode()) + (piece + b"\r\n" if piece else b"")
        for piece, sign in chunks
    ]
    return b"".join(framed) + end


INCOMPLETE = (400, "IncompleteBody")
Chunks = list[tuple[bytes, str]]
OF_CHUNKS: dict[str, tuple[Callable[[Chunks], bytes], tuple[int, str]]] = {
    "data changed": (lambda c: _body([c[0], (b"B" * 1_000, c[1][1]), c[2]]), MISMATCH),
    "signature wrong": (lambda c: _body([c[0], (c[1][0], "0" * 64), c[2]]), MISMATCH),
    "signature of the last wrong": (lambda c: _body([c[0], c[1], (b"", "0" * 64)]), MISMATCH),
    "swapped": (lambda c: _body([c[1], c[0], c[2]]), MISMATCH),
    "one left out": (lambda c: _body([c[0], c[2]]), MISMATCH),
    "one twice": (lambda c: _body([c[0], c[0], c[2]]), INCOMPLETE),
    "cut before the last": (lambda c: _body([c[0], c[1]], end=b""), INCOMPLETE),
    "cut within one": (lambda c: _body(c)[:30_000], INCOMPLETE),
    "cut within a size": (lambda c: _body(c[:1], end=b"3e8;chunk-sig"), INCOMPLETE),
    "cut before the very end": (lambda c: _body(c, end=b""), INCOMPLETE),
    "more behind the end": (lambda c: _body(c) + b"0\r\n\r\n", INCOMPLETE),
    "size that is no number": (lambda c: _body(c).replace(b"3e8;", b"zz;"), INCOMPLETE),
    "size negative": (lambda c: _body(c).replace(b"3e8;", b"-1;"), INCOMPLETE),
    "size too small": (lambda c: _body(c).replace(b"3e8;", b"3e7;"), INCOMPLETE),
    "size beyond an object's": (lambda c: _body(c).replace(b"3e8;", b"ffffffffffff;"), INCOMPLETE),
    "unsigned": (lambda c: b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p, _ in c), MISMATCH),
    "signature in capitals": (lambda c: _body([(p, s.upper()) for p, s in c]), INCOMPLETE),
    "no chunks at all": (lambda c: b"".join(piece for piece, _ in c), INCOMPLETE),
}


@pytest.mark.parametrize("case", OF_CHUNKS)
def test_a_signed_chunk_that_is_not_in_order_leaves_no_object(place: Place, case: str) -> None:
    key = f"chunks-{uuid.uuid4().hex}"
    wire, chunks, _ = _chunked(place, key)
    make, expected = OF_CHUNKS[case]
    wire.body = make(chunks)
    heard = place.send(wire)
    assert (heard.status, heard.code) == expected, heard.text
    assert place.send(place.draft(path=f"/{place.bucket}/{key}").by_header()).code == "NoSuchKey"


def test_signed_chunks_in_order_are_an_object(place: Place) -> None:
    key = f"chunks-{uuid.uuid4().hex}"
    wire, chunks, _ = _chunked(place, key)
    wire.body = _body(chunks)
    assert place.send(wire).status == 200
    assert place.send(place.draft(path=f"/{place.bucket}/{key}").by_header()).body == b"".join(PIECES)


@pytest.mark.parametrize("decoded", [0, 66_535, 66_537])
def test_chunks_hold_to_the_length_that_was_signed(place: Place, decoded: int) -> None:
    wire, chunks, _ = _chunked(place, f"chunks-{uuid.uuid4().hex}", decoded=decoded)
    wire.body = _body(chunks)
    heard = place.send(wire)
    assert (heard.status, heard.code) == INCOMPLETE


def _sum(data: bytes) -> bytes:
    from base64 import b64encode

    return b64encode(sha256(data).digest())


GOOD_SUM = b"x-amz-checksum-sha256:" + _sum(b"".join(PIECES))
WRONG_SUM = b"x-amz-checksum-sha256:" + _sum(b"something else")
OF_TRAILERS: dict[str, tuple[Callable[[Any], bytes], tuple[int, str]]] = {
    "in order": (lambda chain: _signed_trailer(chain, GOOD_SUM), (200, "")),
    "signature wrong": (lambda _: GOOD_SUM + b"\r\nx-amz-trailer-signature:" + b"0" * 64 + b"\r\n\r\n", MISMATCH),
    "signature missing": (lambda _: GOOD_SUM + b"\r\n\r\n", MISMATCH),
    "changed": (lambda chain: _signed_trailer(chain, WRONG_SUM, sent=GOOD_SUM), MISMATCH),
    "sum wrong": (lambda chain: _signed_trailer(chain, WRONG_SUM), (400, "BadDigest")),
    "sum missing": (lambda chain: _signed_trailer(chain, b"x-amz-meta-a:b"), (400, "MalformedTrailerError")),
    "no trailer": (lambda _: b"\r\n", MISMATCH),
    "cut": (lambda chain: _signed_trailer(chain, GOOD_SUM)[:-2], INCOMPLETE),
}


def _signed_trailer(chain: sigv4.ChunkSignatures, line: bytes, *, sent: bytes | None = None) -> bytes:
    signature = chain.trailer(line + b"\n").encode()
    return (sent or line) + b"\r\nx-amz-trailer-signature:" + signature + b"\r\n\r\n"


@pytest.mark.parametrize("case", OF_TRAILERS)
def test_a_signed_trailer_is_held_to_its_signature_and_its_sum(place: Place, case: str) -> None:
    key = f"trailers-{uuid.uuid4().hex}"
    wire, chunks, chain = _chunked(place, key, word=sigv4.STREAMING_SIGNED_TRAILER, trailer=True)
    make, expected = OF_TRAILERS[case]
    wire.body = _body(chunks, end=make(chain))
    heard = place.send(wire)
    assert (heard.status, heard.code) == expected, heard.text
    found = place.send(place.draft(path=f"/{place.bucket}/{key}").by_header())
    assert found.status == (200 if case == "in order" else 404)


OF_UNSIGNED_TRAILERS: dict[str, tuple[bytes, tuple[int, str]]] = {
    "in order": (GOOD_SUM + b"\r\n\r\n", (200, "")),
    "sum wrong": (WRONG_SUM + b"\r\n\r\n", (400, "BadDigest")),
    "sum that is none": (b"x-amz-checksum-sha256:?\r\n\r\n", (400, "InvalidRequest")),
    "sum missing": (b"\r\n", (400, "MalformedTrailerError")),
    "sum doubled": (GOOD_SUM + b"\r\n" + GOOD_SUM + b"\r\n\r\n", (400, "MalformedTrailerError")),
    "line without a colon": (b"x-amz-checksum-sha256\r\n\r\n", (400, "MalformedTrailerError")),
    "cut": (GOOD_SUM, INCOMPLETE),
    "line without end": (b"x" * 2_000, INCOMPLETE),
}


@pytest.mark.parametrize("case", OF_UNSIGNED_TRAILERS)
def test_an_unsigned_trailer_is_held_to_its_sum(place: Place, case: str) -> None:
    key = f"trailers-{uuid.uuid4().hex}"
    wire, _, _ = _chunked(place, key, word=sigv4.STREAMING_UNSIGNED_TRAILER, trailer=True)
    end, expected = OF_UNSIGNED_TRAILERS[case]
    wire.body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in PIECES if piece) + b"0\r\n" + end
    heard = place.send(wire)
    assert (heard.status, heard.code) == expected, heard.text
    found = place.send(place.draft(path=f"/{place.bucket}/{key}").by_header())
    assert found.status == (200 if case == "in order" else 404)
