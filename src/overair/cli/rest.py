"""The server's plain REST as commands speak it: over TLS under the pinned CA, proved by SigV4 or OAuth2.

``overair sign`` asks as signing tools do (Uptane reference §9.3), ``overair ship`` as operators do (§11).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from overair.basics.clock import Clock, as_datetime
from overair.basics.redacted import Redacted
from overair.wire.sigv4 import Scope, SignableRequest
from overair.wire.sigv4_signing import SigningCredentials, sign_header
from overair.wire.strict_json import MalformedJson, decode

ANSWER_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 120.0
POOL_SIZE: Final = 8
"""Connections that are kept for commands which ask several things at once."""
PIECE_SIZE_BYTES: Final = 256 * 1024
TRIES: Final = 3
"""Of what changes nothing; what changes something is sent once."""


class RestUnreachable(Exception):
    """Nobody answers, or somebody who isn't the server."""


class RestRefused(Exception):
    """The server says no, or something that can't be understood."""

    def __init__(self, message: str, *, code: str = "", status: int = 0, errors: list[Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.errors = errors or []


@dataclass(frozen=True, slots=True, kw_only=True)
class SigV4Proof:
    """An access key signs each request."""

    key_id: str
    secret: Redacted[str]
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenProof:
    """A client's id and secret are exchanged for a token (OAuth2 client credentials)."""

    token_url: str
    client_id: str
    secret: Redacted[str]


Proof = SigV4Proof | TokenProof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestAnswer:
    """What came back; a refusal as well."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    def value(self) -> Any:
        """The JSON value; None where it isn't one."""
        try:
            return decode(self.body, size_bytes_max=ANSWER_SIZE_BYTES_MAX, depth_max=32)
        except MalformedJson:
            return None

    def json(self) -> dict[str, Any]:
        """The JSON object; empty where it isn't one."""
        value = self.value()
        return value if isinstance(value, dict) else {}

    @property
    def code(self) -> str:
        return str(self.json().get("code", ""))

    def expect(self, what: str) -> RestAnswer:
        """Itself, where it is good.

        Raises:
            RestRefused: with everything that the server objects to, after ``what``.
        """
        if self.is_good:
            return self
        told = self.json()
        errors = told.get("errors") or []
        lines = "".join(f"\n  {finding_in_words(each)}" for each in errors)
        description = str(told.get("description", "")).strip()
        hint = f" {told['hint']}" if told.get("hint") else ""
        code = self.code or str(self.status)
        raise RestRefused(f"{what} ({code}): {description}{hint}{lines}", code=code, status=self.status, errors=errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """What proves a client in the handshake: two PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An answer whose body is read as it comes."""

    status: int
    headers: Mapping[str, str]
    pieces: Iterator[bytes]


class RestClient:
    """One server's REST. ``ca``: the only authority that its certificate may come from; None: the machine's own."""

    def __init__(self, proof: Proof, *, ca: Path | None, clock: Clock, certificate: ClientCertificate | None = None) -> None:
        self._proof = proof
        self._clock = clock
        self._pool = urllib3.PoolManager(
            ca_certs=None if ca is None else str(ca),
            cert_file=None if certificate is None else str(certificate.certificate),
            key_file=None if certificate is None else str(certificate.key),
            cert_reqs="CERT_REQUIRED",
            maxsize=POOL_SIZE,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,
        )
        self._token: Redacted[str] | None = None
        self._gate = threading.Lock()

    def ask(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        payload: str | None = None,
        tries: int = 0,
    ) -> RestAnswer:
        """One call, tried again where it changes nothing.

        Args:
            body: Bytes, or a file that is open at its beginning.
            payload: The body's SHA-256, where it is known; needed for a file.

        Raises:
            RestUnreachable, RestRefused
        """
        tries = tries or (TRIES if method in {"GET", "HEAD"} else 1)
        base = url
        if query:
            url += "?" + urlencode(query, quote_via=quote, safe="")
        while True:
            tries -= 1
            try:
                answer = self._send(method, url, body, dict(headers or {}), payload)
            except urllib3.exceptions.SSLError as error:
                raise RestUnreachable(f"The server at {_origin(base)} isn't who it should be: {error}") from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if tries:
                    continue
                raise RestUnreachable(f"The server at {_origin(base)} can't be reached: {error}") from None
            if answer.status >= 500 and tries:
                continue
            if answer.status == 401 and tries and self._token is not None:
                self._token = None  # tokens end within the hour, and some commands take longer
                continue
            return answer

    @contextmanager
    def open(self, url: str, *, from_byte: int = 0) -> Iterator[Opened]:
        """A GET whose body may have any size; nothing is tried again, and no redirect is followed.

        Raises:
            RestUnreachable: also while the body is read. RestRefused
        """
        headers = {"range": f"bytes={from_byte}-"} if from_byte else {}
        try:
            with self._request("GET", url, b"", headers, None) as answer:
                told = {name.lower(): value for name, value in answer.headers.items()}
                yield Opened(status=answer.status, headers=told, pieces=answer.stream(PIECE_SIZE_BYTES, decode_content=False))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise RestUnreachable(f"The server at {_origin(url)} can't be reached: {error}") from None

    def _send(self, method: str, url: str, body: Any, headers: dict[str, str], payload: str | None) -> RestAnswer:
        with self._request(method, url, body, headers, payload) as answer:
            data = answer.read(ANSWER_SIZE_BYTES_MAX + 1)
            if len(data) > ANSWER_SIZE_BYTES_MAX:
                raise RestRefused(f"The server answers {urlsplit(url).path} with more than {ANSWER_SIZE_BYTES_MAX} bytes.")
            return RestAnswer(
                status=answer.status, headers={name.lower(): value for name, value in answer.headers.items()}, body=data
            )

    def _request(
        self, method: str, url: str, body: Any, headers: dict[str, str], payload: str | None
    ) -> urllib3.BaseHTTPResponse:
        parts = urlsplit(url)
        headers["host"] = parts.netloc
        match self._proof:
            case TokenProof():
                headers["authorization"] = f"Bearer {self._bearer(self._proof).reveal()}"
            case SigV4Proof():
                digest = payload or hashlib.sha256(body).hexdigest()
                headers["x-amz-content-sha256"] = digest
                request = SignableRequest(
                    method=method,
                    path=parts.path.encode("ascii"),
                    query=parts.query.encode("ascii"),
                    headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
                )
                for name, value in self._signature(self._proof, request, digest):
                    headers[name.decode("ascii")] = value.decode("ascii")
        return self._pool.request(method, url, body=body or None, headers=headers, preload_content=False, redirect=False)

    def _signature(self, proof: SigV4Proof, request: SignableRequest, digest: str) -> list[tuple[bytes, bytes]]:
        moment: datetime = as_datetime(self._clock.now())
        scope = Scope(date=moment.strftime("%Y%m%d"), region=proof.region, service="overair")
        credentials = SigningCredentials(access_key_id=proof.key_id, secret_access_key=proof.secret.reveal())
        timestamp = moment.strftime("%Y%m%dT%H%M%SZ")
        unsigned = ("content-length",)
        return sign_header(request, credentials, scope=scope, timestamp=timestamp, payload=digest, except_headers=unsigned)

    def _bearer(self, proof: TokenProof) -> Redacted[str]:
        """The token, got once for a command."""
        with self._gate:
            if self._token is not None:
                return self._token
            headers = urllib3.make_headers(basic_auth=f"{proof.client_id}:{proof.secret.reveal()}")
            headers["content-type"] = "application/x-www-form-urlencoded"
            answer = self._pool.request(
                "POST", proof.token_url, body=b"grant_type=client_credentials", headers=headers, redirect=False
            )
            told = RestAnswer(status=answer.status, headers={}, body=answer.data)
            token = told.json().get("access_token")
            if answer.status != 200 or not isinstance(token, str):
                raise RestRefused(f"{proof.token_url} gives no token ({answer.status}): the bundle may be revoked or expired.")
            self._token = Redacted(token)
            return self._token


def finding_in_words(finding: Any) -> str:
    """One of the ``errors`` or ``warnings`` of an answer."""
    if not isinstance(finding, dict):
        return str(finding)
    where = f"{finding['field']}: " if finding.get("field") else ""
    hint = f" {finding['hint']}" if finding.get("hint") else ""
    return f"{where}{finding.get('description', finding.get('code', ''))}{hint}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
