"""An operator with OTA Connect's habits: OAuth2 client credentials and plain REST, through nothing but the standard library."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RestReply:
    status: int
    body: bytes
    headers: dict[str, str]
    """By name in lower case."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(self.json["code"])


class Refused(AssertionError):
    """An answer that the test didn't expect."""


class OperatorRest:
    """One operator of one server. Its access key is its OAuth2 client."""

    def __init__(self, url: str, ca_file: str, *, client_id: str, client_secret: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port
        self._context = ssl.create_default_context(cafile=ca_file)
        self._client = (client_id, client_secret)
        self._token: str | None = None

    def token(self) -> str:
        """Of the client credentials grant, asked for once."""
        if self._token is None:
            basic = base64.b64encode(":".join(self._client).encode()).decode()
            headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
            reply = self._send("POST", "/oauth2/token", b"grant_type=client_credentials", headers)
            if reply.status != 200:
                raise Refused(f"no token: {reply.status} {reply.body[:500]!r}")
            self._token = str(reply.json["access_token"])
        return self._token

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        json_body: object = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> RestReply:
        """One call; whatever comes."""
        told = {"Authorization": f"Bearer {self.token()}", **(headers or {})}
        if json_body is not None:
            body = json.dumps(json_body).encode()
            told.setdefault("Content-Type", "application/json")
        target = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        return self._send(method, target, body or b"", told)

    def expect(self, status: int | tuple[int, ...], method: str, path: str, **options: Any) -> RestReply:
        """One call that must end so.

        Raises:
            Refused: it ended otherwise.
        """
        reply = self.ask(method, path, **options)
        if reply.status not in ((status,) if isinstance(status, int) else status):
            raise Refused(f"{method} {path}: {reply.status} {reply.body[:2000].decode(errors='replace')}")
        return reply

    def _send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> RestReply:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._context)
        try:
            connection.request(method, target, body=body or None, headers=headers)
            answer = connection.getresponse()
            return RestReply(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            connection.close()
