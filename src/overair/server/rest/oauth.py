"""``POST /oauth2/token``: a bearer token for an access key's id and secret. Reference: RFC 6749 §2.3.1, §4.4, §5."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

from overair.basics.errors import InvalidRequest
from overair.basics.redacted import Redacted
from overair.server.aws_protocol.authentication import HttpRequest
from overair.server.aws_protocol.http_binding import parse_query
from overair.server.aws_protocol.operations import Caller
from overair.server.aws_protocol.rules import Invalid
from overair.server.rest.exchange import Exchange, MethodNotAllowed
from overair.server.rest.operations import RestAnswer

TOKEN_PATH: Final = b"/oauth2/token"
FORM_SIZE_BYTES_MAX: Final = 4096
CREDENTIAL_LENGTH_MAX: Final = 256
"""Of a client's id and of its secret; longer ones can't be right, and aren't compared."""
SCOPE_LENGTH_MAX: Final = 1024
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_NOT_STORED: Final = {"cache-control": "no-store", "pragma": "no-cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token, and how long it is good."""

    token: Redacted[str]
    expires_in_s: int


class BearerTokens(Protocol):
    """Issues tokens, and knows whose they are. *access* has it."""

    async def issue(self, client_id: str, client_secret: Redacted[str]) -> IssuedToken | None:
        """A token for the holder of an access key; None for whoever isn't, without a word on why."""
        ...

    async def authenticate(self, token: str, request: HttpRequest) -> Caller:
        """Whose token it is, as his key, he himself and his policies are now.

        Raises:
            NotAuthenticated: it isn't one of ours, has expired, or its key is gone or inactive; subject ``bearer-token``.
        """
        ...


class _Refused(Exception):
    """An error of RFC 6749 §5.2."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


class TokenEndpoint:
    """The one path of the operators' door that proves its sender by itself."""

    def __init__(self, tokens: BearerTokens) -> None:
        self._tokens = tokens

    async def answer(self, exchange: Exchange) -> RestAnswer:
        """A token, or why there is none. Every client that isn't believed hears the same."""
        if exchange.method != "POST":
            raise MethodNotAllowed(exchange.method, ["POST"])
        try:
            form = await _form(exchange)
            client_id, client_secret = _credentials(exchange.headers.get("authorization"), form)
            scope = form.get("scope")
            if scope is not None and (len(scope) > SCOPE_LENGTH_MAX or not _SCOPE.fullmatch(scope)):
                raise _Refused("invalid_scope", "The scope isn't a list of words. It may be left out: policies decide here.")
            if form.get("grant_type") is None:
                raise _Refused("invalid_request", "The form names no grant_type; it is client_credentials here.")
            if form["grant_type"] != "client_credentials":
                raise _Refused("unsupported_grant_type", "The one grant_type here is client_credentials.")
            issued = None
            if max(len(client_id), len(client_secret.reveal())) <= CREDENTIAL_LENGTH_MAX:
                issued = await self._tokens.issue(client_id, client_secret)
            if issued is None:
                raise _unknown_client()
        except _Refused as refused:
            headers = dict(_NOT_STORED)
            if refused.status == 401:
                headers["www-authenticate"] = 'Basic realm="overair"'
            told = {"error": refused.error, "error_description": refused.description}
            return RestAnswer(status=refused.status, json=told, headers=headers)
        granted: dict[str, object] = {
            "access_token": issued.token.reveal(),
            "token_type": "Bearer",
            "expires_in": issued.expires_in_s,
        }
        if scope is not None:
            granted["scope"] = scope
        return RestAnswer(json=granted, headers=_NOT_STORED)


def _unknown_client() -> _Refused:
    return _Refused(
        "invalid_client",
        "The client isn't known, or its secret is wrong. Both are an active access key's: its id and its secret.",
        status=401,
    )


async def _form(exchange: Exchange) -> dict[str, str]:
    """The fields of the body, each once."""
    content_type = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise _Refused("invalid_request", "The body is a form: Content-Type application/x-www-form-urlencoded.")
    try:
        body = await exchange.whole_body(FORM_SIZE_BYTES_MAX)
        parsed = parse_query(body)
    except (Invalid, InvalidRequest) as error:
        raise _Refused("invalid_request", f"The form can't be read: {error}") from None
    if any(len(values) > 1 for values in parsed.values()):
        raise _Refused("invalid_request", "The form names a field twice.")
    return {name: values[0] for name, values in parsed.items()}


def _credentials(authorization: str | None, form: dict[str, str]) -> tuple[str, Redacted[str]]:
    """The client's id and secret, from the header or from the form; a client uses one way (RFC 6749 §2.3)."""
    if authorization is None:
        if "client_id" not in form or "client_secret" not in form:
            raise _unknown_client()
        return form["client_id"], Redacted(form["client_secret"])
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or "client_secret" in form:
        raise _Refused("invalid_request", "A client proves itself in one way: HTTP Basic, or client_id and client_secret.")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise _unknown_client() from None
    client_id, colon, secret = text.partition(":")
    # Some clients percent-encode both, as the standard says, and some don't; neither holds a percent sign of its own.
    client_id, secret = unquote(client_id, errors="replace"), unquote(secret, errors="replace")
    if not colon or form.get("client_id", client_id) != client_id:
        raise _unknown_client()
    return client_id, Redacted(secret)
