"""Pre-provisioning hooks: somebody of the operator's own is asked about a device before it is provisioned.

AWS calls a Lambda function; here an HTTP server is asked. Which hooks there are, where they are and with which secret they are
spoken to stands in ``provisioning-hooks.toml`` in the state directory, never in a template: a template names a hook by its ARN,
and so can't make this server call an address of somebody's choice. Whoever answers late, badly or not at all denies.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, InvalidRequest
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.wire import strict_json

TIMEOUT_S: Final = 5.0
ANSWER_SIZE_BYTES_MAX: Final = 65_536
ASKED_AT_ONCE_MAX: Final = 50
SECRET_LENGTH_MIN: Final = 16
FILE_NAME: Final = "provisioning-hooks.toml"
SIGNATURE_HEADER: Final = "X-Overair-Signature"
_ARN: Final = re.compile(r"arn:aws:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9_-]{1,64}")
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")

logger = structlog.get_logger("overair.provisioning")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAddress:
    """Where one hook is, and the secret that its requests are signed with."""

    url: str
    secret: Redacted[str]
    ca_file: Path | None = None
    """Who vouches for its server; None: the system's authorities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAnswer:
    """What a hook said that allows."""

    parameter_overrides: Mapping[str, str]


class Hooks:
    """Asks hooks. On the event loop; at most ``ASKED_AT_ONCE_MAX`` at a time."""

    def __init__(
        self, addresses: Mapping[str, HookAddress], *, clock: Clock, ids: IdSource, timeout_s: float = TIMEOUT_S
    ) -> None:
        self.addresses = addresses
        self._clock = clock
        self._ids = ids
        self._timeout_s = timeout_s
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def ask(self, target_arn: str, question: Mapping[str, object]) -> HookAnswer:
        """Return if the hook allows the device.

        Raises:
            AccessDenied: it doesn't, or it can't be asked within five seconds. Subject ``hook``.
        """
        address = self.addresses.get(target_arn)
        try:
            if address is None:
                raise _Unanswered("no such hook is known to this server")
            async with asyncio.timeout(self._timeout_s), self._asking:
                return _allowed(await self._post(address, msgspec.json.encode(question)))
        except TimeoutError:
            why = f"it didn't answer within {self._timeout_s:g} s"
        except (OSError, ssl.SSLError, _Unanswered) as failed:
            why = str(failed)[:200] or type(failed).__name__
        logger.warning("a pre-provisioning hook doesn't allow a device", hook=target_arn, why=why)
        raise AccessDenied("The template's pre-provisioning hook doesn't allow this device.", subject="hook")

    async def _post(self, address: HookAddress, body: bytes) -> bytes:
        at = urlsplit(address.url)
        assert at.hostname is not None  # looked at when the file was read
        context: ssl.SSLContext | None = None
        if at.scheme == "https":
            context = await asyncio.to_thread(_trusting, address.ca_file)
        port = at.port or (443 if context else 80)
        reader, writer = await asyncio.open_connection(at.hostname, port, ssl=context, limit=ANSWER_SIZE_BYTES_MAX)
        try:
            signed = signature(address.secret, str(self._clock.now()), self._ids.uuid(), body)
            head = (
                f"POST {at.path or '/'}{'?' + at.query if at.query else ''} HTTP/1.0\r\n"
                f"Host: {at.netloc.rpartition('@')[2]}\r\nContent-Type: application/json\r\nConnection: close\r\n"
                f"{SIGNATURE_HEADER}: {signed}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode("ascii") + body)
            await writer.drain()
            answer = b""
            while chunk := await reader.read(ANSWER_SIZE_BYTES_MAX):
                answer += chunk
                if len(answer) > ANSWER_SIZE_BYTES_MAX:
                    raise _Unanswered(f"its answer is longer than {ANSWER_SIZE_BYTES_MAX} bytes")
            return answer
        finally:
            writer.close()


class _Unanswered(Exception):
    """No answer that allows; the message is for the log."""


def signature(secret: Redacted[str], moment: str, request_id: str, body: bytes) -> str:
    """What a hook checks before it believes a request: ``t=MILLISECONDS,id=UUID,v1=HEX``, the HMAC-SHA256 of ``t.id.body``.

    Time and id are in what is signed, so that whoever heard a request can't send it again: a hook refuses what is older than
    some minutes, and an id that it has heard within them.
    """
    digest = hmac.new(secret.reveal().encode(), f"{moment}.{request_id}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={moment},id={request_id},v1={digest}"


def read_hooks(path: Path) -> dict[str, HookAddress]:
    """The hooks in a file; none where there is no file.

    Raises:
        InvalidRequest: the file can be read by others, or isn't what it should be; the message names the place.
    """
    if not path.exists():
        return {}
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidRequest(f"{path} holds secrets and can be read by others. Set its mode to 0600.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as broken:
        raise InvalidRequest(f"{path} can't be read as TOML: {broken}.") from None
    return {arn: _address(path, arn, table) for arn, table in tables.items()}


def _address(path: Path, arn: str, table: object) -> HookAddress:
    if not _ARN.fullmatch(arn):
        raise InvalidRequest(
            f"{path}: [{arn!r:.200}] isn't a function's ARN, such as \"arn:aws:lambda:REGION:ACCOUNT:function:NAME\"."
        )
    if not isinstance(table, dict) or not table.keys() <= {"url", "secret", "ca_file"}:
        raise InvalidRequest(f"{path}: [{arn}] has url, secret and ca_file, and nothing else.")
    url, secret, ca_file = table.get("url"), table.get("secret"), table.get("ca_file")
    if not isinstance(url, str) or not _is_address(url):
        raise InvalidRequest(f"{path}: url of [{arn}] must be an http:// or https:// address; http:// only on this machine.")
    if not isinstance(secret, str) or len(secret) < SECRET_LENGTH_MIN:
        raise InvalidRequest(f"{path}: secret of [{arn}] must be text of at least {SECRET_LENGTH_MIN} characters.")
    if not isinstance(ca_file, str | None):
        raise InvalidRequest(f"{path}: ca_file of [{arn}] must be a path.")
    return HookAddress(url=url, secret=Redacted(secret), ca_file=None if ca_file is None else Path(ca_file))


def _is_address(url: str) -> bool:
    try:
        at = urlsplit(url)
        _ = at.port
    except ValueError:
        return False
    if not url.isascii() or not url.isprintable() or " " in url or not at.hostname or at.username is not None:
        return False
    return at.scheme == "https" or (at.scheme == "http" and at.hostname in ("127.0.0.1", "::1", "localhost"))


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


def _allowed(answer: bytes) -> HookAnswer:
    head, separator, body = answer.partition(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status is None or not separator:
        raise _Unanswered("its answer isn't HTTP")
    if status.group(1) != b"200":
        raise _Unanswered(f"it answered with status {status.group(1).decode()}")
    try:
        said = strict_json.decode_object(body, size_bytes_max=ANSWER_SIZE_BYTES_MAX, depth_max=4)
    except strict_json.MalformedJson as broken:
        raise _Unanswered(f"its answer can't be read: {broken}") from None
    if said.get("allowProvisioning") is not True:
        raise _Unanswered("it said no")
    overrides = said.get("parameterOverrides") or {}
    if not isinstance(overrides, dict) or not all(isinstance(value, str) for value in overrides.values()):
        raise _Unanswered("its parameterOverrides aren't an object of texts")
    return HookAnswer(parameter_overrides=overrides)
