"""The operators' door of plain REST as an ASGI application: prove, route, authorise, read, do, answer.

The same order of trust as for AWS operations (``aws_protocol.dispatcher``): nobody who isn't proved is told anything about a
request, apart from how to prove oneself. A request is proved by a signature scoped to ``overair``, in header or query, or by a
bearer token from ``/oauth2/token``; both stand for the same principals under the same policies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from overair.basics.errors import AccessDenied, NotAuthenticated
from overair.basics.ids import IdSource
from overair.server.aws_protocol.asgi import Observe, Scope, Send, claimed_service
from overair.server.aws_protocol.authentication import (
    Authentication,
    Authenticator,
    Authoriser,
    CurrentOperation,
    HttpRequest,
    Witness,
    current_operation,
)
from overair.server.aws_protocol.body import EMPTY_SHA256, Receive, Unproved
from overair.server.aws_protocol.http_binding import parse_query
from overair.server.aws_protocol.rules import Invalid
from overair.server.rest.exchange import Exchange, members_of
from overair.server.rest.oauth import TOKEN_PATH, BearerTokens, TokenEndpoint
from overair.server.rest.operations import BODY_SIZE_BYTES_MAX, Handler, RestAnswer, Route, routes_of
from overair.server.rest.templates import Templates
from overair.server.rest.tickets import TICKET_PARAMETER, Tickets, link_of

SERVICE: Final = "overair"
"""In signatures' scopes, in the table of actions, in the audit."""
_UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True)
class _Bound:
    route: Route
    handler: Handler


class RestDoor:
    """The engine. Rooms' doors are registered with ``add``; then it is an ASGI application."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        tokens: BearerTokens,
        authoriser: Authoriser,
        ids: IdSource,
        tickets: Tickets | None = None,
        observe: Observe | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._tokens = tokens
        self._tickets = tickets
        self._authoriser = authoriser
        self._ids = ids
        self._observe = observe
        self._witness = witness
        self._unproved = Unproved()
        self._templates: Templates[_Bound] = Templates()
        self._token_endpoint = TokenEndpoint(tokens)

    def add(self, *doors: object) -> None:
        """Register every marked route of these doors.

        Raises:
            RuntimeError: a template is none, or two routes stand for the same requests.
        """
        for door in doors:
            for route, handler in routes_of(door):
                self._templates.add(route.method, route.template, _Bound(route, handler))

    @property
    def bound(self) -> Iterable[tuple[Route, Handler]]:
        """Every route with its meaning."""
        return [(bound.route, bound.handler) for bound in self._templates]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("The operator's door serves HTTP only.")
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        exchange = Exchange("rest", scope, receive, send, self._ids.uuid())
        if exchange.raw_path == TOKEN_PATH:
            exchange.name = "IssueToken"
            status = await exchange.run(lambda: self._token_endpoint.answer(exchange))
        else:
            status = await exchange.run(lambda: self._perform(exchange))
        if self._witness is not None and isinstance(exchange.error, (AccessDenied, NotAuthenticated)):
            self._witness.denied(
                exchange.caller,
                service=SERVICE,
                operation=exchange.name,
                path=exchange.raw_path,
                request_id=exchange.request_id,
                source_ip=exchange.source_ip,
            )
        if self._observe is not None and status is not None:
            self._observe("rest", exchange.name, status, loop.time() - begun_s)

    async def _perform(self, exchange: Exchange) -> RestAnswer:
        found = exchange.find(self._templates)
        # What the path means decides how much of a body is read for its signature; the sender hears of it once proved.
        authentication, whole = await self._authenticate(exchange, found[0].route if found else None)
        if found is None:
            raise exchange.unknown(self._templates)
        bound, labels = found
        route, caller = bound.route, authentication.caller
        exchange.caller = caller
        exchange.name = route.operation
        request = exchange.request(labels)
        resource = await self._authoriser.authorise(caller, SERVICE, route.operation, members_of(request))
        if route.streams:
            request = replace(request, stream=exchange.streamed_body(authentication, route.body_size_bytes_max))
        else:
            body = await exchange.whole_body(route.body_size_bytes_max) if whole is None else whole
            request = replace(request, body=body)
        current = CurrentOperation(caller=caller, service=SERVICE, operation=route.operation, resource=resource)
        current_operation.set(current)
        try:
            answer = await bound.handler(caller, request)
        finally:
            current_operation.set(None)
        if self._witness is not None:
            self._witness.read(current)
        return answer

    async def _authenticate(self, exchange: Exchange, route: Route | None) -> tuple[Authentication, bytes | None]:
        """Who sent it, and the body where it had to be read for that."""
        authorization = exchange.headers.get("authorization")
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() == "bearer":
            caller = await self._tokens.authenticate(token.strip(), _http_request(exchange, None))
            return Authentication(caller=caller, service=SERVICE, payload=_UNSIGNED_PAYLOAD), None
        ticket = _ticket(exchange) if self._tickets is not None and route is not None and route.takes_ticket else None
        if self._tickets is not None and ticket is not None and authorization is None:
            link = link_of(exchange.method, exchange.raw_path)
            caller = await self._tickets.redeem(ticket, link, _http_request(exchange, None))
            return Authentication(caller=caller, service=SERVICE, payload=_UNSIGNED_PAYLOAD), None
        whole: bytes | None = None
        streamed = route is not None and route.streams and exchange.has_body
        if claimed_service(authorization, exchange.scope["query_string"]) is None:
            raise NotAuthenticated(
                "Missing credentials. Sign the request with AWS Signature Version 4 for the service overair, or send a bearer "
                "token that POST /oauth2/token gives for an access key's id and secret.",
                subject="missing-token",
            )
        if not streamed:
            size_bytes_max = BODY_SIZE_BYTES_MAX if route is None or route.streams else route.body_size_bytes_max
            whole = await exchange.whole_body(size_bytes_max, self._unproved)
        hashed = None if whole is None else sha256(whole).hexdigest() if whole else EMPTY_SHA256
        authentication = await self._authenticator.authenticate(_http_request(exchange, hashed))
        if authentication.service != SERVICE:
            raise NotAuthenticated(
                f"Credential should be scoped to the service {SERVICE}, not {authentication.service[:60]!r}: this path is "
                "plain REST.",
                subject="signature",
            )
        return authentication, whole


def _ticket(exchange: Exchange) -> str | None:
    """The one in the query, if there is exactly one."""
    try:
        values = parse_query(exchange.scope["query_string"]).get(TICKET_PARAMETER, [])
    except Invalid:
        return None
    return values[0] if len(values) == 1 else None


def _http_request(exchange: Exchange, body_sha256: str | None) -> HttpRequest:
    scope = exchange.scope
    return HttpRequest(
        method=exchange.method,
        raw_path=exchange.raw_path,
        query_string=scope["query_string"],
        headers=scope["headers"],
        body_sha256=body_sha256,
        source_ip=exchange.source_ip,
        secure=scope.get("scheme") == "https",
        request_id=exchange.request_id,
        streamed=body_sha256 is None,
    )
