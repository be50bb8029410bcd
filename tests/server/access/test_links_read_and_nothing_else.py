"""What a device's download link is worth to whoever gets hold of it, even together with its key."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock, as_datetime
from overair.basics.errors import AccessDenied, NotAuthenticated
from overair.basics.ids import RandomIds
from overair.basics.redacted import Redacted
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import LINK_OPERATIONS
from overair.server.access.grants import principal_of
from overair.server.access.link_keys import LinkKeys
from overair.server.access.model import AssumedRole, Owner, OwnerKind
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.keyring.wrapping import SecretBox
from overair.server.storage.work import SqlWork
from overair.wire import sigv2, sigv4, sigv4_signing
from tests.support.access import AccessRoom, build_access_room

EVERYTHING = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)
EMPTY = sigv4.EMPTY_SHA256


class Links:
    """A role that may everything, and a link key that speaks for it."""

    def __init__(self, room: AccessRoom) -> None:
        self.room = room
        self.keys = LinkKeys(SecretBox(Redacted(b"k" * 32), RandomIds()), RandomIds())
        self.authenticator = SignatureAuthenticator(
            room.work, room.credentials, clock=room.clock, region=room.place.region, links=self.keys
        )
        self.role = self.make_role()
        self.minted = self.keys.mint(self.role, expires=Instant(room.clock.now() + 600_000))

    def make_role(self) -> AssumedRole:
        account = self.room.place.account

        def make(tx: Any) -> AssumedRole:
            self.room.identities.create_role(tx, account, "ota", TRUST)
            self.room.policies.put_inline(tx, account, Owner(kind=OwnerKind.ROLE, name="ota"), "all", EVERYTHING)
            return self.room.service.assume_as_service(
                tx, self.room.place, f"arn:aws:iam::{account}:role/ota", source_arn=self.room.place.iot("job", "j")
            )

        return self.room.work.run_blocking(make)

    def request(self, method: str, service: str, *, presigned: bool, path: bytes = b"/b/k") -> HttpRequest:
        timestamp = sigv4.format_timestamp(as_datetime(self.room.clock.now()))
        scope = sigv4.Scope(date=timestamp[:8], region=self.room.place.region, service=service)
        headers = [(b"host", b"localhost"), *([] if presigned else [(b"x-amz-content-sha256", EMPTY.encode())])]
        plain = sigv4.SignableRequest(method=method, path=path, query=b"", headers=headers)
        query = b""
        if presigned:
            query = sigv4_signing.presign(plain, self.minted, scope=scope, timestamp=timestamp, expires_s=60)
        else:
            headers += sigv4_signing.sign_header(
                plain, self.minted, scope=scope, timestamp=timestamp, payload=EMPTY, normalise=service != "s3"
            )
        return HttpRequest(
            method=method,
            raw_path=path,
            query_string=query,
            headers=headers,
            body_sha256=None if service == "s3" else EMPTY,
            source_ip="192.0.2.7",
            secure=True,
            request_id="r-1",
        )

    def authenticate(self, request: HttpRequest) -> Authentication:
        return asyncio.run(self.authenticator.authenticate(request))


@pytest.fixture
def links(work: SqlWork, place: Place, clock: SettableClock) -> Links:
    return Links(build_access_room(work, place, clock))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_links_key_reads_under_its_presigned_link(links: Links, method: str) -> None:
    caller = links.authenticate(links.request(method, "s3", presigned=True)).caller
    assert caller.principal_arn == links.role.session_arn


@pytest.mark.parametrize(
    ("method", "service", "presigned"),
    [
        ("PUT", "s3", True),
        ("DELETE", "s3", True),
        ("POST", "s3", True),
        ("GET", "s3", False),
        ("GET", "iot", True),
        ("GET", "iot", False),
        ("POST", "iotdata", False),
        ("POST", "sts", False),
        ("GET", "iam", True),
    ],
)
def test_a_links_key_signs_nothing_else(links: Links, method: str, service: str, presigned: bool) -> None:
    request = links.request(method, service, presigned=presigned)
    with pytest.raises(NotAuthenticated, match="link's key is good for GET and HEAD") as caught:
        links.authenticate(request)
    assert caught.value.subject == "session-token"


def test_a_links_key_signs_nothing_in_the_old_way(links: Links) -> None:
    plain = sigv4.SignableRequest(method="GET", path=b"/b/k", query=b"", headers=[(b"host", b"localhost")])
    token = b"x-amz-security-token=" + quote(str(links.minted.session_token), safe="").encode()
    query = sigv2.presign(
        replace(plain, query=token),
        access_key_id=links.minted.access_key_id,
        secret=links.minted.secret_access_key,
        expires_epoch_s=links.room.clock.now() // 1000 + 60,
    )
    request = replace(links.request("GET", "s3", presigned=True), query_string=query)
    with pytest.raises(NotAuthenticated, match="Version 4 alone"):
        links.authenticate(request)


def test_a_links_key_does_nothing_but_read_whatever_its_role_may(links: Links) -> None:
    caller = links.authenticate(links.request("GET", "s3", presigned=True)).caller
    authoriser, request = links.room.authoriser, {"Bucket": "b", "Key": "k"}
    for service, operation in sorted(authoriser._table):
        if (service, operation) in LINK_OPERATIONS:
            assert asyncio.run(authoriser.authorise(caller, service, operation, request)) == "arn:aws:s3:::b/k"
        else:
            with pytest.raises(AccessDenied, match="reads objects and does nothing else"):
                asyncio.run(authoriser.authorise(caller, service, operation, request))


def test_a_link_ends_with_its_role_even_if_another_of_that_name_comes(links: Links) -> None:
    caller = links.authenticate(links.request("GET", "s3", presigned=True)).caller
    request, account = {"Bucket": "b", "Key": "k"}, links.room.place.account
    asyncio.run(links.room.authoriser.authorise(caller, "s3", "GetObject", request))

    def delete(tx: Any) -> None:
        links.room.policies.delete_inline(tx, account, Owner(kind=OwnerKind.ROLE, name="ota"), "all")
        links.room.identities.delete_role(tx, account, "ota")

    links.room.work.run_blocking(delete)
    again = links.make_role()
    assert (again.role_arn, again.role_id != links.role.role_id) == (links.role.role_arn, True)
    key = principal_of(caller)
    assert key is not None
    with pytest.raises(AccessDenied):
        asyncio.run(links.room.authoriser.authorise(caller, "s3", "GetObject", request))


@pytest.mark.parametrize(
    ("path", "query", "subject"),
    [
        (b"/b", b"", "signature-version"),
        (b"/b", b"list-type=2", "signature-version"),
        (b"/b/k", b"attributes", "signature"),
        (b"/b/k", b"list-type=2", "signature"),
        (b"/b/k", b"legal-hold", "signature"),
    ],
)
def test_nobody_adds_to_a_link_of_version_2_what_its_signature_leaves_out(
    links: Links, path: bytes, query: bytes, subject: str
) -> None:
    keys = links.room.user("ann")
    plain = sigv4.SignableRequest(method="GET", path=path, query=query, headers=[(b"host", b"localhost")])
    expires = links.room.clock.now() // 1000 + 60
    signed = sigv2.presign(plain, access_key_id=keys.key_id, secret=keys.secret.reveal(), expires_epoch_s=expires)
    request = replace(links.request("GET", "s3", presigned=True), raw_path=path, query_string=signed)
    with pytest.raises(NotAuthenticated) as caught:
        links.authenticate(request)
    assert caught.value.subject == subject
