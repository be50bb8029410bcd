"""The operator's door as an ASGI application: prove, route, read, authorise, do, write.

The service is told from the signature's scope (wire reference §10.1), so equal paths of two services never meet. Nobody who
isn't proved is told anything about a request, apart from how to prove oneself. What a handler raises becomes the code that its
plane has for it; anything unforeseen becomes an internal failure that says only under which request id the log has the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, cast

import structlog

from overair.basics.errors import AccessDenied, InvalidRequest, NotAuthenticated, OverairError, Unsupported
from overair.basics.ids import IdSource
from overair.server.aws_protocol.asgi import (
    AsgiApplication,
    Observe,
    Scope,
    Send,
    claimed_service,
    header_fields,
    leaves_too_much,
    raw_path_of,
)
from overair.server.aws_protocol.authentication import (
    Authentication,
    Authenticator,
    Authoriser,
    CurrentOperation,
    HttpRequest,
    Witness,
    current_operation,
)
from overair.server.aws_protocol.body import (
    ClientGone,
    Receive,
    StreamedBody,
    Unproved,
    read_streamed,
    read_whole,
)
from overair.server.aws_protocol.errors import error_answer, request_id_headers
from overair.server.aws_protocol.http_binding import Incoming, Outgoing, header_bytes, parse_query
from overair.server.aws_protocol.models import SERVICES, OperationModel
from overair.server.aws_protocol.operations import Answer, Caller, operations_of
from overair.server.aws_protocol.query import Query
from overair.server.aws_protocol.router import Labels
from overair.server.aws_protocol.rules import Invalid
from overair.server.aws_protocol.service import BoundOperation, Service
from overair.server.error_codes import INTERNAL_FAILURE, Plane, as_named_by, code_for

logger = structlog.get_logger("overair.aws_protocol")


class AwsProtocol:
    """The engine. Rooms' doors are registered with ``add``; then it is an ASGI application."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        authoriser: Authoriser,
        ids: IdSource,
        plain_routes: Mapping[str, AsgiApplication] | None = None,
        observe: Observe | None = None,
        witness: Witness | None = None,
        services: Iterable[str] = SERVICES,
    ) -> None:
        """``plain_routes``: by exact path (``/healthz``), served to whoever sends no signature."""
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._ids = ids
        self._plain_routes = dict(plain_routes or {})
        self._observe = observe
        self._witness = witness
        self._unproved = Unproved()
        self.services: dict[str, Service] = {name: Service(name) for name in services}
        self._by_signing_name = {service.model.signing_name: service for service in self.services.values()}

    def add(self, *doors: object) -> None:
        """Bind every marked operation of these doors.

        Raises:
            RuntimeError: a mark names an unknown service or operation, or one that is taken.
        """
        for door in doors:
            for service, operation, handler in operations_of(door):
                if service not in self.services:
                    raise RuntimeError(f"{type(door).__name__} marks an operation of the unknown service {service!r}.")
                self.services[service].bind(operation, handler)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("The operator's door serves HTTP only.")
        headers = header_fields(scope["headers"])
        query_string: bytes = scope["query_string"]
        service = self._service(headers, query_string)
        if service is None:
            plain = self._plain_routes.get(scope["path"])
            if plain is not None:
                await plain(scope, receive, send)
                return
        exchange = _Exchange(self, scope, receive, send, headers, service)
        await exchange.run()

    def _service(self, headers: Mapping[str, str], query_string: bytes) -> Service | None:
        """What the request says it was signed for; not believed until it is authenticated."""
        claimed = claimed_service(headers.get("authorization"), query_string)
        return None if claimed is None else self._by_signing_name.get(claimed)

    def guessed_service(self, scope: Scope, headers: Mapping[str, str]) -> Service:
        """Whose language an unsigned request is refused in."""
        if "x-amz-target" in headers and "acm" in self.services:
            return self.services["acm"]
        if headers.get("content-type", "").startswith("application/x-www-form-urlencoded") and "sts" in self.services:
            return self.services["sts"]
        for service in self.services.values():
            if service.model.protocol == "rest-json":
                try:
                    service.find(scope["method"], raw_path_of(scope), {}, headers)
                except InvalidRequest:
                    continue
                return service
        return self.services.get("s3") or next(iter(self.services.values()))


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        engine: AwsProtocol,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[str, str],
        service: Service | None,
    ) -> None:
        self.engine = engine
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers = headers
        self.signed_service = service
        self.service = service or engine.guessed_service(scope, headers)
        self.request_id: str = engine._ids.uuid()
        self.operation: OperationModel | None = None
        self.caller: Caller | None = None
        self.body: StreamedBody | None = None
        self.body_is_read = False
        self.started = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        stream = None
        try:
            outgoing, stream = await self._answer()
        except ClientGone:
            return
        except Invalid as invalid:
            outgoing = self._refusal(InvalidRequest(invalid.describe(), subject="validation"))
        except Exception as error:
            if isinstance(error, (AccessDenied, NotAuthenticated)):
                self._tell_denied()
            outgoing = self._refusal(error)
        try:
            await self._send(outgoing, stream)
        finally:
            if self.engine._observe is not None:
                name = self.operation.name if self.operation else "-"
                self.engine._observe(self.service.name, name, outgoing.status_code, loop.time() - begun_s)

    # Asking ----------------------------------------------------------------------------------------------------------

    async def _answer(self) -> tuple[Outgoing, Any]:
        scope, service = self.scope, self.service
        raw_path = raw_path_of(scope)
        authentication, whole = await self._authenticate(raw_path)
        self.caller = authentication.caller
        query = parse_query(scope["query_string"])
        if service.is_query and whole:
            for name, values in parse_query(whole).items():
                query.setdefault(name, []).extend(values)
        operation, labels = service.find(scope["method"], raw_path, query, self.headers)
        self.operation = operation
        bound = service.bound.get(operation.name)
        if bound is None:
            raise Unsupported(
                f"Overair doesn't have the operation {operation.name} of {service.name}. "
                "It is a real one of the cloud's; nothing was done."
            )
        incoming = Incoming(labels=labels, query=query, headers=self.headers)
        request = bound.read(incoming, await self._payload(operation, authentication, whole))
        return await self._perform(bound, authentication, request)

    async def _authenticate(self, raw_path: bytes) -> tuple[Authentication, bytes]:
        """Prove the sender. Bodies of all services but the object store are read whole for it; they are small."""
        service = self.service
        whole = b""
        is_s3 = service.model.protocol == "rest-xml"
        if self.signed_service is not None and not is_s3:
            whole = await read_whole(
                self.receive, self.headers, size_bytes_max=service.body_size_bytes_max, unproved=self.engine._unproved
            )
            self.body_is_read = True
        client = self.scope.get("client")
        authentication = await self.engine._authenticator.authenticate(
            HttpRequest(
                method=self.scope["method"],
                raw_path=raw_path,
                query_string=self.scope["query_string"],
                headers=self.scope["headers"],
                body_sha256=None if is_s3 else sha256(whole).hexdigest(),
                source_ip=client[0] if client else "",
                secure=self.scope.get("scheme") == "https",
                request_id=self.request_id,
            )
        )
        if authentication.service != service.model.signing_name or self.signed_service is None:
            known = ", ".join(sorted(self.engine._by_signing_name))
            raise NotAuthenticated(
                f"Credential should be scoped to a service that is served here: {known}.", subject="signature"
            )
        return authentication, whole

    async def _payload(self, operation: OperationModel, authentication: Authentication, whole: bytes) -> Any:
        if self.service.model.protocol != "rest-xml":
            return whole
        body = self.body = StreamedBody(self.receive, self.headers, authentication)
        if self.service.streams_input(operation):
            if body.length_bytes is None:
                raise InvalidRequest("You must provide the Content-Length HTTP header.", subject="content-length")
            return body
        return await read_streamed(body, size_bytes_max=self.service.body_size_bytes_max)

    async def _perform(
        self, bound: BoundOperation, authentication: Authentication, request: Mapping[str, Any]
    ) -> tuple[Outgoing, Any]:
        service, caller = self.service, authentication.caller
        resource = await self.engine._authoriser.authorise(caller, service.name, bound.model.name, request)
        current = CurrentOperation(caller=caller, service=service.name, operation=bound.model.name, resource=resource)
        current_operation.set(current)
        try:
            answer = await bound.handler(caller, request)
        finally:
            current_operation.set(None)
        if self.engine._witness is not None:
            self.engine._witness.read(current)
        outgoing = Outgoing(bound.model.status_code)
        if isinstance(answer, Answer):
            bound.write(answer.members, outgoing)
            if answer.status_code is not None:
                outgoing.status_code = answer.status_code
            outgoing.headers.extend((header_bytes(name.lower()), header_bytes(value)) for name, value in answer.headers.items())
        else:
            bound.write(answer or {}, outgoing)
        if service.is_query:
            Query.finish(bound.model, outgoing, self.request_id)
        return outgoing, answer.stream if isinstance(answer, Answer) else None

    def _tell_denied(self) -> None:
        if self.engine._witness is not None:
            client = self.scope.get("client")
            self.engine._witness.denied(
                self.caller,
                service=self.service.name,
                operation="-" if self.operation is None else self.operation.name,
                path=raw_path_of(self.scope),
                request_id=self.request_id,
                source_ip=client[0] if client else "",
            )

    # Answering -------------------------------------------------------------------------------------------------------

    def _refusal(self, error: Exception) -> Outgoing:
        plane = cast("Plane", self.service.name)
        code = code_for(plane, error)
        if isinstance(error, OverairError) and code != INTERNAL_FAILURE[plane]:
            message, details = error.message, error.details
        else:
            message, details = f"The server failed to do this. Its log tells more under the request id {self.request_id}.", {}
            logger.error(
                "operation failed",
                request_id=self.request_id,
                service=self.service.name,
                operation=self.operation.name if self.operation else None,
                exc_info=error,
            )
        if self.operation is not None:
            code = as_named_by(self.operation.errors, code)
        return error_answer(
            self.service.model,
            code=code,
            message=message,
            details=details,
            request_id=self.request_id,
            head=self.scope["method"] == "HEAD",
        )

    async def _send(self, outgoing: Outgoing, stream: Any) -> None:
        headers = outgoing.headers
        headers += request_id_headers(self.service.model, self.request_id)
        is_head = self.scope["method"] == "HEAD"
        if outgoing.status_code not in (204, 304) and not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"content-length", str(len(outgoing.body)).encode("ascii")))
        if self._leaves_too_much():
            headers.append((b"connection", b"close"))
        await self.send({"type": "http.response.start", "status": outgoing.status_code, "headers": headers})
        if stream is None or is_head:
            await self.send({"type": "http.response.body", "body": b"" if is_head else outgoing.body})
            return
        try:
            async for piece in stream:
                await self.send({"type": "http.response.body", "body": piece, "more_body": True})
        except Exception:
            # The status is out already: closing the connection short of its length is all that can still tell the client.
            logger.exception("answer broken off", request_id=self.request_id, service=self.service.name)
            raise
        await self.send({"type": "http.response.body", "body": b""})

    def _leaves_too_much(self) -> bool:
        """Whether the request's body is unread and too large, or of unknown size, to be swallowed; or may never come: who waits
        to be told to go on may send it after a refusal or may not, and nobody could tell what follows."""
        if self.body_is_read or (self.body is not None and self.body.consumed):
            return False
        return "expect" in self.headers or leaves_too_much(self.headers)


__all__ = ["AsgiApplication", "AwsProtocol", "Labels", "Observe", "Receive", "Scope", "Send"]
