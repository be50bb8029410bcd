"""Signatures over the real door: presigned links of both versions, signed chunks, and requests that are not in order."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from unittest import mock
from urllib.parse import quote, urlsplit

import pytest
import urllib3
from botocore.config import Config

from overair.wire import sigv4, sigv4_signing
from tests.support.server_process import ServerProcess


@pytest.fixture(scope="module")
def pool(server: ServerProcess) -> urllib3.PoolManager:
    return urllib3.PoolManager(ca_certs=server.endpoints["ca_file"], retries=False)


def presigned(server: ServerProcess, operation: str, version: str, *, expires_s: int = 60, **members: Any) -> str:
    s3 = server.client("s3", config=Config(signature_version=version, s3={"addressing_style": "path"}))
    return str(
        s3.generate_presigned_url(operation, Params={"Bucket": server.endpoints["bucket"], **members}, ExpiresIn=expires_s)
    )


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_link_uploads_and_downloads_without_keys(
    server: ServerProcess, pool: urllib3.PoolManager, version: str
) -> None:
    key = f"signed/{version}/a b+ü.bin"
    put = presigned(server, "put_object", version, Key=key)
    assert ("AWSAccessKeyId=" in put) is (version == "s3")
    assert pool.request("PUT", put, body=b"hello").status == 200
    got = pool.request("GET", presigned(server, "get_object", version, Key=key))
    assert (got.status, got.data) == (200, b"hello")
    assert pool.request("HEAD", presigned(server, "head_object", version, Key=key)).status == 200
    part = pool.request("GET", presigned(server, "get_object", version, Key=key), headers={"Range": "bytes=1-3"})
    assert (part.status, part.data) == (206, b"ell")
    wrong = presigned(server, "get_object", version, Key=key).replace("a%20b", "a%20c")
    refused = pool.request("GET", wrong)
    assert refused.status == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in refused.data


def test_default_boto3_presigns_in_the_old_way_and_is_served(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    s3, bucket = server.client("s3"), server.endpoints["bucket"]
    s3.put_object(Bucket=bucket, Key="default.bin", Body=b"x")
    link = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "default.bin"})
    assert "AWSAccessKeyId=" in link
    assert pool.request("GET", link).data == b"x"


class Signer:
    """Signs raw requests with the root's key."""

    def __init__(self, server: ServerProcess, service: str) -> None:
        key = server.root_key()
        self.url = server.endpoints["operator_url"]
        self.keys = sigv4_signing.SigningCredentials(
            access_key_id=key["access_key_id"], secret_access_key=key["secret_access_key"]
        )
        self.region, self.service = server.endpoints["region"], service

    def sign(
        self, method: str, path: str, payload: str, *, at: datetime | None = None, **headers: str
    ) -> tuple[dict[str, str], sigv4.Claim]:
        moment = at or datetime.now(UTC)
        timestamp = sigv4.format_timestamp(moment)
        fields = [(b"host", urlsplit(self.url).netloc.encode())]
        fields += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        request = sigv4.SignableRequest(method=method, path=path.encode(), query=b"", headers=fields)
        scope = sigv4.Scope(date=timestamp[:8], region=self.region, service=self.service)
        added = sigv4_signing.sign_header(
            request, self.keys, scope=scope, timestamp=timestamp, payload=payload, normalise=self.service != "s3"
        )
        whole = sigv4.SignableRequest(method=method, path=path.encode(), query=b"", headers=[*fields, *added])
        claim = sigv4.read_claim(whole)
        assert claim is not None
        return {name.decode(): value.decode() for name, value in whole.headers}, claim


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_link_past_its_time_says_so(server: ServerProcess, pool: urllib3.PoolManager, version: str) -> None:
    past = datetime.now(UTC) - timedelta(minutes=2)
    if version == "s3":
        with mock.patch.object(time, "time", return_value=past.timestamp()):
            link = presigned(server, "get_object", version, Key="late.bin", expires_s=60)
    else:
        signer, path = Signer(server, "s3"), f"/{server.endpoints['bucket']}/late.bin"
        timestamp = sigv4.format_timestamp(past)
        scope = sigv4.Scope(date=timestamp[:8], region=signer.region, service="s3")
        fields = [(b"host", urlsplit(signer.url).netloc.encode())]
        request = sigv4.SignableRequest(method="GET", path=path.encode(), query=b"", headers=fields)
        query = sigv4_signing.presign(request, signer.keys, scope=scope, timestamp=timestamp, expires_s=60, normalise=False)
        link = f"{signer.url}{path}?{query.decode()}"
    refused = pool.request("GET", link)
    assert refused.status == 403
    assert b"<Code>AccessDenied</Code>" in refused.data
    assert b"<Message>Request has expired</Message>" in refused.data


