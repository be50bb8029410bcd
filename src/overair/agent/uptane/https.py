"""HTTPS as the Uptane client uses it: one trusted CA, every answer bounded in size and in time, downloads that resume.

Uptane reference §3.1, with these rules of our own:

- The server proves itself to the CA file of the device alone, and carries the name or address that was asked for.
- The device's certificate is shown to the gateway alone, never to another host that an image's address names.
- Metadata, manifests, registration, events and certificates follow no redirect. Images follow up to
  ``REDIRECTS_MAX``, to https only.
- A connection that fails and a status of 429 or from 500 on are tried again, ``ATTEMPTS`` times in all, each after a pause
  drawn between nothing and a limit that doubles (full jitter).
- Answers aren't compressed: what is hashed and counted is what was sent.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from overair.basics.clock import Instant, from_datetime

ANSWER_SIZE_BYTES_MAX: Final = 64 * 1024
"""Of every answer that isn't metadata with a limit of its own."""
CONNECT_TIMEOUT_S: Final = 60.0
ANSWER_TIMEOUT_S: Final = 60.0
"""A whole answer that isn't an image; also the headers of one."""
PIECE_SIZE_BYTES: Final = 64 * 1024
REDIRECTS_MAX: Final = 5
ATTEMPTS: Final = 3
PAUSE_S: Final = 0.5
PAUSE_S_MAX: Final = 30.0


class TransportFailed(Exception):
    """No answer that can be used; the message says why."""


class Unreachable(TransportFailed):
    """The connection failed, or broke off: it may work another time."""


class NotProved(Unreachable):
    """The other side is not the server that the device's CA vouches for. Nothing was sent to it."""


class SlowRetrieval(TransportFailed):
    """The answer came too slowly to be waited for (Uptane Standard, slow retrieval attack)."""


class Oversized(TransportFailed):
    """The answer is larger than it may be (endless data attack)."""


