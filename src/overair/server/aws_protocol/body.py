"""Request bodies: read whole up to a limit, or streamed with everything checked that the request says about them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from hmac import compare_digest
from typing import Any, Final

from overair.basics.errors import InvalidRequest, Unavailable, Unsupported
from overair.server.aws_protocol.authentication import Authentication
from overair.server.aws_protocol.aws_chunked import ChunkedDecoder
from overair.server.aws_protocol.checksums import SIZES_BYTES, Checksum, base64_digest, checksum

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

STALL_TIMEOUT_S: Final = 60.0
"""How long a client may send nothing in the middle of a body."""
WHOLE_TIMEOUT_S: Final = 120.0
"""How long a body that is read whole may take altogether: it comes before its sender is proved."""
UNPROVED_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Held at once of all bodies whose senders aren't proved yet."""
OBJECT_SIZE_BYTES_MAX: Final = 5 * 1024**3
"""Of one PUT, as in S3; larger objects come in parts."""
_PREFIX: Final = "x-amz-checksum-"
_NOT_A_VALUE: Final = frozenset({"x-amz-checksum-type", "x-amz-checksum-algorithm", "x-amz-checksum-mode"})
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


class ClientGone(Exception):
    """The client closed the connection before its request was whole: nobody is left to answer."""


async def receive_piece(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of the body and whether more follows.

    Raises:
        ClientGone: the connection is closed.
        InvalidRequest: nothing came for ``STALL_TIMEOUT_S``; subject ``incomplete-body``.
    """
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S):
            message = await receive()
    except TimeoutError:
        raise InvalidRequest(
            f"The body stopped: nothing came for {STALL_TIMEOUT_S:g} s. Send the request again.", subject="incomplete-body"
        ) from None
    if message["type"] != "http.request":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def content_length(headers: Mapping[str, str]) -> int | None:
    """The declared length; None where there is none that can be read (the HTTP parser refuses wrong ones)."""
    declared = headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 19 else None


class Unproved:
    """What is held of bodies whose senders aren't proved yet, all connections together."""

    def __init__(self, size_bytes_max: int = UNPROVED_SIZE_BYTES_MAX) -> None:
        self.size_bytes = 0
        self._size_bytes_max = size_bytes_max

    def take(self, size_bytes: int) -> None:
        """Raises Unavailable: so much is held that strangers could use up the memory."""
        if self.size_bytes + size_bytes > self._size_bytes_max:
            raise Unavailable("Too many bodies of unproved senders are under way. Send the request again.", subject="busy")
        self.size_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        self.size_bytes -= size_bytes


async def read_whole(
    receive: Receive, headers: Mapping[str, str], *, size_bytes_max: int, unproved: Unproved | None = None
) -> bytes:
    """The whole body, refused as soon as it is known to be too large. ``unproved`` bounds what all such readers hold.

    Raises:
        InvalidRequest: with subject ``body-too-large`` or ``incomplete-body``.
        Unavailable: too much is held already; subject ``busy``.
        ClientGone: the connection is closed.
    """
    declared = content_length(headers)
    if declared is None and "transfer-encoding" not in headers:
        return b""
    if declared is not None and declared > size_bytes_max:
        raise too_large(size_bytes_max)
    pieces: list[bytes] = []
    size_bytes = 0
    more = True
    unproved = unproved or Unproved()
    try:
        async with asyncio.timeout(WHOLE_TIMEOUT_S):
            while more:
                piece, more = await receive_piece(receive)
                unproved.take(len(piece))
                size_bytes += len(piece)
                if size_bytes > size_bytes_max:
                    raise too_large(size_bytes_max)
                pieces.append(piece)
    except TimeoutError:
        raise InvalidRequest(
            f"The body took longer than {WHOLE_TIMEOUT_S:g} s. Send the request again.", subject="incomplete-body"
        ) from None
    finally:
        unproved.give_back(size_bytes)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def too_large(size_bytes_max: int) -> InvalidRequest:
    """The refusal of a body over its limit."""
    return InvalidRequest(
        f"The request's body is larger than {size_bytes_max} bytes, the most read here.", subject="body-too-large"
    )


class StreamedBody:
    """An upload as a handler reads it (``operations.Body``): freed of framing, checked as it passes."""

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[str, str],
        authentication: Authentication,
        *,
        size_bytes_max: int = OBJECT_SIZE_BYTES_MAX,
    ) -> None:
        self.checksums: dict[str, str] = {}
        self.consumed = False
        self._receive = receive
        self._size_bytes_max = size_bytes_max
        self._payload = authentication.payload
        coding = headers.get("content-encoding", "")
        self._chunked: ChunkedDecoder | None = None
        if authentication.payload.startswith("STREAMING-") or "aws-chunked" in coding:
            trailing = authentication.payload.endswith("-TRAILER")
            self._chunked = ChunkedDecoder(authentication.chunks, trailer_expected=trailing)
        self.length_bytes = _decoded_length(headers) if self._chunked else content_length(headers)
        if self.length_bytes is None and "transfer-encoding" not in headers and self._chunked is None:
            self.length_bytes = 0
        if self.length_bytes is not None and self.length_bytes > size_bytes_max:
            raise InvalidRequest("Your proposed upload exceeds the maximum allowed size.", subject="too-large")
        self._sha256 = hashlib.sha256() if len(authentication.payload) == 64 else None
        self._declared: dict[str, bytes] = {}
        self._running: dict[str, Checksum] = {}
        self._trailing: tuple[str, ...] = ()
        self._declare(headers)

    def _declare(self, headers: Mapping[str, str]) -> None:
        if "content-md5" in headers:
            self._expect("md5", headers["content-md5"], "Content-MD5")
        for name, value in headers.items():
            if name.startswith(_PREFIX) and name not in _NOT_A_VALUE:
                algorithm = name.removeprefix(_PREFIX)
                self._expect(algorithm, value, name)
                self.checksums[algorithm] = value
        if self._chunked is not None:
            names = [part.strip().lower() for part in headers.get("x-amz-trailer", "").split(",") if part.strip()]
            self._trailing = tuple(name for name in names if name.startswith(_PREFIX))
            for name in self._trailing:
                algorithm = name.removeprefix(_PREFIX)
                _known(algorithm)
                self._running.setdefault(algorithm, checksum(algorithm))

    def _expect(self, algorithm: str, text: str, header: str) -> None:
        _known(algorithm)
        digest = base64_digest(text, algorithm)
        if digest is None:
            subject = "invalid-digest" if algorithm == "md5" else "argument"
            raise InvalidRequest(f"The value of the header {header} is not the Base64 of such a checksum.", subject=subject)
        self._declared[algorithm] = digest
        self._running.setdefault(algorithm, checksum(algorithm))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._read()

    async def _read(self) -> AsyncIterator[bytes]:
        if self.consumed:
            raise RuntimeError("A streamed body is read once.")
        self.consumed = True
        size_bytes = 0
        more = self.length_bytes != 0 or self._chunked is not None
        while more:
            received, more = await receive_piece(self._receive)
            if not received:
                continue
            for piece in (received,) if self._chunked is None else self._chunked.feed(received):
                size_bytes += len(piece)
                self._check_size(size_bytes)
                if self._sha256 is not None:
                    self._sha256.update(piece)
                for running in self._running.values():
                    running.update(piece)
                yield piece
        self._check_end(size_bytes)

    def _check_size(self, size_bytes: int) -> None:
        if self.length_bytes is not None and size_bytes > self.length_bytes:
            raise InvalidRequest("The body is longer than its declared length.", subject="incomplete-body")
        if size_bytes > self._size_bytes_max:
            raise InvalidRequest("Your proposed upload exceeds the maximum allowed size.", subject="too-large")

    def _check_end(self, size_bytes: int) -> None:
        if (self._chunked is not None and not self._chunked.finished) or (
            self.length_bytes is not None and size_bytes != self.length_bytes
        ):
            raise InvalidRequest(
                "You did not provide the number of bytes specified by the length of the body.", subject="incomplete-body"
            )
        if self._sha256 is not None and not compare_digest(self._sha256.hexdigest(), self._payload):
            raise InvalidRequest(
                "The provided 'x-amz-content-sha256' header does not match what was computed.", subject="body-sha256"
            )
        for algorithm, digest in self._declared.items():
            if self._running[algorithm].digest() != digest:
                raise _mismatch(algorithm)
        if self._chunked is not None:
            self._check_trailers(self._chunked.trailers)

    def _check_trailers(self, trailers: Mapping[str, str]) -> None:
        for name in self._trailing:
            algorithm = name.removeprefix(_PREFIX)
            text = trailers.get(name)
            if text is None:
                raise InvalidRequest(f"The trailing header {name} was announced and didn't come.", subject="malformed-trailer")
            digest = base64_digest(text, algorithm)
            if digest is None:
                raise InvalidRequest(f"Value for {name} trailing header is invalid.")
            if digest != self._running[algorithm].digest():
                raise _mismatch(algorithm)
            self.checksums[algorithm] = text

    def computed(self, algorithm: str) -> str | None:
        """A checksum that was computed on the way, Base64; None where nothing asked for it."""
        running = self._running.get(algorithm)
        return None if running is None else base64.b64encode(running.digest()).decode("ascii")


