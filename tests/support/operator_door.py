"""The operator's door over loopback with some rooms behind it, for boto3: everything real but the proof of who asks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.config import Config

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import RandomIds
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.aws_protocol.operations import Caller, Request, operations_of
from tests.support.server_process import new_client
from tests.support.shared_port import shared_port

_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/([^/]+)/aws4_request")


class TrustingAuthenticator:
    """Believes every request: it comes from the root of one account."""

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock

    async def authenticate(self, request: HttpRequest) -> Authentication:
        headers = {name.decode(): value.decode() for name, value in request.headers}
        found = _SCOPE.search(headers["authorization"])
        assert found is not None
        caller = Caller(
            place=self._place,
            principal_arn=self._place.iam("root"),
            user_id=self._place.account,
            access_key_id="AKIATEST",
            now=self._clock.now(),
            is_root=True,
            source_ip=request.source_ip,
            request_id=request.request_id,
        )
        return Authentication(caller=caller, service=found[1], payload=headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD"))


class AllowingAuthoriser:
    """Allows everything."""

    async def authorise(self, caller: Caller, service: str, operation: str, request: Request) -> str:
        return "*"


class OperatorDoor:
    """Where clients find the door."""

    def __init__(self, url: str, region: str) -> None:
        self.url = url
        self.region = region

    def client(self, service: str, *, careless: bool = False) -> Any:
        """A boto3 client that tries each call once; ``careless``: it sends what its own model forbids."""
        return _client(service, self.url, self.region, careless)


@contextmanager
def operator_door(place: Place, clock: Clock, *doors: object) -> Iterator[OperatorDoor]:
    """Serve these rooms' doors."""
    engine = AwsProtocol(
        authenticator=TrustingAuthenticator(place, clock),
        authoriser=AllowingAuthoriser(),
        ids=RandomIds(),
        # A service's model takes longer to read than most tests to run.
        services={service for door in doors for service, _, _ in operations_of(door)},
    )
    engine.add(*doors)
    with shared_port().leads_to(engine) as url:
        yield OperatorDoor(url, place.region)


@functools.cache
def _client(service: str, url: str, region: str, careless: bool) -> Any:
    """The same for every test that asks the same way: clients hold nothing of what they did."""
    return new_client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
        config=Config(retries={"max_attempts": 0}, parameter_validation=not careless),
    )
