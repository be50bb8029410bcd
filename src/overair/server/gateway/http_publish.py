"""Publishing over HTTPS with a client certificate: ``POST /topics/{topic}?qos=0`` on the device port (wire reference §8.3)."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
import structlog

from overair.basics.errors import InvalidRequest, LimitExceeded, OverairError
from overair.basics.ids import CertificateId, ClientId, IdSource
from overair.server.gateway.authority import DeviceIdentity, Refusal, RefusalCode
from overair.server.gateway.denials import HTTPS, tell_not_admitted
from overair.server.gateway.handlers import Connection, Replies
from overair.server.gateway.http_properties import read_properties_said
from overair.server.gateway.model import DisconnectReason, Message
from overair.server.gateway.rights import Refused, Rights
from overair.server.gateway.service import Gateway
from overair.wire.mqtt.packets import Publish
from overair.wire.mqtt.session import Mode, ServerSession, SessionLimits
from overair.wire.topics import is_valid_topic

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREFIX: Final = b"/topics/"
_SAID_IN_HEADERS: Final = {
    b"x-amz-mqtt5-user-properties": "userProperties",
    b"x-amz-mqtt5-payload-format-indicator": "payloadFormatIndicator",
    b"x-amz-mqtt5-correlation-data": "correlationData",
}
STALL_TIMEOUT_S: Final = 60.0
"""How long a device may send nothing in the middle of a body."""

_NOBODY: Final = Refusal(reason="there is no client certificate", code=RefusalCode.CERTIFICATE_REQUIRED)

logger = structlog.get_logger("overair.gateway")


class _Answer(Exception):
    """Ends a request with a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class _Visitor(Connection):
    """Who asks over HTTPS, as a topic handler sees it: a certificate without a client id."""

    def __init__(self, identity: DeviceIdentity, source_ip: str) -> None:
        self.source_ip = source_ip
        self.place = identity.place
        self.client_id = ClientId("")
        self.certificate_id: CertificateId = identity.certificate_id

    @property
    def account(self) -> Any:
        return self.place.account


class HttpPublish:
    """An ASGI application for paths below ``/topics/``. Replies of reserved topics have nobody to go to and are left out."""

    def __init__(self, *, gateway: Gateway, ids: IdSource) -> None:
        self._gateway = gateway
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = self._ids.uuid()
        try:
            await self._publish(scope, receive)
            status, message = 200, "OK"
        except _Answer as answer:
            status, message = answer.status, answer.message
        body = msgspec.json.encode({"message": message, "traceId": trace})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _publish(self, scope: Scope, receive: Receive) -> None:
        if scope["method"] != "POST":
            raise _Answer(405, "Publish with POST /topics/{topic}?qos=0 or 1.")
        topic, qos, retain, said = _what(scope)
        identity = await self._identity(scope, topic)
        limits = self._gateway.limits_for(identity.place.account)
        payload = await _body(scope, receive, limits.payload_size_bytes_max)
        nothing: ServerSession[int | None] = ServerSession(mode=Mode.AWS, limits=SessionLimits())

        def denied(action: str, kind: str, name: str) -> None:
            self._not_admitted(identity, action, kind, name, scope)

        rights = Rights(policy=identity.policy, limits=limits, topics=self._gateway.topics, session=nothing, denied=denied)
        try:
            route = rights.judge_publish(Publish(topic=topic, payload=payload, qos=qos, retain=retain, packet_id=qos))
        except Refused as refusal:
            logger.info("publish refused", certificate=identity.certificate_id, why=str(refusal))
            if refusal.reason is DisconnectReason.CLIENT_ERROR:
                raise _Answer(400, f"The publish was refused: {refusal}.") from None
            raise _Answer(403, "Forbidden") from None
        try:
            if route.handler is not None:
                visitor = _Visitor(identity, (scope.get("client") or ("",))[0])
                answer: Awaitable[Replies] | Replies = route.handler(visitor, route.parameters, payload)
                if not isinstance(answer, (list, tuple)):
                    await answer  # type: ignore[misc]
                return
            properties, expires = read_properties_said(said, self._gateway.clock.now())
            message = Message(topic=topic, payload=payload, qos=qos, retain=retain, properties=properties, expires=expires)
            pending = self._gateway.broker.publish(identity.place.account, message)
            if pending is not None:
                await pending
        except InvalidRequest as error:
            raise _Answer(400, error.message) from None
        except LimitExceeded as error:
            raise _Answer(429, error.message) from None
        except OverairError as error:
            logger.warning("a publish over HTTPS could not be served", topic=topic, error=str(error))
            raise _Answer(503, "The message could not be stored now. Send it again.") from None

    def _not_admitted(self, verdict: DeviceIdentity | Refusal, operation: str, kind: str, name: str, scope: Scope) -> None:
        tell_not_admitted(
            self._gateway.denials,
            verdict,
            service=HTTPS,
            operation=operation,
            kind=kind,
            name=name,
            source_ip=(scope.get("client") or ("",))[0],
        )

    async def _identity(self, scope: Scope, topic: str) -> DeviceIdentity:
        state = scope.get("state") or {}
        peer_der = state.get("peer_der")
        if not peer_der:
            self._not_admitted(_NOBODY, "Publish", "topic", topic, scope)
            raise _Answer(403, "A client certificate is needed.")
        client = scope.get("client")
        try:
            verdict = await self._gateway.authority.admit(
                bytes(peer_der),
                None,
                None,
                client[0] if client else "",
                domain_name=state.get("server_name") or "",
            )
        except OverairError as error:
            logger.warning("no verdict about a certificate could be reached", error=str(error))
            raise _Answer(503, "The certificate could not be judged now. Send it again.") from None
        if isinstance(verdict, Refusal):
            logger.info("publish refused", certificate=verdict.certificate_id, why=verdict.reason)
            self._not_admitted(verdict, "Publish", "topic", topic, scope)
            raise _Answer(403, "Forbidden")
        return verdict