@pytest.mark.parametrize("damage", [None, "chunk", "signature", "order"])
def test_a_streamed_upload_is_held_to_the_signature_of_each_chunk(
    server: ServerProcess, pool: urllib3.PoolManager, damage: str | None
) -> None:
    signer, path = Signer(server, "s3"), f"/{server.endpoints['bucket']}/chunked-{damage}.bin"
    pieces = [b"a" * 65536, b"b" * 1000, b""]
    headers, claim = signer.sign(
        "PUT",
        path,
        sigv4.STREAMING_SIGNED,
        x_amz_content_sha256=sigv4.STREAMING_SIGNED,
        x_amz_decoded_content_length=str(sum(map(len, pieces))),
        content_encoding="aws-chunked",
    )
    chain = sigv4.chunk_signatures(claim, secret=signer.keys.secret_access_key)
    signed = [(piece, chain.next(sha256(piece).hexdigest())) for piece in pieces]
    if damage == "chunk":
        signed[1] = (b"B" * 1000, signed[1][1])
    if damage == "signature":
        signed[1] = (signed[1][0], "0" * 64)
    if damage == "order":
        signed[0], signed[1] = signed[1], signed[0]
    body = b"".join(b"%x;chunk-signature=%s\r\n%s\r\n" % (len(piece), sig.encode(), piece) for piece, sig in signed)
    answer = pool.request("PUT", signer.url + path, body=body, headers=headers)
    if damage is None:
        assert answer.status == 200, answer.data
        got = server.client("s3").get_object(Bucket=server.endpoints["bucket"], Key=f"chunked-{damage}.bin")
        assert got["Body"].read() == b"".join(pieces)
    else:
        assert answer.status == 403, answer.data
        assert b"<Code>SignatureDoesNotMatch</Code>" in answer.data


def test_a_request_without_a_signature_is_told_how_to_be_signed(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    answer = pool.request("GET", server.endpoints["operator_url"] + "/things")
    assert answer.status == 403
    assert answer.headers["x-amzn-ErrorType"].startswith("MissingAuthenticationToken")
    assert "overair env" in json.loads(answer.data)["message"]


def test_a_signature_of_long_ago_or_for_elsewhere_is_refused(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    signer = Signer(server, "iot")

    def ask(**options: Any) -> tuple[int, str, str]:
        headers, _ = signer.sign("GET", "/things", sigv4.EMPTY_SHA256, **options)
        answer = pool.request("GET", signer.url + "/things", headers=headers)
        return answer.status, answer.headers.get("x-amzn-ErrorType", ""), json.loads(answer.data).get("message", "")

    now = datetime.now(UTC)
    assert ask(at=now - timedelta(minutes=4))[0] == 200
    status, code, message = ask(at=now - timedelta(minutes=6))
    assert (status, code) == (403, "InvalidSignatureException")
    assert message.startswith("Signature expired: ")
    signer.region = "eu-central-1"
    status, _, message = ask()
    assert status == 403
    assert server.endpoints["region"] in message
    signer.region, signer.service = server.endpoints["region"], "dynamodb"
    assert ask()[0] == 403


def test_the_same_signed_request_may_come_again_within_its_window(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    signer = Signer(server, "iot")
    headers, _ = signer.sign("GET", "/things", sigv4.EMPTY_SHA256)
    assert [pool.request("GET", signer.url + "/things", headers=headers).status for _ in range(3)] == [200] * 3


def test_default_boto3_presigns_an_upload_that_is_served(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    s3, place = server.client("s3"), {"Bucket": server.endpoints["bucket"], "Key": "default-upload.bin"}
    assert pool.request("PUT", s3.generate_presigned_url("put_object", Params=place), body=b"put").status == 200
    assert s3.get_object(**place)["Body"].read() == b"put"


def test_a_body_that_was_swapped_is_noticed(server: ServerProcess, pool: urllib3.PoolManager) -> None:
    signer = Signer(server, "iot")
    headers, _ = signer.sign("POST", "/things/swapped", sha256(b"{}").hexdigest(), content_type="application/json")
    swapped = b'{"attributePayload":{"attributes":{"a":"b"}}}'
    assert pool.request("POST", signer.url + "/things/swapped", body=swapped, headers=headers).status == 403
    assert pool.request("POST", signer.url + "/things/swapped", body=b"{}", headers=headers).status == 200


@pytest.mark.parametrize(
    "credential",
    [
        "/../AKIA/20260101/us-east-1/iam/aws4_request",
        "A/20260101/us-east-1/s3/aws4_request/20260101/us-east-1/iam/aws4_request",
        "A/20260101/us-east-1/iam/aws4_request/20260101/us-east-1/s3/aws4_request",
        "/20260101/us-east-1/iam/aws4_request",
        "A/20260101//iam/aws4_request",
        "A/2026/us-east-1/iam/aws4_request",
    ],
)
def test_a_scope_that_reads_in_two_ways_fails_no_server(
    server: ServerProcess, pool: urllib3.PoolManager, credential: str
) -> None:
    url = server.endpoints["operator_url"]
    header = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host;x-amz-date, Signature={'a' * 64}"
    headers = {"authorization": header, "x-amz-date": "20260101T000000Z"}
    in_query = (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={quote(credential, safe='')}&X-Amz-Date=20260101T000000Z"
        f"&X-Amz-SignedHeaders=host&X-Amz-Signature={'a' * 64}&X-Amz-Expires=60"
    )
    for method, path in (("POST", "/"), ("GET", "/b/k"), ("PUT", "/b/k")):
        assert pool.request(method, url + path, headers=headers, body=b"x").status in (400, 403)
        assert pool.request(method, f"{url}{path}?{in_query}", body=b"x").status in (400, 403)
