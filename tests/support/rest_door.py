"""Plain REST's operator door on a real port with its real proof, permissions and audit; a client that signs with botocore."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import urllib3
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import RandomIds
from overair.basics.redacted import Redacted
from overair.server.access.bearer_tokens import SealedTokens
from overair.server.access.model import NewKeys
from overair.server.audit.model import AuditRecord
from overair.server.audit.service import AuditedWork
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.keyring.wrapping import SecretBox
from overair.server.listeners.acceptor import open_socket
from overair.server.listeners.http import HttpService, PlainHttpListener
from overair.server.rest.door import RestDoor
from overair.server.rest.front import OperatorFront
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room
from tests.support.listening import EventLoopThread

FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class RestWorld:
    """The door's rooms, and where clients find it."""

    def __init__(self, work: SqlWork, place: Place, clock: SettableClock) -> None:
        self.work, self.place, self.clock = work, place, clock
        self.room: AccessRoom = build_access_room(work, place, clock, RandomIds())
        self.audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=RandomIds())
        self.root = work.run_blocking(lambda tx: self.room.identities.create_key(tx, place.account, ""))
        self.observed: list[tuple[str, str, int]] = []
        self.port = 0
        self._http = urllib3.PoolManager(retries=False, timeout=20.0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def observe(self, service: str, operation: str, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append((service, operation, status))

    def records(self) -> list[AuditRecord]:
        """Of the audit, newest first."""
        store = SqlAuditStore()
        return list(
            self.work.read_blocking(lambda tx: store.newest(tx, self.place.account, before=None, since=None, limit=100))
        )

    def ask(self, method: str, target: str, *, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request as it stands."""
        answer = self._http.request(method, self.url + target, body=body, headers=dict(headers or {}), redirect=False)
        return Reply(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data)

    def signed(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        keys: NewKeys | None = None,
        service: str = "overair",
        headers: Mapping[str, str] | None = None,
        in_query: bool = False,
        sent: bytes | None = None,
    ) -> Reply:
        """One request signed by botocore; ``sent``: what goes out in the place of the signed body."""
        keys = keys or self.root
        token = keys.token.reveal() if keys.token else None
        credentials = Credentials(keys.key_id, keys.secret.reveal(), token)
        request = AWSRequest(method=method, url=self.url + target, data=body or None, headers=dict(headers or {}))
        (SigV4QueryAuth if in_query else SigV4Auth)(credentials, service, self.place.region).add_auth(request)
        return self.ask(
            method,
            request.url.removeprefix(self.url),
            body=(body if sent is None else sent) or None,
            headers=dict(request.headers.items()),
        )

    def ask_token(self, form: Mapping[str, str] | str, **headers: str) -> Reply:
        text = form if isinstance(form, str) else urlencode(form)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/oauth2/token", body=text.encode(), headers={"content-type": FORM, **named})

    def token(self, keys: NewKeys | None = None) -> str:
        keys = keys or self.root
        form = {
            "grant_type": "client_credentials",
            "client_id": str(keys.key_id),
            "client_secret": keys.secret.reveal(),
        }
        return str(self.ask_token(form).json["access_token"])

    def bearing(self, method: str, target: str, *, token: str | None = None, body: Any = None, **headers: str) -> Reply:
        """One request with a bearer token, the root's unless another is named."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(method, target, body=body, headers={"authorization": f"Bearer {token or self.token()}", **named})

    def raw(self, data: bytes, *, then_close: bool = False) -> bytes:
        """What the server says to these bytes until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            if then_close:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def served(thread: EventLoopThread, world: RestWorld, *doors: object) -> Iterator[RestWorld]:
    """Serve these doors, behind the same front as in the whole server."""
    ids = RandomIds()
    rest = RestDoor(
        authenticator=world.room.authenticator,
        tokens=SealedTokens(
            world.work,
            world.room.credentials,
            SecretBox(Redacted(b"k" * 32), ids),
            clock=world.clock,
            region=world.place.region,
        ),
        authoriser=world.room.authoriser,
        ids=ids,
        observe=world.observe,
    )
    rest.add(*doors)
    aws = AwsProtocol(authenticator=world.room.authenticator, authoriser=world.room.authoriser, ids=ids)
    service = HttpService(OperatorFront(rest=rest, aws=aws))
    thread.call(service.start)
    listener = PlainHttpListener(open_socket("127.0.0.1", 0), service)
    thread.run(listener.start())
    world.port = listener.port
    try:
        yield world
    finally:
        thread.call(listener.stop_accepting)
        thread.run(service.drain(2.0))
