"""Which of the two engines a request at the operator port is for."""

from __future__ import annotations

from typing import Final

from overair.server.aws_protocol.asgi import AsgiApplication, Scope, Send, claimed_service, raw_path_of
from overair.server.aws_protocol.body import Receive
from overair.server.rest.door import SERVICE
from overair.server.rest.oauth import TOKEN_PATH

PREFIX: Final = b"/api/v1/"
OBJECT_STORE: Final = "s3"


class OperatorFront:
    """An ASGI application: plain REST's paths go to its engine, unless they are signed for another service (an object in a
    bucket named ``api``); everything else goes to the engine of AWS operations."""

    def __init__(self, *, rest: AsgiApplication, aws: AsgiApplication) -> None:
        self._rest = rest
        self._aws = aws

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            raw_path = raw_path_of(scope)
            if (raw_path.startswith(PREFIX) or raw_path == TOKEN_PATH) and _claim_of(scope) in (None, SERVICE):
                await self._rest(scope, receive, send)
                return
        await self._aws(scope, receive, send)


def is_object_link(scope: Scope) -> bool:
    """Whether a request's query says that it is a presigned link to an object, wherever its path leads."""
    return claimed_service(None, scope["query_string"]) == OBJECT_STORE


def _claim_of(scope: Scope) -> str | None:
    authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    text = None if authorization is None else authorization.decode("latin-1")
    return claimed_service(text, scope["query_string"])
