"""Requests to the object store made by hand: signed as one says, then bent, then sent byte for byte."""

from __future__ import annotations

import http.client
import re
import ssl
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from overair.wire import sigv4


@dataclass(kw_only=True)
class Wire:
    """What goes out."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def bend(self, name: str, value: str | None) -> None:
        """Set a header to another value, or leave it out."""
        self.headers = [(field, text) for field, text in self.headers if field != name]
        if value is not None:
            self.headers.append((name, value))


@dataclass(kw_only=True)
class Draft:
    """A request before it is signed; each field may be said wrongly."""

    host: str
    key_id: str
    secret: str
    region: str
    method: str = "GET"
    path: str = "/"
    query: str = ""
    body: bytes = b""
    token: str | None = None
    service: str = "s3"
    terminator: str = "aws4_request"
    algorithm: str = sigv4.ALGORITHM
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    timestamp: str | None = None
    scope_date: str | None = None
    expires: str | None = "60"
    payload: str | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] | None = None
    """SignedHeaders as they are written; all of them, in order, where None."""

    def other(self, **changes: Any) -> Draft:
        return replace(self, headers=list(self.headers), **changes)

    @property
    def moment(self) -> str:
        return self.timestamp if self.timestamp is not None else sigv4.format_timestamp(self.at)

    @property
    def credential(self) -> str:
        return f"{self.key_id}/{self.scope_date or self.moment[:8]}/{self.region}/{self.service}/{self.terminator}"

    def _signature(self, query: str, headers: list[tuple[str, str]], names: list[str], payload: str, in_query: bool) -> str:
        fields = [(name.encode(), value.encode()) for name, value in headers]
        request = sigv4.SignableRequest(method=self.method, path=self.path.encode(), query=query.encode(), headers=fields)
        canonical = sigv4.canonical_request(
            request, signed_headers=names, payload=payload, normalise=self.service != "s3", in_query=in_query
        )
        scope = sigv4.Scope(date=self.scope_date or self.moment[:8], region=self.region, service=self.service)
        text = sigv4.string_to_sign(canonical, timestamp=self.moment, scope=scope)
        return sigv4.signature_of(text, secret=self.secret, scope=scope)

    def by_header(self) -> Wire:
        payload = self.payload if self.payload is not None else sha256(self.body).hexdigest()
        headers = [("host", self.host), *self.headers, ("x-amz-date", self.moment), ("x-amz-content-sha256", payload)]
        if self.token is not None:
            headers.append(("x-amz-security-token", self.token))
        names = self.signed if self.signed is not None else sorted({name for name, _ in headers})
        signature = self._signature(self.query, headers, names, payload, False)
        authorization = f"{self.algorithm} Credential={self.credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
        return Wire(
            method=self.method,
            path=self.path,
            query=self.query,
            headers=[*headers, ("authorization", authorization)],
            body=self.body,
        )

    def by_query(self) -> Wire:
        headers = [("host", self.host), *self.headers]
        names = self.signed if self.signed is not None else sorted({name for name, _ in headers})
        parameters = [
            ("X-Amz-Algorithm", self.algorithm),
            ("X-Amz-Credential", self.credential),
            ("X-Amz-Date", self.moment),
            ("X-Amz-SignedHeaders", ";".join(names)),
        ]
        parameters += [] if self.expires is None else [("X-Amz-Expires", self.expires)]
        parameters += [] if self.token is None else [("X-Amz-Security-Token", self.token)]
        query = "&".join(
            [*([self.query] if self.query else []), *(f"{name}={quote(value, safe='-._~')}" for name, value in parameters)]
        )
        signature = self._signature(query, headers, names, sigv4.UNSIGNED_PAYLOAD, True)
        return Wire(
            method=self.method, path=self.path, query=f"{query}&X-Amz-Signature={signature}", headers=headers, body=self.body
        )


@dataclass(kw_only=True)
class Heard:
    """An answer; ``code`` is empty where nothing was refused."""

    status: int
    code: str
    text: str
    headers: dict[str, str]
    body: bytes


class RawPort:
    """One HTTPS port, asked over one connection as long as it holds."""

    def __init__(self, url: str, ca_file: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        context = ssl.create_default_context(cafile=ca_file)
        self._connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=context, timeout=60)

    def send(self, wire: Wire) -> Heard:
        connection = self._connection
        target = wire.path + (f"?{wire.query}" if wire.query else "")
        connection.putrequest(wire.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in wire.headers:
            connection.putheader(name, value)
        if wire.body or wire.method in ("PUT", "POST"):
            connection.putheader("content-length", str(len(wire.body)))
        connection.endheaders(wire.body or None)
        answer = connection.getresponse()
        body = answer.read()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        text = body.decode("utf-8", "replace")
        found = re.search(r"<Code>(\w+)</Code>", text)
        code = found[1] if found else headers.get("x-amzn-errortype", "")
        return Heard(status=answer.status, code=code, text=text, headers=headers, body=body)

    def close(self) -> None:
        self._connection.close()