class BadStatus(TransportFailed):
    """The server answered, and not with what was asked for."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Stopped(TransportFailed):
    """The client is asked to stop, and was pausing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, whatever its status."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def date(self) -> Instant | None:
        """The server's clock, where it tells."""
        try:
            moment = parsedate_to_datetime(self.headers.get("date", ""))
            return from_datetime(moment)
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How slow an answer may be."""

    answer_timeout_s: float = ANSWER_TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    window_s: float = 60.0
    bytes_per_s_min: int = 5_000
    """A download that brings less than this over a whole window is given up."""


class HttpClient:
    """Speaks to one gateway, and to the hosts that images' addresses lead to.

    ``pause`` waits some seconds and says whether the client is asked to stop; ``chance`` spreads the pauses.
    """

    def __init__(
        self,
        *,
        gateway: str,
        context: ssl.SSLContext | None,
        foreign_context: ssl.SSLContext | None,
        pause: Callable[[float], bool],
        chance: Random,
        monotonic: Callable[[], float],
        patience: Patience | None = None,
        plain_http: bool = False,
        user_agent: str = "Overair",
    ) -> None:
        self._origin = _origin(gateway)
        self._pause = pause
        self._chance = chance
        self._monotonic = monotonic
        self._patience = patience or Patience()
        self._schemes = frozenset({"https", "http"} if plain_http else {"https"})
        self._headers = {"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._gateway_pool = self._pool(context)
        self._foreign_pool = self._pool(foreign_context)

    def _pool(self, context: ssl.SSLContext | None) -> urllib3.PoolManager:
        timeout = urllib3.Timeout(connect=self._patience.connect_timeout_s, read=self._patience.answer_timeout_s)
        pool = urllib3.PoolManager(num_pools=4, maxsize=1, timeout=timeout, retries=False, ssl_context=context)
        pool.pool_classes_by_scheme = {"https": _Pool, "http": _PlainPool}
        return pool

    def close(self) -> None:
        """Drop the connections that are kept."""
        self._gateway_pool.clear()
        self._foreign_pool.clear()

    # --- whole answers ---

    def request(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        size_bytes_max: int = ANSWER_SIZE_BYTES_MAX,
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """Ask, again where that may help, and read the whole answer.

        Raises:
            TransportFailed: no answer (the last attempt's reason), a redirect, or an answer beyond its bounds.
        """
        sent = dict(headers or {})
        if body is not None:
            sent["Content-Type"] = content_type
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                answer = self._once(method, url, body=body, headers=sent, size_bytes_max=size_bytes_max)
            except NotProved:
                raise
            except Unreachable:
                if last:
                    raise
            else:
                if not (answer.status == 429 or answer.status >= 500) or last:
                    return answer
            self._back_off(attempt)
        raise AssertionError("attempts must be positive")

    def _once(self, method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], size_bytes_max: int) -> Answer:
        deadline = self._monotonic() + self._patience.answer_timeout_s
        with self._open(method, url, body=body, headers=headers) as answer:
            if answer.status in _REDIRECTS:
                raise BadStatus(answer.status, f"{url} leads elsewhere; only images may.")
            pieces: list[bytes] = []
            size = 0
            while piece := _read(answer, url):
                size += len(piece)
                if size > size_bytes_max:
                    raise Oversized(f"{url} answers with more than {size_bytes_max} bytes.")
                pieces.append(piece)
                if self._monotonic() > deadline:
                    raise SlowRetrieval(f"{url} took longer than {self._patience.answer_timeout_s:g} s.")
        found = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(status=answer.status, body=b"".join(pieces), headers=found)

    # --- images ---

    def download(self, url: str, *, first_byte: int, size_bytes: int, take: Callable[[int, bytes], None]) -> None:
        """Fetch a file of ``size_bytes`` from ``first_byte`` on, handing each piece with its offset to ``take``. A server that
        knows no ranges starts at 0 again. One attempt: whoever asks resumes where the pieces end.

        Raises:
            TransportFailed: it broke off, was too slow, or is larger than ``size_bytes``.
        """
        for _ in range(REDIRECTS_MAX + 1):
            headers = {"Range": f"bytes={first_byte}-"} if first_byte else {}
            with self._open("GET", url, body=None, headers=headers) as answer:
                if answer.status not in _REDIRECTS:
                    offset = _first_byte(answer, first_byte, size_bytes, url)
                    self._take_pieces(answer, url, offset, size_bytes, take)
                    return
                target = answer.headers.get("Location")
            if not target:
                raise BadStatus(answer.status, f"{url} leads elsewhere without saying where.")
            url = _joined(url, target)
        raise BadStatus(310, f"More than {REDIRECTS_MAX} redirects, the last to {url[:200]}.")

    def _take_pieces(
        self,
        answer: urllib3.BaseHTTPResponse,
        url: str,
        offset: int,
        size_bytes: int,
        take: Callable[[int, bytes], None],
    ) -> None:
        window_began, window_bytes = self._monotonic(), 0
        while True:
            try:
                piece = _read(answer, url)
            except _ReadTimedOut:
                raise SlowRetrieval(f"{url} has stopped sending.") from None
            if not piece:
                break
            if offset + len(piece) > size_bytes:
                raise Oversized(f"{url} sends more than the {size_bytes} bytes that were signed.")
            take(offset, piece)
            offset += len(piece)
            window_bytes += len(piece)
            elapsed = self._monotonic() - window_began
            if elapsed >= self._patience.window_s:
                if window_bytes < self._patience.bytes_per_s_min * elapsed and offset < size_bytes:
                    raise SlowRetrieval(f"{url} brings {window_bytes / elapsed:.0f} bytes a second.")
                window_began, window_bytes = self._monotonic(), 0
        if offset < size_bytes:
            raise Unreachable(f"{url} ended after {offset} of {size_bytes} bytes.")

    # --- what both share ---

    @contextmanager
    def _open(
        self, method: str, url: str, *, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        origin = _origin(url)
        if origin[0] not in self._schemes:
            raise BadStatus(0, f"{url[:200]} is not an https address.")
        pool = self._gateway_pool if origin == self._origin else self._foreign_pool
        sent = {**self._headers, **headers}
        with _told(url):
            answer = pool.request(method, url, body=body, headers=sent, preload_content=False, redirect=False)
        try:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise BadStatus(answer.status, f"{url} sends a compressed answer to a request for a plain one.")
            yield answer
        finally:
            # Only a connection whose answer was read to its end may carry another.
            if answer.length_remaining == 0:
                answer.drain_conn()
                answer.release_conn()
            else:
                answer.close()

    def _back_off(self, attempt: int) -> None:
        limit = min(PAUSE_S_MAX, PAUSE_S * 2**attempt)
        if self._pause(self._chance.uniform(0, limit)):
            raise Stopped("The client is asked to stop.")


_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class _ReadTimedOut(Unreachable):
    pass


@contextmanager
def _told(url: str) -> Iterator[None]:
    """The library's failures as ours. A certificate that doesn't prove the server is told apart: nothing was sent then."""
    try:
        yield
    except urllib3.exceptions.ReadTimeoutError:
        raise _ReadTimedOut(f"{url} doesn't go on.") from None
    except (urllib3.exceptions.SSLError, ssl.SSLError) as error:
        if isinstance(_innermost(error), ssl.SSLCertVerificationError):
            raise NotProved(f"The server at {url} can't prove that it is ours: {_innermost(error)}") from None
        raise Unreachable(f"{url}: {error}") from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        if isinstance(error, urllib3.exceptions.LocationParseError):
            raise BadStatus(0, f"{url[:200]!r} is no address.") from None
        raise Unreachable(f"{url}: {error}") from None


def _innermost(error: BaseException) -> BaseException:
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    return error


def _read(answer: urllib3.BaseHTTPResponse, url: str) -> bytes:
    with _told(url):
        return answer.read1(PIECE_SIZE_BYTES, decode_content=False) or b""


def _first_byte(answer: urllib3.BaseHTTPResponse, asked: int, size_bytes: int, url: str) -> int:
    """Where the bytes of this answer begin, and that it isn't announced to be larger than it may be."""
    told = answer.headers.get("Content-Length", "")
    if answer.status == 200:
        if told.isdigit() and int(told) > size_bytes:
            raise Oversized(f"{url} announces {told} bytes where {size_bytes} were signed.")
        return 0
    if answer.status == 206 and asked:
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {asked}-"):
            raise BadStatus(206, f"{url} answers with another range than was asked for.")
        if told.isdigit() and int(told) > size_bytes - asked:
            raise Oversized(f"{url} announces {told} bytes more where {size_bytes - asked} are missing.")
        return asked
    raise BadStatus(answer.status, f"{url} answers with status {answer.status}.")


def _joined(base: str, target: str) -> str:
    try:
        return urljoin(base, target)
    except ValueError:
        raise BadStatus(0, f"{base} leads to {target[:200]!r}, which is no address.") from None


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        raise BadStatus(0, f"{url[:200]!r} is no address.") from None
    return parts.scheme, (parts.hostname or "").lower(), port


class _WatchedHeaders:
    """A server that sends its headers a byte at a time is cut off: each byte by itself would be in time."""

    sock: Any
    timeout: Any
    """While an answer is waited for: for how long."""

    def getresponse(self) -> Any:
        late = threading.Event()

        def cut(connection: socket.socket) -> None:
            late.set()
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        watchdog = threading.Timer(self.timeout, cut, [self.sock])
        watchdog.daemon = True
        watchdog.start()
        try:
            return super().getresponse()  # type: ignore[misc]
        except Exception:
            if late.is_set():
                raise TimeoutError("the headers came too slowly") from None
            raise
        finally:
            watchdog.cancel()


class _Connection(_WatchedHeaders, HTTPSConnection):
    pass


class _PlainConnection(_WatchedHeaders, HTTPConnection):
    pass


class _Pool(HTTPSConnectionPool):
    ConnectionCls = _Connection


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection
