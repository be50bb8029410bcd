"""The operator door's engine alone on a real port: an authenticator that believes nearly everything, an open authoriser."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop
from botocore.config import Config

from overair.basics.arn import Place
from overair.basics.clock import Instant
from overair.basics.errors import AccessDenied, NotAuthenticated
from overair.basics.ids import AccountId, SeededIds
from overair.server.aws_protocol.authentication import Authentication, ChunkChain, HttpRequest
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.aws_protocol.operations import Caller, Request
from tests.support.server_process import new_client

ACCOUNT = AccountId("123456789012")
KNOWN_KEY = "AKIATEST000000000000"
UNKNOWN_KEY = "AKIAUNKNOWN000000000"
CALLER = Caller(
    place=Place("us-east-1", ACCOUNT),
    principal_arn=f"arn:aws:iam::{ACCOUNT}:user/op",
    user_id="AIDAOP",
    access_key_id=KNOWN_KEY,
    now=Instant(1_767_225_600_000),
)


class BelievingAuthenticator:
    """Takes the scope for true. One key is unknown to it."""

    def __init__(self) -> None:
        self.chunks: ChunkChain | None = None

    async def authenticate(self, request: HttpRequest) -> Authentication:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        text = headers.get("authorization", "") or request.query_string.decode("latin-1").replace("%2F", "/")
        found = re.search(r"Credential=([^/]+)/\d+/([^/]*)/([^/]+)/aws4_request", text)
        if found is None:
            raise NotAuthenticated("Missing Authentication Token", subject="missing-token")
        if found[1] == UNKNOWN_KEY:
            raise NotAuthenticated("The security token included in the request is invalid.", subject="access-key")
        signed = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        payload = signed if request.body_sha256 is None else request.body_sha256
        return Authentication(caller=CALLER, service=found[3], payload=payload, chunks=self.chunks)


class OpenAuthoriser:
    """Allows everything but what it was told to deny."""

    def __init__(self) -> None:
        self.denied: set[str] = set()

    async def authorise(self, caller: Caller, service: str, operation: str, request: Request) -> str:
        if operation in self.denied:
            raise AccessDenied(f"User: {caller.principal_arn} is not authorized to perform: {service}:{operation}")
        return "*"


class RunningDoor:
    """The door while it runs."""

    def __init__(self, url: str, authenticator: BelievingAuthenticator, authoriser: OpenAuthoriser) -> None:
        self.url = url
        self.authenticator = authenticator
        self.authoriser = authoriser

    def client(self, service: str, *, access_key_id: str = KNOWN_KEY, **config: Any) -> Any:
        """A boto3 client that also knows our own service, as with ``AWS_DATA_PATH``."""
        settings = {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 20, **config}
        return new_client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=access_key_id,
            aws_secret_access_key="secret",
            config=Config(**settings),
        )


@contextmanager
def serve(application: Any) -> Iterator[int]:
    """An ASGI application on a loopback port, in a thread with its own uvloop; gives the port."""
    ready = threading.Event()
    state: dict[str, Any] = {}

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            state["port"] = self.servers[0].sockets[0].getsockname()[1]
            ready.set()

    def run() -> None:
        config = uvicorn.Config(application, host="127.0.0.1", port=0, lifespan="off", log_level="error", access_log=False)
        state["server"] = Announcing(config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(state["server"].serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield state["port"]
    finally:
        state["server"].should_exit = True
        thread.join(10)


@contextmanager
def running_door(*doors: object, plain_routes: Mapping[str, Any] | None = None) -> Iterator[RunningDoor]:
    """Serve these doors."""
    authenticator, authoriser = BelievingAuthenticator(), OpenAuthoriser()
    engine = AwsProtocol(authenticator=authenticator, authoriser=authoriser, ids=SeededIds(1), plain_routes=plain_routes)
    engine.add(*doors)
    with serve(engine) as port:
        yield RunningDoor(f"http://127.0.0.1:{port}", authenticator, authoriser)