async def read_streamed(body: StreamedBody, *, size_bytes_max: int) -> bytes:
    """A checked body as a whole, for operations that need it so.

    Raises:
        InvalidRequest: with subject ``body-too-large``, or whatever check it fails.
    """
    if body.length_bytes is not None and body.length_bytes > size_bytes_max:
        raise too_large(size_bytes_max)
    whole = bytearray()
    async for piece in body:
        whole += piece
        if len(whole) > size_bytes_max:
            raise too_large(size_bytes_max)
    return bytes(whole)


def _decoded_length(headers: Mapping[str, str]) -> int | None:
    declared = headers.get("x-amz-decoded-content-length")
    if declared is None:
        return None
    if not (declared.isascii() and declared.isdigit() and len(declared) < 19):
        raise InvalidRequest("The header x-amz-decoded-content-length must be a number of bytes.", subject="argument")
    return int(declared)


def _known(algorithm: str) -> None:
    if algorithm not in SIZES_BYTES:
        raise Unsupported(
            f"Overair doesn't compute the checksum {algorithm[:40]!r}. Use one of {', '.join(sorted(SIZES_BYTES))}."
        )


def _mismatch(algorithm: str) -> InvalidRequest:
    spelled = "Content-MD5" if algorithm == "md5" else algorithm.upper()
    return InvalidRequest(f"The {spelled} you specified did not match what we received.", subject="digest")