def _what(scope: Scope) -> tuple[str, int, bool, dict[str, Any]]:
    """(topic, QoS, retain, what MQTT 5 says beside the payload) of a request."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    path = path.partition(b"?")[0]
    if not path.startswith(PREFIX):
        raise _Answer(404, "Publish with POST /topics/{topic}?qos=0 or 1.")
    try:
        topic = unquote_to_bytes(path[len(PREFIX) :]).decode()
    except UnicodeDecodeError:
        raise _Answer(400, "The topic is not UTF-8.") from None
    if not is_valid_topic(topic):
        raise _Answer(400, "A topic has no wildcards (+, #) and no control characters, and is not empty.")
    try:
        query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise _Answer(400, "The query has more parameters than a publish knows: qos and retain.") from None
    if query.get("qos", "0") not in {"0", "1"} or query.get("retain", "false") not in {"true", "false"}:
        raise _Answer(400, "qos is 0 or 1, retain is true or false.")
    return topic, int(query.get("qos", "0")), query.get("retain") == "true", _said(scope, query)


def _said(scope: Scope, query: dict[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {name: query[name] for name in ("contentType", "responseTopic") if name in query}
    if "messageExpiry" in query:
        if not query["messageExpiry"].isdecimal() or len(query["messageExpiry"]) > 10:
            raise _Answer(400, "messageExpiry is a number of seconds.")
        said["messageExpiry"] = int(query["messageExpiry"])
    for name, value in scope["headers"]:
        member = _SAID_IN_HEADERS.get(name)
        if member is not None:
            said[member] = value.decode("latin-1")
    if "userProperties" in said:
        try:
            said["userProperties"] = b64decode(said["userProperties"], validate=True).decode()
        except ValueError:
            raise _Answer(400, "x-amz-mqtt5-user-properties is JSON in Base64.") from None
    return said


async def _body(scope: Scope, receive: Receive, size_bytes_max: int) -> bytes:
    """The whole body, refused by its declared length before it is read where one is declared."""
    too_large = _Answer(413, f"A message holds at most {size_bytes_max} bytes.")
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value) > size_bytes_max):
            raise too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(STALL_TIMEOUT_S):
                event = await receive()
        except TimeoutError:
            raise _Answer(408, f"The body stopped: nothing came for {STALL_TIMEOUT_S:g} s. Send the message again.") from None
        if event["type"] == "http.disconnect":
            raise _Answer(400, "The request ended before its body.")
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > size_bytes_max:
            raise too_large
        chunks.append(chunk)
        if not event.get("more_body"):
            return b"".join(chunks)
