"""The whole server in this process, without a port: every room joined as in production, on a clock that a test sets.

Operators' plain REST and devices' paths are called as the listeners call them. Workers don't run by themselves: ``work_off``
lets each do what it has to do, so that a test's steps are its own. For state machines and for whatever needs time to pass.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import threading
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overair.basics.arn import Place
from overair.basics.clock import Instant, SettableClock, as_datetime
from overair.basics.ids import AccountId, SeededIds
from overair.server import first_start
from overair.server.composition import compose
from overair.server.config import load_settings
from overair.server.joined import Joined
from overair.server.metrics import Metrics
from overair.server.state_directory import StateDirectory
from overair.server.workers.loop import Worker
from overair.wire.sigv4_claim import Scope, SignableRequest, format_timestamp
from overair.wire.sigv4_signing import SigningCredentials, sign_header
from tests.support.aktualizr.curl import Call, Response, Sink, TlsCredentials
from tests.support.operator_rest import RestReply

DEVICE_URL = "https://device.overair.test:8443"
WORKER_STEPS_MAX = 1000
PATIENCE_S = 60.0

T = TypeVar("T")


class WholeServer:
    """Open once, ``close`` once. Everything is called from outside of its event loop, and blocks."""

    def __init__(self, data: Path, clock: SettableClock, *, made: first_start.Made | None = None, seed: int = 7) -> None:
        """``made``: what an earlier server said when it made what stands in ``data``."""
        self.clock = clock
        self.place = Place("us-east-1", AccountId("123456789012"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._closing = AsyncExitStack()
        self._data, self._seed = data, seed
        self.made = made
        self.joined: Joined = self.wait(self._start())
        self._token: str | None = None

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    async def _start(self) -> Joined:
        state = StateDirectory(self._data)
        state.open()
        self._closing.callback(state.close)
        metrics = Metrics()
        ids = SeededIds(self._seed)
        joined = compose(
            load_settings({"data": self._data}, environment={}),
            self.place,
            state,
            self._closing,
            clock=self.clock,
            ids=ids,
            schedule_clock=self.clock,
            after_step=lambda _step: None,
            role=None,
            observe=metrics.observe_request,
            observe_device=metrics.observe_device_request,
            plain_routes={},
            download_url=lambda: DEVICE_URL,
            operator_address=lambda: "operators.example.com:9443",
            show_identity=lambda _identity: None,
        )
        if self.made is None:
            made = self.made = await joined.work.run(lambda tx: first_start.seed(tx, joined.first, self.place))
            first_start.write_down(state, made, self.place)
        return joined

    def close(self) -> None:
        self.wait(self._closing.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def work_off(self) -> None:
        """Every worker until none of them has anything to do at this moment."""
        self.wait(self._work_off())

    async def _work_off(self) -> None:
        for _ in range(WORKER_STEPS_MAX):
            busy = [worker.name for worker in self.joined.workers._workers if await self._did_something(worker)]
            if not busy:
                return
        raise AssertionError(f"{busy} never come to rest")

    @staticmethod
    async def _did_something(worker: Worker) -> bool:
        """Let one worker go on until it has nothing to do."""
        for step in range(WORKER_STEPS_MAX):
            if not await worker.run_once():
                return step > 0
        raise AssertionError(f"{worker.name} never comes to rest")

    # Operators.

    def operator(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        json_body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> RestReply:
        """Plain REST with the root key's token."""
        told = {"authorization": f"Bearer {self.token}", **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            told.setdefault("content-type", "application/json")
        target = path + (f"?{urlencode(query)}" if query else "")
        return self.wait(self._ask(self.joined.rest_door, method, target, body or b"", told, {}))

    @property
    def token(self) -> str:
        """Anew whenever the old one's time is over."""
        assert self.made is not None
        form = urlencode(
            {
                "grant_type": "client_credentials",
                "client_id": self.made.root_key_id,
                "client_secret": self.made.root_secret.reveal(),
            }
        )
        headers = {"content-type": "application/x-www-form-urlencoded"}
        reply = self.wait(self._ask(self.joined.rest_door, "POST", "/oauth2/token", form.encode(), headers, {}))
        assert reply.status == 200, reply.body
        return str(reply.json["access_token"])

    def call(self, service: str, method: str, path: str, body: object) -> RestReply:
        """An operation of an AWS protocol, signed with the root key."""
        assert self.made is not None
        data = json.dumps(body).encode()
        timestamp = format_timestamp(as_datetime(self.clock.now()))
        headers = [(b"host", b"device.overair.test"), (b"content-type", b"application/json")]
        signed = sign_header(
            SignableRequest(method=method, path=path.encode(), query=b"", headers=headers),
            SigningCredentials(access_key_id=self.made.root_key_id, secret_access_key=self.made.root_secret.reveal()),
            scope=Scope(date=timestamp[:8], region=self.place.region, service=service),
            timestamp=timestamp,
            payload=hashlib.sha256(data).hexdigest(),
            normalise=True,
        )
        told = {name.decode(): value.decode() for name, value in [*headers[1:], *signed]}
        return self.wait(self._ask(self.joined.operator_door, method, path, data, told, {}))

    # Devices.

    def connect(self, credentials: TlsCredentials, calls: list[Call]) -> InProcessHttp:
        """What stands for libcurl in ``Aktualizr(connect=…)``."""
        return InProcessHttp(self, credentials, calls)

    def device(
        self, chain: tuple[bytes, ...], method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> RestReply:
        """One call of a device that has shown this chain in its handshake."""
        state = {"peer_der": chain[0], "peer_chain_der": chain}
        return self.wait(self._ask(self.joined.device_door, method, target, body, headers or {}, state))

    async def _ask(
        self, application: Any, method: str, target: str, body: bytes, headers: Mapping[str, str], state: dict[str, Any]
    ) -> RestReply:
        parts = urlsplit(target)
        raw_path = parts.path.encode("ascii")
        told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        told += [(b"host", b"device.overair.test"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "path": unquote(parts.path),
            "raw_path": raw_path,
            "query_string": parts.query.encode(),
            "headers": told,
            "client": ("192.0.2.7", 40000),
            "server": ("device.overair.test", 8443),
            "state": state,
        }
        pending = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if pending:
                return pending.pop(0)
            await asyncio.Event().wait()  # the client stays until it is answered
            raise AssertionError("nobody sets it")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await application(scope, receive, send)
        start = sent[0]
        content = b"".join(message.get("body", b"") for message in sent[1:])
        names = {bytes(name).decode().lower(): bytes(value).decode() for name, value in start.get("headers", [])}
        return RestReply(start["status"], content, names)


class InProcessHttp:
    """``Curl`` for a device of a server in this process: same calls, no sockets, no retries."""

    def __init__(self, server: WholeServer, credentials: TlsCredentials, calls: list[Call]) -> None:
        self._server, self.calls = server, calls
        certificates = x509.load_pem_x509_certificates(credentials.certificate_chain.encode())
        self._chain = tuple(each.public_bytes(Encoding.DER) for each in certificates)

    def get(self, url: str, *, size_bytes_max: int) -> Response:
        response = self._ask("GET", url, b"", {})
        if len(response.body) > size_bytes_max:
            return Response(error="Maximum file size exceeded")
        return response

    def put(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response:
        return self._ask("PUT", url, body, {"content-type": content_type})

    def post(self, url: str, body: bytes, *, content_type: str = "application/json") -> Response:
        return self._ask("POST", url, body, {"content-type": content_type})

    def download(self, url: str, sink: Sink, *, from_byte: int = 0) -> Response:
        response = self._ask("GET", url, b"", {"range": f"bytes={from_byte}-"} if from_byte else {})
        return response if sink(response.body) else Response(error="write refused")

    def _ask(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Response:
        target = url.removeprefix(DEVICE_URL)
        reply = self._server.device(self._chain, method, target, body, headers)
        self.calls.append(Call(method, target, reply.status, body))
        return Response(reply.status, reply.body, reply.headers)


class Template:
    """One server that was started and stopped; copies of it are quick to open."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "template"
        server = WholeServer(self._data, settable_clock())
        self._made = server.made
        server.close()

    def open(self, data: Path) -> WholeServer:
        shutil.copytree(self._data, data)
        # Ids that the template has given away must not come again.
        return WholeServer(data, settable_clock(), made=self._made, seed=8)


def settable_clock() -> SettableClock:
    """The moment at which state machines begin; the same each time."""
    return SettableClock(Instant(1_767_225_600_000))
