"""Presigned links on the device port: what boto3 signs and what we sign is served, all else refused in S3's words."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from unittest import mock

import boto3
import botocore.auth
import botocore.crt.auth
import pytest
import urllib3
import uvicorn
from botocore.config import Config

from overair.basics.arn import Place
from overair.basics.clock import SettableClock, as_datetime
from overair.basics.ids import RandomIds
from overair.basics.work import Tx
from overair.server.access.model import NewKeys, Owner, OwnerKind
from overair.server.objects.contents import ContentStore
from overair.server.objects.links import LINK_SIZE_BYTES_MAX, presigned_link
from overair.server.objects.operator_api import ObjectsApi
from overair.server.objects.presigned_downloads import PresignedDownloads
from overair.server.objects.service import ObjectsService
from overair.server.storage.work import SqlWork
from overair.wire.sigv4_signing import SigningCredentials
from tests.support.access import AccessRoom, build_access_room

CONTENT = bytes(range(256)) * 20
KEY = "images/dev+ice ü.bin"
MAY_READ = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": "arn:aws:s3:::firmware/*"}
        ],
    }
)
MAY_ASSUME = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}
)


@dataclass
class Port:
    url: str
    room: AccessRoom
    keys: NewKeys
    clock: SettableClock
    version_id: str

    def __post_init__(self) -> None:
        self.http = urllib3.PoolManager(retries=False)

    def get(self, url: str, method: str = "GET", **headers: str) -> Any:
        return self.http.request(method, url, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def link(
        self,
        *,
        expires_s: int = 60,
        version_id: str | None = None,
        key: str = KEY,
        bucket: str = "firmware",
        token: str | None = None,
    ) -> str:
        return presigned_link(
            base_url=self.url,
            region="us-east-1",
            bucket=bucket,
            key=key,
            version_id=version_id,
            credentials=SigningCredentials(
                access_key_id=self.keys.key_id, secret_access_key=self.keys.secret.reveal(), session_token=token
            ),
            now=self.clock.now(),
            expires_s=expires_s,
        )

    def boto3_link(self, method: str = "get_object", *, signature_version: str | None = None, **parameters: str) -> str:
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.keys.key_id,
            aws_secret_access_key=self.keys.secret.reveal(),
            config=Config(signature_version=signature_version),
        )
        now = as_datetime(self.clock.now())
        naive = now.astimezone(UTC).replace(tzinfo=None)
        with (
            # botocore signs with either, depending on whether the common runtime is installed.
            mock.patch.object(botocore.auth, "get_current_datetime", return_value=naive),
            mock.patch.object(botocore.crt.auth, "get_current_datetime", return_value=now),
            mock.patch.object(botocore.auth.time, "time", return_value=now.timestamp()),
        ):
            url: str = client.generate_presigned_url(
                method, Params={"Bucket": "firmware", "Key": KEY, **parameters}, ExpiresIn=60
            )
        return url


@pytest.fixture
def port(
    work: SqlWork,
    place: Place,
    clock: SettableClock,
    objects: ObjectsService,
    contents: ContentStore,
    api: ObjectsApi,
    bucket: str,
) -> Iterator[Port]:
    room = build_access_room(work, place, clock)
    stored = contents.store_blocking([CONTENT])
    version = work.run_blocking(lambda tx: objects.put(tx, place, bucket, KEY, stored, content_type="a/b"))
    application = PresignedDownloads(
        authenticator=room.authenticator, authoriser=room.authoriser, downloads=api, ids=RandomIds()
    )
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(16)
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", lifespan="off", access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    yield Port(
        url=f"http://127.0.0.1:{listening.getsockname()[1]}",
        room=room,
        keys=room.user("device-reader", read=MAY_READ),
        clock=clock,
        version_id=version.version_id,
    )
    server.should_exit = True
    thread.join(10)
    listening.close()


def refusal(response: Any) -> tuple[int, str, str]:
    text = response.data.decode()
    found = re.search(r"<Error><Code>(\w+)</Code><Message>(.*?)</Message>", text)
    assert found is not None, text
    return response.status, found[1], found[2]


@pytest.mark.parametrize("signature_version", [None, "s3v4", "s3"])
def test_links_that_boto3_signs_are_served(port: Port, signature_version: str | None) -> None:
    got = port.get(port.boto3_link(signature_version=signature_version))
    assert (got.status, got.data) == (200, CONTENT)
    assert got.headers["content-type"] == "a/b"
    versioned = port.boto3_link(signature_version=signature_version, VersionId=port.version_id, ResponseContentType="x/y")
    got = port.get(versioned)
    assert (got.status, got.headers["content-type"]) == (200, "x/y")


def test_our_own_links_are_served_in_ranges(port: Port) -> None:
    for link in (port.link(), port.link(version_id=port.version_id)):
        assert len(link) < LINK_SIZE_BYTES_MAX
        got = port.get(link, Range="bytes=4096-5000000")
        assert (got.status, got.data) == (206, CONTENT[4096:])
        assert got.headers["content-range"] == f"bytes 4096-{len(CONTENT) - 1}/{len(CONTENT)}"
        assert sum(len(name) + len(value) + 4 for name, value in got.headers.items()) < 1024
    assert port.get(port.link(), Range="bytes=999999-").status == 416
    etag = port.get(port.link()).headers["etag"]
    assert port.get(port.link(), If_None_Match=etag).status == 304
    assert port.get(port.link(), If_Match='"other"').status == 412
    assert port.get(port.link(), If_Modified_Since="nonsense").status == 200
    assert port.get(port.link(), If_Modified_Since="Fri, 02 Jan 2026 00:00:00 GMT").status == 304


def test_head_has_its_own_signature_and_no_body(port: Port) -> None:
    got = port.get(port.boto3_link("head_object", signature_version="s3v4"), "HEAD")
    assert (got.status, got.headers["content-length"], got.data) == (200, str(len(CONTENT)), b"")
    assert port.get(port.link(), "HEAD").status == 403


def test_an_expired_link_says_so_in_the_words_that_agents_wait_for(port: Port) -> None:
    link = port.link(expires_s=60)
    port.clock.advance(milliseconds=61_000)
    assert refusal(port.get(link)) == (403, "AccessDenied", "Request has expired")


def test_a_link_serves_what_it_was_signed_for_alone(port: Port) -> None:
    link = port.link()
    assert refusal(port.get(link.replace("images/", "secrets/")))[:2] == (403, "SignatureDoesNotMatch")
    assert refusal(port.get(link[:-1] + ("0" if link[-1] != "0" else "1")))[:2] == (403, "SignatureDoesNotMatch")
    assert refusal(port.get(link + "&versionId=x"))[:2] == (403, "SignatureDoesNotMatch")
    assert refusal(port.get(link.replace("X-Amz-Expires=60", "X-Amz-Expires=6000")))[:2] == (403, "SignatureDoesNotMatch")
    assert refusal(port.get(link.partition("?")[0]))[:2] == (403, "AccessDenied")
    for method in ("PUT", "POST", "DELETE"):
        assert refusal(port.get(link, method))[:2] == (400, "NotImplemented")
    assert refusal(port.get(port.boto3_link("list_parts", signature_version="s3v4", UploadId="u")))[:2] == (
        400,
        "NotImplemented",
    )


def test_the_signers_own_permissions_decide(port: Port) -> None:
    port.keys = port.room.user("stranger")
    assert refusal(port.get(port.link()))[:2] == (403, "AccessDenied")
    grant = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::firmware/*"}
    port.room.buckets.policies["firmware"] = json.dumps({"Version": "2012-10-17", "Statement": [grant]})
    assert port.get(port.link()).status == 200


def test_a_link_of_a_session_ends_with_the_session(port: Port) -> None:
    room, account = port.room, port.room.place.account
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = Owner(kind=OwnerKind.ROLE, name="reader")

    def make(tx: Tx) -> NewKeys:
        room.identities.create_role(tx, account, "reader", trust)
        room.policies.put_inline(tx, account, role, "read", MAY_READ)
        room.policies.put_inline(tx, account, Owner(kind=OwnerKind.USER, name="device-reader"), "assume", MAY_ASSUME)
        arn = f"arn:aws:iam::{account}:role/reader"
        return room.sessions.assume(tx, room.caller("device-reader"), arn, "s1", duration_s=900).keys

    port.keys = room.work.run_blocking(make)
    link = port.link(expires_s=7_200)
    assert refusal(port.get(link))[:2] == (403, "InvalidAccessKeyId"), "without its token"
    assert port.keys.token is not None
    link = port.link(expires_s=7_200, token=port.keys.token.reveal())
    assert port.get(link).status == 200
    port.clock.advance(milliseconds=900_000)
    assert refusal(port.get(link))[:2] == (400, "ExpiredToken")


def test_what_is_not_there_is_not_found(port: Port) -> None:
    assert refusal(port.get(port.link(key="absent")))[:2] == (404, "NoSuchKey")
    assert refusal(port.get(port.link(version_id="absent")))[:2] == (404, "NoSuchVersion")


@pytest.mark.parametrize(
    "target", ["/", "/firmware", "//", "/%ff/%fe", "/a/b?%ff=%ff", "/a/b?X-Amz-Signature=1", "/" + "x" * 9000]
)
def test_nonsense_is_refused_without_a_stack_trace(port: Port, target: str) -> None:
    got = port.get(port.url + target)
    assert 400 <= got.status < 500
    assert b"Traceback" not in got.data
