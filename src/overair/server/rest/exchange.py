"""One request and its answer, as both doors of plain REST have them: reading what it says of itself, refusing, answering."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec
import structlog

from overair.basics.errors import InvalidRequest, NotFound, OverairError
from overair.server.aws_protocol.asgi import Scope, Send, header_fields, leaves_too_much, raw_path_of
from overair.server.aws_protocol.authentication import Authentication
from overair.server.aws_protocol.body import ClientGone, Receive, StreamedBody, Unproved, content_length, read_whole
from overair.server.aws_protocol.http_binding import header_bytes, parse_query
from overair.server.aws_protocol.operations import Caller
from overair.server.aws_protocol.rules import Invalid
from overair.server.error_codes import HTTP_STATUSES, INTERNAL_FAILURE, code_for
from overair.server.rest.operations import RestAnswer, RestRequest
from overair.server.rest.templates import BadPath, PathTooLong, Target, Templates

MESSAGE_LENGTH_MAX: Final = 2048
_JSON: Final = "application/json"
_BODILESS: Final = frozenset({204, 304})
_SIGNATURE_PARAMETER: Final = "x-amz-"

Plane = Literal["rest", "device"]

logger = structlog.get_logger("overair.rest")


class MethodNotAllowed(InvalidRequest):
    """The path means something, for other methods."""

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(
            f"{method[:20]} means nothing at this path; it knows {', '.join(allowed)}.",
            subject="method",
            details={"allow": allowed},
        )
        self.allowed = allowed


class Exchange:
    """What is known of a request, step by step. ``run`` ends it with one answer, whatever happens."""

    __slots__ = (
        "_body_is_begun",
        "_body_is_read",
        "_receive",
        "_send",
        "caller",
        "error",
        "headers",
        "method",
        "name",
        "plane",
        "raw_path",
        "request_id",
        "scope",
        "source_ip",
    )

    def __init__(self, plane: Plane, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.plane: Plane = plane
        self.scope = scope
        self.method: str = scope["method"]
        self.raw_path = raw_path_of(scope)
        self.headers: dict[str, str] = header_fields(scope["headers"])
        self.request_id = request_id
        client = scope.get("client")
        self.source_ip: str = client[0] if client else ""
        self.name = "-"
        """Of the operation, once it is known; for metrics and logs."""
        self.caller: Caller | None = None
        """Who sent it, once that is proved."""
        self.error: Exception | None = None
        """Why it was refused."""
        self._receive = receive
        self._send = send
        self._body_is_begun = False
        self._body_is_read = False

    async def run(self, handle: Callable[[], Awaitable[RestAnswer]]) -> int | None:
        """Answer with what ``handle`` gives, or with why it doesn't; the status, None where the client has gone."""
        try:
            answer = await handle()
        except ClientGone:
            return None
        except Exception as error:
            self.error = error
            answer = self.refusal(error)
        await self._answer(answer)
        return answer.status

    # Asking ---------------------------------------------------------------------------------------------------------------

    def find(self, templates: Templates[Target]) -> tuple[Target, dict[str, str]] | None:
        """What the request's method and path mean; a GET answers HEAD. None where they mean nothing: ``unknown`` says why."""
        try:
            found = templates.match(self.method, self.raw_path)
            if found is None and self.method == "HEAD":
                found = templates.match("GET", self.raw_path)
        except BadPath:
            return None
        return found

    def unknown(self, templates: Templates[Target]) -> OverairError:
        """Why there is no such route."""
        try:
            allowed = templates.methods(self.raw_path)
        except BadPath as error:
            return InvalidRequest(str(error), subject="path-too-long" if isinstance(error, PathTooLong) else "path")
        if not allowed:
            return NotFound(f"There is nothing at {self.raw_path[:200].decode('latin-1')}.", subject="path")
        if "GET" in allowed and "HEAD" not in allowed:
            allowed = sorted([*allowed, "HEAD"])
        return MethodNotAllowed(self.method, allowed)

    def request(self, labels: Mapping[str, str]) -> RestRequest:
        """The request without its body.

        Raises:
            InvalidRequest: the query can't be read, or says one name twice; subject ``query``.
        """
        query_string: bytes = self.scope["query_string"]
        return RestRequest(
            method=self.method,
            path=unquote_to_bytes(self.raw_path).decode("utf-8", "replace"),
            labels=labels,
            query=_query(query_string) if query_string else {},
            headers=self.headers,
            origin=f"{self.scope.get('scheme', 'https')}://{self.headers.get('host', '')}",
        )

    async def whole_body(self, size_bytes_max: int, unproved: Unproved | None = None) -> bytes:
        """See ``aws_protocol.body.read_whole``."""
        return await read_whole(self._next_message, self.headers, size_bytes_max=size_bytes_max, unproved=unproved)

    @property
    def has_body(self) -> bool:
        """Whether the request says that a body follows."""
        return "transfer-encoding" in self.headers or content_length(self.headers) not in (None, 0)

    def streamed_body(self, authentication: Authentication, size_bytes_max: int) -> StreamedBody:
        """The body as it comes.

        Raises:
            InvalidRequest: it says itself that it is larger; subject ``too-large``.
        """
        return StreamedBody(self._next_message, self.headers, authentication, size_bytes_max=size_bytes_max)

    async def _next_message(self) -> MutableMapping[str, Any]:
        self._body_is_begun = True
        message = await self._receive()
        self._body_is_read = not message.get("more_body", False)
        return message

    # Answering ------------------------------------------------------------------------------------------------------------

    def refusal(self, error: Exception) -> RestAnswer:
        """What a failure is told as (Uptane reference §3.1): a code, words, where and what to do; nothing of our own faults."""
        code = code_for(self.plane, error)
        headers: dict[str, str] = {}
        told: dict[str, object] = {"code": code}
        if isinstance(error, OverairError) and code != INTERNAL_FAILURE[self.plane]:
            details = dict(error.details)
            told["description"] = error.message[:MESSAGE_LENGTH_MAX]
            named: dict[str, object] = {name: details.pop(name) for name in ("field", "hint", "errors") if name in details}
            if "ActualObjectSize" in details:
                headers["content-range"] = f"bytes */{details['ActualObjectSize']}"
            told |= {"cause": details or None, "errorId": self.request_id, **named}
            if isinstance(error, MethodNotAllowed):
                headers["allow"] = ", ".join(error.allowed)
        else:
            logger.error("request failed", request_id=self.request_id, plane=self.plane, operation=self.name, exc_info=error)
            told |= {
                "description": f"The server failed to do this. Its log tells more under {self.request_id}.",
                "cause": None,
                "errorId": self.request_id,
            }
        status = HTTP_STATUSES.get(code, 400)
        if status == 401 and self.plane == "rest":
            challenge = 'Bearer realm="overair", error="invalid_token"' if code == "invalid_token" else 'Bearer realm="overair"'
            headers["www-authenticate"] = challenge
        return RestAnswer(status=status, json=told, headers=headers)

    async def _answer(self, answer: RestAnswer) -> None:
        is_head = self.method == "HEAD"
        stream = answer.stream
        headers: list[tuple[bytes, bytes]] = [(b"x-request-id", self.request_id.encode("ascii"))]
        body = b""
        if stream is None:
            body = answer.body if answer.body is not None else b"" if answer.json is None else encode(answer.json)
            length_bytes: int | None = answer.length_bytes if is_head and answer.length_bytes is not None else len(body)
        else:
            length_bytes = answer.length_bytes
        if answer.status not in _BODILESS:
            if answer.content_type is not None or body or stream is not None:
                headers.append((b"content-type", header_bytes(answer.content_type or _JSON)))
            if length_bytes is not None:
                headers.append((b"content-length", b"%d" % length_bytes))
        headers.extend((header_bytes(name.lower()), header_bytes(value)) for name, value in answer.headers.items())
        if self._body_stays_behind():
            headers.append((b"connection", b"close"))
        try:
            await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if stream is not None and not is_head:
                await self._send_stream(stream)
            else:
                await self._send({"type": "http.response.body", "body": b"" if is_head or answer.status in _BODILESS else body})
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    async def _send_stream(self, stream: AsyncIterator[bytes]) -> None:
        # Whoever is gone needs no more of it.
        gone = asyncio.create_task(_until_gone(self._receive))
        try:
            async for piece in stream:
                # Neither a stream nor sending to nobody has to wait for anything: without a turn of its own nobody would hear
                # that the peer is gone, nor anything else on this loop.
                await asyncio.sleep(0)
                if gone.done():
                    return
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await self._send({"type": "http.response.body", "body": b""})
        except Exception:
            # The status is out already: closing the connection short of its length is all that can still tell the client.
            logger.exception("answer broken off", request_id=self.request_id, plane=self.plane, operation=self.name)
            raise
        finally:
            gone.cancel()

    def _body_stays_behind(self) -> bool:
        """Whether the connection can't go on after this answer."""
        if self._body_is_read or not self.has_body:
            return False
        # Who waits to be told to go on may send the body after a refusal, or may not: nobody could tell what follows.
        return ("expect" in self.headers and not self._body_is_begun) or leaves_too_much(self.headers)


def encode(value: object) -> bytes:
    """JSON as it is sent."""
    return msgspec.json.encode(value, enc_hook=str)


def members_of(request: RestRequest) -> dict[str, str]:
    """What a request is authorised by: its labels, and the query's parameters that don't pose as one."""
    return {**request.query, **request.labels}


def _query(query_string: bytes) -> dict[str, str]:
    try:
        parsed = parse_query(query_string)
    except Invalid as error:
        raise InvalidRequest(f"{error.reason}.", subject="query", details={"field": "query"}) from None
    query: dict[str, str] = {}
    for name, values in parsed.items():
        if name[: len(_SIGNATURE_PARAMETER)].lower() == _SIGNATURE_PARAMETER:
            continue
        if len(values) > 1:
            raise InvalidRequest(
                f"The query names {name[:100]!r} {len(values)} times. Name it once; lists are separated by commas.",
                subject="query",
                details={"field": name[:100]},
            )
        if "\0" in values[0] or "\0" in name:
            raise InvalidRequest("A parameter of the query holds a NUL character.", subject="query", details={"field": "query"})
        query[name] = values[0]
    return query


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
