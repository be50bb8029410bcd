"""The operator's door over loopback with some rooms behind it, for boto3: everything real but the proof of who asks."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import uvicorn
from botocore.config import Config

from overair.basics.arn import Place
from overair.basics.clock import Clock
from overair.basics.ids import RandomIds
from overair.server.aws_protocol.authentication import Authentication, HttpRequest
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.aws_protocol.operations import Caller, Request, operations_of

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
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id="AKIATEST",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 0}, parameter_validation=not careless),
        )


@contextmanager
def operator_door(place: Place, clock: Clock, *doors: object) -> Iterator[OperatorDoor]:
    """Serve these rooms' doors in a thread of their own."""
    engine = AwsProtocol(
        authenticator=TrustingAuthenticator(place, clock),
        authoriser=AllowingAuthoriser(),
        ids=RandomIds(),
        # A service's model takes longer to read than most tests to run.
        services={service for door in doors for service, _, _ in operations_of(door)},
    )
    engine.add(*doors)
    # The protocol is named: asyncio turns off the delay of small packets only where it is.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(engine, log_level="error", lifespan="off", access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    listening.listen(64)
    thread.start()
    try:
        yield OperatorDoor(f"http://127.0.0.1:{listening.getsockname()[1]}", place.region)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
