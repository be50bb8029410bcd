"""The server's REST as signing tools speak it (Uptane reference §9.3): over TLS under the pinned CA, proved by SigV4 or
OAuth2."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from overair.basics.clock import Clock, as_datetime
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded
from overair.cli.operator import read_endpoints, read_key
from overair.cli.sign.ends import SignEnded, SignExit, refused
from overair.cli.sign.tree import Access, Config
from overair.wire.sigv4 import Scope, SignableRequest
from overair.wire.sigv4_signing import SigningCredentials, sign_header
from overair.wire.strict_json import MalformedJson, decode_object
from overair.wire.uptane.keys import PublicKey, read_public_key
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.refusals import MetadataRefused

CHECKSUM_HEADER: Final = "x-ats-role-checksum"
ANSWER_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 120.0
TRIES: Final = 3
"""Of what changes nothing; what changes something is sent once."""
BASES: Final[Mapping[Repository, str]] = {
    Repository.IMAGE: "/api/v1/user_repo",
    Repository.DIRECTOR: "/api/v1/director/admin/repo",
}


class Stale(Exception):
    """Somebody else has published since the last pull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the server says of an accepted publication."""

    versions: Mapping[str, int]
    warnings: tuple[str, ...]


class Server(Protocol):
    """What a signing tool asks of a server."""

    def document(self, repository: Repository, path: str) -> tuple[bytes, str | None] | None:
        """A document by its path below the repository (``3.root.json``, ``delegations/vendor-b.json``, ``tuf/targets.json``)
        with its role checksum; None where there is none."""
        ...

    def online_key_ids(self, repository: Repository) -> frozenset[str]:
        """Keys whose private halves the server holds."""
        ...

    def publish(
        self, repository: Repository, publication: Mapping[str, Any], *, checksum: str | None, dry_run: bool, force: bool
    ) -> Published: ...
    def export_private_key(self, repository: Repository, key_id: str) -> Redacted[Mapping[str, object]] | None: ...
    def delete_private_key(self, repository: Repository, key_id: str) -> bool: ...
    def make_online_keys(self, repository: Repository, roles: Sequence[Role]) -> Mapping[Role, PublicKey]:
        """New keys that the server keeps, for the next root to name."""
        ...

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        try:
            return decode_object(self.body, size_bytes_max=ANSWER_SIZE_BYTES_MAX, depth_max=32)
        except MalformedJson:
            return {}


class RestServer:
    """``Server`` over HTTPS."""

    def __init__(self, config: Config, ca_file: Path | None, *, clock: Clock) -> None:
        self._clock = clock
        self._config, self._access, ca = _resolved(config, ca_file)
        self._pool = urllib3.PoolManager(
            ca_certs=None if ca is None else str(ca),
            cert_reqs="CERT_REQUIRED",
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
            retries=False,
        )
        self._token: Redacted[str] | None = None
        self._gate = threading.Lock()

    # What is asked ------------------------------------------------------------------------------------------------------

    def document(self, repository: Repository, path: str) -> tuple[bytes, str | None] | None:
        answer = self._ask("GET", repository, path)
        if answer.status == 404:
            return None
        self._expect(answer, f"{path} can't be had")
        return answer.body, answer.headers.get(CHECKSUM_HEADER)

    def online_key_ids(self, repository: Repository) -> frozenset[str]:
        answer = self._ask("GET", repository, _private_keys(repository))
        if answer.status in {404, 405}:
            return frozenset()  # a server that tells nothing about its keys
        self._expect(answer, "The server's keys can't be told")
        rows = answer.json().get("values", [])
        return frozenset(str(row["keyid"]) for row in rows if isinstance(row, dict) and "keyid" in row)

    def publish(
        self, repository: Repository, publication: Mapping[str, Any], *, checksum: str | None, dry_run: bool, force: bool
    ) -> Published:
        """Raises:
        Stale: somebody was quicker.
        SignEnded: REFUSED with everything that the server objects to; UNREACHABLE.
        """
        headers = {"content-type": "application/json"}
        if checksum is not None:
            headers[CHECKSUM_HEADER] = checksum
        query = {name: "true" for name, wanted in (("dryRun", dry_run), ("force", force)) if wanted}
        body = json.dumps(publication, separators=(",", ":")).encode("ascii")
        answer = self._ask("PUT", repository, "publication", query=query, body=body, headers=headers)
        if answer.status == 412 or (answer.status == 409 and _code(answer) == "invalid_version_bump"):
            raise Stale
        self._expect(answer, "The publication was refused")
        told = answer.json()
        return Published(
            versions={str(name): int(version) for name, version in told.get("versions", {}).items()},
            warnings=tuple(_text(each) for each in told.get("warnings", [])),
        )

    def export_private_key(self, repository: Repository, key_id: str) -> Redacted[Mapping[str, object]] | None:
        """The key pair, for this process's memory alone; None where the server doesn't hold it."""
        answer = self._ask("GET", repository, _private_key(repository, key_id), tries=1)
        if answer.status == 404:
            return None
        self._expect(answer, "The server doesn't hand out its key")
        return Redacted(answer.json())

    def delete_private_key(self, repository: Repository, key_id: str) -> bool:
        """Whether there was one."""
        answer = self._ask("DELETE", repository, _private_key(repository, key_id))
        if answer.status == 404:
            return False
        self._expect(answer, "The server doesn't delete its key")
        return True

    def make_online_keys(self, repository: Repository, roles: Sequence[Role]) -> Mapping[Role, PublicKey]:
        body = json.dumps({"roles": [role.value for role in roles]}).encode("ascii")
        headers = {"content-type": "application/json"}
        answer = self._ask("POST", repository, _private_keys(repository), body=body, headers=headers)
        self._expect(answer, "The server makes no keys")
        try:
            made = {Role(row["role"]): read_public_key(row["key"]) for row in answer.json()["values"]}
        except (KeyError, TypeError, ValueError, MetadataRefused) as error:
            raise refused(f"The server's new keys can't be read: {error}") from None
        if set(made) != set(roles):
            raise refused("The server made keys for other roles than it was asked for.")
        return made

    def upload(self, name: str, path: Path, *, length: int, sha256: str) -> bool:
        """Send a file; whether it was sent. One that is there with these bytes is not sent again.

        Raises:
            SignEnded: REFUSED: the name stands for other bytes.
        """
        with path.open("rb") as file:
            answer = self._ask(
                "PUT",
                Repository.IMAGE,
                f"uploads/{quote(name, safe='/-._~')}",
                body=file,
                headers={"content-length": str(length), "content-type": "application/octet-stream"},
                payload=sha256,
            )
        if answer.status == 409:
            there = self._ask("HEAD", Repository.IMAGE, f"uploads/{quote(name, safe='/-._~')}")
            if there.headers.get("x-overair-sha256", sha256) == sha256 and there.headers.get("content-length") == str(length):
                return False
        self._expect(answer, f"{name} can't be uploaded")
        return True

    # How it is asked ----------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        repository: Repository,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        payload: str | None = None,
        tries: int = 0,
    ) -> _Answer:
        base = self._config.operator_url if repository is Repository.IMAGE else self._config.director_url
        tries = tries or (TRIES if method in {"GET", "HEAD"} else 1)
        url = f"{base}{BASES[repository]}/{path}"
        if query:
            url += "?" + urlencode(query)
        while True:
            tries -= 1
            try:
                answer = self._send(method, url, body, dict(headers or {}), payload)
            except urllib3.exceptions.SSLError as error:
                raise SignEnded(SignExit.UNREACHABLE, f"The server at {base} isn't who it should be: {error}") from None
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if tries:
                    continue
                raise SignEnded(SignExit.UNREACHABLE, f"The server at {base} can't be reached: {error}") from None
            if answer.status >= 500 and tries:
                continue
            return answer

    def _send(self, method: str, url: str, body: Any, headers: dict[str, str], payload: str | None) -> _Answer:
        parts = urlsplit(url)
        headers["host"] = parts.netloc
        if self._access.kind == "oauth2":
            headers["authorization"] = f"Bearer {self._bearer().reveal()}"
        elif self._access.kind in {"key", "data"}:
            digest = payload or hashlib.sha256(body).hexdigest()
            headers["x-amz-content-sha256"] = digest
            request = SignableRequest(
                method=method,
                path=parts.path.encode("ascii"),
                query=parts.query.encode("ascii"),
                headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
            )
            for name, value in self._signature(request, digest):
                headers[name.decode("ascii")] = value.decode("ascii")
        with self._pool.request(
            method, url, body=body or None, headers=headers, preload_content=False, redirect=False
        ) as answer:
            data = answer.read(ANSWER_SIZE_BYTES_MAX + 1)
            if len(data) > ANSWER_SIZE_BYTES_MAX:
                raise refused(f"The server answers {parts.path} with more than {ANSWER_SIZE_BYTES_MAX} bytes.")
            return _Answer(
                status=answer.status, headers={name.lower(): value for name, value in answer.headers.items()}, body=data
            )

    def _signature(self, request: SignableRequest, digest: str) -> list[tuple[bytes, bytes]]:
        moment: datetime = as_datetime(self._clock.now())
        scope = Scope(date=moment.strftime("%Y%m%d"), region=self._config.region, service="overair")
        credentials = SigningCredentials(access_key_id=self._access.key_id, secret_access_key=self._access.secret)
        timestamp = moment.strftime("%Y%m%dT%H%M%SZ")
        unsigned = ("content-length",)
        return sign_header(request, credentials, scope=scope, timestamp=timestamp, payload=digest, except_headers=unsigned)

    def _bearer(self) -> Redacted[str]:
        """The token, got once for a command."""
        with self._gate:
            if self._token is not None:
                return self._token
            headers = urllib3.make_headers(basic_auth=f"{self._access.key_id}:{self._access.secret}")
            headers["content-type"] = "application/x-www-form-urlencoded"
            answer = self._pool.request(
                "POST", self._access.token_url, body=b"grant_type=client_credentials", headers=headers, redirect=False
            )
            told = _Answer(status=answer.status, headers={}, body=answer.data)
            token = told.json().get("access_token")
            if answer.status != 200 or not isinstance(token, str):
                raise refused(
                    f"{self._access.token_url} gives no token ({answer.status}): the bundle may be revoked or expired."
                )
            self._token = Redacted(token)
            return self._token

    @staticmethod
    def _expect(answer: _Answer, what: str) -> None:
        if 200 <= answer.status < 300:
            return
        told = answer.json()
        errors = [_text(each) for each in told.get("errors", [])]
        code = _code(answer) or str(answer.status)
        lines = "".join(f"\n  {each}" for each in errors)
        description = str(told.get("description", "")).strip()
        hint = f" {told['hint']}" if told.get("hint") else ""
        raise refused(
            f"{what} ({code}): {description}{hint}{lines}",
            details={"code": code, "status": answer.status, "errors": told.get("errors", [])},
        )


def _private_keys(repository: Repository) -> str:
    return "root/private_keys" if repository is Repository.IMAGE else "private_keys"


def _private_key(repository: Repository, key_id: str) -> str:
    return f"{_private_keys(repository)}/{key_id}"


def _code(answer: _Answer) -> str:
    return str(answer.json().get("code", ""))


def _text(finding: Any) -> str:
    if not isinstance(finding, dict):
        return str(finding)
    where = f"{finding['field']}: " if finding.get("field") else ""
    hint = f" {finding['hint']}" if finding.get("hint") else ""
    return f"{where}{finding.get('description', finding.get('code', ''))}{hint}"


def _resolved(config: Config, ca_file: Path | None) -> tuple[Config, Access, Path | None]:
    """A state directory says anew each time where its server listens, and with which key."""
    from dataclasses import replace

    if config.access.kind == "none":
        raise SignEnded(
            SignExit.UNREACHABLE, "This tree is air-gapped: it knows no server. Approve requests here, push elsewhere."
        )
    if config.access.kind != "data":
        return config, config.access, ca_file
    data = Path(config.access.data)
    try:
        endpoints, key = read_endpoints(data), read_key(data)
    except CommandEnded as end:
        raise SignEnded(SignExit.UNREACHABLE, end.message) from None
    config = replace(config, operator_url=endpoints.operator_url, director_url=endpoints.operator_url, region=endpoints.region)
    access = Access(kind="key", key_id=key.access_key_id, secret=key.secret.reveal())
    return config, access, Path(endpoints.ca_file)
